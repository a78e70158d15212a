"""Texts that stand alone inside a corpus. A document begins where the model forgets: the start token precedes it.

Nothing is added to the text and nothing is taken from it: a document's line end, and the blank lines after it, are its
own last characters, so the model learns to end it. The start token is an input alone, never predicted, never counted.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.patterns import pattern
from charrnn.text.code_points import code_points

Starts = NDArray[np.int64]
NONE: Starts = np.empty(0, np.int64)

_BLANK_LINES = pattern(r"\n(?:[ \t\r]*\n)+")
_EMPTY_LINE = pattern(r"^[^\S\n]*\n", re.MULTILINE)
_COLUMN = pattern(r"\s*\"?[^\W\d][\w .()/%-]{0,40}\"?\s*")
_NUMBER = pattern(r"\s*\"?[-+]?\d[\d.,:/-]*%?\"?\s*")
MANY_CHARACTERS = 10_000  # of one document
MANY_EMPTY = 0.1  # of all documents
TABLE_LINES = 20  # of a table are looked at


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
        found = np.flatnonzero(code_points(piece, 0, len(piece)) == ord("\n")) + 1
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
    if kind != "blank" or not text.endswith("\n"):
        return False
    solid = len(text.rstrip(" \t\r\n"))  # looked for from the end: a pattern begins anew at every line end
    return text.count("\n", solid) > 1 and not text.isspace()


def notes(pieces: Iterable[str], starts: Starts, characters: int, kind: str) -> list[str]:
    """List a sentence for everything that is odd about the documents of a text in pieces, (N,) starts in all."""
    if not len(starts):
        return []
    longest = int(np.diff(starts, append=characters).max())
    found = []
    if longest > MANY_CHARACTERS and longest > characters / 2:
        how_many = "the only document" if len(starts) == 1 else f"one of {len(starts):,} documents"
        found.append(
            f"{how_many} has {longest:,} of all {characters:,} characters: see whether --document {kind} is what parts "
            "this text"
        )
    empty = empty_lines(pieces) if kind == "line" else 0
    if empty > MANY_EMPTY * len(starts):
        found.append(
            f"{empty:,} of {len(starts):,} documents are empty lines, which the model will write too: leave them out "
            "of the text (grep .), or give --document blank"
        )
    return found


def empty_lines(pieces: Iterable[str]) -> int:
    """Count the lines of a text in pieces that hold white space alone, and a line end."""
    count, empty = 0, True  # whether the line that is open holds white space alone
    for piece in pieces:
        begun, ended, rest = piece.partition("\n")
        empty = empty and not begun.strip()
        if ended:
            whole, _, rest = f"\n{rest}".rpartition("\n")
            count += empty + len(_EMPTY_LINE.findall(whole[1:] + "\n" * bool(whole)))
            empty = not rest.strip()
    return count


def header(beginning: str, name: str) -> str | None:
    """Return the first line of a table in text form where it seems to name the columns, or None.

    beginning: of the text, some lines or more. name: the file's.
    """
    lines = [line.rstrip("\r") for line in beginning.split("\n")[:TABLE_LINES]]
    lines = [line for line in lines if line]
    if len(lines) < 3:
        return None
    if re.search(r"\.[ct]sv(\.gz)?$", name, re.IGNORECASE) and not any(c.isdigit() for c in lines[0]):
        return lines[0]
    for delimiter in ",;\t|":
        rows = [line.split(delimiter) for line in lines[:-1]]  # the last line may be cut off
        alike = sum(len(row) == len(rows[0]) for row in rows) >= 0.9 * len(rows)
        if len(rows[0]) > 1 and alike and all(_COLUMN.fullmatch(field) for field in rows[0]):
            columns = zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True)
            if any(all(_NUMBER.fullmatch(field) for field in column) for column in columns):
                return lines[0]
    return None


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
