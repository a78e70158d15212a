"""What is dropped while training: outputs for a window or a character, and weights between states."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config, decided

from charrnn import cells
from charrnn.compiler.trace import state_matrices
from charrnn.errors import OptionError
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN, Dropout, Part
from charrnn.text.corpus import prepare
from charrnn.training import events, loop
from charrnn.training.config import Config
from charrnn.training.resolve import resolve
from charrnn.training.run import Run
from charrnn.training.speed import Machine
from charrnn.training.trainer import Trainer

T, B, H = 12, 5, 40
SHARE = 0.5


def model(cell: str, dropout: Dropout, engine: str = "loop") -> CharRNN:
    """A model whose logits are what its layer gives out, as it is after dropout."""
    architecture = Architecture(cell, H, H, 1, 8)
    weights = dict(architecture.initial(seed=3))
    weights["head.W"], weights["head.b"] = np.eye(H, dtype=np.float32), np.zeros(H, np.float32)
    return CharRNN(architecture, weights, engine, dropout)


def outputs(model: CharRNN, seed: int | None = None) -> torch.Tensor:
    ids = torch.arange(T * B).reshape(T, B) % H
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return model(ids, model.start(B), generator)[0]


def masks(dropout: Dropout) -> torch.Tensor:
    dropped = model("lstm", dropout)
    return outputs(dropped, seed=1) / outputs(dropped)


@pytest.mark.parametrize("per_window", [True, False])
def test_rows_that_are_a_part_have_the_masks_that_they_have_in_all(per_window: bool) -> None:
    dropping, rows = model("lstm", Dropout(SHARE, per_window, 0.3)), slice(1, 3)
    ids = torch.arange(T * B).reshape(T, B) % H
    with torch.no_grad():
        generator = torch.Generator().manual_seed(9)
        part, _ = dropping(ids[:, rows], dropping.start(2), generator, part=Part(rows, B))
    whole = outputs(dropping, seed=9)[:, rows]
    assert torch.equal(part == 0, whole == 0)
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=0)


def test_a_feature_is_dropped_for_a_window_or_for_a_character() -> None:
    of_window, of_character = masks(Dropout(SHARE)), masks(Dropout(SHARE, per_window=False))
    for found in (of_window, of_character):
        assert {round(float(each), 4) for each in found.flatten()} == {0.0, 1 / (1 - SHARE)}
    assert (of_window == of_window[:1]).all()
    assert (of_character != of_character[:1]).any()
    assert not torch.equal(of_window[0, 0], of_window[0, 1])  # every row has its own
    assert 0.3 < float((of_window[0] == 0).float().mean()) < 0.7


@pytest.mark.parametrize("per_window", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
def test_as_large_a_share_is_dropped_as_was_asked_for_and_the_mean_stays(share: float, per_window: bool) -> None:
    dropping = model("lstm", Dropout(share, per_window))
    whole = outputs(dropping)[0]
    ratios = torch.stack([outputs(dropping, seed)[0] / whole for seed in range(300)])
    gone = (ratios == 0).float()
    assert float(gone.mean()) == pytest.approx(share, abs=0.01)
    assert float(ratios.max()) == pytest.approx(1 / (1 - share), rel=1e-4)
    for apart in (1, 2, 3, 4):  # features that are drawn by one random number are independent of each other too
        both = (gone - share)[..., apart:] * (gone - share)[..., :-apart]
        assert float(both.mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("share", [1e-4, 1e-5, 1e-6, 1e-9])
def test_the_smallest_share_drops_next_to_nothing(share: float) -> None:
    dropping = model("lstm", Dropout(share, weights=share))
    logits = torch.stack([outputs(dropping, seed) for seed in range(20)])
    assert float((logits == 0).float().mean()) < 0.01
    assert float((logits - outputs(dropping)).abs().mean()) < 0.01 * float(outputs(dropping).abs().mean())


@pytest.mark.parametrize("engine", ["loop", "fused", "native"])
def test_weights_between_states_are_dropped_for_a_window(engine: str) -> None:
    dropped = model("nn.GRU", Dropout(weights=SHARE), engine)
    weights = {n: w.detach().numpy() for n, w in dropped.weights.items()}
    alone = CharRNN(dropped.architecture, weights, engine, Dropout(weights=SHARE))
    W = alone.weights["layers.0.W_hh"]
    ids = torch.arange(T * B).reshape(T, B) % H
    logits, _ = alone(ids, alone.start(B), torch.Generator().manual_seed(4))
    torch.autograd.backward(logits.sum())
    assert W.grad is not None
    kept = (W.grad != 0).numpy()  # a weight that is dropped has no gradient
    assert pytest.approx(kept.mean(), abs=0.05) == 1 - SHARE
    masked = CharRNN(dropped.architecture, {**weights, "layers.0.W_hh": weights["layers.0.W_hh"] * kept * 2}, engine)
    torch.testing.assert_close(outputs(dropped, seed=4), outputs(masked), atol=1e-6, rtol=0)
    assert not torch.equal(outputs(dropped, seed=4), outputs(dropped, seed=5))
    torch.testing.assert_close(outputs(dropped), outputs(model("nn.GRU", Dropout(), engine)), atol=0, rtol=0)


def test_the_weights_between_states_are_known_of_every_cell() -> None:
    known = {"nn.LSTM": {"W_hh"}, "gru": {"U", "V"}, "rnn": {"V"}, "rhn": {"R"}, "mingru": set(), "indrnn": set()}
    for name in cells.names():
        cell = cells.get(name)
        found = state_matrices(cell, {})
        assert found <= set(cell.parameter_names)
        assert all(len(cell.shapes(3, 8)[each][0]) > 1 for each in found)
        assert found == known.get(name, found)


def trainer(corpus: str, **changes: Any) -> Trainer:
    settings = config(corpus, **changes)
    text = prepare(settings)
    return Trainer(resolve(settings, text, Machine(settings, text)), text)


def test_engines_learn_the_same_with_weights_dropped(corpus: str) -> None:
    losses = {}
    for engine in ("loop", "native"):
        one = trainer(corpus, cell="lstm", engine=engine, dropout=0.2, weight_dropout=0.4, layers=2)
        losses[engine] = [float(one.update()) for _ in range(5)]
    assert losses["native"] == pytest.approx(losses["loop"], abs=1e-5)
    plain = trainer(corpus, cell="lstm", engine="loop", dropout=0.2, weight_dropout=0.0, layers=2)
    assert [float(plain.update()) for _ in range(5)] != pytest.approx(losses["loop"], abs=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_with_weights_dropped_a_run_resumes_to_the_last_bit(dropout: float, corpus: str, tmp_path: Any) -> None:
    asked = config(corpus, cell="nn.GRU", dropout=dropout, weight_dropout=0.3)
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    list(loop.new_run(asked, whole))
    calls = iter(range(100))
    *_, last = loop.new_run(asked, parts, stop=lambda: next(calls) >= 6)
    assert isinstance(last, events.Stopped)
    list(loop.resume(parts))
    sums = [{which: file["sha256"] for which, file in run.about()["files"].items()} for run in (whole, parts)]
    assert sums[0] == sums[1]


def test_a_cell_without_such_weights_refuses_to_drop_them_and_the_rule_leaves_them(corpus: str) -> None:
    with pytest.raises(OptionError, match="multiplies its state by no matrix") as caught:
        trainer(corpus, cell="mingru", weight_dropout=0.3)
    assert "--dropout" in caught.value.hint
    often: dict[str, Any] = {"steps": 1000, "dropout": None, "weight_dropout": None}
    assert trainer(corpus, cell="mingru", **often).config.weight_dropout == 0
    there = trainer(corpus, cell="gru", **often).config
    assert 0 < there.weight_dropout < 1
    assert there.dropout > 0


@pytest.mark.parametrize("format_", [1, 2, 3, 4, 5])
def test_older_runs_go_on_with_the_dropout_that_they_had(format_: int) -> None:
    values = {**json.loads(decided(dropout=0.3).to_json()), "format": format_}
    del values["dropout_per"], values["weight_dropout"]
    old = Config.from_json(json.dumps(values), "old")
    assert (old.dropout, old.dropout_per, old.weight_dropout) == (0.3, "character", 0.0)
