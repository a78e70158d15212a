"""Steps that a GPU repeats as one are the steps of training: their logic, with a stand-in for what torch records.

The stand-in calls the recorded work again. Meanwhile the trainer knows nothing of its step, text and state: whatever
the work needs of them must be in the tensors that it was recorded with.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config

from charrnn import engines
from charrnn.engines import cuda
from charrnn.errors import NotRecordedWarning
from charrnn.model import direct
from charrnn.model.architecture import Weights
from charrnn.model.direct import summed
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Corpus, prepare
from charrnn.training import candidates, loop, resolve
from charrnn.training.candidates import Candidate
from charrnn.training.graphed import GraphedSteps
from charrnn.training.loop import Trainer
from charrnn.training.run import Run
from charrnn.training.speed import Machine
from charrnn.training.waiting import Waiting

STEPS = 14  # more than an epoch, so that streams begin anew, and windows of both lengths come


class Recorder:
    """Stands in for torch.cuda: records work without doing it. count: of recordings."""

    def __init__(self) -> None:
        self.count, self.trainer = 0, None  # type: int, Any

    def __call__(
        self, work: Callable[[], None], warm_up: Callable[[], object], generator: Any = None, pool: Any = None
    ) -> Callable[[], None]:
        self.count += 1
        for _ in range(cuda.WARM_UPS):
            warm_up()

        def repeat() -> None:
            hidden = {name: getattr(self.trainer, name) for name in ("step", "streams", "state", "corpus")}
            for name in hidden:
                delattr(self.trainer, name)
            work()
            vars(self.trainer).update(hidden)

        return repeat


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    stand_in = Recorder()
    monkeypatch.setattr(cuda, "recorded", stand_in)
    monkeypatch.setattr(cuda, "memory_pool", lambda: None)
    return stand_in


def take_recorded_steps(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every trainer does."""
    begin = Trainer.__init__

    def with_graph(trainer: Trainer, *given: Any, **more: Any) -> None:
        begin(trainer, *given, **more)
        trainer.graphed, recorder.trainer = GraphedSteps(trainer), trainer

    monkeypatch.setattr(Trainer, "__init__", with_graph)


