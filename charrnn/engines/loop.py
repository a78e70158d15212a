"""The loop engine: the equations, one time step after the other, in torch. It runs every cell."""

from typing import Any

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines.sequence import Looked, States, inputs


def supports(cell: Cell, device: str) -> bool:
    """Tell whether the engine can run a cell on a device: always."""
    return True


def run(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence, as `Engine.run` says."""
    outputs = []
    for z_t in inputs(cell, x, p).unbind(0):
        y, state = cell.step(z_t, state, p)
        outputs.append(y)
    return torch.stack(outputs), state
