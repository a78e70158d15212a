"""Completions end after a word, a line or a sentence, and are ranked by likelihood per character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.generate.candidates import UNITS, Candidate, Unit, candidate, end_of, ranked, up_to_end


def drawn(text: str, nats: float = 0.5):  # type: ignore[no-untyped-def]
    return ((c, nats) for c in text)


@pytest.mark.parametrize(
    ("unit", "text", "unit_text"),
    [
        ("word", "a mreža pamti", "a"),
        ("word", ", mreža pamti", ", mreža"),
        ("word", "don't go", "don't"),
        ("word", "crno-bela, ", "crno-bela"),
        ("word", "kraj' ", "kraj"),
        ("word", "mrez\u030ca x", "mrez\u030ca"),
        ("line", " mreža.\nDalje", " mreža."),
        ("line", "\n\nDalje\nx", "\n\nDalje"),
        ("sentence", " mreža pamti. Dalje", " mreža pamti."),
        ("sentence", " je 3.5 ili tako? Da", " je 3.5 ili tako?"),
        ("sentence", ' reče: „Ne!" I ode', ' reče: „Ne!"'),
        ("sentence", "ne zna...\nDalje", "ne zna..."),
        ("sentence", "NASLOV\n\nTekst.", "NASLOV"),
        ("sentence", "\n\nTekst. Dalje", "\n\nTekst."),
        ("sentence", "prvi red\ndrugi red. x", "prvi red\ndrugi red."),
    ],
)
def test_a_unit_ends_where_a_reader_would_end_it(unit: Unit, text: str, unit_text: str) -> None:
    assert end_of(unit, text) == len(unit_text)
    assert candidate(drawn(text), unit) == Candidate(unit_text, 0.5 * len(unit_text), True)


@pytest.mark.parametrize(("unit", "text"), [("word", "don'"), ("line", " x"), ("sentence", "Da."), ("sentence", "")])
def test_what_has_not_ended_is_kept_and_marked(unit: Unit, text: str) -> None:
    assert end_of(unit, text) is None
    assert candidate(drawn(text), unit) == Candidate(text, 0.5 * len(text), False)


@given(st.sampled_from(UNITS), st.text("ab'-. \n!\"", max_size=25))
def test_what_is_streamed_is_the_beginning_up_to_the_end(unit: Unit, text: str) -> None:
    streamed = "".join(c for c, _ in up_to_end(drawn(text), unit))
    end = end_of(unit, text)
    assert streamed == text[:end]


def test_candidates_are_ranked_by_nats_per_character_and_each_comes_once() -> None:
    texts = [("long enough. x", 0.4), ("bad. x", 0.9), ("good. x", 0.1), ("good. y", 0.1), ("no end", 0.01)]
    best = ranked((drawn(text, nats) for text, nats in texts), "sentence")
    assert [c.text for c in best] == ["good.", "long enough.", "bad.", "no end"]
    assert [c.finished for c in best] == [True, True, True, False]
