"""Rules for how a parameter starts: functions of (a NumPy generator, a shape) that give a float64 array.

A matrix (I, k H) holds k gate blocks side by side, a bias (k H,) likewise. Every rule is applied block by block, so
that a gate starts the same way whether it is stored alone or beside others. A rule can say in words what it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError

Init = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class Rule:
    """A function that starts a parameter, with its name in words."""

    words: str
    fill: Init

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.fill(rng, shape)


def describe(init: Init) -> str:
    """Say in words what a rule is: its own words, or else the first line of the function's docstring, or its name."""
    if isinstance(init, Rule):
        return init.words
    return (init.__doc__ or init.__name__).strip().split("\n")[0]


def _by_blocks(words: str, fill: Init, blocks: int) -> Rule:
    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        block = (*shape[:-1], _width(shape, blocks))
        return np.concatenate([fill(rng, block) for _ in range(blocks)], axis=-1)

    return Rule(words if blocks == 1 else f"{words}, {blocks} blocks", init)


def _width(shape: tuple[int, ...], blocks: int) -> int:
    """Return how wide each block of the last axis is; CharRNNError where it cannot be cut so."""
    if not shape or shape[-1] % blocks:
        last = shape[-1] if shape else "no"
        raise CharRNNError(
            f"its rule is for {blocks} blocks side by side, and the last axis has {last} features",
            "give as many blocks as the axis has gates: glorot(4) for 'I 4H', constant(1, 0) for '2H'",
        )
    return shape[-1] // blocks


def _refuse_vector(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise CharRNNError(
            "its rule is for a matrix, and it has one axis", "use zeros, constant, uniform or normal for a vector"
        )


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    _refuse_vector(shape)
    *stack, rows, columns = shape
    size = max(rows, columns)
    normal = rng.standard_normal((*stack, size, size))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]  # makes the distribution uniform (Haar)
    return np.asarray(q[..., :rows, :columns], dtype=np.float64)


def orthogonal(blocks: int = 1) -> Rule:
    """Make orthogonal blocks, uniformly distributed (Saxe et al. 2014): recurrent products keep the length of h."""
    return _by_blocks("orthogonal", _orthogonal, blocks)


def glorot(blocks: int = 1, gain: float = 1) -> Rule:
    """Draw uniformly within gain sqrt(6 / (rows + columns)) of each block (Glorot and Bengio 2010)."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        _refuse_vector(shape)
        bound = gain * (6.0 / (shape[-2] + shape[-1])) ** 0.5
        return rng.uniform(-bound, bound, shape)

    return _by_blocks("Glorot uniform" + (f" times {gain:g}" if gain != 1 else ""), fill, blocks)


def uniform(bound: float) -> Rule:
    """Draw uniformly within +-bound."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.uniform(-bound, bound, shape)

    return Rule(f"uniform within +-{bound:g}", init)


def normal(deviation: float) -> Rule:
    """Draw from a normal distribution with mean 0 and the given standard deviation."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.standard_normal(shape) * deviation

    return Rule(f"normal, deviation {deviation:g}", init)


def constant(*per_block: float) -> Rule:
    """Set the same value throughout each gate block: constant(1, 0, 0) starts the first of three gates at 1."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        values = np.repeat(np.asarray(per_block, dtype=np.float64), _width(shape, len(per_block)))
        return np.broadcast_to(values, shape).copy()

    return Rule(", ".join(f"{value:g}" for value in per_block) + (" by block" if len(per_block) > 1 else ""), init)


zeros = constant(0.0)
