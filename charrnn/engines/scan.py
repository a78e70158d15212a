"""The scan engine: gates for every step at once, then the recurrence alone. It runs linear recurrences."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines.recurrence import scan
from charrnn.engines.sequence import Looked, States, is_small, look_up

# On a CPU the scan goes piece by piece of about so many numbers, which stay in the cache from gates to outputs.
CHUNK = 1 << 19


def supports(cell: Cell, device: str) -> bool:
    """Tell whether the engine can run a cell on a device: where the cell is a linear recurrence."""
    return cell.linear


def run(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence, as `Engine.run` says."""
    assert cell.readout is not None
    (h,) = state
    outputs = []
    steps = max(1, CHUNK // h.numel()) if h.device.type == "cpu" else None
    for z, a, b in _gates(cell, x, p, steps):
        states = scan(a, b, h)
        outputs.append(cell.readout(z, states, p))
        h = states[-1]
    return torch.cat(outputs), (h.clone(),)  # a view would keep the states of other steps alive


def _gates(cell: Cell, x: Tensor | Looked, p: Any, steps: int | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """z, a and b of so many steps after each other, or of all at once."""
    assert cell.gates is not None
    if is_small(x):  # the gates of a character are the same wherever it is
        table, ids = cell.inputs(x[0], p), x[1]
        a, b = cell.gates(table, p)
        looked = (ids, *(_read(ids, gate) for gate in (a.expand_as(b), b)))
        for ids_n, a_n, b_n in zip(*(torch.split(tensor, steps or len(ids)) for tensor in looked), strict=True):
            yield torch.nn.functional.embedding(ids_n, table), a_n, b_n
    else:
        z = cell.inputs(look_up(x), p)
        for z_n in torch.split(z, steps or len(z)):
            yield z_n, *cell.gates(z_n, p)


def _read(ids: Tensor, rows: Tensor) -> Tensor:
    """Read rows (R, ...) by their numbers (T, B): (T, B, ...)."""
    return torch.nn.functional.embedding(ids, rows.flatten(1)).view(*ids.shape, *rows.shape[1:])
