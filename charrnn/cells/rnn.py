"""A recurrent network with a hidden state and an output layer of its own size (Elman 1990).

The input starts three times as strong as Glorot's, as in `nn.RNN`.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.U) + p.b1


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    h = tanh(z + matmul(h, p.V))
    o = tanh(matmul(h, p.W) + p.b2)
    return o, (h,)


cell = Cell(
    name="rnn",
    summary="h_t = tanh(U x_t + V h_{t-1} + b1), o_t = tanh(W h_t + b2): a hidden state and an output layer",
    source="Elman, Finding structure in time, 1990",
    parameters={
        "U": Param("I H", glorot(gain=3)),
        "V": Param("H H", orthogonal()),
        "b1": Param("H", zeros),
        "W": Param("H O", glorot()),
        "b2": Param("O", zeros),
    },
    state={"h": 0},
    inputs=inputs,
    step=step,
)
