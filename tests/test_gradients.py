"""How far back: the gradients are those of the equations, the copy task is what it says, runs are looked at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config

from charrnn import cells
from charrnn.compare import copy_task, gradients, inspection
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]


def model(cell: str, hidden: int = 6) -> CharRNN:
    architecture = Architecture(cell, 20, hidden, embedding=4)
    return CharRNN(architecture, architecture.initial(3), "loop").double()


def test_the_gradient_is_the_product_of_the_steps_that_the_equations_say() -> None:
    # For h' = tanh(x W + h V + b) the gradient one step earlier is V (1 - h'^2) times the gradient now.
    net = model("simple")
    ids = np.random.default_rng(0).integers(0, 20, gradients.LEAD + 12)
    shares = gradients.reach(net, ids, back=10, rows=1)
    V, W, b = (net.weights[f"layers.0.{name}"].detach().numpy() for name in ("V", "U", "b"))
    table, head = net.weights["embedding"].detach().numpy(), net.weights["head.W"].detach().numpy()
    states = [np.zeros(6)]
    for i in ids[:-1]:
        states.append(np.tanh(table[i] @ W + states[-1] @ V + b))
    logits = states[-1] @ head + net.weights["head.b"].detach().numpy()
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    p[ids[-1]] -= 1
    g = head @ p
    lengths = [np.linalg.norm(g)]
    for state in states[:0:-1][:10]:
        g = V @ (g * (1 - state**2))
        lengths.append(np.linalg.norm(g))
    assert shares == pytest.approx(np.array(lengths) / lengths[0], rel=1e-9)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_can_be_looked_at(name: str) -> None:
    shares = gradients.reach(model(name), np.arange(50) % 20, back=8, rows=3)  # a text shorter than one look
    assert shares.shape == (9,)
    assert shares[0] == 1
    assert np.isfinite(shares).all()


def test_tables_that_say_nothing_change_nothing_of_how_far_a_network_sees() -> None:
    plain, ids = model("gru"), np.random.default_rng(0).integers(0, 20, gradients.LEAD + 12)
    architecture = Architecture("gru", 20, 6, embedding=4, direct=3, direct_rows=9)
    with_tables = CharRNN(architecture, architecture.initial(3), "loop").double()
    shares = [gradients.reach(each, ids, back=8, rows=2) for each in (plain, with_tables)]
    assert shares[1] == pytest.approx(shares[0], rel=1e-9)


def test_what_is_to_be_copied_stands_before_the_gap() -> None:
    inputs, said = copy_task.sequences(np.random.default_rng(0), gap=3, rows=5)
    n = copy_task.REMEMBERED
    assert inputs.shape == (2 * n + 3, 5)
    assert (inputs[:n] == said).all()
    assert (inputs[n : n + 3] == copy_task.SYMBOLS).all()
    assert (inputs[n + 3 :] == copy_task.SYMBOLS + 1).all()


@pytest.mark.slow
def test_a_gated_cell_copies_over_a_gap_and_stops_where_it_fails() -> None:
    climb = list(copy_task.climb("gru", 40, gaps=(1, 2), steps=600, lr=1e-2))
    assert [copied.gap for copied in climb] == [1, 2]
    assert all(copied.learned for copied in climb)
    hopeless = list(copy_task.climb("gru", 2, gaps=(5, 10), steps=5))
    assert len(hopeless) == 1
    assert not hopeless[0].learned


def test_a_climb_repeats() -> None:
    once, again = (list(copy_task.climb("gru", 8, gaps=(2,), steps=20)) for _ in range(2))
    assert once == again


def test_the_copy_task_gives_every_cell_as_many_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def climb(cell: str, hidden: int, lr: float, stop: Any) -> Any:
        counts.append(copy_task.architecture(cell, hidden).count())
        return iter([copy_task.Copied(1, 0.5, 1)])

    monkeypatch.setattr(copy_task, "climb", climb)
    for name in ("simple", "gru", "nn.LSTM"):
        assert inspection.copy_climb(name) == ((1, 0.5),)
    assert counts == pytest.approx([inspection.COPY_PARAMETERS] * 6, rel=0.02)  # each with both rates


def test_a_run_is_looked_at_once(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0), (2, 0.4)))
    runs = {"a": trained("a"), "b": trained("b", cell="lstm")}
    *said, found = inspection.inspect_all(runs, tmp_path / "kept.json")
    assert len(said) == 2
    assert [entry.label for entry in found] == ["a", "b"]
    assert found[0].reach == 1
    (again,) = inspection.inspect_all(runs, tmp_path / "kept.json")
    assert [entry.as_dict() for entry in again] == [entry.as_dict() for entry in found]
    assert len(json.loads((tmp_path / "kept.json").read_text())) == 2


def test_a_climb_and_a_look_end_when_asked_and_keep_nothing_unfinished(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(1000))
    assert list(copy_task.climb("gru", 8, gaps=(2,), steps=500, stop=lambda: next(asked) == 3)) == []
    assert next(asked) == 4
    assert inspection.copy_climb("gru", lambda: True) == ()
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ())
    assert list(inspection.inspect_all({"a": trained("a")}, tmp_path / "kept.json", lambda: True)) == [
        "how far back a sees"
    ]
    assert not (tmp_path / "kept.json").exists()


def test_a_diverged_model_is_kept_as_json_without_nan(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0),))
    monkeypatch.setattr(gradients, "reach", lambda *_: np.array([1.0, np.inf, np.nan]))
    runs = {"a": trained("a")}
    (_, _), (found,) = (list(inspection.inspect_all(runs, tmp_path / "kept.json")) for _ in range(2))
    assert "NaN" not in (tmp_path / "kept.json").read_text()
    assert "Infinity" not in (tmp_path / "kept.json").read_text()
    assert np.isnan(found[0].trained).tolist() == [False, True, True]


def test_inspecting_cells_trains_them_and_takes_them_as_they_are_afterwards(corpus: str) -> None:
    torch.manual_seed(0)
    asked: Any = ((corpus,), ["simple"], 8, 3, False, lambda: False)
    first, second = ([x for x in inspection.inspect_cells(*asked) if not isinstance(x, str)] for _ in range(2))
    assert first[0].as_dict() == second[0].as_dict()
    assert first[0].copied == ()
    assert not np.array_equal(first[0].at_start, first[0].trained)
    assert config(corpus).corpus == (corpus,)


def test_cells_are_inspected_without_tables_which_would_learn_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = []
    monkeypatch.setattr(inspection, "carry_out", lambda jobs, *_: inspected.extend(jobs) or iter(()))
    monkeypatch.setattr(inspection, "inspect", lambda *_: None)
    list(inspection.inspect_cells((), ["gru"], 8, 3, False, lambda: False))
    assert [job.config.direct for job in inspected] == [0]
