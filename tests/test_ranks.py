"""Several processes that train one model: the arithmetic among threads, the rest as torchrun starts them."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, decided
from hosts import Host, network
from safetensors.numpy import load_file
from test_states import CELLS as CELLS_WITH_SHAPES
from torch import Tensor
from waiting import until

from charrnn import cells, engines
from charrnn.errors import CharRNNError
from charrnn.text.corpus import Corpus, prepare
from charrnn.training import followers, ranks
from charrnn.training.clipping import clip_gradients
from charrnn.training.config import Config
from charrnn.training.heartbeat import SILENT_LOOKS, Heartbeat, Watch
from charrnn.training.ranks import Order, Ranks
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
STEPS = 7


class Meeting:
    """Where ranks that are threads meet and exchange tensors."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.brought: list[Tensor] = [torch.empty(0)] * world
        self._barrier = threading.Barrier(world, timeout=60)

    def exchanged(self, rank: int, tensor: Tensor) -> list[Tensor]:
        """What all have brought, once they have."""
        self._barrier.wait()
        self.brought[rank] = tensor.clone()
        self._barrier.wait()
        return list(self.brought)

    def give_up(self) -> None:
        """Let nobody wait any longer."""
        self._barrier.abort()


class InThread(Ranks):
    """A rank that is a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, meeting.world)
        self._meeting = meeting

    def sum(self, tensor: Tensor) -> None:
        first, *others = self._meeting.exchanged(self.rank, tensor)
        for each in others:
            first = first + each
        tensor.copy_(first)

    def broadcast(self, tensor: Tensor) -> None:
        tensor.copy_(self._meeting.exchanged(self.rank, tensor)[0])

    def gathered(self, own: Tensor) -> list[Tensor]:
        found = self._meeting.exchanged(self.rank, own)
        return found if self.leads else []


@contextmanager
def together(config: Config, corpus: Corpus, world: int, wishing: int = -1) -> Iterator[Trainer]:
    """The trainer of rank 0, which others follow. wishing: a rank that was asked to end."""
    meeting, failed = Meeting(world), []

    def follow(rank: int) -> None:
        try:
            group = InThread(rank, meeting)
            followers.obey(Trainer(config, corpus, ranks=group), group, lambda: rank == wishing)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=follow, args=(rank,), daemon=True) for rank in range(1, world)]
    for thread in threads:
        thread.start()
    group = InThread(0, meeting)
    try:
        yield Trainer(config, corpus, ranks=group)
        group.tell(Order.END)
    except BaseException:
        meeting.give_up()
        raise
    for thread in threads:
        thread.join()
    assert not failed


@pytest.fixture
def text(corpus: str) -> Corpus:
    return prepare(Settings(corpus=(corpus,)))


def settled(text: Corpus, corpus: str, **changes: Any) -> Config:
    values = {"corpus": (corpus,), "fingerprint": text.text.fingerprint, "plan": ((0, STEPS, STEPS),), **changes}
    return decided(**{"batch": 5, "hidden": 12, "embedding": 6, "layers": 2, **values})


def test_two_ranks_take_the_step_of_the_sum_of_two_halves(text: Corpus, corpus: str) -> None:
    config = settled(text, corpus, batch=4, clip=0.1)
    halves = [Trainer(config, text) for _ in range(2)]
    inputs, targets, _ = halves[0].streams.at(0)
    for half, rows in zip(halves, (slice(0, 2), slice(2, 4)), strict=True):
        ids, wanted = (torch.from_numpy(np.ascontiguousarray(each[:, rows])) for each in (inputs, targets))
        logits, _ = half.model(ids, half.model.start(2))
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()) * 0.5)
    first, second = (half.model.weights for half in halves)
    for name, weight in first.items():
        assert weight.grad is not None
        assert second[name].grad is not None
        weight.grad = weight.grad + second[name].grad
    clip_gradients(config, first)
    halves[0].optimizer.update(halves[0].rate(0))
    with together(config, text, 2) as trainer:
        trainer.update()
        weights = trainer.weights()
    assert all((weights[name] == weight).all() for name, weight in halves[0].weights().items())


def engines_and_cells() -> list[tuple[str, str]]:
    """Every engine of a CPU, with the first cell that it can run."""
    firsts = {engine: cell for cell in reversed(cells.names()) for engine in engines.names_for(cells.get(cell))}
    return list(firsts.items())


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("engine", "cell"), engines_and_cells())
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_learn_what_one_process_learns(
    world: int, engine: str, cell: str, dropout: float, text: Corpus, corpus: str
) -> None:
    changes = {"engine": engine, "cell": cell, "dropout": dropout, "dropout_per": "character", "layers": 1}
    like_one_process(settled(text, corpus, **changes, lr=1e-3), text, world)


@pytest.mark.parametrize(("engine", "cell"), [("loop", "gru"), ("fused", "nn.GRU"), ("native", "lstm")])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_drop_what_one_process_drops(world: int, engine: str, cell: str, text: Corpus, corpus: str) -> None:
    changes = {"engine": engine, "cell": cell, "dropout": 0.4, "weight_dropout": 0.3, "layers": 1}
    like_one_process(settled(text, corpus, **changes, lr=1e-3), text, world)


@pytest.mark.parametrize("left_out", [0.0, 0.4])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_learn_the_tables_that_one_process_learns(world: int, left_out: float, text: Corpus, corpus: str) -> None:
    changes = {"direct": 3, "direct_rows": 5000, "direct_rate": 3.0, "direct_dropout": left_out, "layers": 1}
    like_one_process(settled(text, corpus, **changes, lr=1e-3), text, world)


def like_one_process(config: Config, text: Corpus, world: int) -> None:
    """Check that so many ranks learn what one process learns."""
    alone = Trainer(config, text)
    expected = [float(alone.update()) for _ in range(STEPS)]
    with together(config, text, world) as trainer:
        losses = [float(trainer.update()) for _ in range(STEPS)]
        state, weights = trainer.whole_state(), trainer.weights()
        assert trainer.train_nats() == pytest.approx(alone.train_nats(), abs=1e-6)
        assert trainer.characters == alone.characters
    assert losses == pytest.approx(expected, abs=1e-6)
    for name, weight in alone.weights().items():
        np.testing.assert_allclose(weights[name], weight, atol=1e-6, rtol=0)
    for layer, expected_layer in zip(state, alone.state, strict=True):
        for part, expected_part in zip(layer, expected_layer, strict=True):
            torch.testing.assert_close(part, expected_part, atol=1e-5, rtol=0)


def test_documents_begin_anew_in_the_rows_of_every_rank(corpus: str) -> None:
    text = prepare(Settings(corpus=(corpus,), document="line"))
    config = settled(text, corpus, document="line", lr=1e-3)
    alone = Trainer(config, text)
    expected = [float(alone.update()) for _ in range(STEPS)]
    with together(config, text, 2) as trainer:
        assert [float(trainer.update()) for _ in range(STEPS)] == pytest.approx(expected, abs=1e-6)


def test_what_rank_0_hands_out_others_become(text: Corpus, corpus: str) -> None:
    config = settled(text, corpus)
    other = Trainer(config, text)
    for _ in range(STEPS):
        other.update()
    with together(config, text, 3) as trainer:
        trainer.take(other.weights())
        trainer.optimizer.restore(other.optimizer.moments)
        trainer.step = other.step
        trainer.hand_out(other.state)
        for part, expected in zip(trainer.whole_state()[1], other.state[1], strict=True):
            assert (part == expected).all()
        assert float(trainer.update()) == pytest.approx(float(other.update()), abs=1e-6)


def test_a_state_of_any_shape_is_handed_out_and_gathered(text: Corpus, corpus: str) -> None:
    for cell in CELLS_WITH_SHAPES:
        cells.register(cell)
        try:
            config = settled(text, corpus, cell=cell.name, direct=3, direct_rows=50)
            other = Trainer(config, text)
            other.update()
            with together(config, text, 2) as trainer:
                trainer.hand_out(other.state)
                for layer, expected_layer in zip(trainer.whole_state(), other.state, strict=True):
                    for part, expected in zip(layer, expected_layer, strict=True):
                        assert torch.equal(part, expected)
        finally:
            cells.unregister(cell.name)


def test_the_wish_of_one_rank_to_end_reaches_rank_0(text: Corpus, corpus: str) -> None:
    for wishing, heard in ((-1, False), (1, True)):
        with together(settled(text, corpus), text, 2, wishing) as trainer:
            trainer.update()
            assert trainer.ranks is not None
            assert trainer.ranks.wished is heard


def test_more_ranks_than_rows_are_refused(text: Corpus, corpus: str) -> None:
    with pytest.raises(CharRNNError, match=r"a batch of 2 rows is trained by 3 ranks.*--batch 3"):
        Trainer(settled(text, corpus, batch=2), text, ranks=Ranks(0, 3))


@pytest.mark.parametrize("batch", [3, 4, 64, 65])
def test_rows_are_split_without_gap(batch: int) -> None:
    rows = [Ranks(0, 3).rows(batch, rank) for rank in range(3)]
    assert [i for each in rows for i in range(batch)[each]] == list(range(batch))
    assert {each.stop - each.start for each in rows} <= {batch // 3, -(-batch // 3)}


def test_a_rank_takes_its_share_of_the_cores_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.training.ranks.cores", lambda: 8)
    found = [ranks.own_threads(n, {"OMP_NUM_THREADS": said}) for n, said in ((2, "1"), (2, "3"), (2, "9"), (16, "1"))]
    assert found == [4, 3, 4, 1]


class Signs:
    """A store of which a test decides what is in it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {"alive/1": "0", "alive/2": "0"}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()


