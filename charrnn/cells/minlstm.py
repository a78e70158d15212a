"""minLSTM (Feng et al. 2024): forget and input gates that do not look at the state, and always sum to 1."""

from typing import Any

from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import constant, glorot
from charrnn.cells.ops import Array, sigmoid, softplus, split


def gates(z: Array, p: Any) -> tuple[Array, Array]:
    f, i, g = split(z, 3)
    d = softplus(-i) - softplus(-f)  # log f - log i, so that f / (f + i) is never 0 / 0
    return sigmoid(d), sigmoid(-d) * g


def readout(z: Array, h: Array, p: Any) -> Array:
    return h


cell = Cell(
    name="minlstm",
    summary="f, i = sigmoid(W x + b); h~ = W x + b; h = f / (f + i) h + i / (f + i) h~: linear in h",
    source="Feng et al., Were RNNs all we needed?, 2024",
    parameters={"W": Param("I 3H", glorot(3)), "b": Param("3H", constant(1, 0, 0))},
    state={"h": 0},
    gates=gates,
    readout=readout,
)
