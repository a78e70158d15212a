"""A text before anything is learned from it: its alphabet, how predictable it is, what repeats in it.

Entropies are in bits per character. The conditional entropy of a character given the k before it, counted on the text
itself, falls as k grows for a reason that is not the text's: contexts seen once seem to foretell their character with
certainty. So two figures stand beside it: how many such contexts there are, and what the last tenth costs an n-gram
model of the first nine tenths. The last tenth is new to it; its cost is what a trained model should beat.
"""

import lzma
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.progress import Progress, silent
from charrnn.text import repeats
from charrnn.text.code_points import code_points, count_characters
from charrnn.text.copies import Text
from charrnn.text.ngram import costs_by_order
from charrnn.text.repeats import Repeat

ORDERS = 7  # contexts of 0 to 6 characters
RARE = 3  # characters that occur less often are spelled in bytes
# From a longer text so many characters are looked at, in so many blocks spread evenly over it.
SAMPLE_CHARACTERS, BLOCKS = 1 << 21, 16
HELD_OUT = 0.1


@dataclass(frozen=True)
class Order:
    """Contexts of `context` characters. empirical_bits: counted and paid on the same text. once: the share of its
    characters whose context occurs only once. held_out_bits: paid on the last tenth by a model of the first nine.
    """

    context: int
    empirical_bits: float
    once: float
    held_out_bits: float


@dataclass(frozen=True)
class Stats:
    """The findings of `measure`. sampled: how many characters the entropies and xz were taken from.

    repeated: the share of passages of SEED_BYTES that occurred before. beat_bits: the least that a model
    which was not trained pays, and `beat` which one that is.
    """

    characters: int
    bytes: int
    lines: int
    alphabet: str
    common: list[tuple[str, float]]
    rare: str
    rare_characters: int
    sampled: int
    orders: list[Order]
    xz_bits: float
    repeated: float
    repeats: list[Repeat]
    beat_bits: float
    beat: str

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as JSON takes it."""
        return asdict(self)


def measure(text: Text, progress: Progress = silent) -> Stats:
    """Measure a text; one that is longer than SAMPLE_CHARACTERS is counted whole, but its entropies are a sample's."""
    counts: Counter[str] = Counter()
    lines, done = 0, 0
    kept: list[str] = []
    last = ""
    for piece in text.chunks():
        counts.update(count_characters(piece))
        lines += piece.count("\n")
        kept += _sampled(piece, done, text.characters)
        done, last = done + len(piece), piece[-1]
        progress("counting", done, text.characters)
    total = sum(counts.values())
    sample = "".join(kept)
    orders = _orders(_ranks(sample))
    xz = 8 * len(lzma.compress(sample.encode(), preset=6)) / len(sample)
    share, longest = repeats.find(text.path, progress)
    best = min(orders, key=lambda order: order.held_out_bits)
    last_ones = {0: "how often each character occurs", 1: "a model of the last character"}
    beat = (best.held_out_bits, last_ones.get(best.context, f"a model of the last {best.context} characters"))
    rare = sorted(character for character, n in counts.items() if n < RARE)
    return Stats(
        characters=total,
        bytes=text.path.stat().st_size,
        lines=lines + (last != "\n"),
        alphabet="".join(sorted(counts)),
        common=[(character, n / total) for character, n in counts.most_common(10)],
        rare="".join(rare),
        rare_characters=sum(counts[character] for character in rare),
        sampled=len(sample),
        orders=orders,
        xz_bits=xz,
        repeated=share,
        repeats=longest,
        beat_bits=min(beat[0], xz),
        beat=beat[1] if beat[0] <= xz else "xz",
    )


def _sampled(piece: str, position: int, characters: int) -> Iterator[str]:
    """Yield what the sample takes from a piece of the text: all of it, or its share of the blocks."""
    if characters <= SAMPLE_CHARACTERS:
        yield piece
        return
    length = SAMPLE_CHARACTERS // BLOCKS
    for block in range(BLOCKS):
        begin = block * (characters - length) // (BLOCKS - 1) - position
        yield piece[max(begin, 0) : max(begin + length, 0)]


def _ranks(text: str) -> NDArray[np.int64]:
    """Number the characters of a text from 0, in the order of their code points."""
    return np.unique(code_points(text, 0, len(text)), return_inverse=True)[1].astype(np.int64)


# How predictable a character is


def _orders(ranks: NDArray[np.int64]) -> list[Order]:
    """Measure contexts of 0 to ORDERS - 1 characters: counts of the text, and a model's cost on its last tenth."""
    alphabet, highest = int(ranks.max()) + 1, min(ORDERS, len(ranks)) - 1
    learned, held_out = np.split(ranks, [len(ranks) - max(1, round(HELD_OUT * len(ranks)))])
    costs = costs_by_order(learned, [held_out], alphabet, highest)
    context = np.zeros(len(ranks), np.int64)  # of the characters before each, numbered; none are all alike
    orders = []
    for k, (cost,) in enumerate(costs):
        whole = context[k:] * alphabet + ranks[k:]
        distinct, gram = np.unique(whole, return_inverse=True)
        seen = np.bincount(context[k:])
        of_gram = np.bincount(gram)
        bits = np.log2(seen[distinct // alphabet] / of_gram)
        orders.append(
            Order(
                context=k,
                empirical_bits=float((bits * of_gram).sum() / len(gram)),
                once=float(np.count_nonzero(seen == 1) / len(gram)),
                held_out_bits=float(cost.mean() / math.log(2)) + 0.0,  # never -0.0
            )
        )
        # The context of the next character is this one's, with the character itself; numbers stay below N.
        following = np.zeros(len(ranks), np.int64)
        following[k + 1 :] = gram[:-1]
        context = following
    return orders
