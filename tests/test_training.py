"""Training: the streams, the carried state, exact resuming and repeating, schedules, budgets."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config, decided
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api, cells, engines
from charrnn.errors import CharRNNError
from charrnn.text.corpus import Streams, prepare
from charrnn.training import events, final_scores, loop, resolve, sizing, training_state
from charrnn.training import trainer as trainer_module
from charrnn.training.config import Config
from charrnn.training.early_stopping import PAST_BEST_NATS, stops
from charrnn.training.learning_rate import learning_rate
from charrnn.training.optimizers import OPTIMIZERS
from charrnn.training.run import Run
from charrnn.training.settings import Plan
from charrnn.training.speed import Machine
from charrnn.training.start import initial_weights
from charrnn.training.trainer import Trainer

TrainedRun = Callable[..., Run]


# Streams


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 50))
def test_an_epoch_of_streams_covers_every_id_in_order(n: int, batch: int, window: int) -> None:
    ids = np.arange(n, dtype=np.uint16)
    streams = Streams(ids, batch, window, start=9999)
    seen = [streams.at(step) for step in range(streams.steps_per_epoch)]
    targets = np.concatenate([targets for _, targets, _ in seen])
    inputs = np.concatenate([inputs for inputs, _, _ in seen])
    assert set(targets.ravel()) == set(range(n))
    assert (np.diff(targets, axis=0) == 1).all()  # each stream is contiguous
    assert (inputs == np.where(targets == 0, 9999, targets - 1)).all()  # and an input is what comes before its target
    assert all(len(t) <= window for _, t, _ in seen)
    assert [begins for _, _, begins in seen] == [True] + [False] * (len(seen) - 1)


def test_the_batch_of_a_step_is_a_pure_function_of_the_step() -> None:
    streams = Streams(np.arange(1000, dtype=np.uint16), 4, 16, start=5000)
    for step in (0, 7, streams.steps_per_epoch, 3 * streams.steps_per_epoch + 2):
        for a, b in zip(streams.at(step), streams.at(step % streams.steps_per_epoch), strict=True):
            assert np.array_equal(a, b)


# The carried state


@pytest.mark.slow
def test_a_task_that_only_the_carried_state_can_solve_is_solved(tmp_path: Path) -> None:
    # The letter before '-' decides the one after it. A window of one character shows the model '-' and no more.
    text = "".join(f"{letter}-{letter.upper()}" for letter in np.random.default_rng(0).choice(list("ab"), 700))
    (tmp_path / "task.txt").write_text(text)
    settings: dict[str, Any] = {"cell": "lstm", "hidden": 64, "embedding": 16, "batch": 32, "window": 1, "lr": 1e-2}
    model = api.train(tmp_path / "task.txt", steps=1000, validate_every=1000, **settings)
    ids = model.tokenizer.encode(text)
    assert model.score_ids(ids).per_char[2::3].mean() < 0.05
    assert model.score_ids(ids, "cold").per_char[2::3].mean() > np.log(2)  # no better than a coin toss


def test_the_state_begins_anew_where_the_streams_wrap(corpus: str) -> None:
    trainer = _trainer(corpus, steps=400, batch=8, window=64, precision="float32", weight_dropout=0.0)
    per_epoch = trainer.streams.steps_per_epoch
    for _ in range(per_epoch):
        trainer.update()
    carried = [s.clone() for layer in trainer.state for s in layer]
    assert all(s.abs().max() > 0 for s in carried)
    inputs, _, begins = trainer.streams.at(trainer.step)
    assert begins
    with torch.no_grad():
        _, expected = trainer.model(torch.from_numpy(inputs), trainer.model.start(8))
    trainer.update()
    for layer, wanted in zip(trainer.state, expected, strict=True):
        for a, b in zip(layer, wanted, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_gradients_stop_at_the_window(corpus: str) -> None:
    trainer = _trainer(corpus)
    trainer.update()
    assert all(not s.requires_grad for layer in trainer.state for s in layer)


# Exact resuming and repeating


# One stands for all; what the others share is tried at any step by test_crashes.py.
RESUMED: dict[str, Any] = {"lstm": (), "layernorm-lstm": pytest.mark.slow, "mingru": pytest.mark.slow}


@pytest.mark.parametrize(
    "cell", [pytest.param(name, marks=RESUMED.get(name, pytest.mark.long)) for name in cells.names()]
)
def test_resuming_in_a_new_process_changes_nothing_at_all(cell: str, corpus: str, tmp_path: Path) -> None:
    settings = {"cell": cell, "layers": 2, "dropout": 0.3, "residual": True}
    whole = Run(tmp_path / "whole")
    list(loop.new_run(config(corpus, **settings), whole))
    parts = Run(tmp_path / "parts")
    *_, last = loop.new_run(config(corpus, **settings), parts, stop=_after(7))
    assert isinstance(last, events.Stopped)
    assert parts.about()["step"] == 7
    if cell == "lstm":  # one cell pays for a real process; the others start from the same files
        code = (
            "import sys, pathlib, torch; from charrnn.training import loop; torch.set_num_threads(1);"
            "from charrnn.training.run import Run;"
            "list(loop.resume(Run(pathlib.Path(sys.argv[1]))))"
        )
        subprocess.run([sys.executable, "-c", code, str(parts.path)], check=True)
    else:
        list(loop.resume(parts))
    _assert_same(whole, parts)


def test_resuming_twice_and_at_a_validation_changes_nothing(trained: TrainedRun, corpus: str, tmp_path: Path) -> None:
    whole = trained()
    parts = Run(tmp_path / "parts")
    list(loop.new_run(config(corpus), parts, stop=_after(5)))
    list(loop.resume(parts, stop=_after(1)))
    list(loop.resume(parts))
    _assert_same(whole, parts)


def test_resuming_draws_no_weights(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()

    def drawn(*_: Any) -> None:
        raise AssertionError("weights are drawn, which takes long for large cells")

    monkeypatch.setattr(trainer_module, "initial_weights", drawn)
    list(loop.resume(run, steps=run.about()["step"] + 1))


def test_a_run_that_died_goes_on_from_its_last_checkpoint(trained: TrainedRun, corpus: str, tmp_path: Path) -> None:
    whole = trained()
    died = Run(tmp_path / "died")
    for event in loop.new_run(config(corpus), died):
        if isinstance(event, events.Stepped) and event.step == 8:
            break  # nothing is saved: the last checkpoint is of step 5
    assert died.about()["step"] == 5
    died.append("metrics.jsonl", {"step": 8, "torn": True})
    list(loop.resume(died))
    _assert_same(whole, died)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lengthening_a_run_equals_a_longer_run(optimizer: str, trained: TrainedRun) -> None:
    settings = {"schedule": "constant", "optimizer": optimizer, "clip_by": "value", "clip": 0.5, "dropout": 0.2}
    settings |= {"direct": 3, "direct_rows": 50, "direct_rate": 5.0, "direct_dropout": 0.2}
    longer = trained("longer", steps=15, **settings)
    short = trained("short", steps=10, **settings)
    list(loop.resume(short, steps=15))
    for a, b in ((longer.weights(w), short.weights(w)) for w in ("last", "best")):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert _tensors_equal(longer.training_state(), short.training_state())


def test_a_run_repeated_from_its_config_is_the_same_to_the_last_byte(corpus: str, tmp_path: Path) -> None:
    first, again = Run(tmp_path / "first"), Run(tmp_path / "again")
    list(loop.new_run(config(corpus, budget=4.0, validate_every=None), first))
    written = (first.path / "config.json").read_text()
    assert json.loads(written)["plan"]  # what was decided by timing is in it
    list(loop.new_run(Config.from_json(written, "config.json"), again))
    _assert_same(first, again)
    assert written == (again.path / "config.json").read_text()


def test_a_changed_corpus_is_refused_unless_its_copy_is_there(corpus: str, trained: TrainedRun, home: Path) -> None:
    run = trained(steps=10)
    Path(corpus).write_text("another text altogether, and long enough to train on")
    list(loop.resume(run, steps=11))  # the private copy is what was trained on
    for file in (home / ".corpora").rglob("text.utf8"):
        file.unlink()
    with pytest.raises(CharRNNError, match="not the text"):
        list(loop.resume(run, steps=12))


def test_training_leaves_the_global_random_state_alone(corpus: str, trained: TrainedRun) -> None:
    torch.manual_seed(3)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    trained(dropout=0.5)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(before_numpy, np.random.get_state()[1])  # type: ignore[index]


# Budgets, lengths, schedules


@pytest.mark.timing
def test_a_budget_is_kept(corpus: str) -> None:
    began = time.monotonic()
    api.train(corpus, hidden=32, budget="6s")
    took = time.monotonic() - began
    assert 4 < took < 6.6  # longer budgets are measured, not tested


def test_a_short_budget_is_not_spent_on_scores(tmp_path: Path) -> None:
    """Of a text of any length: so many characters of a part are scored as a budget has room for."""
    assert [final_scores.most_ids(seconds) for seconds in (3, 60, 180, 3600, None)] == [
        20_000,
        120_000,
        360_000,
        1_000_000,
        1_000_000,
    ]
    text = "".join(f"{n} bottles stood on the wall, and {n // 7} fell.\n" for n in range(20_000))
    (tmp_path / "long.txt").write_text(text)
    run = api.train(tmp_path / "long.txt", out=tmp_path / "run", hidden=32, direct=0, budget="3s").run
    assert run is not None
    assert len(text) > 800_000  # a tenth of it is longer than what is scored
    assert len(run.losses()["test"]) == pytest.approx(20_000, rel=0.01)
    whole = api.load(run).score(text[len(text) * 9 // 10 :]).nats
    assert run.about()["result"]["test_nats"] == pytest.approx(whole, rel=0.01)


def test_a_run_with_a_budget_ends_where_its_plan_says(corpus: str) -> None:
    model = api.train(corpus, hidden=32, budget="3s")
    assert model.run is not None
    plan = model.config.plan
    assert plan[-1][1] == model.run.about()["step"]


def test_a_long_budget_is_planned_before_a_short_text_is_read_too_often(corpus: str, tmp_path: Path) -> None:
    """Else all passes that do any good would be over, at the peak of the rate, before steps were timed enough."""
    run = Run(tmp_path / "run")
    with contextlib.closing(loop.new_run(config(corpus, budget=600.0), run)) as told:
        planned = next(event for event in told if isinstance(event, events.Planned))
        (plan,) = run.config().plan
    assert plan.since < 100
    assert planned.epochs <= sizing.MOST_WITH_DROPPED_WEIGHTS


def test_epochs_are_passes_over_the_training_part(corpus: str, trained: TrainedRun) -> None:
    run = trained(epochs=2)
    corpus_ids = prepare(run.config(), run.tokenizer()).ids("train")
    assert run.about()["characters"] == pytest.approx(2 * len(corpus_ids), rel=0.01)


def test_a_plan_changes_the_rate_from_its_step_on_alone() -> None:
    base = decided(warmup=10, lr=1.0, plan=[(0, 100, 10)])
    later = base.planned(Plan(50, 60, 10))
    rates = [[learning_rate(c, k, 10) for k in range(60)] for c in (base, later)]
    assert rates[0][:50] == rates[1][:50]
    assert rates[0][50:] != rates[1][50:]


def test_schedules_rise_then_fall_as_they_say() -> None:
    cosine = decided(warmup=10, lr=1.0, plan=[(0, 100, 10)])
    rates = [learning_rate(cosine, k, 10) for k in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert all(np.diff(rates[10:]) < 0)
    assert rates[-1] < 0.001
    step = decided(warmup=0, lr=1.0, schedule="step", decay=0.5, decay_after=2)
    assert [learning_rate(step, k, 10) for k in (0, 29, 30, 40)] == [1.0, 1.0, 0.5, 0.25]
    constant = decided(warmup=0, lr=1.0, schedule="constant")
    assert {learning_rate(constant, k, 10) for k in range(200)} == {1.0}


def test_early_stopping_ends_a_run_past_its_best_and_keeps_its_best(corpus: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    settings = {"hidden": 64, "lr": 3e-2, "schedule": "constant", "steps": 3000, "validate_every": 20, "patience": 3}
    told = list(loop.new_run(config(corpus, **settings), run))
    (early,) = (event for event in told if isinstance(event, events.StoppedEarly))
    assert isinstance(told[-1], events.Finished)
    assert early.run == run
    rows = run.rows("metrics.jsonl")
    values = [row["val_nats"] for row in rows]
    assert rows[-1]["step"] == early.step < 3000
    assert values.index(min(values)) == len(values) - 1 - 3 or values[-2] < min(values) + PAST_BEST_NATS
    assert run.about()["files"]["best"]["name"] == f"model-{rows[values.index(min(values))]['step']:08d}.safetensors"
    with pytest.raises(CharRNNError, match="complete"):
        list(loop.resume(run))


def test_a_run_that_stopped_early_and_was_given_more_steps_is_as_patient_again() -> None:
    told = [2.6, 2.3, 2.4, 2.4, 2.4]
    assert [stops(told[:n], 3) for n in range(1, 6)] == [False, False, False, False, True]
    more = [2.4, 2.5, 2.5, 2.5]
    assert [stops(told + more[:n], 3) for n in range(1, 5)] == [False, False, False, True]
    assert stops([2.3, None, None, None], 3)
    assert not stops([], 1)


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_made(corpus: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(CharRNNError, match="GB of memory"):
        list(loop.new_run(config(corpus, hidden=10**6), run))
    assert not run.exists()


def test_clipping_by_norm_and_by_value_bound_what_they_say(corpus: str) -> None:
    for by, bound in (("norm", 0.01), ("value", 0.001)):
        trainer = _trainer(corpus, clip=bound, clip_by=by)
        trainer.update()
        grads = torch.cat([w.grad.ravel() for w in trainer.model.weights.values() if w.grad is not None])
        measured = grads.norm() if by == "norm" else grads.abs().max()
        assert measured == pytest.approx(bound, rel=1e-4)


def test_a_diverged_run_keeps_its_best_weights_and_valid_json(trained: TrainedRun) -> None:
    run = trained(lr=1e30, clip=0, steps=10, validate_every=1, warmup=0, schedule="constant")
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert run.about()["files"]["best"]["name"] == "model-00000001.safetensors"


def test_bf16_products_train_to_nearly_the_same_loss(trained: TrainedRun) -> None:
    losses = [trained(p, precision=p, steps=60, lr=1e-2).about()["result"]["val_nats"] for p in ("float32", "bf16")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)  # 8 bits of mantissa: about 1 % of a loss of 3 nats


ONE_OF_EACH_KIND = {tuple(engines.names_for(cells.get(name))): name for name in cells.names()}


@pytest.mark.parametrize("cell", sorted(ONE_OF_EACH_KIND.values()))
def test_with_bf16_products_weights_and_state_stay_float32_and_resuming_stays_exact(
    cell: str, corpus: str, tmp_path: Path
) -> None:
    settings = {"cell": cell, "layers": 2, "precision": "bf16", "dropout": 0.2}
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    list(loop.new_run(config(corpus, **settings), whole))
    list(loop.new_run(config(corpus, **settings), parts, stop=_after(7)))
    list(loop.resume(parts))
    _assert_same(whole, parts)
    stored = {**whole.weights("last"), **whole.training_state()}
    numbers = (v for name, v in stored.items() if not name.startswith("sums/") and name != training_state.REMEMBERED)
    assert {str(v.dtype) for v in numbers} == {"float32"}


@pytest.mark.gpu
def test_training_on_cuda_matches_the_cpu(trained: TrainedRun) -> None:
    results = [trained(d, device=d, precision="float32").about()["result"]["val_nats"] for d in ("cpu", "cuda")]
    assert results[0] == pytest.approx(results[1], abs=1e-3)


def _after(steps: int) -> Callable[[], bool]:
    calls = iter(range(1, 10**6))
    return lambda: next(calls) >= steps


def _trainer(corpus: str, **changes: Any) -> Trainer:
    asked = config(corpus, **changes)
    encoded = prepare(asked)
    return Trainer(resolve.resolve(asked, encoded, Machine(asked, encoded)), encoded)


def _tensors_equal(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def _assert_same(a: Run, b: Run) -> None:
    """Weights, moments, carried state, metrics and samples are equal, bit for bit."""
    assert _tensors_equal(a.weights("last"), b.weights("last"))
    assert _tensors_equal(a.weights("best"), b.weights("best"))
    assert _tensors_equal(a.training_state(), b.training_state())
    assert (a.path / "metrics.jsonl").read_bytes() == (b.path / "metrics.jsonl").read_bytes()
    timed = ("run", "seconds", "chars_per_s")
    results = [{k: v for k, v in r.about()["result"].items() if k not in timed} for r in (a, b)]
    assert results[0] == results[1]
    assert api.load(a).complete("Re", 40) == api.load(b).complete("Re", 40)


def test_the_order_in_which_a_file_gives_weights_changes_nothing(corpus: str) -> None:
    settings = config(corpus, clip=0.01)
    text = prepare(settings)
    decided = resolve.resolve(settings, text, Machine(settings, text))
    weights = initial_weights(decided, text)
    found = []
    for order in (sorted(weights), sorted(weights, reverse=True)):
        trainer = Trainer(decided, text, {name: weights[name] for name in order})
        for _ in range(5):
            trainer.update()
        assert list(trainer.model.weights) == list(trainer.architecture.shapes())
        found.append(trainer.weights())
    assert all(np.array_equal(found[0][name], found[1][name]) for name in weights)
