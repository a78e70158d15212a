"""Where a completion stops: after so many characters, before a text, at the end of a document, a sentence, a word.

Every way to stop takes characters as they are drawn, and yields the first of them.
"""

import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, NamedTuple

from charrnn.patterns import pattern
from charrnn.text import documents


class Drawn(NamedTuple):
    """A character that was drawn. nats: its cost."""

    character: str
    nats: float


Unit = Literal["word", "line", "sentence"]
UNITS: tuple[Unit, ...] = ("word", "line", "sentence")

_LETTER = r"[\w\u0300-\u036f]"  # with the combining accents of the decomposed form
# What a unit is when it has ended; each has at least one character that can be seen, and ends before its last group.
_ENDED = {
    "word": pattern(rf"(?s)\W*?{_LETTER}+(?:['’-]{_LETTER}+)*(?P<after>(?!{_LETTER})(?:[^'’-]|['’-](?!{_LETTER}).))"),
    "line": pattern(r"\s*\S[^\n]*(?P<after>\n)"),
    "sentence": pattern(r"(?s)\s*\S.*?(?:[.!?…][\"'”’“»)\]]*(?P<after>\s)|(?P<blank>(?<=\S)[^\S\n]*\n[^\S\n]*\n))"),
}
# What may turn out to stand after the end, and is held back until that is known.
_OPEN = {"word": pattern(r"['’-]$"), "line": pattern(r"$"), "sentence": pattern(r"\s*$")}
# What is part of a unit wherever it stands, and ends none: what comes before it says nothing of the end.
_INSIDE = {"word": pattern(_LETTER), "line": pattern(r"\S"), "sentence": pattern(r"[^\s.!?…\"'”’“»)\]]")}


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
    """Yield the characters of the first unit, each as soon as it is sure; returns whether its end was found."""
    text, held = "", list[Drawn]()
    for character, nats in characters:
        text += character
        held.append(Drawn(character, nats))
        end = end_of(unit, text)
        if end is not None:
            yield from held[: end - (len(text) - len(held))]
            return True
        waiting = _OPEN[unit].search(text)
        sure = len(held) - (len(text) - waiting.start() if waiting else 0)
        yield from held[: max(0, sure)]
        held = held[max(0, sure) :]
        if _INSIDE[unit].match(character):  # so that a unit of any length is read once
            text = character
    yield from held
    return False


def in_document(characters: Iterator[Drawn], text: str, kind: str) -> Iterator[Drawn]:
    """Yield the characters that go on from `text` up to the end of its document, which is the last of them."""
    for drawn in characters:
        yield drawn
        text += drawn.character
        if drawn.character == "\n" and documents.ends(text, kind):
            return


def until(characters: Iterator[Drawn], chars: int, stop: Sequence[str] = ()) -> Generator[Drawn, None, bool]:
    """Yield the first `chars` characters, or those before the first of the `stop` strings, which is left out.

    A character that may be the beginning of a stop string is held back until that is known. Returns whether one was
    found.
    """
    held, search = list[Drawn](), StopStrings(stop)
    for drawn in itertools.islice(characters, chars):
        held.append(drawn)
        sure = len(search.push(drawn[0]))
        yield from held[:sure]
        held = held[sure:]
        if search.found is not None:
            return True
    yield from held
    return False


class StopStrings:
    """Looks for the first of several strings in a text that comes piece by piece; the first is the one that ends first.

    strings: those. found: the first one, once it has come. held: the end of the text that may be the beginning of one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.strings = stop
        self.found: str | None = None
        self.held = ""

    def push(self, piece: str) -> str:
        """Take the next piece; return what is sure, of it and of what was held back: it comes before the string."""
        if not self.strings:
            return piece
        text = self.held + piece
        places = ((text.find(s), s) for s in self.strings)
        found = [(at + len(s), at, s) for at, s in places if at >= 0]
        if found:
            _, at, self.found = min(found)
            self.held = ""
            return text[:at]
        keep = max((_overlap(text, s) for s in self.strings), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Count the characters at the end of text that are the beginning of stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
