"""The minimal gated unit (Zhou et al. 2016): a GRU whose one gate forgets and resets."""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    f, g = split(z, 2)
    f = sigmoid(f + matmul(h, p.U))
    g = tanh(g + matmul(f * h, p.V))
    h = (1 - f) * h + f * g
    return h, (h,)


cell = Cell(
    name="minimal-gated",
    summary="f = sigmoid(W x + U h + b); h~ = tanh(W x + V (f h) + b); h = (1 - f) h + f h~: one gate for both",
    source="Zhou et al., Minimal gated unit for recurrent neural networks, 2016",
    parameters={
        "W": Param("I 2H", glorot(2)),
        "U": Param("H H", orthogonal()),  # for the gate
        "V": Param("H H", orthogonal()),  # for the candidate, which sees f h
        "b": Param("2H", zeros),
    },
    state={"h": 0},
    step=step,
)
