"""Choosing characters: the draw contract, filters, stopping, streaming, UTF-8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api
from charrnn.errors import CharRNNError
from charrnn.generate import sampling
from charrnn.generate.decoder import Decoder
from charrnn.generate.request import Choices
from charrnn.generate.sampling import Sampling, distribution, draw, draws
from charrnn.generate.stopping import until
from charrnn.text import documents
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
ALL = np.ones(4, bool)


def test_a_draw_inverts_the_running_sum_in_id_order() -> None:
    p = np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    drawn = [draw(p, u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999999)]
    assert drawn == [1, 1, 3, 3, 4, 4]


def test_rounding_never_draws_what_has_no_probability() -> None:
    p = np.array([0.1] * 10 + [0.0])
    assert np.cumsum(p)[-1] <= 1
    assert draw(p, np.nextafter(1, 0)) == 9


def test_the_source_of_draws_is_philox_by_seed_and_completion() -> None:
    expected = np.random.Generator(np.random.Philox(key=[7, 3])).random(5)
    source = draws(7, 3)
    assert [source.random() for _ in range(5)] == list(expected)


def test_filters_act_in_order_and_renormalise() -> None:
    assert distribution(LOGITS, ALL, Sampling()) == pytest.approx([0.1, 0.4, 0.2, 0.3])
    assert distribution(LOGITS, ALL, Sampling(top_k=2)) == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert distribution(LOGITS, ALL, Sampling(top_p=0.5)) == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert distribution(LOGITS, ALL, Sampling(top_p=0.39)) == pytest.approx([0, 1, 0, 0])
    assert distribution(LOGITS, ALL, Sampling(min_p=0.5)) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    # top-p counts within what top-k left: 4/7 is already more than 0.5.
    assert distribution(LOGITS, ALL, Sampling(top_k=2, top_p=0.5)) == pytest.approx([0, 1, 0, 0])
    assert distribution(LOGITS, ALL, Sampling(temperature=0)) == pytest.approx([0, 1, 0, 0])
    assert distribution(LOGITS, ALL, Sampling(temperature=0.5)) == pytest.approx(np.array([1, 16, 4, 9]) / 30)
    assert distribution(LOGITS, np.array([1, 0, 0, 1], bool), Sampling()) == pytest.approx([0.25, 0, 0, 0.75])


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    st.floats(0, 3),
    st.none() | st.integers(1, 40),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(0, 1),
)
def test_a_distribution_always_sums_to_one_and_keeps_the_likeliest(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    values = np.array(logits)
    everything = np.ones(len(values), bool)
    p = distribution(values, everything, Sampling(temperature, top_k, top_p, min_p))
    assert p.sum() == pytest.approx(1)
    assert (p >= 0).all()
    # Logits that differ by less than float64 resolves in probabilities tie, and ties go to the lower id.
    assert p[distribution(values, everything, Sampling(temperature)).argmax()] == p.max() > 0


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0}, {"min_p": 2}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(CharRNNError, match="expected"):
        Sampling(**bad)  # type: ignore[arg-type]


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CharRNNError, match="diverged"):
        distribution(np.array([np.nan, 1.0]), np.ones(2, bool), Sampling())


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.integers(0, 12))
def test_stopping_ends_before_the_first_stop_string(text: str, stop: list[str], chars: int) -> None:
    endless = text + "c" * 20
    got = "".join(c for c, _ in until(iter([(c, 0.0) for c in endless]), chars, stop))
    limited = endless[:chars]
    # The first moment at which a stop string is complete decides, and the earliest that ends there.
    for end in range(1, len(limited) + 1):
        begins = [end - len(s) for s in stop if limited[:end].endswith(s)]
        if begins:
            assert got == limited[: min(begins)]
            return
    assert got == limited


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    drawn: list[str] = []

    def characters():  # type: ignore[no-untyped-def]
        for c in "xyab!":
            drawn.append(c)
            yield c, 0.0

    stream = until(characters(), 5, ["ab?"])
    assert next(stream)[0] == "x"
    assert drawn == ["x"]
    assert [c for c, _ in stream] == ["y", "a", "b", "!"]


# Completions of a real, if hardly trained, model: it draws bytes freely, which is what the automaton is for.


def test_a_completion_is_valid_text_of_the_length_asked_for(trained: TrainedRun) -> None:
    model = api.load(trained(steps=1))
    for seed in range(3):
        text = model.complete("Re", 300, temperature=1.5, seed=seed)
        assert len(text) == 300
        assert "\ufffd" not in text
        assert any(c not in model.tokenizer.characters for c in text)


def test_the_same_seed_gives_the_same_text_and_streams_it(trained: TrainedRun) -> None:
    model = api.load(trained())
    text = model.complete("Re", 80, seed=3)
    assert text == model.complete("Re", 80, seed=3) == "".join(model.stream("Re", 80, seed=3))
    assert text != model.complete("Re", 80, seed=4)
    assert text[:20] == model.complete("Re", 20, seed=3)


def test_completions_of_one_call_differ_and_the_first_is_completes(trained: TrainedRun) -> None:
    model = api.load(trained())
    texts = ["".join(c for c, _ in one) for one in model.completions("Re", 60, Sampling(0.8), count=3)]
    assert len(set(texts)) == 3
    assert texts[0] == model.complete("Re", 60)


def test_the_cost_of_a_completion_is_the_models_own(trained: TrainedRun) -> None:
    model = api.load(trained(steps=40))
    drawn = list(next(iter(model.completions("Re", 50, Sampling(0.3, top_k=5)))))
    text = "".join(c for c, _ in drawn)
    if all(c in model.tokenizer.characters for c in text):  # else it may be spelled in another way than score's
        assert [n for _, n in drawn] == pytest.approx(model.score("Re" + text).per_char[2:], abs=1e-4)


def test_a_completion_is_its_text_with_what_every_character_cost(trained: TrainedRun) -> None:
    model = api.load(trained())
    found = model.completion("Re", 50, 0.9, seed=3, stop=["q"])
    assert found.text == model.complete("Re", 50, temperature=0.9, seed=3, stop=["q"])
    drawn = list(next(model.completions("Re", 50, Sampling(0.9, seed=3), stop=["q"])))
    assert found.costs == tuple(nats for _, nats in drawn)
    assert found.nats == sum(found.costs)
    assert found.alternatives is None
    assert found.ended == ("length" if len(found.text) == 50 else "stop")


def test_alternatives_are_what_next_gives_at_every_place(trained: TrainedRun) -> None:
    model = api.load(trained(steps=40, lr=1e-2))
    found = model.completion("Re", 12, top_k=3, seed=3, alternatives=4)
    plain = model.completion("Re", 12, top_k=3, seed=3)
    assert (found.text, found.ended) == (plain.text, plain.ended)
    assert found.costs == pytest.approx(plain.costs, rel=1e-12)
    assert found.alternatives is not None
    assert len(found.alternatives) == len(found.text) == 12
    for i, likeliest in enumerate(found.alternatives):
        expected = model.next("Re" + found.text[:i], 4)
        assert [c for c, _ in likeliest] == [c for c, _ in expected]
        assert [p for _, p in likeliest] == pytest.approx([p for _, p in expected], rel=1e-5)
    cut = model.completion("Re", 12, top_k=3, seed=3, stop=[found.text[4:6]], alternatives=4)
    assert cut.alternatives == found.alternatives[: len(cut.text)]
    with pytest.raises(CharRNNError, match="alternatives is 0"):
        model.completion("Re", 5, alternatives=0)


def test_an_empty_prime_and_no_characters_are_legal(trained: TrainedRun) -> None:
    model = api.load(trained())
    assert len(model.complete("", 10)) == 10
    assert model.complete("Re", 0) == ""


def test_numpy_and_torch_decoding_agree(trained: TrainedRun) -> None:
    model = api.load(trained(layers=2))
    numpy, torch = (Decoder(model.architecture, model.weights, library) for library in ("numpy", "torch"))
    ids, a, b = np.array([model.architecture.start]), numpy.start(), torch.start()
    for _ in range(50):
        (x, a), (y, b) = numpy.step(ids, a), torch.step(ids, b)
        assert x.dtype == y.dtype == np.float32
        assert np.allclose(x, y, atol=1e-5)
        ids = x[0].argmax(keepdims=True)


def test_next_gives_the_likeliest_characters_with_their_probabilities(trained: TrainedRun) -> None:
    model = api.load(trained(steps=60, lr=1e-2))
    pairs = model.next("Rekurentn", k=5)
    assert len(pairs) == 5
    probabilities = [p for _, p in pairs]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1
    assert model.complete("Rekurentn", 1, temperature=0) == pairs[0][0]


def test_bad_requests_are_refused(trained: TrainedRun) -> None:
    model = api.load(trained())
    with pytest.raises(CharRNNError, match="chars"):
        model.complete("Re", -1)
    with pytest.raises(CharRNNError, match="stop"):
        model.complete("Re", 5, stop=[""])
    with pytest.raises(CharRNNError, match="count"):
        model.completions("Re", 5, Sampling(), count=0)
    with pytest.raises(CharRNNError, match="surrogate"):
        model.complete("\ud800", 5)
    with pytest.raises(CharRNNError, match="kept is 'fp16'; choose from: float32, bf16, int8"):
        api.load(model.run, kept="fp16")  # type: ignore[arg-type]
    with pytest.raises(CharRNNError, match="which is 'lst'; did you mean 'last'"):
        api.load(model.run, which="lst")
    with pytest.raises(CharRNNError, match="k is 0; expected a whole number of 1 or more"):
        model.next("Re", 0)
    assert sampling.draw(np.array([1.0]), 0.5) == 0


# Documents


@pytest.mark.slow
def test_a_completion_of_a_document_ends_with_it(trained: TrainedRun, tmp_path: Path) -> None:
    names = "".join(f"{a}{b}\n" for a in ("Mar", "Jov", "Mil", "Dan") for b in ("ko", "an", "ica", "ka")) * 40
    (tmp_path / "names.txt").write_text(names)
    settings: dict[str, Any] = {"document": "line", "steps": 150, "lr": 1e-2}
    model = api.load(trained(corpus=(str(tmp_path / "names.txt"),), **settings))
    drawn = [model.complete("", 100, seed=seed) for seed in range(5)]
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in drawn)
    assert len(set(drawn)) > 1
    # What came before a document cannot change what goes on from it.
    assert model.complete("Marko\nJovan\nMi", 100) == model.complete("Mi", 100)
    assert model.complete("Mi\n", 100) == model.complete("", 100)
    assert model.next("Marko\nM") == model.next("M")
    assert model.score("Marko\nJovan\n").per_char == pytest.approx(
        [*model.score("Marko\n").per_char, *model.score("Jovan\n").per_char], abs=1e-6
    )


@pytest.mark.parametrize(
    ("text", "kind", "current"),
    [
        ("a\nb", "line", "b"),
        ("a\n", "line", ""),
        ("", "line", ""),
        ("a\nb\n\nc\nd", "blank", "c\nd"),
        ("a\n \n", "blank", ""),
        ("\n\n", "blank", "\n\n"),
        ("a\n", "blank", "a\n"),
        ("a\nb", "file", "a\nb"),
        ("a\n\nb", "none", "a\n\nb"),
    ],
)
def test_a_prime_goes_on_in_its_last_document(text: str, kind: str, current: str) -> None:
    assert documents.current(text, kind) == current


def test_the_end_of_a_document_is_found_in_one_reading() -> None:
    text = "\n" * 200_000 + "x\n"  # a search from every line end to the last one would take minutes
    assert documents.current(text, "blank") == text
    assert documents.current(text + " \t\n", "blank") == ""


def test_the_settings_of_every_way_to_complete_are_the_same(trained: TrainedRun) -> None:
    model = api.load(trained(steps=40))
    drawn = "".join(model.stream("Re", 30, 0.9, 3, top_k=9, top_p=0.9, min_p=0.01, stop=["q"]))
    choices: Choices = {"temperature": 0.9, "seed": 3, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "stop": ["q"]}
    assert drawn == model.complete("Re", 30, **choices) == model.completion("Re", 30, **choices).text
    several = model.completions("Re", 30, Sampling(0.9, 9, 0.9, 0.01, 3), stop=["q"])
    assert drawn == next(several).completion().text
    for complete in (model.stream, model.complete, model.completion):
        with pytest.raises(TypeError, match="top_n"):
            complete("Re", 30, top_n=9)  # type: ignore[call-arg]
