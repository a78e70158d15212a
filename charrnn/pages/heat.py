"""The heat map of a text: how much each character surprised a model, in markup that stays small for a book."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from charrnn.pages.escaping import character
from charrnn.pages.filling import all_markup, fill, pieces

if TYPE_CHECKING:
    from markupsafe import Markup

# Bits from which a character is shown as more surprising; 0 is expected, 8 is one guess in 256.
LEVELS = (2.0, 4.0, 6.0, 8.0, 11.0)
# Classes of the levels, as short as can be: the commonest that is coloured has none. style.css has their colours.
CLASSES = ("n", "", "a", "b", "c", "d")
TOGETHER = 20  # characters of one level that share a tag: their bits must fit on a line
PAGE_CHARACTERS = 400_000  # a page of more is no pleasure in a browser
SHOWN_CHARACTERS = 4_000  # in a notebook, which keeps what it shows


def level(bits: float) -> int:
    """Return how surprising a character is, from 0 to len(LEVELS)."""
    return sum(bits >= bound for bound in LEVELS)


def marked(text: str, bits: Sequence[float]) -> Iterator[str]:
    """Yield the text in pieces of markup; pointing at what is coloured shows its bits.

    Characters of one level that follow each other share a tag, and those of the lowest have none: a browser must still
    open the page of a book.
    """
    tags = [f"<i class={name}" if name else "<i" for name in CLASSES]
    for now, group in itertools.groupby(zip(text, bits, strict=True), lambda pair: level(pair[1])):
        while run := list(itertools.islice(group, TOGETHER)):
            shown = "".join(character(c, now > 0) for c, _ in run)
            costs = ",".join(f"{cost:.2g}" for _, cost in run)
            yield f"{tags[now]} title={costs}>{shown}</i>" if now else shown


def legend() -> list[tuple[str, str]]:
    """List what the colours mean: their class and the bits."""
    names = [f"under {LEVELS[0]:g}", *(f"{bound:g} or more" for bound in LEVELS)]
    return list(zip(CLASSES, names, strict=True))


def page(text: str, bits: Sequence[float], title: str, about: str) -> Iterator[str]:
    """Yield a page that needs nothing else, in pieces.

    What comes after the first PAGE_CHARACTERS is left out, and the page says so.
    """
    if len(text) > PAGE_CHARACTERS:
        about += f" (here the first {PAGE_CHARACTERS:,}; --json has all)"
        text, bits = text[:PAGE_CHARACTERS], bits[:PAGE_CHARACTERS]
    return pieces(
        "heat_page.html",
        title=title,
        about=about,
        legend=legend(),
        first=LEVELS[0],
        pieces=all_markup(marked(text, bits)),
    )


def shown(text: str, bits: Sequence[float], about: str, prime: str = "") -> "Markup":
    """Return a heat map for a notebook: its beginning, where the text is long.

    prime: what precedes the text, and cost nothing.
    """
    left_out = max(0, len(text) - SHOWN_CHARACTERS)
    text, bits = text[:SHOWN_CHARACTERS], bits[:SHOWN_CHARACTERS]
    return fill(
        "heat.html",
        about=about,
        legend=legend(),
        prime=prime,
        pieces=all_markup(marked(text, bits)),
        left_out=left_out,
    )
