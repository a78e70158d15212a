"""How a parameter starts: functions of (a NumPy generator, a shape) that give a float64 array.

A matrix (I, k H) holds k gate blocks side by side, a bias (k H,) likewise; every rule is applied block by block, so
that a gate starts the same way whether it is stored alone or beside others.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Init = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


def _by_blocks(fill: Init, blocks: int) -> Init:
    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        block = (*shape[:-1], shape[-1] // blocks)
        return np.concatenate([fill(rng, block) for _ in range(blocks)], axis=-1)

    return init


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    *stack, rows, columns = shape
    size = max(rows, columns)
    normal = rng.standard_normal((*stack, size, size))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]  # makes the distribution uniform (Haar)
    return np.asarray(q[..., :rows, :columns], dtype=np.float64)


def _glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    bound = (6.0 / (shape[-2] + shape[-1])) ** 0.5
    return rng.uniform(-bound, bound, shape)


def orthogonal(blocks: int = 1) -> Init:
    """Orthogonal blocks, uniformly distributed (Saxe et al. 2014): recurrent products keep the length of h."""
    return _by_blocks(_orthogonal, blocks)


def glorot(blocks: int = 1) -> Init:
    """Uniform within sqrt(6 / (rows + columns)) of each block (Glorot and Bengio 2010)."""
    return _by_blocks(_glorot, blocks)


def uniform(bound: float) -> Init:
    """Uniform within +-bound."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.uniform(-bound, bound, shape)

    return init


def normal(deviation: float) -> Init:
    """Normal with mean 0 and the given standard deviation."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.standard_normal(shape) * deviation

    return init


def constant(*per_block: float) -> Init:
    """The same value throughout each gate block: constant(1, 0, 0) starts the first of three gates at 1."""

    def init(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        values = np.repeat(np.asarray(per_block, dtype=np.float64), shape[-1] // len(per_block))
        return np.broadcast_to(values, shape).copy()

    return init


zeros = constant(0.0)
