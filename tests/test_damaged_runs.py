"""Runs that were damaged, edited or made by a stranger: nothing outside is touched, nothing else is taken down."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS, config
from safetensors.numpy import load_file, save_file

from charrnn import api, locks, strict_json
from charrnn.errors import CharRNNError
from charrnn.training import loop, runs
from charrnn.training.config import values_of
from charrnn.training.run import Run
from charrnn.training.trainer import Trainer

TrainedRun = Callable[..., Run]
ROOT = Path(__file__).parent.parent


def said(*commands: list[str]) -> list[tuple[int, str, str]]:
    """What commands give, one after the other in a process of their own: exit codes, stdout, stderr."""
    script = (
        "import contextlib, io, json, sys; from charrnn import cli\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = cli.run(command)\n"
        "    print(json.dumps([code, out.getvalue(), err.getvalue()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def edit(run: Run, file: str, **changes: Any) -> None:
    path = run.path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def home_of_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one run, trained once for all tests of this file: they damage copies."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settled = config(str(folder / "text.txt"), steps=4, validate_every=2)
        for _ in loop.new_run(settled, loop.open_run(settled, "one")):
            pass
    return folder / "home"


@pytest.fixture
def copied(home_of_one: Path, home: Path) -> Callable[..., Run]:
    """Copy the trained run into the test's own home folder, under a name; gives the run."""
    shutil.copytree(home_of_one, home)
    original = Run(home / "one").path.rename(home.parent / "one")

    def copy(name: str = "run") -> Run:
        return Run(Path(shutil.copytree(original, home / name)))

    return copy


# A run's files are its own


