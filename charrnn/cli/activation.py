"""A text that shows one unit of a model after every character, as colours in a terminal."""

import itertools
from collections.abc import Iterator, Sequence

from charrnn.cli.options import visible
from charrnn.pages.activation import levels as levels
from charrnn.pages.activation import page as page

# From strongly negative (blue) to strongly positive (red), on black letters.
COLOURS = {-4: 33, -3: 75, -2: 117, -1: 153, 1: 224, 2: 217, 3: 210, 4: 203}  # of 256
RESET = "\x1b[0m"


def coloured(text: str, values: Sequence[float]) -> Iterator[str]:
    """Yield the text in pieces, with a ground behind every character of which the unit takes notice."""
    for now, group in itertools.groupby(zip(text, levels(values), strict=True), lambda pair: pair[1]):
        for character, _ in group:
            ground = f"\x1b[38;5;16;48;5;{COLOURS[now]}m" if now else ""
            if character == "\n":  # a colour must not run on to the edge of the screen
                yield f"{ground}↵{RESET}\n" if now else "\n"
            else:
                shown = character if character == " " else visible(character).removeprefix("◌")
                yield f"{ground}{shown}{RESET}" if now else shown
