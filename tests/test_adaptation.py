"""Dynamic evaluation: scored first, learned then, by a copy; in Python and by eval, score and sample."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import charrnn
from charrnn.api import TextModel
from charrnn.cli import group
from charrnn.model.adaptation import Adaptation, Adapting
from charrnn.model.evaluation import stream_costs
from charrnn.model.rnn import CharRNN
from charrnn.text import documents
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
SAID = "the quick brown fox jumps over the lazy dog\n" * 30


@pytest.fixture
def model(trained: TrainedRun) -> TextModel:
    return charrnn.load(trained(direct=0))


def network(model: TextModel, engine: str = "loop") -> CharRNN:
    return CharRNN(model.architecture, model.weights, engine)


def test_the_first_piece_costs_what_it_costs_without_learning(model: TextModel) -> None:
    still, learning = model.score(SAID).per_char, model.score(SAID, adapt=True).per_char
    first = Adaptation().window
    assert learning[:first] == pytest.approx(still[:first], abs=1e-5)
    assert np.abs(learning - still)[first:].max() > 1e-3


def test_what_comes_again_costs_less_and_less(model: TextModel) -> None:
    still, learning = model.score(SAID), model.score(SAID, adapt=True)
    assert learning.nats < still.nats - 0.05
    half = len(SAID) // 2
    gains = still.per_char - learning.per_char
    assert gains[half:].mean() > gains[:half].mean()


def test_the_model_itself_learns_nothing(model: TextModel) -> None:
    before = {name: value.copy() for name, value in model.weights.items()}
    score = model.score(SAID).per_char
    model.score(SAID, adapt=True)
    model.adapted(SAID)
    assert all(np.array_equal(model.weights[name], value) for name, value in before.items())
    assert np.array_equal(model.score(SAID).per_char, score)


def test_it_is_repeated_to_the_last_bit(model: TextModel) -> None:
    once, again = (model.score(SAID, adapt=True).per_char for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_is_the_one_of_the_page(model: TextModel, decay: float) -> None:
    """The rule written out a second time, in float64."""
    how = Adaptation(window=7, rate=1e-2, decay=decay)
    ids = model.tokenizer.encode(SAID)[:21].astype(np.int64)
    learner = Adapting(network(model), how)
    learner.costs(ids)
    plain = CharRNN(model.architecture, model.weights, "loop").double()
    trained = {name: weight.detach().clone() for name, weight in plain.weights.items()}
    squares: dict[str, Any] = dict.fromkeys(trained, 0.0)
    state, last = plain.start(1), model.architecture.start
    for step in range(1, 4):
        piece = ids[7 * (step - 1) : 7 * step]
        logits, state = plain(torch.tensor([[last], *([int(i)] for i in piece[:-1])]), state)
        state = tuple(tuple(s.detach() for s in layer) for layer in state)
        last = int(piece[-1])
        loss = torch.nn.functional.cross_entropy(logits[:, 0], torch.tensor(piece))
        gradients = torch.autograd.grad(loss, list(plain.weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(plain.weights.items(), gradients, strict=True):
                squares[name] = squares[name] + gradient**2
                weight -= how.rate * gradient / ((squares[name] / step).sqrt() + 1e-6)
                weight += decay * (trained[name] - weight)
    for name, weight in learner.weights().items():
        assert weight == pytest.approx(plain.weights[name].detach().numpy(), abs=2e-5), name


def test_without_a_rate_it_is_the_plain_score_also_of_documents(model: TextModel) -> None:
    ids = model.tokenizer.encode(SAID)
    starts = np.array([44, 100, 101, 500])
    learner = Adapting(network(model), Adaptation(rate=0.0))
    assert learner.costs(ids, starts) == pytest.approx(stream_costs(network(model), ids, starts=starts), abs=1e-5)
    assert learner.costs(ids, documents.NONE) == pytest.approx(stream_costs(network(model), ids), abs=1e-5)


def test_an_empty_text_teaches_nothing(model: TextModel) -> None:
    adapted = model.adapted("")
    assert all(np.array_equal(adapted.weights[name], value) for name, value in model.weights.items())


def test_an_adapted_model_is_one_like_any_other(model: TextModel) -> None:
    adapted = model.adapted(SAID)
    assert adapted.score(SAID).nats < model.score(SAID).nats
    assert adapted.complete("the quick", 20, seed=3) == adapted.complete("the quick", 20, seed=3)
    assert adapted.run == model.run


@pytest.mark.parametrize(
    "cell",
    ["lstm", "mingru", pytest.param("nn.GRU", marks=pytest.mark.slow), pytest.param("slstm", marks=pytest.mark.slow)],
)
def test_every_engine_learns_on_alike(cell: str, trained: TrainedRun) -> None:
    from charrnn import cells, engines

    model = charrnn.load(trained(cell=cell))
    ids = model.tokenizer.encode(SAID)[:200]
    expected = Adapting(network(model, "loop")).costs(ids)
    for engine in engines.names_for(cells.get(cell)):
        assert Adapting(network(model, engine)).costs(ids) == pytest.approx(expected, abs=2e-5), engine


def test_several_models_learn_each_by_itself(model: TextModel) -> None:
    both = charrnn.ensemble(model, model)
    assert both.score(SAID, adapt=True).per_char == pytest.approx(model.score(SAID, adapt=True).per_char, abs=1e-9)
    assert both.adapted(SAID).models[1].score(SAID).nats == model.adapted(SAID).score(SAID).nats


# The command line


def run(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments))


def figures(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_eval_gives_both_scores(trained: TrainedRun, tmp_path: Path) -> None:
    trained()
    plain, both = figures("eval", "run"), figures("eval", "run", "--adapt", "--out", str(tmp_path / "nats.npy"))
    assert plain["adapted"] is None
    assert both["nats_per_char"] == plain["nats_per_char"]
    assert set(both["adapted"]) == {"nats_per_char", "bits_per_char", "perplexity"}
    assert np.load(tmp_path / "nats.npy").mean() == pytest.approx(both["adapted"]["nats_per_char"])
    lines = run("eval", "run", "--adapt").stdout.splitlines()
    assert lines[1].startswith(f"{plain['nats_per_char']:.4f} nats")
    assert lines[2].startswith(f"{both['adapted']['nats_per_char']:.4f} nats")
    assert "learning" in lines[2]


def test_eval_reads_one_stream_where_it_learns(trained: TrainedRun) -> None:
    trained()
    done = run("eval", "run", "--adapt", "--mode", "cold")
    assert done.exit_code == 2
    assert "leave --mode cold out" in done.output


def test_score_shows_what_is_left_to_learn(trained: TrainedRun) -> None:
    trained()
    plain, learning = (figures("score", SAID, *more) for more in ((), ("--adapt",)))
    assert (plain["adapted"], learning["adapted"]) == (False, True)
    assert learning["nats_per_char"] < plain["nats_per_char"]
    assert "while it goes on learning" in run("score", SAID, "--adapt").stderr


def test_sample_learns_from_its_prime_first(trained: TrainedRun) -> None:
    model = charrnn.load(trained())
    found = figures("sample", "--run", "run", "--prime", SAID, "--adapt", "--chars", "30")
    assert found["adapted"] is True
    (completion,) = found["completions"]
    assert completion["text"] == model.adapted(SAID).complete(SAID, 30)
    assert figures("sample", "--run", "run", "--prime", SAID, "--chars", "30")["adapted"] is False
