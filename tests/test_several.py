"""Several models as one: averaged probabilities complete and score texts, and models that do not fit are refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import decided
from numpy.typing import NDArray

import charrnn
import charrnn.api
from charrnn.api import Ensemble, TextModel
from charrnn.cli import group
from charrnn.errors import CharRNNError
from charrnn.generate.averaging import averaged, averaged_costs
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Sampling
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.run import Run

TEXT = "Rekurentne mreže: ж"  # with a character that is spelled in bytes
CHARACTERS = "Rekurntmž: "


def made(cell: str, seed: int, characters: str = CHARACTERS, normalize: Any = "none", **settings: Any) -> TextModel:
    """An untrained model, whose probabilities differ much from place to place."""
    config, tokenizer = decided(cell=cell, **settings), Tokenizer.char(characters, normalize)
    return TextModel(config, tokenizer, Architecture.of(config, tokenizer.size).initial(seed, bound=1.0))


@pytest.fixture
def models() -> tuple[TextModel, TextModel]:
    """Two models of one vocabulary that have little else in common."""
    return made("lstm", 1, hidden=6), made("nn.GRU", 2, layers=2)


def probabilities(model: TextModel, text: str) -> NDArray[np.float64]:
    """What a model gives every id at every place of a text, (N, V), by the equations and a plain softmax."""
    decoder = Decoder(model.architecture, model.weights, "numpy")
    before = np.concatenate([[model.tokenizer.size], model.tokenizer.encode(text)[:-1]])
    e = np.exp(decoder.logits(before, decoder.start())[0].astype(np.float64))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def invoke(*args: str) -> Result:
    result = CliRunner().invoke(group, args)
    assert result.exit_code in (0, 1, 2), result.output
    return result


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_softmax_of_the_logits_is_the_average() -> None:
    rng = np.random.default_rng(3)
    logits = [rng.normal(0, 5, (4, 7)).astype(np.float32) for _ in range(3)]
    softmaxes = [np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True) for x in logits]
    np.testing.assert_allclose(np.exp(averaged(logits)), np.mean(softmaxes, axis=0), rtol=1e-12)


def test_logits_as_large_as_they_may_be_are_averaged() -> None:
    large = np.array([3e38, 0, -3e38], np.float32)
    logs = averaged([large, -large])
    np.testing.assert_allclose(logs, [math.log(0.5), -3e38, math.log(0.5)], rtol=1e-6)
    np.testing.assert_allclose(averaged_costs([np.array([2000.0]), np.array([3000.0])]), [2000 + math.log(2)])


def test_bits_per_character_are_those_of_the_averaged_probabilities(models: tuple[TextModel, TextModel]) -> None:
    ids = models[0].tokenizer.encode(TEXT)
    p = (probabilities(models[0], TEXT) + probabilities(models[1], TEXT)) / 2
    bits = -np.log2(p[np.arange(len(ids)), ids]).sum() / len(TEXT)
    score = Ensemble(models).score(TEXT)
    assert score.characters == len(TEXT) < len(ids)
    assert score.bits_per_char == pytest.approx(bits, rel=1e-6)
    assert score.bits_per_char < max(model.score(TEXT).bits_per_char for model in models)


def test_next_gives_what_score_gives(models: tuple[TextModel, TextModel]) -> None:
    both = Ensemble(models)
    for character, p in both.next("Reku", k=20):
        assert both.score("Reku" + character).per_char[-1] == pytest.approx(-math.log(p), abs=1e-5)


def test_a_completion_costs_what_scoring_it_says(models: tuple[TextModel, TextModel]) -> None:
    completion = Ensemble(models).completion("Rek", chars=30)
    cost = Ensemble(models).score("Rek" + completion.text).per_char[3:].sum()
    assert completion.nats == pytest.approx(cost, rel=1e-5)
    assert completion.text not in [model.complete("Rek", chars=30) for model in models]


@pytest.mark.parametrize("sampling", [Sampling(0.8), Sampling(1.3, top_k=20, top_p=0.9, min_p=0.01)])
def test_one_model_twice_gives_its_own_text(models: tuple[TextModel, TextModel], sampling: Sampling) -> None:
    model, twice = models[0], Ensemble((models[0], models[0]))
    one, two = ([c.completion() for c in m.completions("Rek", 60, sampling, count=9)] for m in (model, twice))
    assert [c.text for c in one] == [c.text for c in two]
    assert [c.nats for c in one] == pytest.approx([c.nats for c in two], rel=1e-5)
    assert twice.score(TEXT).bits_per_char == pytest.approx(model.score(TEXT).bits_per_char, rel=1e-12)


def test_a_diverged_model_is_told(models: tuple[TextModel, TextModel]) -> None:
    broken = made("lstm", 1)
    broken.weights["head.b"][:] = np.nan
    with pytest.raises(CharRNNError, match="not finite"):
        Ensemble((models[0], broken)).complete("Rek")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (made("lstm", 1, CHARACTERS + "Ш"), "vocabulary has 1 more characters: 'Ш'"),
        (made("lstm", 1, CHARACTERS[2:]), "vocabulary has 2 fewer characters: 'R' 'e'"),
        (made("lstm", 1, normalize="nfc"), "normalize is nfc, not none"),
        (made("lstm", 1, document="line"), "document is line, not none"),
        (made("lstm", 1, newline="lf"), "newline is lf, not keep"),
    ],
)
def test_models_that_would_not_read_the_same_ids_are_refused(other: TextModel, said: str) -> None:
    with pytest.raises(CharRNNError, match=said):
        Ensemble((made("lstm", 1), other))


def test_none_is_refused() -> None:
    with pytest.raises(CharRNNError, match="no models"):
        charrnn.ensemble()


def test_a_completion_ends_with_its_document() -> None:
    models = tuple(made("lstm", seed, "ab\n", document="line") for seed in (1, 2))
    found = [c.completion() for c in Ensemble(models).completions("a", 200, Sampling(), count=8)]
    assert any(c.ended == "document" for c in found)
    assert all(c.text.endswith("\n") for c in found if c.ended == "document")


def test_the_commands_take_several_runs(trained: Callable[..., Run], corpus: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        trained(name, seed=seed)
    both = charrnn.ensemble("a", "b", device="cpu")
    runs = [str(model.run.path) for model in both.models if model.run]
    named = ("--run", "a", "--run", "b", "--device", "cpu")

    drawn = last_json(invoke("sample", *named, "--prime", "Rek", "--chars", "40", "--count", "2", "--json"))
    expected = [c.completion().text for c in both.completions("Rek", 40, Sampling(0.8), count=2)]
    assert [c["text"] for c in drawn["completions"]] == expected
    assert drawn["runs"] == runs
    assert "run" not in drawn
    assert drawn["completions"][0]["copied"]["length"] > 0

    scored = last_json(invoke("score", "Rekurentne", "--text", *named, "--json"))
    assert scored["bits_per_char"] == both.score("Rekurentne").bits_per_char
    assert scored["runs"] == runs

    text = tmp_path / "other.txt"
    text.write_text("Rekurentne mreže", encoding="utf-8")
    on_file = last_json(invoke("eval", str(text), *named, "--json"))
    assert on_file["nats_per_char"] == both.score("Rekurentne mreže").nats
    on_test = invoke("eval", *named)
    assert on_test.stdout.startswith("a + b on the test part of ")
    one = last_json(invoke("eval", "--run", "a", "--device", "cpu", "--json"))
    assert one == last_json(invoke("eval", "a", "--device", "cpu", "--json"))

    wrong = invoke("eval", "a", str(text), "--run", "b")
    assert wrong.exit_code == 2
    assert "give the file alone" in wrong.stderr


def test_what_several_runs_do_not_share_is_refused(trained: Callable[..., Run]) -> None:
    trained("a", steps=2)
    trained("b", steps=2, tokenizer="byte")
    result = invoke("sample", "--run", "a", "--run", "b")
    assert isinstance(result.exception, CharRNNError)
    assert "b and a cannot be one model: its vocabulary has 42 fewer characters" in str(result.exception)
    one = charrnn.load("a", "cpu")
    for change in ({"split": (0.7, 0.1, 0.2)}, {"fingerprint": "1" * 64}):
        both = Ensemble((one, replace(one, config=replace(one.config, **change))))
        with pytest.raises(CharRNNError, match="split them otherwise"):
            charrnn.api.score_run(both, None, None, "stream")
    with pytest.raises(CharRNNError, match="different texts"):
        next(both.completions("Rek", 5, Sampling(), max_copy=20))
