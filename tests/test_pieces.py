"""Text of ids that come some at a time: the same as of characters that come one by one, and the same end."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from charrnn.generate.completion import CompletionStream
from charrnn.generate.pieces import Pieces
from charrnn.generate.stopping import Drawn, StopStrings
from charrnn.text import documents
from charrnn.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.char("ab\n ")
TEXTS = st.text("ab\n č", min_size=1, max_size=60)
STOPS = st.lists(st.text("ab\nč", min_size=1, max_size=4), max_size=3)
KINDS = st.sampled_from(["file", "line", "blank"])


def in_pieces(ids: list[int], cuts: list[int], pieces: Pieces) -> list[str]:
    """Push ids, cut at some places, until the text ends."""
    sure, begin = [], 0
    for end in [*sorted({cut % (len(ids) + 1) for cut in cuts}), len(ids)]:
        if pieces.ended is None:
            sure.append(pieces.push(ids[begin:end]))
        begin = end
    return sure


@given(TEXTS, TEXTS, st.integers(1, 80), STOPS, KINDS, st.lists(st.integers(0, 100), max_size=8))
def test_pieces_are_the_completion_and_end_as_it_does(
    prime: str, text: str, most: int, stop: list[str], kind: str, cuts: list[int]
) -> None:
    prime = documents.current(prime, kind)
    ids = TOKENIZER.encode(text).tolist()
    # An id is a character here, so that a limit of ids is one of characters: `most` is that of ids.
    characters, spelled = "", 0
    for character in text:
        spelled += len(TOKENIZER.encode(character))
        if spelled > most:
            break
        characters += character
    drawn = CompletionStream((Drawn(c, 0.0) for c in text), len(characters), stop, prime=prime, document=kind)
    expected = drawn.completion()
    pieces = Pieces(TOKENIZER, min(most, len(ids)), stop, prime, kind)
    sure = in_pieces(ids, cuts, pieces)
    assert pieces.text == "".join(sure) == expected.text
    assert pieces.ended == expected.ended
    if expected.ended == "length":
        assert pieces.ids == min(most, len(ids))
    if expected.ended == "document":
        assert pieces.ids == len(TOKENIZER.encode(expected.text))
    if expected.ended == "stop":
        assert len(TOKENIZER.encode(expected.text)) < pieces.ids <= min(most, len(ids))


@given(TEXTS, STOPS, st.lists(st.integers(0, 100), max_size=8))
def test_cutting_a_text_changes_nothing_of_where_it_stops(text: str, stop: list[str], cuts: list[int]) -> None:
    def stopped(ends: list[int]) -> tuple[Any, ...]:
        search, sure, begin = StopStrings(stop), "", 0
        for end in ends:
            if search.found is None:
                sure += search.push(text[begin:end])
            begin = end
        return sure, search.found, search.held

    whole = stopped([len(text)])
    assert stopped([*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]) == whole
    assert stopped([*range(1, len(text) + 1)]) == whole


def test_nothing_to_draw_is_a_text_that_has_ended() -> None:
    assert Pieces(TOKENIZER, 0).ended == "length"
