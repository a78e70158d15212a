"""The GRU with the reset gate AFTER the recurrent product, one bias per gate: nn.GRU without its second bias.

It starts as `nn.GRU` does.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    r, z, n = split(z, 3)
    ur, uz, un = split(matmul(h, p.U), 3)
    r = sigmoid(r + ur)
    z = sigmoid(z + uz)
    n = tanh(n + r * un)
    h = (1 - z) * n + z * h
    return h, (h,)


cell = Cell(
    name="gru-after",
    summary="r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r (U h)); h = (1 - z) n + z h: reset after, one bias",
    source="Cho et al., Learning phrase representations using RNN encoder-decoder, 2014 (its first version's form)",
    parameters={
        "W": Param("I 3H", glorot(3)),
        "U": Param("H 3H", orthogonal(3)),
        "b": Param("3H", constant(-1, -1, 0)),
    },
    state={"h": 0},
    step=step,
    twin=Twin("GRU", to_torch=lambda p: (p.W.T, p.U.T, p.b, p.b * 0)),  # b_hn, within r (...), is zero: exact
)
