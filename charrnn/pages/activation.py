"""A text coloured by one unit of a model: from strongly negative (blue) over nothing to strongly positive (red)."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from charrnn.pages.escaping import character
from charrnn.pages.filling import all_markup, fill, pieces
from charrnn.pages.heat import SHOWN_CHARACTERS

if TYPE_CHECKING:
    from markupsafe import Markup

LEVELS = 4  # on each side


def levels(values: Sequence[float]) -> list[int]:
    """Return how strong each activation is, from -LEVELS to LEVELS, as a share of the strongest."""
    most = max((abs(value) for value in values), default=0.0)
    return [0 if most == 0 else round(LEVELS * value / most) for value in values]


def marked(text: str, values: Sequence[float]) -> Iterator[str]:
    """Yield the text in pieces of markup."""
    for now, group in itertools.groupby(zip(text, levels(values), strict=True), lambda pair: pair[1]):
        shown = "".join(character(c, now != 0) for c, _ in group)
        yield f"<i class={_class(now)}>{shown}</i>" if now else shown


def legend() -> list[tuple[str, str]]:
    """List what the colours mean: their class and how strong the unit is."""
    return [(_class(now), f"{now:+d}") for now in range(-LEVELS, LEVELS + 1) if now]


def page(text: str, values: Sequence[float], title: str, about: str) -> Iterator[str]:
    """Yield a page that needs nothing else, in pieces."""
    texts = all_markup(marked(text, values))
    return pieces("activation_page.html", title=title, about=about, legend=legend(), pieces=texts)


def shown(text: str, values: Sequence[float], about: str, ranked: Sequence[tuple[str, Any]]) -> "Markup":
    """Return a text for a notebook: its beginning, where it is long. ranked: above it, (property, [(unit, r)])."""
    left_out = max(0, len(text) - SHOWN_CHARACTERS)
    texts = all_markup(marked(text[:SHOWN_CHARACTERS], values[:SHOWN_CHARACTERS]))
    return fill("activation.html", about=about, ranked=ranked, legend=legend(), pieces=texts, left_out=left_out)


def _class(level: int) -> str:
    return f"n{-level}" if level < 0 else f"p{level}"
