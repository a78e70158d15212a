"""Three cells that only the tests know: what the protocol must be wide enough for. `conftest.py` registers them.

They are written here as a user would write a cell: nothing else in the package or its tests mentions them.
"""

from typing import Any

from charrnn.cells.cell import Cell, Param, State, linear_inputs
from charrnn.cells.initialisation import constant, glorot, orthogonal, uniform, zeros
from charrnn.cells.ops import Array, equation, exp, expm1, matmul, maximum, sigmoid, softplus, split, sqrt, tanh

# A mogrifier LSTM: x and h transform each other before the LSTM sees them, so that nothing depends on x alone.


def mogrifier_parameters(I: int, H: int, O: int) -> dict[str, Param]:
    return {
        "Q": Param((H, I), glorot()),
        "R": Param((I, H), glorot()),
        "W": Param((I, 4 * H), glorot(4)),
        "U": Param((H, 4 * H), orthogonal(4)),
        "b": Param((4 * H,), constant(1, 0, 0, 0)),
    }


def mogrifier_inputs(x: Array, p: Any) -> Array:
    return x


def mogrifier_step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c = state
    x = 2 * sigmoid(matmul(h, p.Q)) * z
    h = 2 * sigmoid(matmul(x, p.R)) * h
    f, i, o, g = split(matmul(x, p.W) + matmul(h, p.U) + p.b, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return h, (h, c)


# sLSTM: exponential gates kept in range by a stabiliser m, which starts at minus infinity.


@equation
def log_sigmoid(x: Array) -> Array:
    return -softplus(-x)


def slstm_parameters(I: int, H: int, O: int) -> dict[str, Param]:
    return {
        "W": Param((I, 4 * H), glorot(4)),
        "U": Param((H, 4 * H), orthogonal(4)),
        "b": Param((4 * H,), constant(1, 0, 0, 0)),
    }


def slstm_step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    h, c, n, m = state
    f, i, o, g = split(z + matmul(h, p.U), 4)
    f = log_sigmoid(f) + m
    m = maximum(f, i)
    f = exp(f - m)
    i = exp(i - m)
    c = f * c + i * tanh(g)
    n = f * n + i
    h = sigmoid(o) * c / n
    return h, (h, c, n, m)


# RG-LRU: a linear recurrence, given by its gates and a readout; its step is derived from them.


def rglru_parameters(I: int, H: int, O: int) -> dict[str, Param]:
    return {
        "W": Param((I, 3 * H), glorot(3)),
        "b": Param((3 * H,), zeros),
        "decay": Param((H,), uniform(1.0)),
    }


def rglru_gates(z: Array, p: Any) -> tuple[Array, Array]:
    r, i, x = split(z, 3)
    log_a = -8 * softplus(p.decay) * sigmoid(r)
    return exp(log_a), sqrt(-expm1(2 * log_a)) * sigmoid(i) * x


def rglru_readout(z: Array, h: Array, p: Any) -> Array:
    return h


CELLS = (
    Cell(
        name="test-mogrifier",
        summary="x = 2 sigmoid(Q h) x; h = 2 sigmoid(R x) h; then an LSTM",
        source="Melis, Kocisky and Blunsom, Mogrifier LSTM, 2020",
        parameters=mogrifier_parameters,
        state={"h": 0, "c": 0},
        inputs=mogrifier_inputs,
        step=mogrifier_step,
    ),
    Cell(
        name="test-slstm",
        summary="an LSTM with exponential gates: c = f c + i g; n = f n + i; h = o c / n",
        source="Beck et al., xLSTM, 2024",
        parameters=slstm_parameters,
        state={"h": 0, "c": 0, "n": 0, "m": float("-inf")},
        step=slstm_step,
    ),
    Cell(
        name="test-rg-lru",
        summary="h = a h + sqrt(1 - a a) i x, a = exp(-8 softplus(decay) r)",
        source="De et al., Griffin, 2024",
        parameters=rglru_parameters,
        state={"h": 0},
        inputs=linear_inputs,
        gates=rglru_gates,
        readout=rglru_readout,
    ),
)
