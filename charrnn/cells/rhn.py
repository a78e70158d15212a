"""The recurrent highway network (Zilly et al. 2017): several highway layers a time step; x enters the first."""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.W) + p.b[0]


def highway(z: Array, s: Array) -> Array:
    h, t = split(z, 2)
    t = sigmoid(t)
    return tanh(h) * t + s * (1 - t)


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (s,) = state
    s = highway(z + matmul(s, p.R[0]), s)
    for k in range(1, p.R.shape[0]):
        s = highway(matmul(s, p.R[k]) + p.b[k], s)
    return s, (s,)


cell = Cell(
    name="rhn",
    summary="depth times: h = tanh(W x + R s + b), t = sigmoid(same), s = h t + s (1 - t); x in the first alone",
    source="Zilly et al., Recurrent highway networks, 2017",
    parameters={
        "W": Param("I 2H", glorot(2)),
        "R": Param("depth H 2H", orthogonal(2)),
        "b": Param("depth 2H", constant(0, -4)),  # gates nearly closed: at first each layer hands s on
    },
    state={"s": 0},
    inputs=inputs,
    step=step,
    options={"depth": 3},
)
