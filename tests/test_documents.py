"""Documents: the state begins anew where they do, in training, scoring and resuming, whatever runs the cell."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api, cells, engines
from charrnn.model import evaluation
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Streams, encode, learn_tokenizer, open_text, prepare
from charrnn.training import loop
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
ENGINES = [(name, engine) for name in cells.names() for engine in engines.names_for(cells.get(name))]
V = 40


def model_of(cell: str, engine: str = "auto", **settings: Any) -> CharRNN:
    architecture = Architecture(cell, V, hidden=12, layers=2, embedding=8, residual=True, **settings)
    return CharRNN(architecture, architecture.initial(3), engine).double()


@given(st.integers(2, 300), st.integers(1, 9), st.integers(1, 40), st.sets(st.integers(1, 299)))
def test_a_document_s_first_target_is_preceded_by_the_start_row_and_every_id_is_a_target(
    n: int, batch: int, window: int, others: set[int]
) -> None:
    starts = np.array([0, *sorted(s for s in others if s < n)])
    streams = Streams(np.arange(n, dtype=np.uint16), batch, window, start=9999, starts=starts)
    seen = set()
    for step in range(streams.steps_per_epoch):
        inputs, targets, _ = streams.at(step)
        assert (inputs == np.where(np.isin(targets, starts), 9999, targets - 1)).all()
        assert streams.cuts(inputs) == [t for t in range(len(inputs)) if np.isin(targets[t], starts).any()]
        seen |= set(targets.ravel().tolist())
    assert seen == set(range(n))


@pytest.mark.parametrize(("cell", "engine"), ENGINES)
def test_scoring_documents_together_is_scoring_each_alone(cell: str, engine: str) -> None:
    model = model_of(cell, engine)
    ids = np.random.default_rng(0).integers(0, V, 201)
    starts = np.array([0, 1, 2, 31, 64, 65, 130])
    alone = [evaluation.stream_costs(model, ids[a:b]) for a, b in itertools.pairwise([*starts, len(ids)])]
    for window in (1, 7, 64, 1000):
        together = evaluation.stream_costs(model, ids, window, starts)
        assert np.allclose(together, np.concatenate(alone), atol=1e-9, rtol=0)
    assert not np.allclose(together, evaluation.stream_costs(model, ids), atol=1e-4)
    # The other ways to read a text, too: a lead that reaches over a document's start, windows that cut documents.
    parallel = evaluation.parallel_costs(model, ids, streams=4, lead=40, starts=starts)
    assert np.allclose(parallel, together, atol=1e-2)
    assert np.allclose(parallel[:51], together[:51], atol=1e-9, rtol=0)
    cold = evaluation.cold_costs(model, ids, 50, starts)
    borders = sorted({*starts.tolist(), *range(0, 201, 50), 201})
    expected = [evaluation.stream_costs(model, ids[a:b]) for a, b in itertools.pairwise(borders)]
    assert np.allclose(cold, np.concatenate(expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("cell", "engine"), ENGINES)
def test_gradients_of_a_window_with_documents_are_the_sum_of_the_documents(cell: str, engine: str) -> None:
    model = model_of(cell, engine)
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(0, V, (9, 3)))
    begins = [[0, 4], [6], [0, 1, 8]]  # row 1 goes on in its first piece
    for row, at in enumerate(begins):
        ids[at, row] = V
    carried = tuple(tuple(torch.from_numpy(rng.normal(size=(3, 12))) for _ in layer) for layer in model.start(3))
    weigh = torch.from_numpy(rng.normal(size=(9, 3, V)))
    logits, last = model(ids, carried, None, [0, 1, 4, 6, 8])
    (logits * weigh).sum().backward()
    together = {name: w.grad.clone() for name, w in model.weights.items() if w.grad is not None}
    model.zero_grad()
    for row, at in enumerate(begins):
        for begin, end in itertools.pairwise(sorted({0, *at, 9})):
            state = model.start(1)
            if begin not in at:
                state = tuple(tuple(s[row : row + 1] for s in layer) for layer in carried)
            piece, state = model(ids[begin:end, row : row + 1], state)
            assert torch.allclose(piece[:, 0], logits[begin:end, row], atol=1e-12)
            (piece[:, 0] * weigh[begin:end, row]).sum().backward()
        for layer, expected in zip(last, state, strict=True):
            for a, b in zip(layer, expected, strict=True):
                assert torch.allclose(a[row], b[0], atol=1e-12)
    for name, w in model.weights.items():
        assert w.grad is not None
        assert torch.allclose(together[name], w.grad, atol=1e-10), name


@pytest.mark.parametrize("document", ["line", "blank"])
def test_a_run_on_documents_scores_each_alone_and_resumes_exactly(
    document: str, trained: TrainedRun, corpus: str, tmp_path: Any
) -> None:
    whole = trained("whole", document=document, dropout=0.2, cell="nn.LSTM")
    calls = iter(range(100))
    parts = Run(tmp_path / "parts")
    settled = config(corpus, document=document, dropout=0.2, cell="nn.LSTM")
    list(loop.new_run(settled, parts, stop=lambda: next(calls) >= 6))
    list(loop.resume(parts))
    for which in ("last", "best"):
        a, b = whole.weights(which), parts.weights(which)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    model = api.load(whole)
    encoded = prepare(model.config, model.tokenizer)
    ids, starts = encoded.ids("val"), encoded.starts["val"]
    assert len(starts) >= 2
    _, score = api.score_run(model, None, "val", "stream")
    assert score.nats == pytest.approx(whole.about()["result"]["val_nats"], abs=1e-6)
    alone = [model.score_ids(ids[a:b]) for a, b in itertools.pairwise([*starts, len(ids)])]
    assert score.per_char.sum() == pytest.approx(sum(s.per_char.sum() for s in alone), abs=1e-6 * len(ids))
    assert np.allclose(score.per_char, np.concatenate([s.per_char for s in alone]), atol=1e-5, rtol=0)
    # A file is cut into documents as the corpus was.
    (tmp_path / "val.txt").write_text(model.tokenizer.decode(ids), encoding="utf-8")
    _, of_file = api.score_run(model, str(tmp_path / "val.txt"), None, "stream")
    assert of_file.nats == pytest.approx(score.nats, abs=1e-9)


@pytest.mark.slow
def test_what_comes_before_a_document_cannot_help_to_predict_it(tmp_path: Any) -> None:
    # Every second line repeats the one before it: easy to a model that remembers it, impossible to one that may not.
    letters = np.random.default_rng(0).choice(list("abcdefgh"), 2000)
    (tmp_path / "pairs.txt").write_text("".join(f"{c.upper()}\n{c}\n" for c in letters))
    settings: dict[str, Any] = {
        "cell": "lstm",
        "hidden": 32,
        "embedding": 16,
        "steps": 120,
        "lr": 2e-2,
        "batch": 16,
        "window": 16,
    }
    models = [
        api.train(tmp_path / "pairs.txt", document=document, name=document, **settings) for document in ("none", "line")
    ]
    bits = [api.score_run(model, None, "val", "stream")[1].bits_per_char for model in models]
    assert bits[0] < 1.5  # on its way to 3 bits in 4 characters, 0.75
    assert bits[1] == pytest.approx(2.0, abs=0.05)  # one of 16 letters, 4 bits in 2 characters


def test_without_documents_nothing_is_cut(corpus: str) -> None:
    settled = config(corpus)
    text = open_text(settled)
    encoded = encode(text, learn_tokenizer(text, "char", settled.split), settled.split)
    streams = Streams(encoded.ids("train"), 4, 16, encoded.tokenizer.size, encoded.starts["train"])
    assert all(streams.cuts(streams.at(step)[0]) == [] for step in range(streams.steps_per_epoch))
