"""Descriptions of the corpora that have a name, for `corpora list`."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from charrnn.errors import CharRNNError
from charrnn.text import catalogue, corpora, python_corpora
from charrnn.text.cleaning import Cleaning, Findings, text_of
from charrnn.text.code_points import count_characters

ABOUT = {  # what no file says of itself
    "rekurentne": ("Serbian, Latin", "prose about sequences and recurrent networks; stories, a play, a glossary"),
    "python-docs": ("English", "the language reference of this Python, as help() shows it; one document a topic"),
    "python-source": ("Python", "the standard library of this Python; one document a module"),
}


@dataclass(frozen=True)
class Named:
    """A corpus with a name. alphabet: how many different characters, None where nobody counted. here: without fetching.

    bytes: of the text as UTF-8. problem: why it cannot be read, None where it can.
    """

    name: str
    bytes: int
    alphabet: int | None
    language: str
    about: str
    here: bool
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as JSON takes it."""
        return asdict(self)


def describe() -> list[Named]:
    """Describe every corpus that has a name; embedded ones are read and counted, others are as the catalogue says."""
    here = [_counted(name) for name in [*corpora.embedded(), *python_corpora.READERS]]
    there = [
        Named(name, entry.bytes, entry.characters, entry.language, entry.about, catalogue.path_of(name).exists())
        for name, entry in catalogue.ENTRIES.items()
    ]
    return [*here, *there]


def _counted(name: str) -> Named:
    counts: Counter[str] = Counter()
    size = 0
    language, about = ABOUT.get(name, ("", ""))
    try:
        for source in corpora.find(name).sources:
            for piece in text_of(source, Cleaning(), Findings()):
                counts.update(count_characters(piece))
                size += len(piece.encode())
    except CharRNNError as error:  # one that cannot be read must not hide the others
        return Named(name, 0, None, language, about, here=False, problem=error.problem)
    return Named(name, size, len(counts), language, about, here=True)
