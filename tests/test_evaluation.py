"""Scores: one stream, every character, the same whatever the window; equal to decoding and to the equations."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from charrnn import api, cells
from charrnn.cells.cell import run_cell
from charrnn.generate import fastest
from charrnn.generate.decoders import Decoders
from charrnn.generate.sampling import cost
from charrnn.generate.scoring import COMPILE_IDS
from charrnn.generate.scoring import costs as costs_of
from charrnn.model import evaluation
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text import documents
from charrnn.text.corpus import prepare
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
TEXT = "Rekurentne mreže čuvaju stanje; 日本 i — crtica."


@pytest.fixture(scope="module")
def weights() -> dict[str, CharRNN]:
    """An untrained model of every cell, two layers, in float64."""
    models = {}
    for cell in cells.names():
        architecture = Architecture(cell, 300, hidden=16, layers=2, embedding=8, residual=True)
        models[cell] = CharRNN(architecture, architecture.initial(3)).double()
    return models


@pytest.mark.parametrize("cell", cells.names())
def test_a_score_is_the_same_whatever_the_window(cell: str, weights: dict[str, CharRNN]) -> None:
    ids = np.random.default_rng(0).integers(0, 300, 257)
    costs = [evaluation.stream_costs(weights[cell].float(), ids, window) for window in (1, 7, 64, 1000)]
    for other in costs[1:]:
        assert np.allclose(costs[0], other, atol=1e-6)


@pytest.mark.parametrize("cell", cells.names())
def test_the_model_is_its_equations(cell: str, weights: dict[str, CharRNN]) -> None:
    model = weights[cell].double()
    w = {name: value.detach().numpy() for name, value in model.weights.items()}
    ids = np.array([300, 5, 17, 5, 299, 0])
    x = w["embedding"][ids]
    for layer in range(2):
        params = {name: w[f"layers.{layer}.{name}"] for name in cells.get(cell).parameter_names}
        y, _ = run_cell(cells.get(cell), x, params)
        x = y + x if layer else y
    expected = x @ w["head.W"] + w["head.b"]
    logits, _ = model(torch.tensor(ids)[:, None], model.start(1))
    assert np.allclose(logits[:, 0].detach().numpy(), expected, atol=1e-12)
    model.float()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"one_hot": True, "embedding": None}, {"tie": True, "embedding": 24}])
@pytest.mark.parametrize("layers", [1, 3])
def test_decoding_scoring_and_training_read_a_prime_alike(
    settings: dict[str, object], layers: int, trained: TrainedRun
) -> None:
    model = api.load(trained(layers=layers, residual=True, dropout=0.1, **settings))
    ids = model.tokenizer.encode(TEXT)
    decoder, state = model.decoder(), model.decoder().start()
    costs = []
    for before, id_ in zip([model.architecture.start, *ids], ids, strict=False):
        logits, state = decoder.step(np.array([before]), state)
        costs.append(cost(logits[0], id_))
    assert np.allclose(costs, evaluation.stream_costs(CharRNN(model.architecture, model.weights), ids), atol=1e-5)
    network = CharRNN(model.architecture, model.weights)
    with torch.no_grad():
        inputs = torch.tensor([model.architecture.start, *ids[:-1].tolist()])[:, None]
        _, expected = network(inputs, network.start(1))
    for layer, wanted in zip(state, expected, strict=True):
        for a, b in zip(layer, wanted, strict=True):
            assert np.allclose(a, b.numpy(), atol=1e-5)


def test_costs_are_of_characters_not_of_bytes(trained: TrainedRun) -> None:
    model = api.load(trained())
    score = model.score(TEXT)
    assert score.characters == len(TEXT)
    assert score.spelled_characters == sum(c not in model.tokenizer.characters for c in TEXT) > 2
    ids = model.tokenizer.encode(TEXT)
    total = evaluation.stream_costs(CharRNN(model.architecture, model.weights), ids).sum()
    assert score.nats * len(TEXT) == pytest.approx(total)
    assert score.bits_per_char == pytest.approx(score.nats / math.log(2))
    assert score.perplexity == pytest.approx(math.exp(score.nats))


def test_an_empty_text_costs_nothing(trained: TrainedRun) -> None:
    assert api.load(trained()).score("").characters == 0


def test_cold_windows_each_start_from_nothing(trained: TrainedRun) -> None:
    model = api.load(trained(steps=40))
    ids = model.tokenizer.encode(TEXT)
    network = CharRNN(model.architecture, model.weights)
    cold = evaluation.cold_costs(network, ids, 10)
    expected = np.concatenate([evaluation.stream_costs(network, ids[i : i + 10]) for i in range(0, len(ids), 10)])
    assert np.allclose(cold, expected, atol=1e-6)
    assert not np.allclose(cold, evaluation.stream_costs(network, ids), atol=1e-3)


def _note(told: list[tuple[str, int, int | None]], *of: Any) -> None:
    told.append(of)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["stream", "cold", "adapt"])
@pytest.mark.parametrize("characters", [50, 9000])
def test_scoring_tells_how_far_it_has_come(mode: evaluation.Mode, characters: int, trained: TrainedRun) -> None:
    """Whatever scores: a long part takes an hour."""
    model = api.load(trained())
    ids = model.tokenizer.encode((TEXT * 200)[:characters])
    for scoring in (model, api.Ensemble((model, model))):
        told: list[tuple[str, int, int | None]] = []
        scoring.score_ids(ids, mode, progress=partial(_note, told))
        assert {(what, total) for what, _, total in told} == {("adapting" if mode == "adapt" else "scoring", len(ids))}
        done = [n for _, n, _ in told]
        assert done.count(len(ids)) == (1 if scoring is model else 2)
        assert done[-1] == len(ids)
        assert len(done) > 2 or characters < 1000 or mode == "cold"


def test_a_speed_that_is_known_puts_no_model_on_a_gpu(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    model = api.load(trained())
    known = {f"score {model.architecture}": {"CPU": 1.0, "GPU": 2.0}}
    monkeypatch.setattr(fastest, "measured", known)
    decoders = Decoders(model.architecture, model.weights, "auto", "float32")
    ids = np.arange(COMPILE_IDS) % 256
    costs = costs_of(decoders, model.config.engine, 64, ids, "stream", documents.NONE)  # where there is no GPU
    assert len(costs) == len(ids)


def test_parallel_streams_come_near_one_stream(trained: TrainedRun) -> None:
    run = trained(steps=60, lr=1e-2)
    model = api.load(run)
    ids = prepare(run.config(), run.tokenizer()).ids("train")[:4003]
    network = CharRNN(model.architecture, model.weights)
    exact = evaluation.stream_costs(network, ids)
    parallel = evaluation.parallel_costs(network, ids, streams=8, lead=64)
    assert parallel.shape == exact.shape
    assert np.allclose(parallel[:500], exact[:500], atol=1e-6)  # the first row is exact
    assert parallel.mean() == pytest.approx(exact.mean(), abs=1e-3)
    estimate = evaluation.estimate(network, ids, model.tokenizer)
    assert estimate == pytest.approx(exact.sum() / model.tokenizer.characters_in(ids), abs=1e-2)


@pytest.mark.parametrize("engine", ["native", "loop"])
def test_texts_side_by_side_cost_what_each_costs_alone(engine: str, trained: TrainedRun, two_threads: None) -> None:
    run = trained()  # one thread reads them one after the other
    model = CharRNN(run.architecture(), run.weights(), engine)
    ids = prepare(run.config(), run.tokenizer()).ids("train")
    texts = [(ids[:2000], np.array([0, 40, 1500])), (ids[3000:3300], documents.NONE), (ids[700:1900], np.array([1100]))]
    for costs, (text, starts) in zip(evaluation.side_by_side_costs(model, texts), texts, strict=True):
        np.testing.assert_allclose(costs, evaluation.stream_costs(model, text, starts=starts), atol=1e-5)
    assert evaluation.side_by_side_costs(model, []) == []


def test_the_result_of_training_is_what_eval_says(trained: TrainedRun) -> None:
    run = trained()
    result, model = run.about()["result"], api.load(run)
    for part in ("val", "test"):
        _, score = api.score_run(model, None, part, "stream")  # type: ignore[arg-type]
        assert result[f"{part}_nats"] == pytest.approx(score.nats, abs=1e-6)


def test_a_sample_of_a_long_text_scores_as_those_pieces_of_it_do(trained: TrainedRun) -> None:
    run = trained()
    model = CharRNN(run.architecture(), run.weights())
    corpus = prepare(run.config(), run.tokenizer())
    ids = np.tile(corpus.ids("train"), 3)
    sample = evaluation.sampled(model, ids, corpus.tokenizer, most=64 * 20, lead=400)
    assert sample.characters == pytest.approx(64 * 20, rel=0.02)
    whole = evaluation.stream_costs(model, ids)
    begins = [r * (len(ids) - 20) // 63 for r in range(64)]
    expected = sum(whole[b : b + 20].sum() for b in begins)
    assert sample.per_char.sum() == pytest.approx(expected, rel=1e-3)  # a lead of 400 is nearly the whole past
