"""A training that dies at any instant goes on as if nothing had happened: every operation on the disk is made to fail.

As SQLite is tested: fail the n-th operation, for every n, and look at what is left.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import CORPUS, config, decided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from charrnn import api, cells, cli, engines, files, locks
from charrnn.compare.grid import Folder
from charrnn.errors import CharRNNError, DamageWarning
from charrnn.model.architecture import Architecture
from charrnn.text import catalogue
from charrnn.text.corpus import prepare
from charrnn.training import events, loop, memory, resolve, sizing, speed, training_loop
from charrnn.training.pacing import SAVE_EVERY_SECONDS, SAVING_SHARE, SPARE_SECONDS, SavingClock
from charrnn.training.run import Run
from charrnn.training.runs import newest_interrupted
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
TrainedRun = Callable[..., Run]


class Death(BaseException):
    """The process is killed: nothing it does afterwards reaches the disk."""


class FailingDisk(files.Disk):
    """A disk whose n-th operation fails: half of what is written is there, or the process dies in it.

    Nothing waits for the true disk, which takes most of a small run's time.
    """

    def __init__(self, fails_at: int = -1, how: int | None = None) -> None:
        self.left, self.how, self.done = fails_at, how, False

    def _count(self) -> bool:
        """Count an operation; tell whether it fails."""
        if self.done and self.how is None:
            raise Death
        self.done = self.done or self.left == 0
        self.left -= 1
        return self.left == -1

    def _fail(self, path: Any = None) -> None:
        if self.how is None:
            raise Death
        raise OSError(self.how, os.strerror(self.how), str(path))

    def create(self, path: Path, mode: int) -> IO[bytes]:
        if self._count():
            self._fail(path)
        return super().create(path, mode)

    def open_to_append(self, path: Path) -> IO[bytes]:
        if self._count():
            self._fail(path)
        return super().open_to_append(path)

    def write(self, stream: IO[bytes], data: bytes) -> None:
        if self._count():
            super().write(stream, data[: len(data) // 2])
            self._fail()
        super().write(stream, data)

    def sync(self, stream: IO[bytes]) -> None:
        if self._count():
            self._fail()

    def sync_folder(self, folder: Path) -> None:
        if self._count():
            self._fail(folder)

    def rename(self, old: Path, new: Path) -> None:
        if self._count():
            self._fail(old)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        if self._count():
            self._fail(path)
        super().unlink(path)


def due_at(steps: set[int]) -> Callable[..., bool]:
    """Stand in for the clock of saving: it is time after these steps of a process, counted from 1."""
    asked = itertools.count(1)
    return lambda *_: next(asked) in steps


def outcome(run: Run) -> tuple[Any, ...]:
    """All of a run that must not depend on how often it was cut off."""
    timed = ("run", "seconds", "chars_per_s")
    about = run.about()
    shas = {kind: entry["sha256"] for kind, entry in about["files"].items()}
    result = {name: value for name, value in about["result"].items() if name not in timed}
    return shas, about["step"], about["best_val_nats"], result, (run.path / "metrics.jsonl").read_bytes()


def assert_whole(run: Run) -> None:
    """All files are there, and are what was written, that run.json names for both of its checkpoints."""
    about = run.about()
    for side in (about, about["before"] or {"files": {}}):
        for entry in side["files"].values():
            assert hashlib.sha256((run.path / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]


def assert_clean(run: Run) -> None:
    """Two checkpoints are there, whole, and nothing else that a run does not need."""
    about = run.about()
    named = {entry["name"] for side in (about, about["before"] or {"files": {}}) for entry in side["files"].values()}
    there = {path.name for path in run.path.iterdir()}
    small = {"run.json", "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl", ".lock"}
    assert there == named | small


TINY = {"cell": "nn.RNN", "engine": "fused", "hidden": 8, "embedding": 4, "steps": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def home_of_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a whole run and the same one stopped after four steps, made once for all tests here."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:1500], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        asked = config(str(folder / "text.txt"), **TINY)
        list(loop.new_run(asked, Run(folder / "home" / "whole")))
        steps = itertools.count(1)
        list(loop.new_run(asked, Run(folder / "home" / "cut"), lambda: next(steps) >= 4))
    return folder / "home"


@pytest.fixture
def tiny(home_of_tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """Copy one of the runs into the test's own home folder, under a name; how fast the machine is, is not measured."""
    monkeypatch.setattr(Machine, "products_per_s", 1e9)
    home.mkdir()
    (home / ".corpora").symlink_to(home_of_tiny / ".corpora")
    numbers = itertools.count()
    return lambda which: Run(Path(shutil.copytree(home_of_tiny / which, home / f"{which}-{next(numbers)}")))


