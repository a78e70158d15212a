"""Templates and what fills them. What is put in is escaped, unless it is markup that was made here."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what shows no HTML does without jinja2
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> "Environment":
    """Return what reads the templates; a name that a template is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["thousands"] = lambda number: f"{number:,}"
    return made


def fill(template: str, **values: Any) -> "Markup":
    """Return a template filled with values, as markup that another template may be given."""
    return markup(environment().get_template(template).render(values))


def pieces(template: str, **values: Any) -> Iterator[str]:
    """Yield a filled template piece by piece, so that a long text is never there twice."""
    return environment().get_template(template).generate(values)


def markup(text: str) -> "Markup":
    """Return text that is markup already: made here, with all that is not ours escaped in it."""
    from markupsafe import Markup

    return Markup(text)


def all_markup(texts: Iterable[str]) -> "Iterator[Markup]":
    """Yield each text as markup."""
    from markupsafe import Markup

    return map(Markup, texts)
