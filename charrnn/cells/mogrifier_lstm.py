"""The Mogrifier LSTM (Melis et al. 2020): before the LSTM's step, x and h scale each other for some rounds."""

from typing import Any

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import constant, glorot, orthogonal
from charrnn.cells.ops import Array, matmul, sigmoid, split, tanh


def parameters(rounds: int) -> dict[str, Param[str]]:
    return {
        "Q": Param(f"{(rounds + 1) // 2} H I", glorot()),  # odd rounds: h scales x
        "R": Param(f"{rounds // 2} I H", glorot()),  # even rounds: x scales h
        "W": Param("I 4H", glorot(4)),
        "U": Param("H 4H", orthogonal(4)),
        "b": Param("4H", constant(1, 0, 0, 0)),
    }


def inputs(x: Array, p: Any) -> Array:
    return x  # nothing depends on x alone: h scales it first


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    x = z
    for k in range(p.Q.shape[0]):
        x = 2 * sigmoid(matmul(h, p.Q[k])) * x
        if k < p.R.shape[0]:
            h = 2 * sigmoid(matmul(x, p.R[k])) * h
    f, i, o, g = split(matmul(x, p.W) + matmul(h, p.U) + p.b, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return h, (h, c)


cell = Cell(
    name="mogrifier-lstm",
    summary="rounds times in turn: x = 2 sigmoid(Q h) x, h = 2 sigmoid(R x) h; then the lstm's step of both",
    source="Melis, Kočiský and Blunsom, Mogrifier LSTM, 2020",
    parameters=parameters,
    state={"h": 0, "c": 0},
    inputs=inputs,
    step=step,
    options={"rounds": 5},
)