@pytest.fixture(autouse=True)
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read tables of direct connections as a GPU does: their gradients have all rows."""
    monkeypatch.setattr(CharRNN, "keeps_read", property(lambda _: False, lambda *_: None), raising=False)
    monkeypatch.setattr(direct, "summed", lambda table, rows, shares, sparse: summed(table, rows, shares, False))


@pytest.fixture
def graphed(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    take_recorded_steps(recorder, monkeypatch)
    return recorder


def settled(corpus: str, **changes: Any) -> tuple[Any, Corpus]:
    asked = config(corpus, **{"steps": STEPS, "layers": 2, "engine": "loop", "batch": 8, "window": 9, **changes})
    text = prepare(asked)
    return resolve.resolve(asked, text, Machine(asked, text)), text


def trained(settings: Any, text: Corpus, steps: int = STEPS) -> tuple[list[float], Weights, Trainer]:
    """Return losses, weights and the trainer after some steps, at rates that float32 has exactly."""
    trainer = Trainer(settings, text)
    rates = [float(np.float32(trainer.rate(step))) for step in range(steps)]
    losses = [float(trainer.advance(rate)) for rate in rates]
    return losses, trainer.weights(), trainer


def same(a: Weights, b: Weights) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.4, "cell": "gru"},
        {"weight_dropout": 0.4, "cell": "lstm"},
        {"optimizer": "rmsprop", "dropout": 0.2},
        {"precision": "bf16", "cell": "mingru", "engine": "scan", "residual": True},
        {"clip": None, "cell": "indrnn"},
        {"direct": 4, "direct_rows": 64, "direct_dropout": 0.4},
        {"direct": 30, "direct_rows": 64, "optimizer": "rmsprop", "dropout": 0.2},
        {"direct": 1, "direct_rows": 64, "precision": "bf16", "cell": "mingru", "engine": "scan"},
    ],
)
def test_recorded_steps_are_those_of_training(
    changes: dict[str, Any], corpus: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, text = settled(corpus, **changes)
    losses, weights, plain = trained(settings, text)
    take_recorded_steps(recorder, monkeypatch)
    found, found_weights, graphed = trained(settings, text)
    lengths = {len(plain.streams.at(step)[0]) for step in range(STEPS)}
    assert len(set(found)) == STEPS
    assert recorder.count == len(lengths)
    assert found == losses
    assert same(found_weights, weights)
    for a, b in zip(plain.state, graphed.state, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
        assert all(one.dtype == other.dtype for one, other in zip(a, b, strict=True))
    assert plain.train_nats() == graphed.train_nats()


@pytest.mark.parametrize("orders", [0, 3])
def test_a_run_of_recorded_steps_resumes_to_the_last_bit(
    orders: int, corpus: str, tmp_path: Path, graphed: Recorder
) -> None:
    tables = {"direct": orders, "direct_rows": 64, "direct_dropout": 0.2} if orders else {}
    asked = config(corpus, dropout=0.3, engine="loop", layers=2, **tables)
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    list(loop.new_run(asked, whole))
    calls = iter(range(1, 100))
    list(loop.new_run(asked, parts, stop=lambda: next(calls) >= 7))
    list(loop.resume(parts))
    assert graphed.count >= 3
    files = [{which: file["sha256"] for which, file in run.about()["files"].items()} for run in (whole, parts)]
    assert files[0] == files[1]
    assert (whole.path / "metrics.jsonl").read_bytes() == (parts.path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("has_shares", [False, True])
def test_what_a_gpu_reads_of_tables_and_its_gradient_are_those_of_a_cpu(has_shares: bool) -> None:
    rng = np.random.default_rng(1)
    rows, values = torch.tensor(rng.integers(0, 40, (3, 9, 5))), rng.standard_normal((60, 7))
    shares = torch.tensor(rng.integers(0, 3, (3, 5)) / 2) if has_shares else None
    wished, found = torch.tensor(rng.standard_normal((9, 5, 7))), []
    for sparse in (True, False):
        table = torch.tensor(values, requires_grad=True)
        said = summed(table, rows, shares, sparse)
        torch.autograd.backward((said * wished).sum())
        assert table.grad is not None
        assert table.grad.is_sparse == sparse
        found.append((said.detach(), table.grad.to_dense() if sparse else table.grad))
    assert torch.allclose(
        found[0][0], torch.tensor(values)[rows].mul(1 if shares is None else shares[:, None, :, None]).sum(0)
    )
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)


def test_what_is_put_back_is_what_goes_on(corpus: str, graphed: Recorder) -> None:
    settings, text = settled(corpus)
    _, _, trainer = trained(settings, text, 5)
    weights, moments = trainer.weights(), {name: m.clone() for name, m in trainer.optimizer.moments.items()}
    state, step = tuple(tuple(s.clone() for s in layer) for layer in trainer.state), trainer.step
    expected = [float(trainer.advance(0.125)) for _ in range(3)]
    recordings = graphed.count
    trainer.take(weights)
    trainer.optimizer.restore(moments)
    trainer.state, trainer.step = state, step
    assert [float(trainer.advance(0.125)) for _ in range(3)] == expected
    assert graphed.count > recordings  # moments are other tensors now
    assert all(torch.equal(a, b) for a, b in zip(state[0], tuple(s for s in state[0]), strict=True))


def test_a_loss_stays_what_it_was(corpus: str, graphed: Recorder) -> None:
    settings, text = settled(corpus)
    _, _, trainer = trained(settings, text, 1)
    losses = [trainer.advance(0.01) for _ in range(3)]
    assert len({float(loss) for loss in losses}) == 3


def test_a_window_in_which_documents_begin_is_not_recorded(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("\n\n".join(f"poem {n}: " + "so it goes " * (n % 5) for n in range(90)), encoding="utf-8")
    settings, text = settled(str(path), document="blank")
    losses, weights, plain = trained(settings, text)
    whole = [step for step in range(STEPS) if not plain.streams.cuts(plain.streams.at(step)[0])]
    assert 0 < len(whole) < STEPS
    take_recorded_steps(recorder, monkeypatch)
    found, found_weights, _ = trained(settings, text)
    assert recorder.count <= len(whole)
    assert found == losses
    assert same(found_weights, weights)


def test_what_cannot_be_recorded_is_done_piece_by_piece_and_said(
    corpus: str, graphed: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, text = settled(corpus, dropout=0.2)
    losses, weights, _ = trained(settings, text)

    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda, "recorded", refuse)
    with pytest.warns(NotRecordedWarning, match="cannot be recorded on this GPU .operation not permitted"):
        found, _, trainer = trained(settings, text, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        found += [float(trainer.advance(float(np.float32(trainer.rate(step))))) for step in range(1, STEPS)]
    assert found == losses
    assert same(trainer.weights(), weights)


def test_memory_that_does_not_suffice_is_not_taken_for_that(
    corpus: str, graphed: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda, "recorded", refuse)
    settings, text = settled(corpus)
    with pytest.raises(torch.OutOfMemoryError):
        trained(settings, text, 1)


def test_on_a_gpu_engines_are_compared_by_whole_recorded_steps(
    corpus: str, graphed: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, text = settled(corpus, engine="auto", cell="mingru")
    machine = Machine(settings.as_settings().replace(engine="auto", threads=None), text)
    monkeypatch.setattr(machine, "device", "cuda")
    monkeypatch.setattr(engines, "names_for", lambda cell, device: ["scan", "loop"] if device == "cuda" else [])
    asked = settings.as_settings().replace(engine="auto", precision="auto", threads=None)
    monkeypatch.setattr(machine, "precision", "bf16")
    known = machine.candidates(asked)
    assert known == [Candidate(name, "bf16", machine.threads) for name in ("scan", "loop")]
    waited, steps = list[str](), candidates.Steps(settings, text, Waiting())
    monkeypatch.setattr(cuda, "wait", waited.append)
    for candidate in known:
        steps.prepare(candidate)
        assert graphed.count > 0
        recordings = graphed.count
        steps.timed(candidate, None)
        assert graphed.count - recordings <= 1
    assert waited == ["cpu"] * 4

    def timed(candidate: Candidate, characters: int | None) -> float:
        assert characters is None
        return 1.0 if candidate.engine == "scan" else 2.0

    found = candidates.compare(known, 16, timed, 5.0, stages=candidates.ON_A_GPU)
    assert list(found) == known
