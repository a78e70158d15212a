"""Run a cell along time, in torch. Three engines, the same numbers:

loop    the equations, one time step after the other: every cell
fused   torch's own layer over the whole sequence: cells that have a twin
scan    gates for every step at once, then a parallel recurrence: linear recurrences
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from charrnn.cell import Cell
from charrnn.errors import CharRNNError

States = tuple[Tensor, ...]
Looked = tuple[Tensor, Tensor]  # a table (R, I) and ids (T, B) of its rows: the first layer's input, not yet looked up


def engines(cell: Cell) -> list[str]:
    """The engines that can run a cell, the usually fastest first."""
    return (["fused"] if cell.twin else []) + ["loop"]


def choose(cell: Cell, engine: str) -> str:
    """The engine asked for, or the first that can run the cell; raises CharRNNError where it cannot."""
    if engine == "auto":
        return engines(cell)[0]
    if engine not in engines(cell):
        raise CharRNNError(f"the {engine} engine cannot run cell {cell.name!r}", f"use {' or '.join(engines(cell))}")
    return engine


def run(engine: str, cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence.

    x: (T, B, I), or a table (R, I) with ids (T, B). state: (B, H) tensors, not modified. p: from `Cell.pack`.
    Returns outputs (T, B, O) and the state after the last step.
    """
    if engine == "fused":
        return _fused(cell, _look_up(x), state, p)
    return _loop(cell, _inputs(cell, x, p), state, p)


def _inputs(cell: Cell, x: Tensor | Looked, p: Any) -> Tensor:
    """z = inputs(x, p) for the whole sequence; a table smaller than the sequence goes through it first."""
    if isinstance(x, tuple) and x[0].shape[0] < x[1].numel():
        table, ids = x
        return torch.nn.functional.embedding(ids, cell.inputs(table, p))
    z: Tensor = cell.inputs(_look_up(x), p)
    return z


def _look_up(x: Tensor | Looked) -> Tensor:
    return torch.nn.functional.embedding(x[1], x[0]) if isinstance(x, tuple) else x


def _loop(cell: Cell, z: Tensor, state: States, p: Any) -> tuple[Tensor, States]:
    outputs = []
    for z_t in z.unbind(0):
        y, state = cell.step(z_t, state, p)
        outputs.append(y)
    return torch.stack(outputs), state


def _fused(cell: Cell, x: Tensor, state: States, p: Any) -> tuple[Tensor, States]:
    assert cell.twin is not None
    weights = [w.contiguous() for w in cell.twin.to_torch(p)]
    hidden = [s.unsqueeze(0) for s in state]
    options = (
        True,
        1,
        0.0,
        torch.is_grad_enabled(),
        False,
        False,
    )  # biases, layers, dropout, train, one way, time-major
    if cell.twin.layer == "LSTM":
        y, *last = torch.lstm(x, hidden, weights, *options)
    else:
        function = {"GRU": torch.gru, "RNN": torch.rnn_tanh}[cell.twin.layer]
        y, *last = function(x, hidden[0], weights, *options)
    # Under autocast torch's layer hands its state back in bfloat16; what is carried on keeps its own precision.
    return y, tuple(after.squeeze(0).to(before.dtype) for after, before in zip(last, state, strict=True))


def to_torch(cell: Cell, params: Mapping[str, Tensor]) -> torch.nn.RNNBase:
    """The torch layer that computes what the cell computes with these parameters, which it copies.

    Raises CharRNNError for a cell without a torch twin.
    """
    if cell.twin is None:
        raise CharRNNError(f"cell {cell.name!r} has no torch layer of the same equations", "run its equations")
    weights = cell.twin.to_torch(cell.pack(params))
    layer: torch.nn.RNNBase = getattr(torch.nn, cell.twin.layer)(weights[0].shape[1], weights[1].shape[1])
    layer.to(weights[0].dtype)
    with torch.no_grad():
        for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights, strict=True):
            getattr(layer, name).copy_(value)
    return layer


def from_torch(cell: Cell, layer: torch.nn.RNNBase) -> dict[str, Tensor]:
    """The cell's parameters, copied from the first layer of its torch twin.

    Raises CharRNNError where the layer can hold what the cell cannot, or is of another kind.
    """
    if cell.twin is None or cell.twin.from_torch is None or type(layer).__name__ != cell.twin.layer:
        raise CharRNNError(
            f"cell {cell.name!r} cannot take the weights of a {type(layer).__name__}", "use its nn. twin"
        )
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    values = cell.twin.from_torch(*(w.detach().clone() for w in weights))  # type: ignore[operator]
    return {name: value.contiguous() for name, value in zip(cell.shapes(2, 2), values, strict=True)}