# Every operation fails once


def survives(tiny: Callable[[str], Run], expected: tuple[Any, ...], fails_at: int, how: int | None) -> bool:
    """Resume with a disk that fails, then with one that does not; tell whether it failed."""
    run = tiny("cut")
    broken = FailingDisk(fails_at, how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "disk", broken)
        patch.setattr(SavingClock, "is_due", due_at({1}))
        try:
            list(loop.resume(run))
        except (Death, CharRNNError, OSError) as error:
            died, told = isinstance(error, Death), str(error)
            assert died == (how is None)
            assert died or str(run.path) in told
        assert_whole(run)
        if not run.about()["result"]:
            assert run.about()["step"] in (4, 5, 6)
            patch.setattr(files, "disk", FailingDisk())
            list(loop.resume(run))
            assert_clean(run)
    assert outcome(run) == expected
    shutil.rmtree(run.path)
    return broken.done


WAYS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "killed": None}


def test_every_failing_operation_of_the_disk_leaves_a_run_that_goes_on_to_the_same_bits(
    tiny: Callable[[str], Run], home_of_tiny: Path
) -> None:
    """In turns of the three ways; each of them for every operation is slow."""
    expected = outcome(Run(home_of_tiny / "whole"))
    ways = itertools.cycle(WAYS.values())
    failed = 0
    while survives(tiny, expected, failed, next(ways)):
        failed += 1
    assert failed > 50  # two saves of three files, the result, the figures


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_operation_may_fail_in_every_way(way: str, tiny: Callable[[str], Run], home_of_tiny: Path) -> None:
    expected = outcome(Run(home_of_tiny / "whole"))
    failed = 0
    while survives(tiny, expected, failed, WAYS[way]):
        failed += 1
    assert failed > 50


@pytest.mark.parametrize("way", WAYS)
def test_a_beginning_that_fails_anywhere_leaves_a_run_that_can_be_begun_again(
    way: str, tiny: Callable[[str], Run], home_of_tiny: Path, home: Path
) -> None:
    """Until its first checkpoint is whole: what was decided is kept, and nothing is measured or asked again."""
    expected = outcome(Run(home_of_tiny / "whole"))
    whole = tiny("whole")
    asked, run = config(str(home_of_tiny.parent / "text.txt"), **TINY), Run(home / "new")
    again = failed = 0
    while True:
        broken = FailingDisk(failed, WAYS[way])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "disk", broken)
            patch.setattr(SavingClock, "is_due", due_at({1}))
            with contextlib.suppress(Death, CharRNNError, OSError):
                list(loop.new_run(asked, run))
            patch.setattr(files, "disk", FailingDisk())
            if run.exists():
                break
            again += run.begun()
            list(loop.resume(run) if run.begun() else loop.new_run(asked, run))
        assert outcome(run) == expected
        assert_clean(run)
        assert (run.path / "config.json").read_bytes() == (whole.path / "config.json").read_bytes()
        shutil.rmtree(run.path)
        failed += 1
    # What fails and does not kill lets the folder be removed.
    assert again > 9 if way == "killed" else again == 0
    assert failed > 9


def test_a_run_that_was_never_saved_is_the_newest_interrupted_and_begins_again(
    tiny: Callable[[str], Run], home_of_tiny: Path, capsys: Any, home: Path
) -> None:
    run = tiny("cut")
    for file in run.path.iterdir():
        if file.name not in ("config.json", "metrics.jsonl"):
            file.unlink()
    assert cli.run(["sample", "--run", run.name, "--prime", "R"]) == 1
    assert f"charrnn train --resume {run.name}" in capsys.readouterr().err
    assert cli.run(["train", "--name", run.name, str(home_of_tiny.parent / "text.txt")]) == 1
    assert f"charrnn train --resume {run.name}" in capsys.readouterr().err
    assert cli.run(["train", "--resume"]) == 0
    assert "begins again" in capsys.readouterr().err
    assert outcome(run) == outcome(Run(home_of_tiny / "whole"))
    assert_clean(run)


def test_a_run_that_was_never_saved_can_be_given_another_length(tiny: Callable[[str], Run]) -> None:
    run = tiny("cut")
    for name in ("run.json", "training-00000003.safetensors"):
        (run.path / name).unlink()
    list(loop.resume(run, steps=9))
    assert run.about()["step"] == 9
    assert run.config().steps_in_all == 9


