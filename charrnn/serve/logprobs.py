"""What ids cost a model, and which others were likely in their place: of what is drawn, and of prompts."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.generate.sampling import costs
from charrnn.serve.models import Prompt, Served
from charrnn.text import documents

WINDOW = 1024  # ids of a prompt that are scored at a time


class Token(NamedTuple):
    """An id with its cost. top: the likeliest ids in its place with theirs, and the id itself: (id, nats).

    nats: None for the first of a prompt, which nothing precedes.
    """

    id: int
    nats: float | None
    top: tuple[tuple[int, float], ...] = ()


def likely(ids: Sequence[int], logits: Sequence[NDArray[Any]], k: int) -> list[Token]:
    """Return a token for each of some ids. logits: (V,) in nats, those that it was drawn from. k: how many others."""
    return [_token(id_, costs(row), k) for id_, row in zip(ids, logits, strict=False)]


def of_prompt(served: Served, prompt: Prompt, k: int) -> Iterator[list[Token]]:
    """Yield the tokens of a prompt some at a time, those of the start token among them where it was given.

    Each document of it is read from nothing, as everywhere.
    """
    decoder, ids = served.decoder, prompt.ids
    inputs = np.concatenate([[served.start], ids[:-1]])[: len(ids)]
    starts = _starts(served, prompt)
    inputs[starts] = served.start
    cuts = sorted({0, *starts.tolist(), *range(0, len(ids), WINDOW), len(ids)})
    state, first = decoder.start(), not prompt.begun
    if prompt.begun:
        yield [Token(served.start, None)]
    for a, b in itertools.pairwise(cuts):
        if inputs[a] == served.start:
            state = decoder.start()
        logits, state = decoder.logits(inputs[a:b], state)
        tokens = likely(ids[a:b].tolist(), list(logits), k)
        yield [Token(tokens[0].id, None), *tokens[1:]] if first else tokens
        first = False


def _token(id_: int, nats: NDArray[np.float64], k: int) -> Token:
    top = np.argsort(nats, kind="stable")[:k].tolist() if k else []
    top += [] if id_ in top else [id_]
    return Token(id_, float(nats[id_]), tuple((each, float(nats[each])) for each in top))


def _starts(served: Served, prompt: Prompt) -> NDArray[np.int64]:
    """Return where documents begin, in ids."""
    if not len(prompt.ids):  # an empty text is a document too, but nothing of it is read
        return np.zeros(0, np.int64)
    characters = documents.all_starts(prompt.text, served.document)
    if not len(characters):
        return np.zeros(1, np.int64)
    return np.searchsorted(served.tokenizer.character_index(prompt.ids), characters)
