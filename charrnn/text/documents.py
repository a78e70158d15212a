"""Texts that stand alone inside a corpus. A document begins where the model forgets: the start token precedes it.

Nothing is added to the text and nothing is taken from it: a document's line end, and the blank lines after it, are its
own last characters, so the model learns to end it. The start token is an input alone, never predicted, never counted.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Starts = NDArray[np.int64]
NONE: Starts = np.empty(0, np.int64)

_BLANK_LINES = re.compile(r"\n(?:[ \t\r]*\n)+")
_BLANK_LINES_AT_END = re.compile(_BLANK_LINES.pattern + r"\Z")


def starts(pieces: Iterable[str], kind: str) -> Iterator[Starts]:
    """Yield the offsets, in characters and rising, at which documents begin in a text in pieces; the first is 0.

    kind: 'line' begins one after every line end, 'blank' one at the first line after blank ones.
    """
    finder = {"line": _after_lines, "blank": _after_blank_lines}[kind]
    yield np.zeros(1, np.int64)
    yield from finder(pieces)


def _after_lines(pieces: Iterable[str]) -> Iterator[Starts]:
    offset, ended = 0, False  # whether a line has just ended: a document begins only where something follows
    for piece in pieces:
        codes = np.frombuffer(piece.encode("utf-32-le"), "<u4")
        found = np.flatnonzero(codes == ord("\n")) + 1
        found = np.concatenate(([0], found)) if ended else found
        ended = bool(len(found)) and int(found[-1]) == len(piece)
        yield found[: len(found) - ended] + offset
        offset += len(piece)


def _after_blank_lines(pieces: Iterable[str]) -> Iterator[Starts]:
    held, offset, begun = "", 0, False  # begun: whether there was more than white space already
    for piece in pieces:
        held += piece
        solid = len(held.rstrip(" \t\r\n"))  # blank lines at the end may go on in the next piece
        if not solid:
            continue
        leading = 0 if begun else len(held) - len(held.lstrip(" \t\r\n"))
        found = [m.end() for m in _BLANK_LINES.finditer(held, 0, solid) if m.end() > leading]
        begun = True
        yield np.array(found, np.int64) + offset
        held, offset = held[solid:], offset + solid


def all_starts(text: str, kind: str) -> Starts:
    """Return the `starts` of a text that is here whole; none where it is one document."""
    return np.concatenate(list(starts([text], kind))) if kind in ("line", "blank") else NONE


def current(text: str, kind: str) -> str:
    """Return the document that a continuation of the text belongs to: empty where one has just ended."""
    if ends(text, kind):
        return ""
    found = all_starts(text, kind)
    return text[found[-1] :] if len(found) else text


def ends(text: str, kind: str) -> bool:
    """Tell whether a document ends with the last character of a text."""
    if kind == "line":
        return text.endswith("\n")
    return kind == "blank" and _BLANK_LINES_AT_END.search(text) is not None and not text.isspace()


def in_span(starts: Starts, begin: int, end: int) -> Starts:
    """Return the starts from `begin` to before `end`, counted from `begin`."""
    first, last = np.searchsorted(starts, [begin, end])
    return np.asarray(starts[first:last]) - begin


def mark(inputs: NDArray[Any], starts: Starts, begins: Iterable[int], start: int) -> None:
    """Put the start token into inputs (T, B) where a document begins; row b begins at begins[b] of the ids."""
    if len(starts):
        for row, begin in enumerate(begins):
            inputs[in_span(starts, begin, begin + len(inputs)), row] = start


def cuts(inputs: NDArray[Any], start: int) -> list[int]:
    """List the time steps, rising, at which some row of inputs (T, B) has the start token."""
    return [int(t) for t in np.flatnonzero((inputs == start).any(axis=1))]
