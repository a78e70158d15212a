"""Completions that end where people end: after a word, a line or a sentence; and the likeliest of several first."""

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Unit = Literal["word", "line", "sentence"]
UNITS: tuple[Unit, ...] = ("word", "line", "sentence")
Drawn = tuple[str, float]  # a character and its cost in nats

_LETTER = r"[\w\u0300-\u036f]"  # with the combining accents of the decomposed form
# What a unit is when it has ended; each has at least one character that can be seen, and ends before its last group.
_ENDED = {
    "word": re.compile(
        rf"(?s)\W*?{_LETTER}+(?:['’-]{_LETTER}+)*(?P<after>(?!{_LETTER})(?:[^'’-]|['’-](?!{_LETTER}).))"
    ),
    "line": re.compile(r"\s*\S[^\n]*(?P<after>\n)"),
    "sentence": re.compile(r"(?s)\s*\S.*?(?:[.!?…][\"'”’“»)\]]*(?P<after>\s)|(?P<blank>[^\S\n]*\n[^\S\n]*\n))"),
}
# What may turn out to stand after the end, and is held back until that is known.
_OPEN = {"word": re.compile(r"['’-]$"), "line": re.compile(r"$"), "sentence": re.compile(r"\s*$")}


@dataclass(frozen=True)
class Candidate:
    """A completion. nats: its cost. finished: whether it ends where its unit does, rather than where drawing ended."""

    text: str
    nats: float
    finished: bool

    @property
    def nats_per_char(self) -> float:
        return self.nats / max(1, len(self.text))


def end_of(unit: Unit, text: str) -> int | None:
    """Return where the first unit of `text` ends, or None where more has to be seen to know.

    A word is letters, digits and what joins them, with what stands before it. A line ends before its line end. A
    sentence ends with . ! ? or … and closing quotes where white space follows, or before a blank line.
    """
    found = _ENDED[unit].match(text)
    if found is None:
        return None
    return max(found.start(group) for group in found.re.groupindex)


def up_to_end(characters: Iterator[Drawn], unit: Unit) -> Generator[Drawn, None, bool]:
    """Yield the characters of the first unit, each as soon as it is sure; return whether its end was found."""
    text, held = "", list[Drawn]()
    for character, nats in characters:
        text += character
        held.append((character, nats))
        end = end_of(unit, text)
        if end is not None:
            yield from held[: end - (len(text) - len(held))]
            return True
        waiting = _OPEN[unit].search(text)
        sure = len(held) - (len(text) - waiting.start() if waiting else 0)
        yield from held[: max(0, sure)]
        held = held[max(0, sure) :]
    yield from held
    return False


def candidate(characters: Iterator[Drawn], unit: Unit) -> Candidate:
    """Return the first unit of what is drawn."""
    text, nats, drawn = "", 0.0, up_to_end(characters, unit)
    while True:
        try:
            character, cost = next(drawn)
        except StopIteration as end:
            return Candidate(text, nats, bool(end.value))
        text += character
        nats += cost


def ranked(completions: Iterable[Iterator[Drawn]], unit: Unit) -> list[Candidate]:
    """Each text once, the likeliest per character first; those that did not come to an end come last."""
    distinct = {c.text: c for c in (candidate(characters, unit) for characters in completions)}
    return sorted(distinct.values(), key=lambda c: (not c.finished, c.nats_per_char))
