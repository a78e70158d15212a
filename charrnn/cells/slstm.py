"""xLSTM's scalar cell (Beck et al. 2024): an exponential input gate, a normaliser n, and a stabiliser m.

i = exp(...) may grow beyond any float, so c and n are kept scaled by exp(-m), which cancels in c / n. The forget gate
is the paper's sigmoid (it allows exp too); the recurrent matrix is one full head.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, exp, matmul, maximum, sigmoid, softplus, split, tanh


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c, n, m = state
    f, i, o, g = split(z + matmul(h, p.U), 4)
    kept = m - softplus(-f)  # m + log f; -inf at the start, where there is nothing to keep
    m = maximum(kept, i)
    f = exp(kept - m)
    i = exp(i - m)
    c = f * c + i * tanh(g)
    n = f * n + i  # at least 1: either f or i is
    h = sigmoid(o) * (c / n)
    return h, (h, c, n, m)


cell = Cell(
    name="slstm",
    summary="i = exp(W x + U h + b), f, o = sigmoid(same), c~ = tanh(same); c = f c + i c~; n = f n + i; h = o c / n",
    source="Beck et al., xLSTM: extended long short-term memory, 2024",
    parameters={
        "W": Param("I 4H", glorot(4)),
        "U": Param("H 4H", orthogonal(4)),
        "b": Param("4H", constant(1, 0, 0, 0)),
    },
    state={"h": 0, "c": 0, "n": 0, "m": float("-inf")},
    step=step,
)
