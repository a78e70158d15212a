"""The simple recurrent unit (Lei et al. 2018) with v = 0: its gates do not look at the state, which is linear then.

The highway carries x past the state; where x is not as wide as the state the paper projects it, here it always does,
and so the paper's scaling of x is the projection's to learn.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import Array, matmul, sigmoid, split


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.W)


def gates(z: Array, p: Any) -> tuple[Array, Array]:
    g, f, _, _ = split(z, 4)
    b_f, _ = split(p.b, 2)
    f = sigmoid(f + b_f)
    return f, (1 - f) * g


def readout(z: Array, c: Array, p: Any) -> Array:
    _, _, r, x = split(z, 4)
    _, b_r = split(p.b, 2)
    r = sigmoid(r + b_r)
    return r * c + (1 - r) * x


cell = Cell(
    name="sru",
    summary="g, x' = W x; f, r = sigmoid(W x + b); c = f c + (1 - f) g; h = r c + (1 - r) x': linear in c",
    source="Lei et al., Simple recurrent units for highly parallelizable recurrence, 2018",
    parameters={"W": Param("I 4H", glorot(4)), "b": Param("2H", zeros)},
    state={"c": 0},
    inputs=inputs,
    gates=gates,
    readout=readout,
)
