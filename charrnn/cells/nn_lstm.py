"""torch's nn.LSTM, written as equations: two biases, gates in the order i, f, g, o. It starts as `lstm` does."""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.W_ih) + p.b_ih


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    i, f, g, o = split(z + matmul(h, p.W_hh) + p.b_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return h, (h, c)


cell = Cell(
    name="nn.LSTM",
    summary="i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh); g = tanh(same); c = f c + i g; h = o tanh(c)",
    source="torch.nn.LSTM; Gers, Schmidhuber and Cummins, Learning to forget, 2000",
    parameters={
        "W_ih": Param("I 4H", glorot(4, gain=3)),  # torch's weight_ih_l0, transposed
        "W_hh": Param("H 4H", orthogonal(4)),
        "b_ih": Param("4H", zeros),
        "b_hh": Param("4H", zeros),
    },
    state={"h": 0, "c": 0},
    inputs=inputs,
    step=step,
    twin=Twin(
        "LSTM",
        to_torch=lambda p: (p.W_ih.T, p.W_hh.T, p.b_ih, p.b_hh),
        from_torch=lambda w_ih, w_hh, b_ih, b_hh: (w_ih.T, w_hh.T, b_ih, b_hh),
    ),
)
