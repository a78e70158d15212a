"""A text that shows how much each character surprised a model: as colours in a terminal, and as plain lines."""

import os
from collections.abc import Iterator, Sequence

from charrnn.cli.options import visible
from charrnn.pages.heat import LEVELS as LEVELS
from charrnn.pages.heat import PAGE_CHARACTERS as PAGE_CHARACTERS
from charrnn.pages.heat import level as level
from charrnn.pages.heat import page as page

# Black on paler to stronger grounds, so that it reads on dark and light terminals; the first level is left alone.
COLOURS_256 = ("", *(f"\x1b[38;5;16;48;5;{n}m" for n in (187, 180, 215, 208, 196)))
COLOURS_16 = ("", *(f"\x1b[30;{n}m" for n in (47, 103, 43, 101, 41)))
RESET = "\x1b[0m"


def coloured(text: str, bits: Sequence[float]) -> Iterator[str]:
    """Yield the text in pieces, with a ground behind every surprising character."""
    colours = COLOURS_16 if os.environ.get("TERM", "linux").startswith(("linux", "vt", "ansi")) else COLOURS_256
    before = 0
    for character, cost in zip(text, bits, strict=True):
        now = level(cost)
        if now != before:
            yield RESET * (before > 0) + colours[now]
            before = now
        if character == "\n":
            # A colour must not run on to the edge of the screen.
            yield ("↵" if now else "") + RESET * (now > 0) + "\n"
            before = 0
        else:
            yield character if character == " " else visible(character).removeprefix("◌")
    if before:
        yield RESET


def legend() -> str:
    """Return what the colours mean, in those colours."""
    names = {0.0: f" <{LEVELS[0]:g} ", **{bound: f" {bound:g} " for bound in LEVELS}}
    return "bits: " + "".join(piece for bits, name in names.items() for piece in coloured(name, [bits] * len(name)))


def lines(text: str, bits: Sequence[float]) -> Iterator[str]:
    """Yield a line for each character: its bits, a tab, the character."""
    for character, cost in zip(text, bits, strict=True):
        yield f"{cost:.3f}\t{visible(character)}\n"
