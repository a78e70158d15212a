"""An interpolated n-gram model of ids: modified Kneser-Ney (Chen and Goodman 1998), counted with NumPy.

    P_k(c | context) = (n(context, c) - D) / n(context) + left(context) P_{k-1}(c | context without its first id)

D is one of three discounts, for what was seen once, twice and more often; `left` is what they took away, so that the
probabilities of all V ids sum to 1. The longest context counts occurrences; a shorter one counts how many different
ids something was seen after (Kneser and Ney 1995); below order 0 stands 1 / V. Every order needs only the one below
it, so that all orders up to the highest come from one pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def costs_by_order(
    train: NDArray[Any], texts: Sequence[NDArray[Any]], vocabulary: int, highest: int
) -> Iterator[list[Probabilities]]:
    """Yield the nats of every id of several texts by the models of order 0, 1 ... `highest`, the ids of context.

    All are learned from `train`. Before the first id of a text stands an id that is nowhere else.
    """
    begin = np.full(highest + 1, vocabulary, np.int64)
    pieces = [part for text in (train, *texts) for part in (begin, np.asarray(text, np.int64))]
    ids = np.concatenate(pieces)
    learned = slice(len(begin), len(begin) + len(train))
    ends = np.cumsum([len(piece) for piece in pieces])[3::2]
    scored = np.concatenate([np.arange(end - len(text), end) for end, text in zip(ends, texts, strict=True)])
    cuts = np.cumsum([len(text) for text in texts])[:-1]
    context = np.zeros(len(ids), np.int64)  # which context of `order` ids stands before each position
    grams = ids  # and which context with the id that follows it
    below = np.full(len(scored), 1 / vocabulary)
    for order in range(highest + 1):
        earlier = np.concatenate([begin[: order + 1], ids[: -order - 1]])  # the id before the context
        longer = _numbered(context * (vocabulary + 1) + earlier)
        wider = _numbered(longer * (vocabulary + 1) + ids)
        here, after = grams[scored], context[scored]
        yield np.split(-np.log(_interpolated(grams[learned], context[learned], here, after, below)), cuts)
        kinds = _firsts(wider[learned])
        below = _interpolated(grams[learned][kinds], context[learned][kinds], here, after, below)
        context, grams = longer, wider


def _interpolated(
    grams: Numbers, contexts: Numbers, here: Numbers, after: Numbers, below: Probabilities
) -> Probabilities:
    """Return P (N,) of n-grams `here` after contexts `after`, from those counted and probabilities one order below."""
    n = np.bincount(grams, minlength=int(here.max(initial=0)) + 1)
    total = np.bincount(contexts, minlength=int(after.max(initial=0)) + 1)
    first = _firsts(grams)
    seen = n[grams[first]]
    discount = _discounts(seen)
    taken = np.bincount(contexts[first], weights=discount[np.minimum(seen, 3)], minlength=len(total))
    known = total[after] > 0
    within = np.maximum(total[after], 1)
    p = (np.maximum(n[here] - discount[np.minimum(n[here], 3)], 0) + taken[after] * below) / within
    mixed: Probabilities = np.where(known, p, below)
    return mixed


def _discounts(counts: Numbers) -> NDArray[np.float64]:
    """Return D of what was seen 0, 1, 2 and 3 or more times, from how many n-grams were seen how often."""
    n1, n2, n3, n4 = (np.bincount(counts, minlength=5)[1:5] + 1e-9).tolist()
    y = n1 / (n1 + 2 * n2)
    d = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # A small text may lack what the formula divides by; something must be left for what was never seen.
    clipped: NDArray[np.float64] = np.clip(d, [0, 0.1, 0.1, 0.1], [0, 0.95, 1.9, 2.85])
    return clipped


def _numbered(keys: Numbers) -> Numbers:
    """Number keys from 0 in ascending order; equal ones alike."""
    numbers: Numbers = np.unique(keys, return_inverse=True)[1]
    return numbers.reshape(keys.shape)


def _firsts(numbers: Numbers) -> Numbers:
    """Return where each number stands first, numbers ascending. They are small: no sorting is needed."""
    first = np.full(int(numbers.max(initial=-1)) + 1, -1)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # of several, the last one that is written stays
    found: Numbers = first[first >= 0]
    return found
