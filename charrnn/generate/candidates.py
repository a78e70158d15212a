"""Completions that end where people end: after a word, a line or a sentence; the likeliest of several first."""

from collections.abc import Iterable

from charrnn.generate.completion import Completion, CompletionStream
from charrnn.generate.stopping import UNITS as UNITS
from charrnn.generate.stopping import Unit as Unit
from charrnn.generate.stopping import end_of as end_of
from charrnn.generate.stopping import up_to_end as up_to_end


def candidate(characters: CompletionStream, unit: Unit) -> Completion:
    """Draw the first unit, or up to where the stream ends before that."""
    return characters.up_to(unit).completion()


def ranked(completions: Iterable[CompletionStream], unit: Unit) -> list[Completion]:
    """Return each text once, the likeliest per character first; those that did not come to an end come last."""
    distinct = {c.text: c for c in (candidate(characters, unit) for characters in completions)}
    return sorted(distinct.values(), key=lambda c: (not c.finished, c.nats_per_char))
