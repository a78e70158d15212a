"""Completions end after a word, a line or a sentence, and are ranked by likelihood per character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.generate.candidates import candidate, ranked
from charrnn.generate.completion import Completion, CompletionStream
from charrnn.generate.stopping import UNITS, Drawn, Unit, end_of


def drawn(text: str, nats: float = 0.5, document: str = "file") -> CompletionStream:
    return CompletionStream((Drawn(c, nats) for c in text), len(text), document=document)


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
    assert candidate(drawn(text), unit) == Completion(unit_text, 0.5 * len(unit_text), "end", (0.5,) * len(unit_text))


@pytest.mark.parametrize(("unit", "text"), [("word", "don'"), ("line", " x"), ("sentence", "Da."), ("sentence", "")])
def test_what_has_not_ended_is_kept_and_marked(unit: Unit, text: str) -> None:
    assert end_of(unit, text) is None
    assert candidate(drawn(text), unit) == Completion(text, 0.5 * len(text), "length", (0.5,) * len(text))


@given(st.sampled_from(UNITS), st.text("ab'-. \n!\"", max_size=25))
def test_what_is_streamed_is_the_beginning_up_to_the_end(unit: Unit, text: str) -> None:
    streamed = "".join(c for c, _ in drawn(text).up_to(unit))
    end = end_of(unit, text)
    assert streamed == text[:end]


@pytest.mark.parametrize(
    ("unit", "text"), [("sentence", "ab, c" * 20_000), ("word", "a" * 100_000), ("line", "a b" * 30_000)]
)
def test_a_unit_that_does_not_end_is_read_once(unit: Unit, text: str) -> None:
    # Matching all of it again for every character would take hours.
    assert "".join(c for c, _ in drawn(text).up_to(unit)) == text


def test_candidates_are_ranked_by_nats_per_character_and_each_comes_once() -> None:
    texts = [("long enough. x", 0.4), ("bad. x", 0.9), ("good. x", 0.1), ("good. y", 0.1), ("no end", 0.01)]
    best = ranked((drawn(text, nats) for text, nats in texts), "sentence")
    assert [c.text for c in best] == ["good.", "long enough.", "bad.", "no end"]
    assert [c.finished for c in best] == [True, True, True, False]


def test_the_end_of_a_document_is_an_end() -> None:
    best = ranked([drawn("bez tačke", 0.1), drawn("bez tačke\nNova", 0.9, "line")], "sentence")
    assert [(c.text, c.ended, c.finished) for c in best] == [
        ("bez tačke\n", "document", True),
        ("bez tačke", "length", False),
    ]


@pytest.mark.parametrize(
    ("text", "chars", "stop", "document", "expected"),
    [
        ("Mreža pamti", 5, (), "file", ("Mreža", "length")),
        ("Mreža pamti", 0, (), "file", ("", "length")),
        ("Mreža pamti", 11, (" p",), "file", ("Mreža", "stop")),
        ("Mreža pamti", 7, (" p",), "file", ("Mreža", "stop")),
        ("Mreža pamti", 6, (" p",), "file", ("Mreža ", "length")),
        ("Mreža\npamti", 11, (), "file", ("Mreža\npamti", "length")),
        ("Mreža\npamti", 11, (), "line", ("Mreža\n", "document")),
        ("Mreža\npamti", 6, (), "line", ("Mreža\n", "document")),
        ("Mreža\npamti", 5, (), "line", ("Mreža", "length")),
        ("Mreža\npamti", 11, ("\n",), "line", ("Mreža", "stop")),
        ("Mreža\npamti", 11, ("\n\n",), "line", ("Mreža\n", "document")),
        ("Mreža\npamti\n\nDalje", 17, (), "blank", ("Mreža\npamti\n\n", "document")),
    ],
)
def test_a_completion_knows_why_it_ended(
    text: str, chars: int, stop: tuple[str, ...], document: str, expected: tuple[str, str]
) -> None:
    stream = CompletionStream((Drawn(c, 0.5) for c in text), chars, stop, document=document)
    assert stream.ended is None
    taken = "".join(c for c, _ in stream)
    assert (taken, stream.ended) == expected
    assert next(stream, None) is None
    assert (taken, stream.ended) == expected
    again = CompletionStream((Drawn(c, 0.5) for c in text), chars, stop, document=document).completion()
    assert (again.text, again.ended, again.nats) == (*expected, 0.5 * len(taken))
