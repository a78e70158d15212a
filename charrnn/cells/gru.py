"""The GRU as first published (Cho et al. 2014): the reset gate acts BEFORE the recurrent product.

The update gate starts open: in text what is near comes first. A stronger input helps the LSTMs, but not this cell.
Evidence: docs/results/starts.md.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    z, r, g = split(z, 3)
    uz, ur = split(matmul(h, p.U), 2)
    z = sigmoid(z + uz)
    r = sigmoid(r + ur)
    g = tanh(g + matmul(r * h, p.V))
    h = (1 - z) * h + z * g
    return h, (h,)


cell = Cell(
    name="gru",
    summary="z, r = sigmoid(W x + U h + b); h~ = tanh(W x + U (r h) + b); h = (1 - z) h + z h~: reset first",
    source="Cho et al., Learning phrase representations using RNN encoder-decoder, 2014",
    parameters={
        "W": Param("I 3H", glorot(3)),
        "U": Param("H 2H", orthogonal(2)),  # for the gates z and r
        "V": Param("H H", orthogonal()),  # for the candidate, which sees r h
        "b": Param("3H", constant(1, 0, 0)),
    },
    state={"h": 0},
    step=step,
)
