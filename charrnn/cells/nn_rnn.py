"""torch's nn.RNN, written as equations: a plain tanh network with two biases.

The input starts three times as strong as Glorot's, as in `simple` and `rnn`: they learn faster. Evidence:
docs/results/starts.md.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.W_ih) + p.b_ih


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    h = tanh(z + matmul(h, p.W_hh) + p.b_hh)
    return h, (h,)


cell = Cell(
    name="nn.RNN",
    summary="h = tanh(W_ih x + b_ih + W_hh h + b_hh)",
    source="torch.nn.RNN; Elman, Finding structure in time, 1990",
    parameters={
        "W_ih": Param("I H", glorot(gain=3)),  # torch's weight_ih_l0, transposed
        "W_hh": Param("H H", orthogonal()),
        "b_ih": Param("H", zeros),
        "b_hh": Param("H", zeros),
    },
    state={"h": 0},
    inputs=inputs,
    step=step,
    twin=Twin(
        "RNN",
        to_torch=lambda p: (p.W_ih.T, p.W_hh.T, p.b_ih, p.b_hh),
        from_torch=lambda w_ih, w_hh, b_ih, b_hh: (w_ih.T, w_hh.T, b_ih, b_hh),
    ),
)
