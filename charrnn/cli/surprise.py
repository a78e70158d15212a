"""A text that shows how much each character surprised a model: as colours in a terminal, as a page, as plain lines."""

import html
import itertools
import os
from collections.abc import Iterator, Sequence

from charrnn.cli.options import visible
from charrnn.cli.page import HEAD

# Bits from which a character is shown as more surprising; 0 is expected, 8 is one guess in 256.
LEVELS = (2.0, 4.0, 6.0, 8.0, 11.0)
# Black on paler to stronger grounds, so that it reads on dark and light terminals; the first level is left alone.
COLOURS_256 = ("", *(f"\x1b[38;5;16;48;5;{n}m" for n in (187, 180, 215, 208, 196)))
COLOURS_16 = ("", *(f"\x1b[30;{n}m" for n in (47, 103, 43, 101, 41)))
PAGE_GROUNDS = ("transparent", "#f6efcf", "#fadfa6", "#ffc27a", "#ff9457", "#f4473f")
# Tags of the levels on a page, as short as can be: the commonest that is coloured has no class.
TAGS = ("<i class=n", "<i", "<i class=a", "<i class=b", "<i class=c", "<i class=d")
SELECTORS = (".n", "i", ".a", ".b", ".c", ".d")
TOGETHER = 20  # characters of one level that share a tag: their bits must fit on a line
PAGE_CHARACTERS = 400_000  # a page of more is no pleasure in a browser
RESET = "\x1b[0m"

PAGE = (
    HEAD
    + """<body><h1 dir="auto">{title}</h1><p dir="auto">{about}</p><p>bits: {legend}</p>
<p>Point at what is coloured: the bits of its characters, in their order. The rest is under {first:g} each.</p>
<pre dir="auto">{text}</pre></body></html>
"""
)


def level(bits: float) -> int:
    """Return how surprising a character is, from 0 to len(LEVELS)."""
    return sum(bits >= bound for bound in LEVELS)


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


def page(text: str, bits: Sequence[float], title: str, about: str) -> Iterator[str]:
    """Return a page of HTML that needs nothing else; pointing at what is coloured shows its bits.

    Characters of one level that follow each other share a tag, and those of the lowest have none: a browser must still
    open the page of a book. What comes after the first PAGE_CHARACTERS is left out, and the page says so.
    """
    if len(text) > PAGE_CHARACTERS:
        about += f" (here the first {PAGE_CHARACTERS:,}; --json has all)"
        text, bits = text[:PAGE_CHARACTERS], bits[:PAGE_CHARACTERS]
    styles = "\n".join(f"{at} {{ background: {ground} }}" for at, ground in zip(SELECTORS, PAGE_GROUNDS, strict=True))
    names = [f"under {LEVELS[0]:g}", *(f"{bound:g} or more" for bound in LEVELS)]
    legend = " ".join(f"{TAGS[n]}>&nbsp;{name}&nbsp;</i>" for n, name in enumerate(names))
    mark = "\0"  # the text comes piece by piece, where this stands
    head, tail = PAGE.format(
        title=html.escape(title),
        about=html.escape(about),
        styles=styles,
        legend=legend,
        first=LEVELS[0],
        text=mark,
    ).split(mark)
    yield head
    for now, group in itertools.groupby(zip(text, bits, strict=True), lambda pair: level(pair[1])):
        while run := list(itertools.islice(group, TOGETHER)):
            shown = "".join(_on_page(character, now) for character, _ in run)
            costs = ",".join(f"{cost:.2g}" for _, cost in run)
            yield f"{TAGS[now]} title={costs}>{shown}</i>" if now else shown
    yield tail


def _on_page(character: str, now: int) -> str:
    """Return a character of some level in HTML."""
    if character not in "\n\t" and not character.isprintable():
        return html.escape(visible(character))
    return f"↵{character}" if character == "\n" and now else html.escape(character, quote=False)
