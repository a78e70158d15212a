"""`next` lists every character, however it is spelled, with the probability that `score` gives it; draws agree."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.api import TextModel
from charrnn.errors import CharRNNError
from charrnn.generate.completion import Completion
from charrnn.generate.copying import CopyLimit, TrainingText
from charrnn.generate.likeliest import likeliest
from charrnn.generate.sampling import Sampling, distribution
from charrnn.text.corpus import Text

CYRILLIC = "Рекурентне мреже памте све што је било, јер у њима стање иде даље. 😀 Ђак!\n" * 40
LATIN = "Recurrent networks remember what was: their state is carried on. Čudno 漢字!\n" * 40
MODELS = {
    "bytes": (CYRILLIC, {"tokenizer": "byte"}),
    "characters": (CYRILLIC, {}),
    "mixed": (CYRILLIC + "ö漢€ß" + LATIN, {}),  # some are too rare for an id of their own
}
PRIMES = ("", "Рекурент", "Рек$", "Rec\u4e00")


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    folder = tmp_path_factory.mktemp("likeliest")
    text, settings = MODELS[request.param]
    (folder / "text.txt").write_text(text, encoding="utf-8")
    sizes: dict[str, Any] = {"hidden": 24, "batch": 4, "window": 32, "steps": 40, "device": "cpu", "split": (1, 0, 0)}
    # Logits of characters never seen are near -9, where float32 rounds by 5e-7. So the weights are nearly the same
    # everywhere: no engine or precision of this machine, and a seed of which each way is 5e-7 off float64.
    alike: dict[str, Any] = {"engine": "loop", "precision": "float32", "seed": 0}
    return charrnn.train(folder / "text.txt", out=folder / "run", **sizes, **alike, **settings)


def probability(model: TextModel, prime: str, character: str) -> float:
    """By scoring: exp of minus the nats of the last character."""
    return math.exp(-model.score(prime + character).per_char[-1])


@pytest.mark.parametrize("prime", PRIMES)
def test_next_agrees_with_score(model: TextModel, prime: str) -> None:
    listed = model.next(prime, 40)
    assert len({character for character, _ in listed}) == len(listed) == 40
    assert [p for _, p in listed] == sorted((p for _, p in listed), reverse=True)
    for character, p in listed:
        # Up to three ids spell a character, and each has a float32 logit of either way to read a text.
        assert p == pytest.approx(probability(model, prime, character), rel=1e-6, abs=1e-9), character


def test_no_likelier_character_is_left_out(model: TextModel) -> None:
    for prime in PRIMES[:2]:
        listed = dict(model.next(prime, 12))
        some = [*range(0x20, 0x7F, 9), *range(0x410, 0x450, 2), 0xF6, 0xD7, 0x1F600, 0x6F22]
        others = [c for c in map(chr, some) if c not in listed]
        assert max(probability(model, prime, c) for c in others) <= min(listed.values()) * (1 + 1e-6)


def test_all_characters_together_have_what_the_automaton_allows(model: TextModel) -> None:
    """Each is listed once: the sum is what is left when the ids that are never drawn are taken out, at every byte."""
    V, decoder = model.tokenizer.size, model.decoder()
    logits, state = decoder.step(np.array([V]), decoder.start())
    listed = likeliest(logits[0], state, decoder, model.tokenizer, 2000)
    assert len({character for character, _ in listed}) == 2000
    p = distribution(logits[0], np.ones(V, bool), Sampling())
    assert sum(q for _, q in listed) <= p[model.tokenizer.allowed[0]].sum() + 1e-9


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_decoder_lists_the_same(model: TextModel, library: Any) -> None:
    from charrnn.generate.decoder import Decoder

    decoder = Decoder(model.architecture, model.weights, library)
    logits, state = decoder.step(np.array([model.tokenizer.size]), decoder.start())
    listed = likeliest(logits[0], state, decoder, model.tokenizer, 10)
    assert [c for c, _ in listed] == [c for c, _ in model.next("", 10)]
    np.testing.assert_allclose([p for _, p in listed], [p for _, p in model.next("", 10)], rtol=1e-5)


def test_what_is_drawn_is_spelled_as_it_is_encoded(model: TextModel) -> None:
    """So that the cost of a completion is its score after its prime, whatever drew it."""
    for temperature in (1.0, 3.0):
        for completion in model.completions("Рек", 60, Sampling(temperature, seed=3), 9):
            drawn = completion.completion()
            scored = model.score("Рек" + drawn.text).per_char[3:]
            np.testing.assert_allclose(drawn.costs, scored, rtol=1e-5, atol=1e-5)


def test_alternatives_are_what_next_lists(model: TextModel) -> None:
    drawn: Completion = model.completion("Рек", 12, temperature=1.5, seed=5, alternatives=4)
    assert drawn.alternatives is not None
    text = "Рек"
    for character, listed in zip(drawn.text, drawn.alternatives, strict=True):
        expected = model.next(text, 4)
        assert [c for c, _ in listed] == [c for c, _ in expected]
        np.testing.assert_allclose([p for _, p in listed], [p for _, p in expected], rtol=1e-5)
        text += character


def test_a_model_whose_logits_are_not_finite_lists_nothing(model: TextModel) -> None:
    decoder = model.decoder()
    logits, state = decoder.step(np.array([0]), decoder.start())
    logits[0, 5] = np.nan
    with pytest.raises(CharRNNError, match="not finite"):
        likeliest(logits[0], state, decoder, model.tokenizer, 3)


def test_a_limit_on_copying_leaves_no_dead_end(model: TextModel, tmp_path: Path) -> None:
    """Where all that may follow a byte is forbidden, so is the byte."""
    tokenizer = model.tokenizer
    characters = [chr(c) for c in range(0x4E00, 0x4E40)]  # all that begin with one pair of bytes
    text = "".join(f"abc{c}\n" for c in characters)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    limit = CopyLimit(TrainingText(Text(tmp_path / "text.txt", "", len(text), "text"), (1.0, 0.0, 0.0)), tokenizer, 4)
    assert 0xB8 in limit.forbidden("abc", b"\xe4")
    assert set(limit.forbidden("abc", b"\xe4\xb8")) == set(range(0x80, 0xC0))
