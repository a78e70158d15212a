"""minGRU (Feng et al. 2024): a GRU whose gate and candidate do not look at the state, which makes it linear in it."""

from typing import Any

from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import Array, sigmoid, split


def gates(z: Array, p: Any) -> tuple[Array, Array]:
    z, g = split(z, 2)
    z = sigmoid(z)
    return 1 - z, z * g


def readout(z: Array, h: Array, p: Any) -> Array:
    return h


cell = Cell(
    name="mingru",
    summary="z = sigmoid(W x + b); h~ = W x + b; h = (1 - z) h + z h~: linear in h",
    source="Feng et al., Were RNNs all we needed?, 2024",
    parameters={"W": Param("I 2H", glorot(2)), "b": Param("2H", zeros)},
    state={"h": 0},
    gates=gates,
    readout=readout,
)
