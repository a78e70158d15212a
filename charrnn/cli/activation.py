"""A text that shows one unit of a model after every character: as colours in a terminal, and as a page."""

import html
import itertools
from collections.abc import Iterator, Sequence

from charrnn.cli.options import visible
from charrnn.cli.page import HEAD

# From strongly negative (blue) over nothing to strongly positive (red), on black letters.
LEVELS = 4  # on each side
COLOURS = {-4: 33, -3: 75, -2: 117, -1: 153, 1: 224, 2: 217, 3: 210, 4: 203}  # of 256
GROUNDS = {-4: "#4f8fe8", -3: "#86b3f0", -2: "#b3d0f6", -1: "#dce9fb", 1: "#fbe3df", 2: "#f7c1b9", 3: "#f19a8e"}
GROUNDS[4] = "#e76f5f"
RESET = "\x1b[0m"

PAGE = (
    HEAD
    + """<body><h1 dir="auto">{title}</h1><p dir="auto">{about}</p><p>{legend}</p>
<pre dir="auto">{text}</pre></body></html>
"""
)


def levels(values: Sequence[float]) -> list[int]:
    """Return how strong each activation is, from -LEVELS to LEVELS, as a share of the strongest."""
    most = max((abs(value) for value in values), default=0.0)
    return [0 if most == 0 else round(LEVELS * value / most) for value in values]


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


def page(text: str, values: Sequence[float], title: str, about: str) -> Iterator[str]:
    """Return a page of HTML that needs nothing else."""
    names = {now: f"n{-now}" if now < 0 else f"p{now}" for now in GROUNDS}
    styles = "\n".join(f".{names[now]} {{ background: {ground} }}" for now, ground in GROUNDS.items())
    legend = " ".join(f"<i class={names[now]}>&nbsp;{now:+d}&nbsp;</i>" for now in sorted(GROUNDS))
    mark = "\0"  # the text comes piece by piece, where this stands
    head, tail = PAGE.format(
        title=html.escape(title), about=html.escape(about), styles=styles, legend=legend, text=mark
    ).split(mark)
    yield head
    for now, group in itertools.groupby(zip(text, levels(values), strict=True), lambda pair: pair[1]):
        shown = "".join(_on_page(character, now) for character, _ in group)
        yield f"<i class={names[now]}>{shown}</i>" if now else shown
    yield tail


def _on_page(character: str, now: int) -> str:
    if character not in "\n\t" and not character.isprintable():
        return html.escape(visible(character))
    return f"↵{character}" if character == "\n" and now else html.escape(character, quote=False)
