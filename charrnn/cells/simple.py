"""The simplest recurrent network: the output itself is fed back (Jordan 1986).

The input starts three times as strong as Glorot's, as in `nn.RNN`.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, Twin
from charrnn.cells.initialisation import glorot, orthogonal, zeros
from charrnn.cells.ops import Array, matmul, tanh


def inputs(x: Array, p: Any) -> Array:
    return matmul(x, p.U) + p.b


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (o,) = state
    o = tanh(z + matmul(o, p.V))
    return o, (o,)


cell = Cell(
    name="simple",
    summary="o_t = tanh(U x_t + V o_{t-1} + b): the output is fed back",
    source="Jordan, Serial order: a parallel distributed processing approach, 1986",
    parameters={"U": Param("I H", glorot(gain=3)), "V": Param("H H", orthogonal()), "b": Param("H", zeros)},
    state={"o": 0},
    inputs=inputs,
    step=step,
    twin=Twin("RNN", to_torch=lambda p: (p.U.T, p.V.T, p.b, p.b * 0)),
)