def test_a_rank_that_falls_silent_is_lost_and_one_that_lives_is_not() -> None:
    heartbeat = Heartbeat(Signs(), 0, (1, 2))
    heartbeat.heard = {1: b"0", 2: b"0"}
    watch = Watch(heartbeat)
    for look in range(SILENT_LOOKS - 1):
        heartbeat.heard[1] = str(look).encode()
        assert not watch.look()
    assert watch.look() == [1, 2] or watch.look() == [2]
    heartbeat.heard[2] = b"again"
    assert 2 not in watch.look()


def test_a_heartbeat_gives_and_hears_signs() -> None:
    store = Signs()
    heartbeat = Heartbeat(store, 0, (1,), every=0.01)
    heartbeat.start()
    store.values["alive/1"] = "17"
    until = time.monotonic() + 30
    while (heartbeat.heard[1] != b"17" or store.values["alive/0"] == "0") and time.monotonic() < until:
        time.sleep(0.01)
    heartbeat.end()
    assert heartbeat.heard[1] == b"17"
    assert int(store.values["alive/0"]) > 0


# As torchrun starts them

Torchrun = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def torchrun(tmp_path: Path, home: Path) -> Iterator[Torchrun]:
    """Start ranks with arguments of `train`; what is left of them at the end is killed."""
    begun: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "CHARRNN_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(*arguments: str, n: int = 2, options: tuple[str, ...] = (), program: str = "") -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *options]
        process = subprocess.Popen(
            [*command, program or str(ROOT / "cli.py"), "train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            for pid in ranks_of(process.pid).values():
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def ranks_of(agent: int) -> dict[int, int]:
    """The processes that torchrun has started and that are there, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.findall(r"^PPid:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)[0])
            if parent == agent:
                variables = (folder / "environ").read_bytes().split(b"\0")
                found[int(next(v for v in variables if v.startswith(b"RANK=")).partition(b"=")[2])] = int(folder.name)
        except (OSError, StopIteration, IndexError):  # it has ended
            continue
    return found


def ended(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def options(corpus: str, **changes: Any) -> list[str]:
    """The small run of other tests, as options."""
    values = {**SMALL, "engine": "fused", "device": "cpu", "seed": 3, **changes}
    return [corpus, *(word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value)))]


def trained_with(torchrun: Torchrun, *arguments: str, **how: Any) -> str:
    """Let ranks train to the end. Returns what they said."""
    process = torchrun(*arguments, **how)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def tensors(run: Run) -> dict[str, Any]:
    """Everything that a run has saved, by file and name."""
    return {
        f"{path.name} {name}": value
        for path in sorted(run.path.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def test_two_ranks_by_torchrun_are_a_run_as_one_process_trains_it(
    torchrun: Torchrun, trained: Callable[..., Run], home: Path, corpus: str
) -> None:
    said = trained_with(torchrun, *options(corpus), "--name", "two")
    run, alone = Run(home / "two"), trained("alone", engine="fused", device="cpu", seed=3, dropout=None)
    assert "trained by 2 ranks" in said
    assert run.about()["made_with"]["ranks"] == 2
    assert "ranks" not in alone.about()["made_with"]
    for row, expected in zip(run.rows("metrics.jsonl"), alone.rows("metrics.jsonl"), strict=True):
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=2e-6), name
    assert {n: v.shape for n, v in tensors(run).items()} == {n: v.shape for n, v in tensors(alone).items()}
    state = {n: v for n, v in tensors(run).items() if "state/" in n}
    assert state
    for name, value in state.items():
        np.testing.assert_allclose(value, tensors(alone)[name], atol=1e-4)


@pytest.mark.long
def test_the_same_number_of_ranks_resumes_exactly(torchrun: Torchrun, home: Path, corpus: str) -> None:
    more = ("--dropout", "0.3")
    trained_with(torchrun, *options(corpus), *more, "--name", "whole")
    trained_with(torchrun, *options(corpus, steps=7), *more, "--name", "parts")
    # Another length from the same step on has another schedule, so both runs are lengthened there.
    for name in ("whole", "parts"):
        said = trained_with(torchrun, "--resume", name, "--steps", "20")
        assert "last bits" not in said
    alike = ("--schedule", "constant", "--direct-rows", "100")  # of two lengths the rule would give other rows
    trained_with(torchrun, *options(corpus, steps=20), *alike, "--name", "once")
    trained_with(torchrun, *options(corpus, steps=9), *alike, "--name", "twice")
    trained_with(torchrun, "--resume", "twice", "--steps", "20")
    once, twice = tensors(Run(home / "once")), tensors(Run(home / "twice"))
    last = [name for name in once if "00000020" in name]
    assert last
    for name in last:
        np.testing.assert_array_equal(once[name], twice[name], name)


@pytest.mark.long
@pytest.mark.parametrize("n", [1, 3])
def test_another_number_of_ranks_resumes_and_says_what_changes(
    n: int, torchrun: Torchrun, home: Path, corpus: str
) -> None:
    trained_with(torchrun, *options(corpus, steps=6), "--name", "run")
    said = trained_with(torchrun, "--resume", "run", "--steps", "12", n=n)
    assert f"saved with 2 ranks, resumed with {n}: the last bits of the results differ" in said
    assert Run(home / "run").about()["made_with"]["ranks"] == n


@pytest.mark.long
def test_one_process_resumes_what_ranks_began(
    torchrun: Torchrun, home: Path, corpus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from charrnn import cli

    trained_with(torchrun, *options(corpus, steps=6), "--name", "run")
    assert cli.run(["train", "--resume", "run", "--steps", "12"]) == 0
    assert "saved with 2 ranks, resumed with 1" in capsys.readouterr().err
    assert "ranks" not in Run(home / "run").about()["made_with"]


@pytest.mark.long
def test_early_stopping_ends_all_ranks(torchrun: Torchrun, home: Path, corpus: str) -> None:
    values = options(corpus, steps=100000, validate_every=5, patience=1, lr=0.1, schedule="constant")
    said = trained_with(torchrun, *values, "--name", "run")
    assert "early" in said
    assert Run(home / "run").about()["result"]["steps"] < 100000


LONG = {"steps": 1000000, "validate_every": 10, "hidden": 64}


def saved(home: Path, name: str = "run", since: int = 0) -> Callable[[], bool]:
    """Tell whether a run has a checkpoint, past a step."""
    run = Run(home / name)
    return lambda: run.exists() and run.about()["step"] > since


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        pytest.param(0, signal.SIGINT, marks=pytest.mark.long),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_any_rank_saves_the_run_at_one_step(
    number: int, rank: int, torchrun: Torchrun, home: Path, corpus: str
) -> None:
    process = torchrun(*options(corpus, **LONG), "--name", "run")
    until(saved(home))
    os.kill(ranks_of(process.pid)[rank], number)
    _, said = process.communicate(timeout=60)
    stopped = re.search(r"stopped after step ([\d,]+); everything is saved", said)
    assert stopped, said
    assert Run(home / "run").about()["step"] == int(stopped[1].replace(",", ""))
    trained_with(torchrun, "--resume", "run", "--steps", str(Run(home / "run").about()["step"] + 3))


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGKILL, marks=pytest.mark.long),
        pytest.param(0, signal.SIGSTOP, marks=pytest.mark.long),
        pytest.param(1, signal.SIGSTOP, marks=pytest.mark.long),
    ],
)
def test_a_rank_that_is_killed_or_stopped_ends_the_others_with_the_command_that_resumes(
    number: int, rank: int, torchrun: Torchrun, home: Path, corpus: str
) -> None:
    process = torchrun(*options(corpus, **LONG), "--name", "run")
    until(saved(home))
    pids = ranks_of(process.pid)
    began = time.monotonic()
    os.kill(pids[rank], number)
    until(lambda: ended(pids[1 - rank]), 30)
    assert time.monotonic() - began < 30
    if number == signal.SIGSTOP:  # torchrun waits for it to end, and then kills it
        os.kill(pids[rank], signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search(r"^error: .*(another rank ended or cannot be reached|nothing was heard of rank)", said, re.M), said
    assert re.search(r"^hint: resume it.* train --resume run$", said, re.MULTILINE), said
    trained_with(torchrun, "--resume", "run", "--steps", str(Run(home / "run").about()["step"] + 3))


@pytest.mark.long
@pytest.mark.parametrize(
    ("rank", "named"),
    [(0, True), (1, False)],
)
def test_torchrun_restarts_a_run_from_its_last_checkpoint(
    named: bool, rank: int, torchrun: Torchrun, home: Path, corpus: str
) -> None:
    name = ("--name", "run") if named else ()
    process = torchrun(*options(corpus, **LONG), *name, options=("--max-restarts", "1"))
    until(lambda: any(home.glob("*/run.json")))
    run = Run(next(home.glob("*/run.json")).parent)
    before = ranks_of(process.pid)
    os.kill(before[rank], signal.SIGKILL)
    until(lambda: len(ranks_of(process.pid)) == 2 and not set(ranks_of(process.pid).values()) & set(before.values()))
    step = run.about()["step"]
    until(saved(home, run.name, step))
    os.kill(ranks_of(process.pid)[0], signal.SIGTERM)
    process.communicate(timeout=60)
    assert [path.parent for path in home.glob("*/run.json")] == [run.path]
    steps = [row["step"] for row in run.rows("metrics.jsonl")]
    assert steps == sorted(set(steps))


@pytest.mark.long
def test_another_text_on_another_rank_is_refused_for_all(
    torchrun: Torchrun, home: Path, corpus: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "if os.environ['RANK'] == '1':\n"
        f"    os.environ['CHARRNN_HOME'] = {str(tmp_path / 'other')!r}\n"
        "    other = pathlib.Path(sys.argv[2]).with_name('folder') / 'text.txt'\n"
        "    os.chdir(other.parent)\n"
        "from charrnn.cli import main\n"
        "main()\n"
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text.txt").write_text(Path(corpus).read_text(encoding="utf-8")[::-1], encoding="utf-8")
    process = torchrun(*options("text.txt"), "--name", "run", program=str(program))
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search(r"^error: rank 1 on .* cannot train: ", said, re.MULTILINE), said
    assert not (home / "run").exists()


@pytest.mark.gpu
def test_ranks_on_gpus_learn_what_one_process_learns(
    torchrun: Torchrun, trained: Callable[..., Run], home: Path, corpus: str
) -> None:
    n = torch.cuda.device_count()
    trained_with(torchrun, *options(corpus, device="cuda", engine="loop"), "--name", "many", n=min(n, 4))
    alone = trained("alone", engine="loop", device="cuda", seed=3)
    for row, expected in zip(Run(home / "many").rows("metrics.jsonl"), alone.rows("metrics.jsonl"), strict=True):
        assert row["val_nats"] == pytest.approx(expected["val_nats"], abs=1e-4)


# As on machines of their own


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts with a network."""
    with network(2) as hosts:
        yield hosts


@contextmanager
def on_hosts(hosts: list[Host], tmp_path: Path, *arguments: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start torchrun on every host, each with a home of its own; what is left at the end is killed."""
    begun = []
    for host in hosts:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "eth0"}
        environment["CHARRNN_HOME"] = str(tmp_path / f"home{host.number}")
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "a"]
        command += ["--rdzv-endpoint", f"{hosts[0].address}:29400", "--local-addr", host.address]
        # The system does not know the addresses of a namespace.
        command += ["--rdzv-conf", f"is_host={int(host is hosts[0])}"]
        command += [str(ROOT / "cli.py"), "train", *arguments]
        begun.append(
            subprocess.Popen(
                host.command(*command),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=tmp_path,
            )
        )
    try:
        yield begun
    finally:
        for process in begun:
            for pid in ranks_of(process.pid).values():
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.hosts
def test_two_hosts_train_one_model(hosts: list[Host], tmp_path: Path, corpus: str) -> None:
    with on_hosts(hosts, tmp_path, *options(corpus), "--name", "run") as processes:
        said = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    runs = [path.parent for path in tmp_path.glob("home?/run/run.json")]
    assert len(runs) == 1
    assert Run(runs[0]).about()["made_with"]["ranks"] == 2


@pytest.mark.long
@pytest.mark.hosts
def test_a_network_that_is_gone_ends_both_sides_with_the_command_that_resumes(
    hosts: list[Host], tmp_path: Path, corpus: str
) -> None:
    with on_hosts(hosts, tmp_path, *options(corpus, **LONG), "--name", "run") as processes:
        until(lambda: any(tmp_path.glob("home?/run/run.json")))
        pids = [pid for process in processes for pid in ranks_of(process.pid).values()]
        assert len(pids) == 2
        hosts[1].cut_off()
        until(lambda: all(ended(pid) for pid in pids), 30)
        for process in processes:  # torchrun itself waits longer for the other side
            process.kill()
        said = "".join(process.communicate(timeout=60)[1] for process in processes)
        assert len(re.findall(r"^hint: resume it.* train --resume run$", said, re.MULTILINE)) == 2, said
