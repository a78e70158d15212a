"""The sequence an engine reads: features of every step, or a table and which of its rows is read where."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines import Engine

States = tuple[Tensor, ...]
Looked = tuple[Tensor, Tensor]  # a table (R, I) and ids (T, B) of its rows: the first layer's input, not yet looked up


def is_small(x: Tensor | Looked) -> TypeGuard[Looked]:
    """Tell whether the input is a table with fewer rows than are read of it: each is worth computing once."""
    return isinstance(x, tuple) and x[0].shape[0] < x[1].numel()


def look_up(x: Tensor | Looked) -> Tensor:
    """Return the sequence itself (T, B, I), read from its table where it is given as one."""
    return torch.nn.functional.embedding(x[1], x[0]) if isinstance(x, tuple) else x


def inputs(cell: Cell, x: Tensor | Looked, p: Any) -> Tensor:
    """z = inputs(x, p) for the whole sequence; a table smaller than the sequence goes through it first."""
    if is_small(x):
        table, ids = x
        return torch.nn.functional.embedding(ids, cell.inputs(table, p))
    z: Tensor = cell.inputs(look_up(x), p)
    return z


def run_documents(
    engine: Engine, cell: Cell, x: Tensor | Looked, state: States, p: Any, cuts: Sequence[int], begins: Tensor
) -> tuple[Tensor, States]:
    """As `Engine.run`, for a sequence in which rows begin anew: the same numbers as if each document were run alone.

    cuts: the steps, rising, at which some row does. begins: (T, B), whether a row does at a step. Any engine can:
    the sequence is run in pieces between the cuts, and a row that begins gets the cell's start state.
    """
    start = [torch.tensor(float(value)).to(held) for value, held in zip(cell.state.values(), state, strict=True)]
    bounds = [*([] if cuts[0] == 0 else [0]), *cuts, len(begins)]
    outputs = []
    for begin, end in itertools.pairwise(bounds):
        # `where`, not a product: a start state may be infinite.
        state = tuple(
            torch.where(begins[begin].view(-1, *[1] * (held.ndim - 1)), s, held)
            for s, held in zip(start, state, strict=True)
        )
        piece = (x[0], x[1][begin:end]) if isinstance(x, tuple) else x[begin:end]
        y, state = engine.run(cell, piece, state, p)
        outputs.append(y)
    return torch.cat(outputs), state
