"""The LSTM with layer normalisation (Ba et al. 2016, equations 20 to 22): of W x, of U h and of c, each with gains.

The paper's three shifts of the gates (one for each norm, and b) are one sum, and so are one parameter here.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal, zeros
from charrnn.cells.ops import Array, layernorm, matmul, sigmoid, split, tanh


def inputs(x: Array, p: Any) -> Array:
    return layernorm(matmul(x, p.W)) * p.gain_x + p.b


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    f, i, o, g = split(z + layernorm(matmul(h, p.U)) * p.gain_h, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(layernorm(c) * p.gain_c + p.b_c)
    return h, (h, c)


cell = Cell(
    name="layernorm-lstm",
    summary="f, i, o = sigmoid(LN(W x) + LN(U h) + b); c~ = tanh(same); c = f c + i c~; h = o tanh(LN(c))",
    source="Ba, Kiros and Hinton, Layer normalization, 2016",
    parameters={
        "W": Param("I 4H", glorot(4)),
        "U": Param("H 4H", orthogonal(4)),
        "gain_x": Param("4H", constant(1)),
        "gain_h": Param("4H", constant(1)),
        "b": Param("4H", constant(1, 0, 0, 0)),
        "gain_c": Param("H", constant(1)),
        "b_c": Param("H", zeros),
    },
    state={"h": 0, "c": 0},
    inputs=inputs,
    step=step,
)
