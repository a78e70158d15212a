"""What a signal or a closed pipe does to work that is kept: nothing done is lost, and the exit code is true."""

import contextlib
import json
import os
import pty
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import config

import charrnn
from charrnn import cli
from charrnn.compare import jobs
from charrnn.interruption import SIGNALS, Ended, Interruption, heard
from charrnn.model import evaluation
from charrnn.training import events, loop, runs
from charrnn.training.run import Run
from charrnn.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
WIDTH = ["--hidden", "8", "--embedding", "8", "--batch", "4", "--window", "16"]
SIZES = [*WIDTH, "--cell", "nn.RNN", "--engine", "fused", "--precision", "float32"]
SMALL = [*SIZES, "--validate-every", "20"]
LONG = [*SMALL, "--steps", "200000"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start a command, in a process group of its own, with its signals as a shell starts them."""
    started = []

    def call(*arguments: str, before: str = "", after: str = "", **options: Any) -> "subprocess.Popen[str]":
        program = shlex.join([sys.executable, str(ROOT / "cli.py"), *arguments])
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            ["bash", "-c", f"{before} exec {program} {after}"],
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


def read_until(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    seen = ""
    for line in stream:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"it has ended: {seen}")


def weights_of(name: str) -> str:
    about = runs.find_run(name).about()
    return str(about["files"]["last"]["sha256"])


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


# Closed pipes and full disks


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["2>&1 |", "2>&-", pytest.param("2>/dev/full", marks=NEEDS_FULL)])
def test_progress_that_cannot_be_written_ends_no_training(stream: str, start: Start, corpus: str) -> None:
    line = [*SMALL, "--steps", "60", "--name", "r", corpus]
    if "|" in stream:
        read, write = os.pipe()
        process = start("train", *line, stdout=write, stderr=write)
        os.close(write)
        with os.fdopen(read) as reader:
            reader.readline()
        code, out, _ = finished(process)
    else:
        code, out, _ = finished(start("train", *line, after=stream))
        assert "60 steps" in out
    assert code == 0
    about = runs.find_run("r").about()
    assert (about["step"], about["result"] is None) == (60, False)


@pytest.mark.parametrize(
    ("after", "code", "message"),
    [
        pytest.param(">&-", 0, "", marks=pytest.mark.slow),
        pytest.param(">/dev/full", 1, "result cannot be", marks=[NEEDS_FULL, pytest.mark.slow]),
    ],
)
def test_a_run_whose_result_cannot_be_written_is_complete(
    after: str, code: int, message: str, start: Start, corpus: str
) -> None:
    process = start("train", *SMALL, "--steps", "4", "--name", "r", corpus, "--json", after=after)
    ended, _, err = finished(process)
    assert ended == code, err
    assert message in err
    assert "defect" not in err
    assert runs.find_run("r").about()["result"] is not None


@NEEDS_FULL
@pytest.mark.slow
@pytest.mark.parametrize("line", [("sample", "--out"), ("score", "hello there", "--html"), ("eval", "--out")])
def test_a_file_that_cannot_be_written_is_named(line: tuple[str, ...], start: Start) -> None:
    code, _, err = finished(start(*line, "/dev/full"))
    assert code == 1
    assert "/dev/full: No space left on device" in err
    assert "defect" not in err


@pytest.mark.slow
def test_a_comparison_goes_on_when_nobody_reads(start: Start, corpus: str, home: Path) -> None:
    read, write = os.pipe()
    arguments = ["compare", corpus, "--cells", "nn.RNN", *WIDTH, "--steps", "6", "--seeds", "2", "--lr-trials", "2"]
    process = start(*arguments, "--no-inspect", stdout=write, stderr=write)
    os.close(write)
    with os.fdopen(read) as reader:
        reader.readline()
    assert process.wait(120) == 0
    assert (home / "compare-text-parameters" / "comparison.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("after", ["2>&-", pytest.param("2>/dev/full", marks=NEEDS_FULL)])
def test_what_is_written_to_files_needs_no_stderr(
    after: str, start: Start, trained: Callable[..., Run], tmp_path: Path
) -> None:
    trained("r", steps=2)
    for arguments, file in (
        (["score", "--text", "Mreža", "--html", "page.html"], "page.html"),
        (["sample", "--chars", "9", "-v", "--out", "sample.txt"], "sample.txt"),
        (["eval", "r", "--out", "costs.npy"], "costs.npy"),
    ):
        arguments[-1] = str(tmp_path / file)
        code, _, err = finished(start(*arguments, after=after))
        assert (code, (tmp_path / file).stat().st_size > 0) == (0, True), err


def test_a_broken_pipe_that_is_not_the_result_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken() -> Any:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(runs, "folders", broken)
    assert cli.run(["runs"]) == 1
    assert "Broken pipe" in capsys.readouterr().err


# Signals before there is anything to save

EACH = [pytest.param(n, marks=[] if n == signal.SIGTERM else pytest.mark.slow) for n in SIGNALS]  # one stands for all


@pytest.mark.parametrize("number", EACH)
def test_a_signal_while_waiting_for_a_text_ends_at_once(number: int, start: Start, home: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    process = start("train", "-", *LONG, "--name", "r", stdin=read)
    os.write(write, b"some text\n" * 20000)  # more than a pipe holds: once this is through, it reads
    time.sleep(0.3)
    process.send_signal(number)
    code, _, err = finished(process)  # the pipe stays open: what waits for its end waits for ever
    os.close(read)
    os.close(write)
    assert (code, err) == (128 + number, "interrupted\n")
    assert not (home / "r").exists()
    assert not list(home.glob(".corpora/.text.utf8.*"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_signal_while_a_fifo_is_silent_ends_at_once(command: str, start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.txt")
    process = start(command, str(tmp_path / "fifo.txt"))
    while True:
        assert process.poll() is None, finished(process)
        time.sleep(0.1)
        with contextlib.suppress(OSError):  # nobody reads yet
            writer = os.open(tmp_path / "fifo.txt", os.O_WRONLY | os.O_NONBLOCK)
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    code, _, err = finished(process)
    os.close(writer)
    assert (code, err) == (143, "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", EACH)
def test_before_the_first_step_the_folder_goes_too(number: int, start: Start, corpus: str, home: Path) -> None:
    process = start("train", corpus, *LONG, "--name", "r")
    read_until(process.stderr, "run  ")
    # What follows compiles the decoder, validates once and takes a step, or has done so: both ends are whole.
    process.send_signal(number)
    code, _, _ = finished(process)
    assert code == 128 + number
    assert (home / "r").exists() == Run(home / "r").exists()


def test_what_was_begun_is_removed_when_the_reports_are_left(corpus: str, home: Path) -> None:
    for made_before in (False, True):
        run = Run(home / "r")
        if made_before:
            run.path.mkdir(parents=True)
            (run.path.parent / "other").touch()
        begun = loop.new_run(config(corpus), run)
        for event in begun:
            if isinstance(event, events.Validated):
                break
        assert (run.path / "config.json").exists()
        begun.close()
        assert not run.path.exists()


def test_a_folder_that_another_process_trains_into_is_left_alone(corpus: str, home: Path) -> None:
    run = Run(home / "r")
    first = loop.new_run(config(corpus), run)
    next(first)
    with pytest.raises(charrnn.CharRNNError, match="in use by process"):
        next(loop.new_run(config(corpus), run))
    assert (run.path / "config.json").exists()
    assert [r for r in first if isinstance(r, events.Finished)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_resumed_run_is_left_as_it_was_before_its_first_step(
    number: int, trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("r", steps=6)
    before = run.about()

    def hit(self: Any) -> Any:
        signal.raise_signal(number)

    monkeypatch.setattr(Trainer, "update", hit)
    with heard(Interruption()) as stop, pytest.raises(Ended) as ended:
        list(loop.resume(run, 12, stop))
    assert ended.value.exit_code == 128 + number
    assert run.about() == before
    monkeypatch.undo()
    assert list(loop.resume(run, 12))[-1].result["steps"] == 12


# Signals while training


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=pytest.mark.slow if n == signal.SIGTERM else pytest.mark.long) for n in SIGNALS]
)
def test_a_signal_saves_and_the_run_ends_as_if_there_had_been_none(number: int, start: Start, corpus: str) -> None:
    arguments = ["train", corpus, *SMALL, "--dropout", "0.2"]
    process = start(*arguments, "--steps", "900", "--name", "cut")
    read_until(process.stderr, "step ")
    process.send_signal(number)
    code, _, err = finished(process)
    assert code == 128 + number
    assert "train --resume cut" in err
    assert 0 < runs.find_run("cut").about()["step"] < 900
    assert finished(start("train", "--resume", "cut"))[0] == 0
    assert finished(start(*arguments, "--steps", "900", "--name", "whole"))[0] == 0
    assert weights_of("cut") == weights_of("whole")


@pytest.mark.slow
def test_a_signal_that_is_sent_twice_in_a_row_is_one(start: Start, corpus: str) -> None:
    process = start("train", corpus, *LONG, "--name", "r")
    read_until(process.stderr, "step ")
    for _ in range(2):  # as `timeout` does
        process.send_signal(signal.SIGTERM)
        time.sleep(0.03)
    assert finished(process)[0] == 143
    assert runs.find_run("r").about()["step"] > 0


@pytest.mark.slow
def test_after_the_terminal_is_gone_a_second_hang_up_hurries_nobody(start: Start, corpus: str) -> None:
    master, slave = pty.openpty()
    process = start("train", corpus, *LONG, "--name", "r", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while b"val " not in seen:
        seen += os.read(master, 4096)
    os.close(master)  # whoever writes now is told that there is no terminal
    process.send_signal(signal.SIGHUP)
    time.sleep(0.4)
    if process.poll() is None:
        process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    assert runs.find_run("r").about()["step"] > 0


@pytest.mark.slow
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(start: Start, corpus: str) -> None:
    process = start("train", corpus, *SMALL, "--steps", "2500", "--name", "r", before="trap '' HUP INT;")
    read_until(process.stderr, "step ")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == 0
    assert runs.find_run("r").about()["result"] is not None


# Signals while a finished run is scored


@pytest.mark.parametrize("patience", [0, 1])
def test_a_run_stopped_while_it_is_scored_is_completed_by_resuming(
    patience: int, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is learned of the first eight tenths makes the others the less likely, the more it is learned.
    Path(corpus).write_text("".join("ab" * 40 + "cdefgh" for _ in range(60)) + "hgfedc" * 215)
    settings = config(corpus, steps=60, lr=0.02, warmup=0, patience=patience, validate_every=5)
    whole = loop.open_run(settings, "whole")
    *_, expected = loop.new_run(settings, whole)
    assert isinstance(expected, events.Finished)
    assert (expected.result["steps"] < 60) == bool(patience)  # with patience it stops early
    run, scoring = loop.open_run(settings, "cut"), False

    def slow(*arguments: Any, **options: Any) -> Any:
        nonlocal scoring
        scoring = True
        return side_by_side_costs(*arguments, **options)

    side_by_side_costs = evaluation.side_by_side_costs
    monkeypatch.setattr(evaluation, "side_by_side_costs", slow)
    *_, last = loop.new_run(settings, run, lambda: scoring)
    assert isinstance(last, events.Stopped)
    assert run.about()["result"] is None
    monkeypatch.undo()
    *_, last = loop.resume(run)
    assert isinstance(last, events.Finished)
    different = ("run", "seconds", "chars_per_s")
    results = [{k: v for k, v in r.items() if k not in different} for r in (last.result, expected.result)]
    assert results[0] == results[1]
    assert run.about()["files"]["last"] == whole.about()["files"]["last"]


@pytest.mark.slow
def test_a_signal_during_the_last_scoring_ends_soon(start: Start, tmp_path: Path) -> None:
    text = "".join(f"{n * 7919 % 100003} is a number, and so is {n}\n" for n in range(30000))
    (tmp_path / "long.txt").write_text(text)
    arguments = [str(tmp_path / "long.txt"), *SIZES, "--steps", "3", "--split", "0.7,0.15,0.15", "--name", "r"]
    process = start("train", *arguments)
    read_until(process.stderr, "step      3")
    process.send_signal(signal.SIGTERM)
    code, _, err = finished(process)
    assert (code, "--resume r" in err) == (143, True)
    assert runs.find_run("r").about()["result"] is None
    assert finished(start("train", "--resume", "r"))[0] == 0
    assert runs.find_run("r").about()["result"]["steps"] == 3


# From Python


def test_an_interrupted_train_has_saved_and_says_how_to_go_on(corpus: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    update, done = Trainer.update, 0

    def hit(self: Any) -> Any:
        nonlocal done
        done += 1
        if done == 7:
            signal.raise_signal(signal.SIGINT)
        return update(self)

    # What is not chosen by measuring, which gives another answer on a busy machine at times.
    sizes: Any = {"hidden": 8, "batch": 4, "window": 16, "steps": 40, "cell": "nn.RNN"}
    sizes |= {"engine": "fused", "precision": "float32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", hit)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            charrnn.train(corpus, name="r", **sizes)
    assert "train --resume r" in interrupt.value.__notes__[0]
    assert signal.getsignal(signal.SIGINT) == before
    run = runs.find_run("r")
    assert run.about()["step"] == 7
    list(loop.resume(run))
    charrnn.train(corpus, name="whole", **sizes)
    assert weights_of("r") == weights_of("whole")


def test_an_interrupt_before_the_first_step_leaves_nothing(
    corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "update", lambda self: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        charrnn.train(corpus, name="r", hidden=8, batch=4, window=16, steps=40)
    assert not (home / "r").exists()


def test_in_another_thread_training_leaves_signals_alone(corpus: str) -> None:
    done = []
    thread = threading.Thread(
        target=lambda: done.append(charrnn.train(corpus, hidden=8, batch=4, window=16, steps=2, cell="nn.RNN"))
    )
    thread.start()
    thread.join()
    assert done[0].config.hidden == 8


# Comparisons


def comparison(corpus: str, jobs: int) -> list[str]:
    length = ["--steps", "150", "--seeds", "2", "--lr-trials", "2", "--jobs", str(jobs), "--no-inspect"]
    return ["compare", corpus, "--cells", "nn.RNN,nn.GRU", *WIDTH, *length]


# One stands for all: each takes most of a minute.
@pytest.mark.parametrize(
    ("number", "side_by_side"),
    [
        pytest.param(
            number,
            side_by_side,
            marks=pytest.mark.slow if (number, side_by_side) == (signal.SIGTERM, 1) else pytest.mark.long,
        )
        for number in SIGNALS
        for side_by_side in (1, 2)
    ],
)
def test_an_interrupted_comparison_saves_and_goes_on(
    side_by_side: int, number: int, start: Start, corpus: str, home: Path
) -> None:
    process = start(*comparison(corpus, side_by_side))
    read_until(process.stderr, "computing on")
    while not list(home.glob("compare-*/**/run.json")):  # the first run has saved
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does: its workers hear it too
    code, _, err = finished(process)
    assert code == 128 + number, err
    assert "The same command goes on" in err
    assert "Traceback" not in err
    assert not [path for path in home.glob("compare-*/**/config.json") if not Run(path.parent).exists()]
    code, out, err = finished(start(*comparison(corpus, side_by_side), "--json"))
    assert code == 0, err
    assert len(json.loads(out.splitlines()[-1])["cells"]) == 2


@pytest.mark.long
def test_workers_save_and_end_when_the_first_process_is_killed(start: Start, corpus: str, home: Path) -> None:
    process = start(*comparison(corpus, 2), "--validate-every", "20")
    while not list(home.glob("compare-*/**/run.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while alive := _of_group(process.pid):
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
    for path in home.glob("compare-*/**/run.json"):
        assert Run(path.parent).about()["step"] > 0
    assert finished(start(*comparison(corpus, 2), "--validate-every", "20"))[0] == 0


def _of_group(group: int) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True).stdout.splitlines()
    found = [line.split(maxsplit=2) for line in lines]
    return [words[2] for words in found if words[0] == str(group) and not words[1].startswith("Z")]


def test_a_worker_stops_when_it_is_asked_to_and_when_it_is_orphaned() -> None:
    for stop in (lambda worker: worker.asked.set(), lambda worker: worker.orphaned.set()):
        worker = jobs.Worker(queue.Queue(), threading.Event())
        assert not worker.must_stop()
        stop(worker)
        assert worker.must_stop()


def test_the_exit_codes_are_documented() -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Exit codes: .*(?:\n.+)*", page, re.MULTILINE)
    for number in SIGNALS:
        assert str(128 + number) in line
