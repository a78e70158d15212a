"""Runs of a comparison that are trained elsewhere: what is sent and what comes back, what is lost, stopped, refused."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_comparison import compared, grid, timeless
from waiting import until

import charrnn
from charrnn import files, strict_json
from charrnn.compare import comparison, dask_pool, errands, machines, parcels, pictures, places, sending, slurm_pool
from charrnn.compare.errands import Order
from charrnn.compare.grid import Folder, Grid
from charrnn.compare.jobs import Job
from charrnn.compare.signs import SILENT_SECONDS, Sign, Watch
from charrnn.errors import CharRNNError, OptionError
from charrnn.text import carrying
from charrnn.text.copies import TEXT, copy_of, open_text
from charrnn.training.run import Run
from charrnn.training.settings import Settings


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)


def small(corpus: str, **changes: Any) -> Grid:
    """A comparison of few runs, each on one thread."""
    asked = grid(corpus, **{"seeds": 1, "lr_trials": 1, **changes})
    return dataclasses.replace(asked, config=asked.config.replace(threads=1))


# What is carried


@pytest.mark.parametrize("document", ["none", "line", "blank", "file"])
def test_a_text_that_was_carried_is_the_text(document: str, tmp_path: Path) -> None:
    sources = (tmp_path / "a.txt", tmp_path / "b.txt")
    sources[0].write_text("први ред\n\nдруги ред", encoding="utf-8")
    sources[1].write_text("third 🙂 line\n\nand more\n", encoding="utf-8")
    text = open_text(Settings(corpus=tuple(map(str, sources)), document=document))
    there = carrying.unpacked(carrying.packed(text), text.fingerprint, tmp_path / "there", document)
    assert there.path.read_bytes() == text.path.read_bytes()
    assert there.starts().tolist() == text.starts().tolist()
    assert dataclasses.replace(there, path=text.path) == dataclasses.replace(text, notes=there.notes)


def test_another_text_than_was_asked_for_is_not_kept(corpus: str, tmp_path: Path) -> None:
    text = open_text(Settings(corpus=(corpus,)))
    parcel = carrying.packed(text)
    with pytest.raises(CharRNNError, match="not the one that was asked for"):
        carrying.unpacked({**parcel, TEXT: parcel[TEXT] + b"x"}, text.fingerprint, tmp_path / "there", "none")
    assert copy_of(text.fingerprint, tmp_path / "there") is None


def test_what_is_said_of_a_carried_text_does_not_change_how_it_is_split(corpus: str, tmp_path: Path) -> None:
    text = open_text(Settings(corpus=(corpus,)))
    about = {"source": "elsewhere", "characters": 10 * text.characters, "notes": []}
    parcel = {**carrying.packed(text), carrying.ABOUT: strict_json.dumps(about).encode(), carrying.STARTS: b"12345678"}
    there = carrying.unpacked(parcel, text.fingerprint, tmp_path / "there", "none")
    assert there.boundaries((0.8, 0.1, 0.1)) == text.boundaries((0.8, 0.1, 0.1))
    assert sorted(path.name for path in there.path.parent.iterdir()) == [carrying.ABOUT, TEXT]
    with pytest.raises(CharRNNError, match=r"text.json that was sent is no description"):
        carrying.unpacked({**parcel, carrying.ABOUT: b"{}"}, text.fingerprint, tmp_path / "other", "none")


def test_a_text_that_is_too_long_is_not_sent(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "MOST_BYTES", 5000)
    with pytest.raises(CharRNNError, match="no more than 5,000 are sent"):
        carrying.packed(open_text(Settings(corpus=(corpus,))))


def contents(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name not in (".lock", "run.json")}


def test_a_run_that_was_carried_is_the_run(trained: Callable[..., Run], tmp_path: Path) -> None:
    run, there = trained(), Run(tmp_path / "there" / "run")
    parcels.unpacked(parcels.packed(run), there)
    assert contents(there) == contents(run)
    about = run.about()
    assert there.about() == {**about, "result": {**about["result"], "run": str(there.path)}}
    assert there.restore().checkpoint == run.restore().checkpoint


def test_a_carried_run_takes_the_place_of_an_older_checkpoint(trained: Callable[..., Run], tmp_path: Path) -> None:
    older, newer = trained("older", steps=6), trained("newer")
    parcels.unpacked(parcels.packed(newer), older)
    assert contents(older) == contents(newer)


def damaged(name: str, parcel: dict[str, bytes]) -> dict[str, bytes]:
    tensors = sorted(each for each in parcel if each.startswith("model-"))[0]
    sums = parcel[parcels.SUMS].decode()
    other = hashlib.sha256(b"other").hexdigest()
    changes: dict[str, dict[str, bytes]] = {
        "a byte of weights": {tensors: parcel[tensors][:-1] + b"\xff"},
        "weights and their sum": {
            tensors: b"other",
            parcels.SUMS: "".join(
                f"{other}  {tensors}\n" if line.endswith(tensors) else f"{line}\n" for line in sums.splitlines()
            ).encode(),
        },
        "a line of metrics": {"metrics.jsonl": parcel["metrics.jsonl"] + b"{}\n"},
        "a path": {"../../evil": b"x"},
        "a file of nobody": {"evil.py": b"x"},
        "no sums": {parcels.SUMS: b""},
        "a run.json that is none": {"run.json": b"[]"},
        "a run.json with a path": {"run.json": parcel["run.json"].replace(tensors.encode(), b"../" + tensors.encode())},
    }
    return {**parcel, **changes[name]}


@pytest.mark.parametrize(
    "how",
    [
        "a byte of weights",
        "weights and their sum",
        "a line of metrics",
        "a path",
        "a file of nobody",
        "no sums",
        "a run.json that is none",
        "a run.json with a path",
    ],
)
def test_a_carried_run_that_was_changed_is_refused(how: str, trained: Callable[..., Run], tmp_path: Path) -> None:
    parcel, there = parcels.packed(trained()), Run(tmp_path / "there" / "run")
    with pytest.raises(CharRNNError, match="damaged"):
        parcels.unpacked(damaged(how, parcel), there)
    assert not there.exists()
    assert not list(tmp_path.rglob("*evil*"))
    lacking = {name: data for name, data in parcel.items() if not name.startswith("training-")}
    with pytest.raises(CharRNNError, match="damaged"):
        parcels.unpacked(lacking, there)


def test_a_run_of_more_bytes_than_may_be_sent_is_not(trained: Callable[..., Run], monkeypatch: Any) -> None:
    run = trained()
    parcel = parcels.packed(run)
    monkeypatch.setattr(parcels, "MOST_BYTES", sum(map(len, parcel.values())) - 1000)
    with pytest.raises(CharRNNError):
        parcels.packed(run)
    with pytest.raises(CharRNNError, match="longer than"):
        parcels.unpacked(parcel, run)


# Signs of life


def test_a_sign_of_life_is_over_when_it_is_taken_back_or_does_not_change(tmp_path: Path) -> None:
    now = 0.0
    sign = Sign(tmp_path)
    watch = Watch(sign.path, lambda: now)
    assert not watch.is_over()
    now += SILENT_SECONDS + 1
    assert watch.is_over()
    files.write_atomically(sign.path, b"17")
    assert not watch.is_over()
    sign.take_back()
    assert watch.is_over()
    sign.take_back()
    assert list(tmp_path.iterdir()) == []


def test_a_sign_of_life_that_could_be_read_once_is_not_over_when_it_cannot_for_a_while(tmp_path: Path) -> None:
    now, folder = 0.0, tmp_path / "folder"
    folder.mkdir()
    (folder / "working-0").write_bytes(b"0")
    seen, never = Watch(folder / "working-0", lambda: now), Watch(folder / "working-0", lambda: now)
    assert not seen.is_over()
    folder.rename(tmp_path / "away")
    folder.write_bytes(b"")  # what is read now fails in another way than for a file that is gone
    assert not seen.is_over()
    assert never.is_over()
    now += SILENT_SECONDS + 1
    assert seen.is_over()


def test_a_sign_of_life_changes_by_itself_and_replaces_that_of_a_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charrnn.compare.signs.EVERY_SECONDS", 0.01)
    (tmp_path / "working-0123456789abcdef").write_bytes(b"5")
    sign = Sign(tmp_path)
    until(lambda: sign.path.read_bytes() not in (b"0", b"1"))
    assert [path.name for path in tmp_path.glob("working-*")] == [sign.path.name]
    sign.take_back()


# Pools


class Elsewhere:
    """Workers in threads, on a machine that does not see the folders of who asks. lose: jobs that are lost at first."""

    slots = 2
    threads = 1
    shared = False
    unequal: str | None = None

    def __init__(self, home: Path, lose: int = 0) -> None:
        self.home, self.lose = home, lose
        self.parcels: list[list[str]] = []
        self.stopped = threading.Event()
        self._executor = ThreadPoolExecutor(2)

    def submit(self, order: str, parcel: Mapping[str, bytes]) -> "Future[dict[str, Any]]":
        self.parcels.append(sorted(parcel))
        asked = Order.of(order)
        hidden = {name: f"/nowhere{getattr(asked, name)}" for name in ("folder", "sign", "home")}
        if self.lose:
            self.lose -= 1
            return self._executor.submit(lost)
        there = dataclasses.replace(asked, **hidden).to_json()
        return self._executor.submit(errands.carry_out, there, parcel, self.stopped.is_set)

    def ask_to_stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self._executor.shutdown()


def lost() -> Any:
    raise ConnectionError("the worker is gone")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Elsewhere]:
    """Send jobs to workers with a home of their own."""

    def send(**options: Any) -> Elsewhere:
        pool = Elsewhere(tmp_path / "their home", **options)
        monkeypatch.setattr(places, "pool_of", lambda *_: pool)
        monkeypatch.setattr(errands, "home", lambda: pool.home)
        return pool

    return send


def test_an_executor_gives_the_figures_of_this_machine(corpus: str, tmp_path: Path) -> None:
    asked = small(corpus)
    here = compared(asked, ["simple"], tmp_path / "here")
    with ThreadPoolExecutor(2) as executor:
        there = compared(asked, ["simple"], tmp_path / "there", on=executor)
    assert timeless(there.result) == timeless(here.result)
    (machine,) = there.result["machines"]
    assert machine["processor"]
    assert (machine["host"], machine["threads"], machine["runs"]) == (os.uname().nodename, 1, 1)
    assert not list((tmp_path / "there").glob("working-*"))


@pytest.mark.slow
def test_where_nothing_is_shared_the_text_goes_and_the_runs_come_back(
    corpus: str, tmp_path: Path, elsewhere: Callable[..., Elsewhere]
) -> None:
    asked = small(corpus, seeds=2)
    here = compared(asked, ["gru"], tmp_path / "here")
    pool = elsewhere(lose=1)
    there = compared(asked, ["gru"], tmp_path / "there", on="dask://nowhere")
    assert timeless(there.result) == timeless(here.result)
    sent = [each for each in pool.parcels if each]
    assert sent
    assert all(each == ["text/text.json", "text/text.utf8"] for each in sent)
    assert {path.name for path in pool.home.iterdir()} == {".corpora", ".errands"}
    assert list((pool.home / ".errands").iterdir()) == []
    run = Run(next((tmp_path / "there" / "runs").glob("gru-*/seed-*")))
    assert run.about()["result"]["run"] == str(run.path)
    assert run.damage() is None


@pytest.mark.long
def test_a_comparison_that_is_stopped_elsewhere_goes_on_where_it_was(
    corpus: str, tmp_path: Path, elsewhere: Callable[..., Elsewhere]
) -> None:
    asked = small(corpus, steps=600)
    asked = dataclasses.replace(asked, config=asked.config.replace(validate_every=30))
    pool = elsewhere()

    def begun() -> bool:
        return any(Run(path.parent).rows("timings.jsonl")[1:] for path in pool.home.rglob("timings.jsonl"))

    events = comparison.compare(asked, ["simple"], Folder(tmp_path / "c"), stop=begun, on="dask://nowhere")
    assert isinstance(list(events)[-1], comparison.Stopped)
    run = Run(next((tmp_path / "c" / "runs").glob("simple-*/seed-*")))
    assert 0 < run.about()["step"] < 600
    pool = elsewhere()
    done = compared(asked, ["simple"], tmp_path / "c", on="dask://nowhere")
    assert any("run/run.json" in each for each in pool.parcels)
    assert timeless(done.result) == timeless(compared(asked, ["simple"], tmp_path / "here").result)


def test_a_job_that_is_lost_again_and_again_ends_the_comparison(
    corpus: str, tmp_path: Path, elsewhere: Callable[..., Elsewhere]
) -> None:
    pool = elsewhere(lose=99)
    with pytest.raises(
        CharRNNError, match=r"simple-\d+x1.seed-7 was lost 3 times: ConnectionError: the worker is gone"
    ):
        compared(small(corpus), ["simple"], tmp_path / "c", on="dask://nowhere")
    assert len(pool.parcels) == sending.TRIES


class Refusing:
    """Workers of whom one refuses the first job, and another saves the second one when it is asked to stop."""

    slots, threads, shared, unequal = 2, 1, False, None

    def __init__(self, saved: Run) -> None:
        self._saved = saved
        self._jobs: list[Future[dict[str, Any]]] = []

    def submit(self, order: str, parcel: Mapping[str, bytes]) -> "Future[dict[str, Any]]":
        job: Future[dict[str, Any]] = Future()
        if not self._jobs:
            job.set_result({"ended": errands.REFUSED, "problem": "another cell", "hint": ""})
        self._jobs.append(job)
        return job

    def ask_to_stop(self) -> None:
        self._jobs[1].set_result({"ended": errands.STOPPED, "files": parcels.packed(self._saved)})

    def close(self) -> None:
        pass


def test_what_others_have_done_comes_back_where_one_job_fails(trained: Callable[..., Run], tmp_path: Path) -> None:
    saved, folder = trained(), tmp_path / "c"
    folder.mkdir()
    jobs = [Job(Run(folder / "runs" / name), saved.config().as_settings(), True) for name in ("refused", "other")]
    with pytest.raises(CharRNNError, match="another cell"):
        list(sending.carry_out(jobs, folder, Refusing(saved), None, lambda: False))
    assert contents(jobs[1].run) == contents(saved)
    assert not jobs[0].run.exists()
    assert not list(folder.glob("working-*"))


# A worker that would do something else


def order(run: Run, tmp_path: Path, **changes: Any) -> Order:
    """An order of a complete run, whose folder is shared."""
    config = run.config()
    values: dict[str, Any] = {
        "folder": str(tmp_path),
        "sign": str(tmp_path / "working-0000000000000000"),
        "place": "run",
        "home": os.environ["CHARRNN_HOME"],
        "config": {"format": 4, **{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, "plan": ()},
        "scored": True,
        "begun": None,
        "shared": True,
        "charrnn": charrnn.__version__,
        "equations": run.about()["identity"]["equations"],
        "processor": None,
    }
    (tmp_path / "working-0000000000000000").write_bytes(b"0")
    return Order(**{**values, **changes})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"charrnn": "0.0.1"}, "0.0.1 asks"),
        ({"equations": "0" * 64}, "equations of the cell .* are others here"),
        ({"processor": "Another 486"}, "not equally fast: .*Another 486"),
    ],
)
def test_a_worker_that_would_train_something_else_refuses(
    changes: dict[str, Any], said: str, trained: Callable[..., Run], tmp_path: Path
) -> None:
    answer = errands.carry_out(order(trained(steps=2), tmp_path, **changes).to_json(), {})
    assert answer["ended"] == "refused"
    with pytest.raises(CharRNNError, match=said):
        raise CharRNNError(answer["problem"])
    assert not (tmp_path / "run").exists()


def test_a_job_whose_answer_was_lost_is_done_where_its_run_is_complete(
    trained: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained(steps=2)
    before = contents(run)
    asked = order(run, tmp_path, folder=str(run.path.parent), place=run.path.name)
    assert errands.carry_out(asked.to_json(), {}) == {"ended": "done"}
    assert contents(run) == before


@pytest.mark.slow
def test_what_nobody_waits_for_stays_where_it_was_trained_until_somebody_does(
    trained: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "home", lambda: tmp_path / "their home")
    run = trained(steps=2)
    asked = order(run, tmp_path, folder="/nowhere", sign="/nowhere/working-0000000000000000", shared=False)
    there = Run(errands.place_of(asked))
    there.path.parent.mkdir(parents=True)
    parcels.unpacked(parcels.packed(run), there)
    assert errands.carry_out(asked.to_json(), {}, awaited=lambda: False) == {"ended": "done"}
    assert contents(there) == contents(run)
    answer = errands.carry_out(asked.to_json(), {})
    assert {name: data for name, data in answer["files"].items() if name in contents(run)} == contents(run)
    assert not there.path.exists()


def test_a_worker_that_must_see_the_folder_says_where_it_does_not(trained: Callable[..., Run], tmp_path: Path) -> None:
    asked = order(trained(steps=2), tmp_path)
    nowhere = dataclasses.replace(asked, folder="/nowhere", sign="/nowhere/working-0000000000000000")
    answer = errands.carry_out(nowhere.to_json(), {})
    assert answer["ended"] == "refused"
    assert "/nowhere is not seen on" in answer["problem"]
    (tmp_path / "file").write_bytes(b"")  # a path that leads elsewhere here; root may look into all folders
    other = dataclasses.replace(asked, folder=str(tmp_path / "file"), sign=str(tmp_path / "file" / "working-0"))
    assert "is not seen on" in errands.carry_out(other.to_json(), {})["problem"]
    gone = dataclasses.replace(asked, sign=str(tmp_path / "working-1111111111111111"))
    assert errands.carry_out(gone.to_json(), {}) == {"ended": "stopped"}


@pytest.mark.long
def test_a_process_saves_and_ends_when_its_worker_is_killed(trained: Callable[..., Run], tmp_path: Path) -> None:
    asked = order(trained(steps=2), tmp_path)
    asked = dataclasses.replace(asked, config={**asked.config, "steps": 1_000_000, "hidden": 64})
    code = f"from charrnn.compare import errands; errands.carry_out({asked.to_json()!r}, {{}})"
    environment = {**os.environ, "PYTHONPATH": str(Path(charrnn.__file__).parents[1])}
    run = Run(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as worker:
        until(lambda: (run.path / "timings.jsonl").exists() and run.in_use())
        worker.kill()
    until(lambda: not run.in_use())
    assert run.about()["step"] > 0


# Equal time


def test_unlike_machines_are_not_matched_by_time(trained: Callable[..., Run], corpus: str, tmp_path: Path) -> None:
    asked = small(corpus, match="time", budget=1.0, steps=None)
    compared(asked, ["simple"], tmp_path / "c")
    run = Run(next((tmp_path / "c" / "runs").glob("simple-*/seed-*")))
    about = run.about()
    run.rewrite({**about, "made_with": {**about["made_with"], "processor": "Another 486"}})
    with pytest.raises(CharRNNError, match=r"not equally fast: .*Another 486"):
        compared(asked, ["gru"], tmp_path / "c")


def test_figures_say_on_which_machines_they_were_measured(trained: Callable[..., Run]) -> None:
    first, second, old = (trained(name, steps=2) for name in ("first", "second", "old"))
    about = second.about()
    second.rewrite({**about, "made_with": {**about["made_with"], "processor": "Another 486", "host": "b"}})
    old.rewrite({**old.about(), "made_with": None})
    rows = machines.used([first, second, old])
    assert {"host": None, "processor": None, "threads": None, "runs": 1} in rows
    assert sum(row["runs"] for row in rows) == 3
    said = machines.note(rows)
    assert said is not None
    assert "Another 486" in said
    assert machines.note(machines.used([first, old])) is None
    assert machines.processors([first, old, Run(first.path / "nothing")]) == {first.about()["made_with"]["processor"]}


# What cannot be


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("somewhere", "nothing can be trained on 'somewhere'"),
        ("dask:127.0.0.1", "nothing can be trained on"),
        ("dask://", "no address"),
        ("dask://127.0.0.1:port", "no address"),
        ("dask://127.0.0.1/path", "no address"),
        ("dask://a..b:8786", "no address"),
        pytest.param(f"tls://{'a' * 64}", "no address", id="a host's name that is too long"),
        ("dask://192.0.2.1:8786", "192.0.2.1 is another machine, and without TLS"),
        ("dask://[2001:db8::1]:8786", "is another machine"),
        ("slurm:color=red", "no option 'color'"),
        ("slurm:time=soon", "time is soon"),
        ("slurm:partition=a b", "partition is 'a b'"),
        ("slurm:partition=$(id)", "partition is"),
        ("slurm:exclusive=yes", "takes no value"),
        ("slurm:partition", "partition has no value"),
        ("slurm:partition,time=5", "partition has no value"),
        ("slurm:partition,cpu", "partition has no value"),
    ],
)
def test_a_place_that_cannot_be_is_refused(on: str, said: str, corpus: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        compared(small(corpus), ["simple"], tmp_path / "c", on=on)
    assert said in str(error.value)


def test_jobs_are_of_this_machine(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--jobs is of this machine"):
        compared(small(corpus), ["simple"], tmp_path / "c", on="slurm", jobs=2)


@pytest.mark.parametrize(
    ("on", "module", "extra"), [("dask://127.0.0.1", "distributed", "dask"), ("slurm", "submitit", "slurm")]
)
def test_without_the_package_it_says_how_to_install_it(
    on: str, module: str, extra: str, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CharRNNError) as error:
        compared(small(corpus), ["simple"], tmp_path / "c", on=on)
    assert f"pip install 'charrnn[{extra}]'" in error.value.hint


def test_a_network_that_is_trusted_and_one_with_tls_are_used() -> None:
    assert dask_pool.read_address("dask://127.0.0.1", insecure=False) == ("tcp", "127.0.0.1:8786")
    assert dask_pool.read_address("dask://192.0.2.1:1", insecure=True) == ("tcp", "192.0.2.1:1")
    assert dask_pool.read_address("tls://[2001:db8::1]:2", insecure=False) == ("tls", "[2001:db8::1]:2")


def test_options_of_a_cluster_are_sbatchs() -> None:
    read = slurm_pool.read_options("partition=cpu,time=90,cpus-per-task=4,nodelist=a[1-3],b7,exclusive,mem=2G")
    assert read == {
        "partition": "cpu",
        "time": 90,
        "cpus_per_task": 4,
        "nodelist": "a[1-3],b7",
        "exclusive": True,
        "mem": "2G",
    }


def test_a_folder_of_pickles_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    assert slurm_pool.private_folder(tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for name in ("open", "link"):
        with pytest.raises(CharRNNError, match="not this user's alone"):
            slurm_pool.private_folder(tmp_path / name)


def test_without_a_cluster_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def executor(*_: Any, **options: Any) -> None:
        raise RuntimeError('Could not detect "srun"')

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=executor))
    with pytest.raises(CharRNNError, match="--on slurm: Could not detect"):
        slurm_pool.SlurmPool(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_order_is_what_it_was_after_json(trained: Callable[..., Run], tmp_path: Path) -> None:
    asked = order(trained(steps=2), tmp_path)
    again = Order.of(asked.to_json())
    assert again.to_json() == asked.to_json()
    assert (again.sign, again.config["hidden"]) == (asked.sign, asked.config["hidden"])