def test_a_run_that_lost_its_list_of_checkpoints_is_damaged_and_keeps_them(tiny: Callable[[str], Run]) -> None:
    run = tiny("whole")
    (run.path / "run.json").unlink()
    before = sorted(run.path.iterdir())
    with pytest.raises(CharRNNError, match="lost its run"):
        list(loop.resume(run))
    with pytest.raises(CharRNNError, match="was interrupted"):
        newest_interrupted()
    assert "lost its run.json" in str(run.damage())
    assert sorted(run.path.iterdir()) == before


# Killed at random instants, in processes that are forks of one that has imported everything

KILLING = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path

import torch

from charrnn.training import loop
from charrnn.training.pacing import SavingClock
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine

whole, cut, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
rng = random.Random(seed)
Machine.products_per_s = 1e9
killed = completed = 0
longest = None  # seconds of a run that nobody kills


def trained(fresh):
    SavingClock.is_due = lambda *_: fresh.random() < 0.3
    list(loop.resume(Run(whole.with_name("work"))))
    os._exit(0)


shutil.copytree(cut, whole.with_name("work"))
warm = loop.resume(Run(whole.with_name("work")))
next(warm)  # what it imports; not a step, after which autograd would refuse to work in a fork
warm.close()
while True:
    killing = longest is not None and killed < kills
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        trained(random.Random(rng.random()))
    rng.random()
    if killing:
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status)
    killed += died
    assert died or os.WEXITSTATUS(status) == 0, status
    if not Run(whole.with_name("work")).about()["result"]:
        continue
    if longest is None:
        longest = min(0.5, time.monotonic() - began)  # a busy machine is not waited for
    completed += 1
    shutil.move(whole.with_name("work"), whole.with_name(f"{'killed' if died else 'ended'}-{completed}"))
    if killed >= kills:
        break
    shutil.copytree(cut, whole.with_name("work"))
print(json.dumps([killed, completed]))
"""


@pytest.mark.parametrize("kills", [12, pytest.param(1000, marks=pytest.mark.long)])
def test_a_run_that_is_killed_at_random_instants_ends_as_if_it_had_not_been(
    kills: int, tiny: Callable[[str], Run], home_of_tiny: Path
) -> None:
    expected, whole, cut = outcome(Run(home_of_tiny / "whole")), tiny("whole"), tiny("cut")
    arguments = [str(whole.path), str(cut.path), str(kills), str(random.randrange(10**6))]
    done = subprocess.run([sys.executable, "-c", KILLING, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, (arguments, done.stderr)
    killed, completed = json.loads(done.stdout)
    assert killed == kills
    print(f"{killed} kills, {completed} runs completed")
    ends = [path for path in whole.path.parent.iterdir() if re.fullmatch(r"(ended|killed)-\d+", path.name)]
    assert len(ends) == completed
    for path in ends:
        assert outcome(Run(path)) == expected, arguments
        if path.name.startswith("ended"):
            assert_clean(Run(path))


# Interrupted anywhere, by a signal or by death, with checkpoints anywhere


FOR_EACH_ENGINE = {("lstm", "loop"), ("lstm", "native"), ("nn.LSTM", "fused"), ("mingru", "scan")}
EVERY = [(cell, engine) for cell in cells.names() for engine in engines.names_for(cells.get(cell))]


EXAMPLES = 2


class Cut(NamedTuple):
    """A training that is cut off after so many steps, by a signal or by death, and is saved after some of them."""

    after: int
    by_signal: bool
    saved: set[int]


CUTS = st.lists(
    st.builds(Cut, st.integers(1, 12), st.booleans(), st.sets(st.integers(1, 12), max_size=4)), min_size=1, max_size=2
)


@pytest.mark.parametrize(
    ("cell", "engine"),
    [pytest.param(*each, marks=[] if each in FOR_EACH_ENGINE else pytest.mark.long) for each in EVERY],
)
def test_a_run_that_is_cut_anywhere_ends_as_if_it_had_not_been(
    cell: str, engine: str, corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the ends of epochs, with early stopping."""
    monkeypatch.setattr(Machine, "products_per_s", 1e9)
    monkeypatch.setattr(files, "disk", FailingDisk())
    monkeypatch.setattr(Run, "abandon", lambda _: None)  # as one that is killed
    Path(corpus).write_text(Path(corpus).read_text(encoding="utf-8")[:700], encoding="utf-8")
    varied = {"lr": 0.05, "schedule": "constant", "warmup": 0, "bias_smoothing": 0.0, "dropout": 0.2, "hidden": 16}
    varied |= {"patience": 1, "steps": 60, "validate_every": 4}
    asked = config(corpus, cell=cell, engine=engine, **varied)
    list(loop.new_run(asked, Run(home / "whole")))
    expected = outcome(Run(home / "whole"))
    assert 9 < expected[1] < 60  # early stopping ended it, in its second epoch or later

    @given(CUTS)
    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
    def interrupted(cuts: list[Cut]) -> None:
        run = Run(home / "cut")
        shutil.rmtree(run.path, ignore_errors=True)
        for cut in cuts:
            monkeypatch.setattr(SavingClock, "is_due", due_at(cut.saved))
            monkeypatch.setattr(SavingClock, "has_room", lambda self, room=bool(cut.saved): room)
            cut_off(run, asked, cut)
        if not run.exists() or not run.about()["result"]:
            list(loop.resume(run) if run.begun() else loop.new_run(asked, run))
        assert outcome(run) == expected

    interrupted()


