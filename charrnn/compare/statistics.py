"""The statistics of a handful of seeds and a piece of text: means with intervals, differences, and which are ties.

A cell's losses on the test part are a table (S, M): S seeds by M blocks of consecutive characters. A loss is a mean
plus an effect of the seed, an effect of the block, and one of both together, all random: another seed, and other text
of the same kind, would have given other ones. Neighbouring characters are hard or easy together. That is why blocks of
BLOCK_CHARACTERS are the units, not characters.

Letters: S seeds, M blocks, N characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError, how_to_install

BLOCK_CHARACTERS = 1000
MIN_BLOCKS = 10  # of a short text, whose blocks are shorter then: a variance needs some
CONFIDENCE = 0.95
FAR, POINTS = 16.0, 641  # of a sum over values up to sinh(FAR), which a t exceeds once in 10 million times at most


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
    """Return the mean of losses (S, M) and its interval; `mean` overrides the mean of the blocks.

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
    # What is of both is in each, and once is enough. The blocks give it up: they are many, and their mean square is
    # known well. That of a few seeds is often small by chance. Less `both`, it would say that seeds do not matter.
    blocks = max(0.0, blocks - both)
    centre = centre if mean is None else mean
    sd = float(by_seed.std(ddof=1)) if S > 1 else 0.0
    error = ((seeds + blocks) / (S * M)) ** 0.5
    if error == 0:
        return Interval(centre, sd, centre, centre, 1.0 if centre == 0 else 0.0)
    ratio = BehrensFisher(seeds / (seeds + blocks), S - 1, M - 1)
    half = ratio.exceeded_with(1 - CONFIDENCE) * error
    return Interval(centre, sd, centre - half, centre + half, ratio.p(abs(centre) / error))


class BehrensFisher:
    """The ratio of a mean to its standard error, whose square is the sum of two: one of few seeds, one of many blocks.

    It is distributed as the sum of two of Student's t, each weighted by its part of the standard error (Behrens 1929,
    Fisher 1935). Its intervals are never too narrow, and too wide by little: docs/results/comparisons.md.
    """

    def __init__(self, seeds_share: float, seeds_freedom: int, blocks_freedom: int) -> None:
        """seeds_share: of the variance, 0 to 1."""
        self._cdf, self._quantile, self._root = _student()
        parts = [(seeds_share, max(1, seeds_freedom)), (1 - seeds_share, max(1, blocks_freedom))]
        (small, freedom), (large, self._freedom) = sorted(parts)
        # The sum over the smaller part's values is exact to many digits: the larger part is smooth beside it. The
        # values spread out like sinh, since a t of one degree of freedom has much of itself far out.
        u = np.linspace(-FAR, FAR, POINTS)
        values, density = np.sinh(u), np.cosh(u) * (1 + np.sinh(u) ** 2 / freedom) ** (-(freedom + 1) / 2)
        self._weights = density / density.sum()
        self._values, self._scale = small**0.5 * values, large**0.5
        self._widest = [(small**0.5, freedom), (large**0.5, self._freedom)]

    def p(self, ratio: float) -> float:
        """Return the probability of a ratio as far from zero as this, either way."""
        return 2 * float(self._weights @ self._cdf(self._freedom, (self._values - ratio) / self._scale))

    def exceeded_with(self, p: float) -> float:
        """Return what the ratio exceeds with probability p, either way."""
        # One of the parts exceeds its own value of half that probability wherever their sum exceeds both values.
        most = -sum(scale * self._quantile(freedom, p / 4) for scale, freedom in self._widest)
        return float(self._root(lambda ratio: self.p(ratio) - p, 0, most, rtol=1e-8))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for being several (Holm 1979): each is the level at which its own claim would still stand."""
    order = np.argsort(p, kind="stable")
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[int(i)] = highest
    return adjusted


def _student() -> tuple[Any, Any, Any]:
    """Return Student's cumulative distribution and its inverse, by degrees of freedom, and a finder of roots."""
    try:
        from scipy.optimize import brentq  # only a comparison needs SciPy
        from scipy.special import stdtr, stdtrit
    except ImportError:
        raise CharRNNError("a comparison needs SciPy for its statistics", how_to_install("compare")) from None
    return stdtr, stdtrit, brentq
