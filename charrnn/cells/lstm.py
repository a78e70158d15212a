"""The LSTM with forget gate (Gers et al. 2000), one bias per gate, gates in the order f, i, o, candidate.

The gates start half open and the input three times as strong as Glorot's. An open forget gate (a bias of 1) helps where
what matters is far back. In text what is near comes first, and an LSTM that mixes it with all before learns late.
Evidence: docs/results/starts.md.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, concat, matmul, sigmoid, split, tanh


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    f, i, o, g = split(z + matmul(h, p.U), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return h, (h, c)


def to_torch(p: Any) -> tuple[Array, Array, Array, Array]:
    def reorder(w: Array) -> Array:  # torch's gate order is i, f, candidate, o
        f, i, o, g = split(w, 4)
        return concat(concat(i, f), concat(g, o))

    return reorder(p.W).T, reorder(p.U).T, reorder(p.b), p.b * 0


cell = Cell(
    name="lstm",
    summary="f, i, o = sigmoid(W x + U h + b); c~ = tanh(W x + U h + b); c = f c + i c~; h = o tanh(c)",
    source="Gers, Schmidhuber and Cummins, Learning to forget: continual prediction with LSTM, 2000",
    parameters={
        "W": Param("I 4H", glorot(4, gain=3)),
        "U": Param("H 4H", orthogonal(4)),
        "b": Param("4H", zeros),
    },
    state={"h": 0, "c": 0},
    step=step,
    twin=Twin("LSTM", to_torch),
)
