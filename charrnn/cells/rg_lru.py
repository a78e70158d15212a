"""The real-gated linear recurrent unit of Griffin (De et al. 2024): a decay per unit, sharpened by a gate.

The paper's unit has as many inputs as states, made by a layer before it; here that layer is W. The paper's gate
matrices are block-diagonal; here they are full. The paper's decays start near 1, behind a convolution that sees the
last inputs. There is no convolution here, so units that forget at once are needed too (docs/results/starts.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import Array, concat, exp, expm1, matmul, maximum, sigmoid, softplus, split, sqrt


def decays(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """such that a, with its gate open, is uniform from 0.05 to 0.999"""
    return np.log(np.expm1(-np.log(rng.uniform(0.05, 0.999, shape)) / 8))


def inputs(x: Array, p: Any) -> Array:
    u = matmul(x, p.W) + p.b
    return concat(u, matmul(u, p.V) + p.b_v)


def gates(z: Array, p: Any) -> tuple[Array, Array]:
    u, r, i = split(z, 3)
    r = maximum(r, 0 * r - 60)  # a gate of exactly 0 would give the root an infinite gradient
    log_a = -8 * softplus(p.L) * sigmoid(r)
    return exp(log_a), sqrt(-expm1(2 * log_a)) * (sigmoid(i) * u)  # sqrt(1 - a^2), exact for a near 1 too


def readout(z: Array, h: Array, p: Any) -> Array:
    return h


cell = Cell(
    name="rg-lru",
    summary="u = W x + b; r, i = sigmoid(V u + b_v); a = exp(-8 softplus(L) r); h = a h + sqrt(1 - a^2) (i u): "
    "linear in h",
    source="De et al., Griffin: mixing gated linear recurrences with local attention, 2024",
    parameters={
        "W": Param("I H", glorot()),
        "b": Param("H", zeros),
        "V": Param("H 2H", glorot(2)),
        "b_v": Param("2H", zeros),
        "L": Param("H", decays),
    },
    state={"h": 0},
    inputs=inputs,
    gates=gates,
    readout=readout,
)
