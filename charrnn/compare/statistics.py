"""The statistics of a handful of seeds and a piece of text: means with intervals, differences, and which are ties.

A cell's losses on the test part are a table (S, M): S seeds by M blocks of consecutive characters. A loss is a mean
plus an effect of the seed, an effect of the block, and one of both together, all random: another seed, and other text
of the same kind, would have given other ones. Neighbouring characters are hard or easy together. That is why blocks of
BLOCK_CHARACTERS are the units, not characters.

Letters: S seeds, M blocks, N characters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError, how_to_install

BLOCK_CHARACTERS = 1000
MIN_BLOCKS = 10  # of a short text, whose blocks are shorter then: a variance needs some
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its interval. sd: over seeds, 0 with one seed. p: of a mean of zero, two-sided."""

    mean: float
    sd: float
    low: float
    high: float
    p: float


def require() -> None:
    """Raise CharRNNError where SciPy is missing: before hours of training, not after."""
    _student()


def in_blocks(per_char: NDArray[Any]) -> NDArray[np.float64]:
    """Return mean losses (..., M) of M blocks of about BLOCK_CHARACTERS consecutive characters, of losses (..., N)."""
    N = per_char.shape[-1]
    M = max(round(N / BLOCK_CHARACTERS), min(MIN_BLOCKS, N))
    means = [block.mean(axis=-1, dtype=np.float64) for block in np.array_split(per_char, M, axis=-1)]
    return np.stack(means, axis=-1)


def interval(losses: NDArray[np.float64], mean: float | None = None) -> Interval:
    """Return the mean of losses (S, M) and its interval by Student's t; `mean` overrides the mean of the blocks.

    The variance of the mean is that of seeds plus that of blocks, from the mean squares of a two-way table without
    repetition. With one seed, blocks alone speak.
    """
    S, M = losses.shape
    by_seed, by_block = losses.mean(axis=1), losses.mean(axis=0)
    centre = float(losses.mean())
    rest = losses - by_seed[:, None] - by_block[None, :] + centre
    seeds = M * float(by_seed.var(ddof=1)) if S > 1 else 0.0
    blocks = S * float(by_block.var(ddof=1)) if M > 1 else 0.0
    both = float((rest**2).sum()) / ((S - 1) * (M - 1)) if S > 1 and M > 1 else 0.0
    centre = centre if mean is None else mean
    sd = float(by_seed.std(ddof=1)) if S > 1 else 0.0
    error = ((max(0.0, seeds - both) + blocks) / (S * M)) ** 0.5  # what is of both is in each: once is enough
    if error == 0:
        return Interval(centre, sd, centre, centre, 1.0 if centre == 0 else 0.0)
    quantile = _Quantile(seeds, both, blocks, S - 1, M - 1)
    half = quantile.two_sided(1 - CONFIDENCE) * error
    return Interval(centre, sd, centre - half, centre + half, quantile.p(abs(centre) / error))


class _Quantile:
    """Student's t for a variance that is the sum of two, one known from few seeds and one from many blocks.

    The right quantile lies between two old answers. One has Satterthwaite's degrees of freedom (1946) and is too narrow
    when a few seeds hold most of the variance. The other is the mean of both parts' own quantiles weighted by their
    variances (Cochran and Cox 1950) and is too wide. Their mean is nearest to what was asked for:
    docs/results/comparisons.md.
    """

    def __init__(self, seeds: float, both: float, blocks: float, seeds_freedom: int, blocks_freedom: int) -> None:
        self._t = _student()
        self._freedoms = [max(1, seeds_freedom), max(1, blocks_freedom)]
        own = max(0.0, seeds - both)
        self._shares = [own / (own + blocks), blocks / (own + blocks)]
        total = seeds + blocks
        self._satterthwaite = total**2 / sum(
            square**2 / freedom for square, freedom in zip((seeds, blocks), self._freedoms, strict=True)
        )

    def two_sided(self, p: float) -> float:
        """Return what the ratio of a mean to its standard error exceeds with probability p, either way."""
        own = sum(share * self._t(f, p / 2) for share, f in zip(self._shares, self._freedoms, strict=True))
        return -float(self._t(self._satterthwaite, p / 2) + own) / 2

    def p(self, ratio: float) -> float:
        """Return the probability that `two_sided` answers with this ratio."""
        low, high = -100.0, 0.0  # of its logarithm
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.two_sided(math.exp(middle)) > ratio else (low, middle)
        return math.exp(high)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for being several (Holm 1979): each is the level at which its own claim would still stand."""
    order = np.argsort(p, kind="stable")
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[int(i)] = highest
    return adjusted


def _student() -> Any:
    """Return the inverse of Student's t: of (degrees of freedom, probability below)."""
    try:
        from scipy.special import stdtrit  # only a comparison needs SciPy
    except ImportError:
        raise CharRNNError("a comparison needs SciPy for its statistics", how_to_install("compare")) from None
    return stdtrit
