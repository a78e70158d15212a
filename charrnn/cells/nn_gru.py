"""torch's nn.GRU, written as equations: the reset gate acts AFTER the recurrent product, and z keeps the old state.

z and r start with a bias of -1, so that the new state has more of the input than of the old state: in text what is near
comes first. Evidence: docs/results/starts.md.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import constant, glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.W_ih) + p.b_ih


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    r, z, n = split(z, 3)
    hr, hz, hn = split(matmul(h, p.W_hh) + p.b_hh, 3)
    r = sigmoid(r + hr)
    z = sigmoid(z + hz)
    n = tanh(n + r * hn)
    h = (1 - z) * n + z * h
    return h, (h,)


cell = Cell(
    name="nn.GRU",
    summary="n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h = (1 - z) n + z h: reset after the product",
    source="torch.nn.GRU; Cho et al., Learning phrase representations, 2014 (its first version's form)",
    parameters={
        "W_ih": Param("I 3H", glorot(3)),  # torch's weight_ih_l0, transposed
        "W_hh": Param("H 3H", orthogonal(3)),
        "b_ih": Param("3H", constant(-1, -1, 0)),
        "b_hh": Param("3H", zeros),
    },
    state={"h": 0},
    inputs=inputs,
    step=step,
    twin=Twin(
        "GRU",
        to_torch=lambda p: (p.W_ih.T, p.W_hh.T, p.b_ih, p.b_hh),
        from_torch=lambda w_ih, w_hh, b_ih, b_hh: (w_ih.T, w_hh.T, b_ih, b_hh),
    ),
)
