"""The multiplicative LSTM (Krause et al. 2016): each character has a recurrent matrix of its own, V scaled by it."""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, concat, matmul, sigmoid, split, tanh


def inputs(x: Array, p: Any) -> Array:
    return concat(matmul(x, p.W_m), matmul(x, p.W) + p.b)


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    m, f, i, o, g = split(z, 5)
    m = m * matmul(h, p.V)
    uf, ui, uo, ug = split(matmul(m, p.U), 4)
    c = sigmoid(f + uf) * c + sigmoid(i + ui) * tanh(g + ug)
    h = sigmoid(o + uo) * tanh(c)
    return h, (h, c)


cell = Cell(
    name="multiplicative-lstm",
    summary="m = (W_m x) (V h); f, i, o = sigmoid(W x + U m + b); c~ = tanh(W x + U m + b); c = f c + i c~; "
    "h = o tanh(c)",
    source="Krause et al., Multiplicative LSTM for sequence modelling, 2016",
    parameters={
        "W_m": Param("I H", glorot()),
        "W": Param("I 4H", glorot(4)),
        "V": Param("H H", orthogonal()),
        "U": Param("H 4H", orthogonal(4)),
        "b": Param("4H", constant(1, 0, 0, 0)),
    },
    state={"h": 0, "c": 0},
    inputs=inputs,
    step=step,
)
