"""The independently recurrent network (Li et al. 2018): each unit sees of the past only itself, through u within +-1.

The paper bounds |u| by the T-th root of 2, so that nothing grows by more than 2 within a sequence of T, and clips u
after every step of training. Here the state is carried on for as long as the text is, so the bound is its limit, 1. It
is part of the equations: u = tanh(v), which training cannot leave and which never stops the gradient.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.cells.cell import Cell, Param, State
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import Array, relu, tanh


def memories(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """such that u is uniform from 0 to 0.999: units that forget at once, and units that hardly do"""
    return np.arctanh(rng.uniform(0, 0.999, shape))


def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
    (h,) = state
    h = relu(z + tanh(p.v) * h)
    return h, (h,)


cell = Cell(
    name="indrnn",
    summary="h = relu(W x + u h + b), u = tanh(v), unit by unit: |u| < 1 bounds every unit's memory",
    source="Li et al., Independently recurrent neural network (IndRNN), 2018",
    parameters={"W": Param("I H", glorot()), "v": Param("H", memories), "b": Param("H", zeros)},
    state={"h": 0},
    step=step,
)