def cut_off(run: Run, asked: Settings, cut: Cut) -> None:
    """Begin a run, or go on with it, and cut it off; one that is complete is left alone."""
    steps = itertools.count(1)
    if not run.begun():
        told = loop.new_run(asked, run, lambda: cut.by_signal and next(steps) >= cut.after)
    elif run.exists() and run.about()["result"]:
        return
    else:
        told = loop.resume(run, stop=lambda: cut.by_signal and next(steps) >= cut.after)
    done = 0
    for event in told:
        done += isinstance(event, events.Stepped)
        if done == cut.after and not cut.by_signal:
            break
    told.close()


def test_saving_between_validations_is_seen_by_nothing_but_the_disk(
    tiny: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for due in (False, True):
        run = tiny("cut")
        monkeypatch.setattr(SavingClock, "is_due", lambda *_, due=due: due)
        told = list(loop.resume(run))
        saved = [event.step for event in told if isinstance(event, events.Saved)]
        assert saved == ([5] if due else [])
        kinds = [type(event) for event in told if not isinstance(event, events.Saved)]
        ends.append((outcome(run), kinds))
    assert ends[0] == ends[1]


def test_best_weights_that_wait_for_a_checkpoint_are_the_same_in_the_end(
    tiny: Callable[[str], Run], home_of_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SavingClock, "has_room", lambda self: False)
    asked = Run(home_of_tiny / "whole").config().as_settings().replace(steps=6)
    run = Run(tiny("cut").path.with_name("anew"))
    told = []
    for event in loop.new_run(asked, run):
        told.append(run.exists())
        if isinstance(event, events.Validated) and event.step == 3:
            assert event.best
            assert not run.exists()
    assert outcome(run) == outcome(Run(home_of_tiny / "whole"))
    assert run.about()["before"] is None


def test_where_nothing_is_better_than_the_start_the_best_after_it_are_kept_wherever_it_was_saved(
    tiny: Callable[[str], Run], home_of_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Run(home_of_tiny / "whole").config().as_settings().replace(steps=6, lr=1.0, warmup=0, schedule="constant")
    ends = []
    for name, due in (("seldom", set[int]()), ("often", {1, 2, 3})):
        monkeypatch.setattr(SavingClock, "is_due", due_at(due))
        run = Run(tiny("cut").path.with_name(name))
        *_, last = loop.new_run(asked, run)
        assert isinstance(last, events.Finished)
        start, *rows = run.rows("metrics.jsonl")
        best = min(rows, key=lambda row: float(row["val_nats"]))
        assert best["val_nats"] > start["val_nats"]
        assert run.about()["files"]["best"]["name"] == f"model-{best['step']:08d}.safetensors"
        ends.append(outcome(run))
    assert ends[0] == ends[1]


# When it is time to save


class Seconds:
    """A clock that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("save_seconds", [0.0, 0.1, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("step_seconds", [0.5, 7.0])
def test_a_run_is_saved_every_minute_unless_that_takes_too_long(
    save_seconds: float, step_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Seconds(monkeypatch)
    saving, began, saved_at, spent, gaps = SavingClock(), clock.now, clock.now, 0.0, []
    for step in range(int(20_000 / step_seconds)):
        clock.now += step_seconds
        if saving.is_due(step_seconds) or (step % 20 == 0 and saving.has_room()):
            gaps.append(clock.now - saved_at)
            with saving.saving():
                clock.now += save_seconds
            spent, saved_at = spent + save_seconds, clock.now
    assert len(gaps) > 1
    assert max(gaps) <= max(SAVE_EVERY_SECONDS, save_seconds / SAVING_SHARE)
    assert spent <= SAVING_SHARE * (clock.now - began) + max(SPARE_SECONDS, save_seconds)


# Damage to the newest checkpoint


def harm(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
@pytest.mark.parametrize("kind", ["last", "training"])
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_resumed(
    kind: str, how: str, tiny: Callable[[str], Run], home_of_tiny: Path
) -> None:
    run = tiny("cut")
    harm(run.path / run.about()["files"][kind]["name"], how)
    told = list(loop.resume(run))
    started = told[0]
    assert isinstance(started, events.Started)
    assert started.step == 3
    (note,) = [note for note in started.notes if "the checkpoint of step 3, the one before it, is used" in note]
    assert run.about()["files"][kind]["name"] not in note
    assert outcome(run) == outcome(Run(home_of_tiny / "whole"))
    assert_clean(run)


def test_a_model_whose_weights_are_damaged_is_that_of_the_checkpoint_before(
    tiny: Callable[[str], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny("whole")
    about = run.about()
    assert about["before"]["files"]["best"] != about["files"]["best"]
    harm(run.path / about["files"]["best"]["name"], "changed")
    with pytest.warns(DamageWarning, match=r"model-00000006.safetensors was changed or damaged; the checkpoint of"):
        model = api.load(run)
    before = run.path / about["before"]["files"]["best"]["name"]
    assert all(np.array_equal(model.weights[name], value) for name, value in load_file(before).items())
    for command in (
        ["sample", "--run", run.name, "--prime", "R", "--chars", "3"],
        ["eval", run.name],
        ["score", "--run", run.name, "--text", "a"],
    ):
        assert cli.run(command) == 0
        assert "note: " in (told := capsys.readouterr().err)
        assert "the one before it, is used" in told
    harm(before, "gone")
    with pytest.raises(CharRNNError, match=r"model-00000006.safetensors was changed"):
        api.load(run)


# What is left behind, and rights


def test_what_a_dead_process_left_is_swept_and_of_a_living_one_nothing(tiny: Callable[[str], Run]) -> None:
    run = tiny("cut")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [
        f".model-00000040.safetensors.{dead.pid}",
        f".run.json.{dead.pid}-7",
        f".training-00000040.safetensors.{os.getpid()}-10000",  # a process of the same number, dead: this one holds it
        "model-00000099.safetensors",  # of a save that did not come to run.json
    ]
    kept = [f".model-00000040.safetensors.{os.getppid()}-3", f".notes.txt.{dead.pid}", "notes.txt"]
    for name in (*left, *kept):
        (run.path / name).write_text("half")
    list(loop.resume(run))
    there = {path.name for path in run.path.iterdir()}
    assert not there & set(left)
    assert set(kept) <= there


def test_in_a_folder_that_nobody_holds_ones_own_unfinished_files_stay(tmp_path: Path) -> None:
    own, dead = tmp_path / f".text.utf8.{os.getpid()}-1", tmp_path / f".text.utf8.{2**22 + 5}-1"
    for path in (own, dead):
        path.touch()
    files.sweep(tmp_path, re.compile(r"text\.utf8"))
    assert (own.exists(), dead.exists()) == (True, False)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_rights_are_those_of_the_umask(umask: int, corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 1e9)
    before = os.umask(umask)
    try:
        list(loop.new_run(config(corpus, **{**TINY, "steps": 1}), Run(home / "r")))
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*") if path.name != ".lock"}
    assert len(found) > 10
    for path, mode in found.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_text_is_whole_or_absent_in_its_private_copy(
    corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation of making it and its ids fails once; then it is made as if nothing had been."""
    asked = config(corpus)
    whole = prepare(asked)
    expected = {part: ids.tolist() for part, ids in whole.parts.items()}
    for failed in itertools.count():
        shutil.rmtree(home)
        how = (errno.ENOSPC, None)[failed % 2]
        broken = FailingDisk(failed, how)
        monkeypatch.setattr(files, "disk", broken)
        with contextlib.suppress(Death, CharRNNError):
            prepare(asked)
        monkeypatch.setattr(files, "disk", FailingDisk())
        monkeypatch.setattr(files, "is_alive", lambda pid: False)
        monkeypatch.setattr(os, "getpid", lambda failed=failed: 10**6 + failed)
        again = prepare(asked)
        assert {part: ids.tolist() for part, ids in again.parts.items()} == expected
        assert not [path for path in home.rglob(".*") if path.name != ".corpora"]
        if not broken.done:
            break
    assert failed > 20


# A full disk


@pytest.mark.parametrize("how", ["ENOSPC", "EIO"])
def test_a_full_disk_ends_a_training_with_the_file_and_its_folder(
    how: str, tiny: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny("cut")
    monkeypatch.setattr(files, "disk", full := FailingDisk(10**9, getattr(errno, how)))
    real = full.create

    def create(path: Path, mode: int) -> IO[bytes]:
        full.left = 1 if "model-00000006" in path.name else full.left  # the write that follows
        return real(path, mode)

    monkeypatch.setattr(full, "create", create)
    assert cli.run(["train", "--resume", run.name]) == 1
    told = capsys.readouterr()
    error, hint = told.err.splitlines()[-2:]
    assert f"error: {run.path / 'model-00000006.safetensors'} cannot be written: {os.strerror(full.how)}" in error
    assert "its checkpoint is that of step 4" in error
    assert f"train --resume {run.name}" in hint
    assert "saved" not in told.err + told.out
    assert not list(run.path.glob(".model*"))
    assert run.about()["step"] == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A true file system at tmp_path / 'disk', of a megabyte; gives what changes how large it is, or its rights."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> bool:
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return shutil.which("mount") is not None and subprocess.run(line, capture_output=True).returncode == 0

    if sys.platform != "linux" or not mount("size=1m"):
        pytest.skip("no file system can be mounted here")
    try:
        yield lambda options: None if mount(f"remount,{options}") else pytest.fail(f"mount -o remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_file_system_and_one_that_may_not_be_written_lose_nothing(
    corpus: str, home: Path, tmp_path: Path, small_disk: Callable[[str], None], capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 1e9)
    asked = config(corpus, **{**TINY, "hidden": 64})
    list(loop.new_run(asked, Run(home / "whole")))
    run, steps = Run(tmp_path / "disk" / "run"), itertools.count(1)
    list(loop.new_run(asked, run, lambda: next(steps) >= 2))
    for state, number, again in (("size=1m", errno.ENOSPC, "rw,size=9m"), ("ro", errno.EROFS, "rw")):
        small_disk(state)
        if number == errno.ENOSPC:
            filling = tmp_path / "disk" / "filling"
            with contextlib.suppress(OSError), filling.open("wb", buffering=0) as stream:
                while stream.write(bytes(1 << 12)):
                    pass
        before = run.about()
        assert cli.run(["train", "--resume", str(run.path)]) == 1
        told = capsys.readouterr().err
        assert os.strerror(number) in told
        assert str(run.path) in told
        assert "saved" not in told
        assert run.about() == before
        assert_whole(run)
        small_disk(again)
        list(loop.resume(run, stop=lambda: True))
        assert run.about()["step"] > before["step"]
    list(loop.resume(run))
    assert outcome(run) == outcome(Run(home / "whole"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of files here")
def test_a_limit_of_file_sizes_ends_a_training_with_exit_code_1(tiny: Callable[[str], Run], home: Path) -> None:
    run = tiny("cut")
    line = f"ulimit -f 4; exec {sys.executable} cli.py train --resume {run.name}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert re.search(
        rf"error: {run.path}/(model|training)-00000006.safetensors cannot be written: File too", done.stderr
    )
    assert "saved" not in done.stderr
    list(loop.resume(run))


# Two processes at once

AT_ONCE = """
import json, sys
from pathlib import Path
from charrnn.compiler import cache
from charrnn.text.corpus import prepare
from charrnn.training.settings import Settings

print("ready", flush=True)
sys.stdin.readline()
corpus = prepare(Settings(corpus=(sys.argv[1],)))
path, code = cache.folder() / f"native-{'7' * 24}.o", b"code" * 100_000
seen = {code}
for _ in range(30):
    assert cache.write(path.name, code) is None
    seen.add(cache.read(path))
assert seen == {code}
print(json.dumps([corpus.text.fingerprint, int(corpus.ids("train").sum())]))
"""


def test_two_processes_share_a_copy_of_a_text_and_a_cache_of_code(corpus: str, home: Path, tmp_path: Path) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    arguments = [sys.executable, "-c", AT_ONCE, corpus]
    both = [subprocess.Popen(arguments, cwd=ROOT, env=environment, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert told[0] == told[1]
    assert len(list((tmp_path / "cache").rglob("*.o"))) == 1
    assert not [path for path in (*home.rglob(".*"), *(tmp_path / "cache").rglob(".*")) if path.name != ".corpora"]


def test_a_second_comparison_in_one_folder_names_the_first(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "compared")
    folder.path.mkdir()
    left = folder.path / f".grid.json.{2**22 + 5}-1"  # more than any process has
    left.touch()
    with folder.held():
        assert not left.exists()
    with folder.held(), pytest.raises(CharRNNError, match=f"in use by process {os.getpid()}"), folder.held():
        pass


def test_a_second_fetch_names_the_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".corpora").mkdir(parents=True)
    with locks.held(home / ".corpora"), pytest.raises(CharRNNError, match=f"in use by process {os.getpid()}"):
        catalogue.fetch("tiny-shakespeare")


# Memory that does not suffice

CPU_SAYS = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(CPU_SAYS), torch.OutOfMemoryError("CUDA out of memory")])
def test_where_the_memory_does_not_suffice_the_batch_that_would_fit_is_told(
    error: Exception,
    saved: bool,
    tiny: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tiny("cut")
    before = run.about()
    if not saved:  # then it begins again, with the batch that it was given
        for file in (run.path / "run.json", *run.path.glob("training-*")):
            file.unlink()
    monkeypatch.setattr(Trainer, "update", lambda self: (_ for _ in ()).throw(error))
    assert cli.run(["train", "--resume", run.name]) == 1
    told = capsys.readouterr().err
    assert "error: the memory does not suffice to train hidden 8 x 1, batch 4, window 16\n" in told
    assert "in a new run, --batch 2 would fit\n" in told
    assert run.exists() == saved
    assert not saved or run.about() == before


def test_an_error_that_is_not_of_memory_is_left_as_it_is(
    tiny: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, error = tiny("cut"), RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setattr(Trainer, "update", lambda self: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(loop.resume(run))


def test_the_batch_that_would_fit_is_the_largest_half_that_the_estimate_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = decided(batch=64, hidden=32, device="cuda", engine="fused", cell="nn.LSTM")
    shape = Architecture.of(asked, 300)
    needs = {batch: sizing.memory_bytes(asked.replace(batch=batch), shape) for batch in (64, 32, 16, 8, 1)}
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 1000)
    for there, batch in ((needs[64] * 9, 32), (needs[32], 32), (needs[16], 16), (needs[8], 8), (needs[1] - 1, None)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda there=there: (there - 1000, 10**12))
        assert memory.fitting_batch(asked, shape, speed.memory_bytes("cuda")) == batch
    assert memory.fitting_batch(asked, shape, None) == 32
    assert memory.fitting_batch(asked.replace(batch=1), shape, None) is None


# Weights that are not finite


def test_a_run_that_diverges_between_validations_keeps_finite_checkpoints(
    tiny: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Trainer.update

    def update(self: Trainer) -> Any:
        loss = real(self)
        if self.step == 7:
            self.model.weights["head.b"].data[0] = float("nan")
        return loss

    monkeypatch.setattr(Trainer, "update", update)
    monkeypatch.setattr(SavingClock, "is_due", due_at({2, 3}))  # after steps 6 and 7: validation is after 3
    run = tiny("cut")
    values = json.loads((run.path / "config.json").read_text())
    values |= {"plan": [[0, 30, 30]], "steps": 30, "validate_every": 30}
    (run.path / "config.json").write_text(json.dumps(values))
    assert cli.run(["train", "--resume", run.name]) == 1
    told = capsys.readouterr().err
    assert "error: training diverged at step 7" in told
    assert "hint: train a new run with a lower --lr" in told
    about = run.about()
    assert (about["diverged"], about["step"], about["before"]["step"]) == (7, 6, 4)
    for which in ("last", "best"):
        assert all(np.isfinite(value).all() for value in run.weights(which).values())


# Longer, without a name, and never something else


def test_a_finished_run_is_extended_by_steps_by_epochs_and_by_time(
    tiny: Callable[[str], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {}
    for option, value in (("--steps", "20"), ("--epochs", "1"), ("--budget", "2s")):
        run = tiny("whole")
        assert cli.run(["train", "--resume", run.name, option, value, "--json"]) == 0, capsys.readouterr().err
        ends[option] = json.loads(capsys.readouterr().out.splitlines()[-1])["steps"]
        assert run.about()["step"] == run.config().plan[-1].steps == ends[option]
        assert run.config().plan[0] == (0, 6, 3)
    per_epoch = resolve.steps_per_epoch(run.config(), prepare(run.config(), run.tokenizer()))
    assert ends["--steps"] == 20
    assert ends["--epochs"] == per_epoch
    assert ends["--budget"] > 6
    assert cli.run(["train", "--resume", run.name, "--epochs", "0.1"]) == 1
    assert "give --epochs more than" in capsys.readouterr().err
    assert cli.run(["train", "--resume", run.name, "--epochs", "9", "--steps", "9"]) == 2


def test_an_extension_by_time_takes_back_the_steps_that_it_timed(
    tiny: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "PLAN_SHARE", 10.0)  # the plan is not corrected on the way
    timed, given_steps = tiny("whole"), tiny("whole")
    list(loop.resume(timed, budget=1.0))
    steps = timed.about()["step"]
    assert [plan[:2] for plan in timed.config().plan] == [(0, 6), (6, steps)]
    list(loop.resume(given_steps, steps))
    assert outcome(given_steps) == outcome(timed)


def test_an_extension_that_dies_before_it_is_saved_goes_on(tiny: Callable[[str], Run]) -> None:
    expected, cut = tiny("whole"), tiny("whole")
    list(loop.resume(expected, 9))
    begun = loop.resume(cut, 9)
    next(event for event in begun if isinstance(event, events.Stepped))
    begun.close()
    assert cut.about()["step"] == 6
    list(loop.resume(cut))
    assert outcome(cut) == outcome(expected)


def test_resume_without_a_name_takes_the_newest_that_was_interrupted(
    tiny: Callable[[str], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, whole = tiny("cut"), tiny("cut"), tiny("whole")
    for seconds, run in enumerate((old, new, whole)):
        os.utime(run.path / "run.json", (1e9 + seconds, 1e9 + seconds))
    for run in (new, old):
        assert cli.run(["train", "--resume"]) == 0
        assert f"run       {run.path}\n" in capsys.readouterr().err
        os.utime(run.path / "run.json", (1e9, 1e9))
        assert run.about()["result"]
    assert cli.run(["train", "--resume"]) == 1
    assert "was interrupted" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_another_text_vocabulary_or_size_and_every_difference_is_told(
    tiny: Callable[[str], Run],
) -> None:
    run = tiny("cut")
    path = run.path / "tokenizer.json"
    vocabulary = json.loads(path.read_text())
    tokens = vocabulary["model"]["vocab"]
    last = max(tokens, key=tokens.__getitem__)
    tokens[chr(ord(last) + 1)] = tokens.pop(last)  # as many characters, one of them another
    path.write_text(json.dumps(vocabulary))
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(CharRNNError, match=r'trained with something else.*: vocabulary is "'):
        list(loop.resume(run))
    values = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**values, "hidden": 9, "split": [0.7, 0.2, 0.1]}))
    with pytest.raises(CharRNNError) as caught:
        list(loop.resume(run))
    for part in ("vocabulary is", "split is [0.7,", "it was [0.8,", "hidden is 9, it was 8", "weight", " more;"):
        assert part in str(caught.value)
    (run.path / "config.json").write_bytes(before["config.json"])
    assert before == {path.name: path.read_bytes() for path in run.path.iterdir()}


def test_a_run_is_not_resumed_with_other_equations_of_the_same_name_and_loading_it_tells(
    corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = dataclasses.replace(cells.get("simple"), name="changing")
    other = dataclasses.replace(cell, step=lambda z, state, p: cell.step(z * 2.0, state, p))
    run = Run(home / "run")
    cells.register(cell)
    try:
        list(loop.new_run(config(corpus, cell="changing", engine="loop", steps=2), run))
        cells.unregister("changing")
        cells.register(other)
        with pytest.raises(CharRNNError, match="something else than its folder says: equations is"):
            list(loop.resume(run, steps=3))
        with pytest.warns(DamageWarning, match="the equations of the cell changing were changed"):
            api.load(run)
        # Another version may write the same equations otherwise.
        run.rewrite({**run.about(), "made_with": {"charrnn": "0.0.1"}})
        with pytest.warns(DamageWarning, match="are written otherwise in this version"):
            api.load(run)
        started = next(loop.resume(run, steps=3))
        assert isinstance(started, events.Started)
        assert any("written otherwise" in note for note in started.notes)
    finally:
        cells.unregister("changing")