@pytest.mark.parametrize("kind", ["best", "training", "losses", "last"])
@pytest.mark.parametrize("outside", ["../../victim.txt", "{absolute}", "sub/victim.txt", "run.json", "notes.txt"])
def test_a_run_names_no_file_but_its_own(kind: str, outside: str, copied: TrainedRun, tmp_path: Path) -> None:
    run = copied()
    victims = [tmp_path / "victim.txt", run.path / "notes.txt", run.path / "sub" / "victim.txt"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("mine")
    about = json.loads((run.path / "run.json").read_text())
    about["files"][kind]["name"] = outside.format(absolute=tmp_path / "victim.txt")
    (run.path / "run.json").write_text(json.dumps(about))
    for attempt in (lambda: list(loop.resume(run, steps=6)), lambda: api.load(run), run.about):
        with pytest.raises(CharRNNError, match="changed or damaged"):
            attempt()
    assert all(victim.read_text() == "mine" for victim in victims)
    assert (run.path / "run.json").exists()


def test_a_link_in_a_run_leads_nowhere(copied: TrainedRun, tmp_path: Path) -> None:
    run = copied()
    for name in ("config.json", run.about()["files"]["best"]["name"]):
        kept = (run.path / name).rename(tmp_path / Path(name).name)
        (run.path / name).symlink_to(kept)
        with pytest.raises(CharRNNError, match="no file of its own"):
            api.load(run)
        (run.path / name).unlink()
        kept.rename(run.path / name)
    api.load(run)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_what_a_strangers_configuration_names_is_never_opened(copied: TrainedRun, tmp_path: Path) -> None:
    run = copied()
    trap = tmp_path / "trap"
    os.mkfifo(trap)  # whoever opens it waits for ever
    for changes in (
        {"corpus": [str(trap)], "fingerprint": "0" * 64},
        {"corpus": ["/dev/zero"], "fingerprint": "0" * 64},
        {"corpus": ["-"], "fingerprint": "0" * 64},
    ):
        edit(run, "config.json", **changes)
        measured, sampled, limited, scored, told = said(
            ["eval", "run"],
            ["sample", "--run", "run", "--prime", "Re", "--chars", "5", "--json"],
            ["sample", "--run", "run", "--max-copy", "9", "--prime", "R"],
            ["score", "Rekurentne mreže", "--run", "run"],
            ["info", "run"],
        )
        assert "private copy" in measured[2]
        assert json.loads(sampled[1])["completions"][0]["copied"] is None
        assert "private copy" in limited[2]
        assert (scored[0], told[0]) == (0, 0)
    for fingerprint in ("../../../../etc", str(trap), "0" * 63, "0" * 64 + "/", "A" * 64, None):
        edit(run, "config.json", fingerprint=fingerprint)
        with pytest.raises(CharRNNError, match="fingerprint"):
            api.load(run)


# Damage is said, and stays where it is


def broken_json(run: Run) -> None:
    (run.path / "run.json").write_text("{")


def no_files(run: Run) -> None:
    edit(run, "run.json", files=None)


DAMAGE: dict[str, Callable[[Run], object]] = {
    "run.json cut": broken_json,
    "run.json no object": lambda run: (run.path / "run.json").write_text("[1]"),
    "run.json not UTF-8": lambda run: (run.path / "run.json").write_bytes(b'{"format": 1, "\xff": 1}'),
    "run.json deep": lambda run: (run.path / "run.json").write_text("[" * 100_000),
    "files missing": lambda run: (run.path / "run.json").write_text('{"format": 1}'),
    "files null": no_files,
    "files a list": lambda run: edit(run, "run.json", files=["model"]),
    "files without best": lambda run: edit(run, "run.json", files={}),
    "step a text": lambda run: edit(run, "run.json", step="4"),
    "step true": lambda run: edit(run, "run.json", step=True),
    "step negative": lambda run: edit(run, "run.json", step=-1),
    "seconds a list": lambda run: edit(run, "run.json", seconds=[]),
    "result a text": lambda run: edit(run, "run.json", result="done"),
    "result with a list": lambda run: edit(run, "run.json", result={"val_nats": [1]}),
    "best_val_nats a text": lambda run: edit(run, "run.json", best_val_nats="1.5"),
    "format newer": lambda run: edit(run, "run.json", format=99),
    "format a text": lambda run: edit(run, "run.json", format="1"),
    "config.json not UTF-8": lambda run: (run.path / "config.json").write_bytes(b"\xff\xfe{}"),
    "config.json gone": lambda run: (run.path / "config.json").unlink(),
    "config.json a folder": lambda run: ((run.path / "config.json").unlink(), (run.path / "config.json").mkdir()),
    "hidden null": lambda run: edit(run, "config.json", hidden=None),
    "hidden a text": lambda run: edit(run, "config.json", hidden="24"),
    "lr null": lambda run: edit(run, "config.json", lr=None),
    "tokenizer.json not UTF-8": lambda run: (run.path / "tokenizer.json").write_bytes(b"\xff\xfe{}"),
    "tokenizer.json empty": lambda run: (run.path / "tokenizer.json").write_text(""),
    "metrics.jsonl damaged": lambda run: (run.path / "metrics.jsonl").write_text('{"step": 1\n{}\n'),
    "metrics.jsonl no object": lambda run: (run.path / "metrics.jsonl").write_text("3\n"),
    "metrics.jsonl not UTF-8": lambda run: (run.path / "metrics.jsonl").write_bytes(b"\xff\n"),
    "metrics.jsonl step a text": lambda run: (run.path / "metrics.jsonl").write_text('{"step": "1"}\n'),
    "timings.jsonl damaged": lambda run: (run.path / "timings.jsonl").write_text("null\n"),
    "never saved": lambda run: (run.path / "run.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_listed_explained_and_removed_and_takes_no_other_down(
    damage: str, copied: TrainedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from charrnn import cli

    good, bad = copied("good"), copied("bad")
    DAMAGE[damage](bad)

    assert cli.run(["runs", "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert rows["good"]["damaged"] is None
    assert rows["bad"]["damaged"]
    assert set(rows["good"]) == set(rows["bad"])
    assert cli.run(["runs"]) == 0
    listed = capsys.readouterr()
    assert "good" in listed.out
    assert "bad" in listed.err

    for command in (["info", "bad"], ["sample", "--run", "bad", "--prime", "R"], ["train", "--resume", "bad"]):
        if "jsonl" in damage and command[0] != "train":
            continue  # figures of the past, which completing does without
        assert cli.run(command) == 1
        said = capsys.readouterr().err
        assert "error: " in said
        assert "defect" not in said
        assert "bad" in said
    assert cli.run(["sample", "--run", "good", "--prime", "R", "--chars", "3"]) == 0

    if damage == "config.json a folder":
        (bad.path / "config.json").rmdir()
    assert cli.run(["rm", "bad", "--yes"]) == 0
    assert not bad.path.exists()
    assert good.path.exists()


def test_a_name_is_free_again_once_what_never_got_a_checkpoint_is_removed(trained: TrainedRun) -> None:
    run = trained("taken", steps=2)
    (run.path / "run.json").unlink()
    with pytest.raises(CharRNNError, match="rm taken"):
        trained("taken", steps=2)
    runs.find_folder("taken").remove()
    assert trained("taken", steps=2).exists()


def test_a_line_of_figures_that_was_cut_off_is_forgotten(copied: TrainedRun) -> None:
    run = copied()
    rows = run.rows("metrics.jsonl")
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "cha')
    assert run.rows("metrics.jsonl") == rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 25}, "weight"),
        ({"layers": 2}, "weight"),
        ({"cell": "lstm"}, "weight"),
        ({"cell": "nn.RNN"}, "weight"),
        ({"cell": "no-such-cell"}, "no cell"),
        ({"embedding": 13}, "weight"),
        ({"batch": 5}, "state/0/h"),
        ({"optimizer": "rmsprop"}, "moments/"),
    ],
)
def test_an_edited_configuration_is_refused_when_resuming(
    changes: dict[str, Any], message: str, copied: TrainedRun
) -> None:
    run = copied()
    edit(run, "config.json", **changes)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(CharRNNError, match=message):
        list(loop.resume(run, steps=6))
    assert before == {path.name: path.read_bytes() for path in run.path.iterdir()}


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_weights_of_another_dtype_are_refused_by_name(dtype: str, trained: TrainedRun) -> None:
    import hashlib

    run = trained(steps=2)
    path = run.path / run.about()["files"]["best"]["name"]
    save_file({name: value.astype(dtype) for name, value in load_file(path).items()}, path)
    about = run.about()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    about["files"]["best"]["sha256"] = about["files"]["last"]["sha256"] = digest
    run.rewrite(about)
    with pytest.raises(CharRNNError, match=f"is {dtype}, where float32 is expected"):
        api.load(run)


# Figures that are not numbers


def test_json_has_no_number_that_is_none() -> None:
    written = strict_json.dumps({"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": (True, None)})
    assert json.loads(written, parse_constant=pytest.fail) == {"a": None, "b": [None, None, 1.5], "c": [True, None]}
    assert strict_json.loads('{"a": NaN, "b": -Infinity}') == {"a": None, "b": None}
    with pytest.raises(ValueError, match="twice"):
        strict_json.loads('{"a": 1, "a": 2}')


DIVERGING = {"lr": 1e30, "clip": 0, "warmup": 0, "schedule": "constant", "steps": 10}


@pytest.mark.parametrize("validate_every", [1, 10])
@pytest.mark.parametrize("extra", [{}, {"split": (0.9, 0.0, 0.1)}], ids=["validated", "no validation part"])
def test_a_diverged_run_ends_in_one_way_and_still_loads(
    validate_every: int,
    extra: dict[str, Any],
    corpus: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from charrnn import cli

    settled = config(corpus, **DIVERGING, **extra, validate_every=validate_every)
    home.mkdir()
    (home / "settings.json").write_text(strict_json.dumps(values_of(settled)))
    assert cli.run(["train", "--config", str(home / "settings.json"), "--name", "wild", "--json"]) == 1
    told = capsys.readouterr()
    result = json.loads(told.out.splitlines()[-1], parse_constant=pytest.fail)
    # Weights of 1e30 are finite; what is computed with them at the next step is not.
    assert result["diverged"] in (validate_every, min(10, validate_every + 1))
    assert result["test_nats"] is None or result["test_nats"] > 1000
    assert "error: training diverged" in told.err
    assert "hint: train a new run with a lower --lr" in told.err

    run = Run(home / "wild")
    for file in ("run.json", "metrics.jsonl", "timings.jsonl"):
        text = (run.path / file).read_text()
        for piece in [text] if file == "run.json" else text.splitlines():
            json.loads(piece, parse_constant=pytest.fail)
    for command in (["info", "wild", "--json"], ["runs", "--json"], ["eval", "wild", "--json"]):
        assert cli.run(command) == 0
        json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    # Rounding decides whether what 1e30 times 1e30 gives in a sum is infinite, or none.
    code = cli.run(["sample", "--run", "wild", "--prime", "R"])
    told = capsys.readouterr()
    assert (code, told.out.startswith("R")) == (0, True) or (code, "not finite" in told.err) == (1, True)
    assert cli.run(["train", "--resume", "wild", "--steps", "20"]) == 1
    assert "diverged" in capsys.readouterr().err


def test_a_run_that_diverges_late_keeps_its_last_finite_checkpoint(
    corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(home / "late")
    real = Trainer.update

    def update(self: Trainer) -> Any:
        loss = real(self)
        if self.step == 7:
            self.model.weights["head.b"].data[0] = math.nan
        return loss

    monkeypatch.setattr(Trainer, "update", update)
    told = list(loop.new_run(config(corpus, steps=12, validate_every=3), run))
    about = run.about()
    assert about["diverged"] == 9
    assert about["step"] == 6
    assert all(np.isfinite(w).all() for which in ("last", "best") for w in run.weights(which).values())
    assert math.isfinite(about["result"]["test_nats"])
    assert [type(event).__name__ for event in told[-2:]] == ["Diverged", "Finished"]
    assert len(api.load(run).complete("R", 20)) == 20


def test_training_from_python_says_that_it_diverged(corpus: str, home: Path) -> None:
    settings = {key: value for key, value in vars(config(corpus, **DIVERGING)).items() if key != "corpus"}
    with pytest.raises(CharRNNError, match="training diverged at step"):
        api.train(corpus, name="wild", **{**settings, "plan": ()})
    assert Run(home / "wild").about()["diverged"]


def test_a_run_that_an_older_version_let_diverge_loads(copied: TrainedRun) -> None:
    run = copied()
    path = run.path / "run.json"
    about = json.loads(path.read_text())
    about["result"] |= {"test_nats": math.nan, "val_nats": math.nan, "test_perplexity": math.inf}
    path.write_text(json.dumps(about))
    assert run.about()["result"]["test_nats"] is None


# One process at a time


def test_a_second_training_in_one_folder_names_the_first(corpus: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    first = loop.new_run(config(corpus), run)
    next(first)
    for attempt in (lambda: list(loop.resume(run)), lambda: next(loop.new_run(config(corpus), run))):
        with pytest.raises(CharRNNError, match=rf"process {os.getpid()} on|cannot be read"):
            attempt()
    with pytest.raises(CharRNNError, match="in use"):
        run.remove()
    list(first)
    assert run.about()["result"]
    assert not locks.is_held(run.path)


def test_the_lock_of_a_dead_process_holds_nobody_up(corpus: str, tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from charrnn.training.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).held():\n    print('held', flush=True); sys.stdin.read()"
    )
    run = Run(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(CharRNNError, match=f"process {process.pid} on"), run.held():
            pass
        process.kill()
    with run.held():
        pass
    assert not (run.path / ".holder.json").exists()


def test_of_many_who_want_a_folder_one_holds_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    inside, most, refused = 0, 0, 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most, refused
        for _ in range(30):
            try:
                with locks.held(tmp_path / "run"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except CharRNNError:
                refused += 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
