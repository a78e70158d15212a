"""Run a cell along time. Four engines, the same numbers:

loop    the equations, one time step after the other, in torch: every cell
fused   torch's own layer over the whole sequence: cells that have a twin
scan    gates for every step at once, then the recurrence alone: linear recurrences
native  machine code made from the equations and their derivative, on a CPU: see `charrnn.engines.compiled`
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines import compiled, cuda
from charrnn.engines.recurrence import scan
from charrnn.errors import CharRNNError

States = tuple[Tensor, ...]
Looked = tuple[Tensor, Tensor]  # a table (R, I) and ids (T, B) of its rows: the first layer's input, not yet looked up

# On a CPU the scan goes piece by piece of about so many numbers, which stay in the cache from gates to outputs.
CHUNK = 1 << 17


def engines(cell: Cell, device: str = "cpu") -> list[str]:
    """List the engines that can run a cell on a device: those without preparation first, each the usually fastest."""
    ready = (["fused"] if cell.twin else []) + (["scan"] if cell.linear else []) + ["loop"]
    return [*ready, "native"] if device == "cpu" and compiled.supports(cell) else ready


def choose(cell: Cell, engine: str, device: str = "cpu") -> str:
    """Return the engine asked for, or the first that can run the cell; raises CharRNNError where it cannot."""
    known = engines(cell, device)
    if engine == "auto":
        return known[0]
    if engine not in known:
        where = "" if device == "cpu" else f" on {device}"
        raise CharRNNError(f"the {engine} engine cannot run cell {cell.name!r}{where}", f"use {' or '.join(known)}")
    return engine


def run(engine: str, cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence.

    x: (T, B, I), or a table (R, I) with ids (T, B). state: (B, H) tensors, not modified. p: from `Cell.pack`.
    Returns outputs (T, B, O) and the state after the last step.
    """
    if engine == "fused":
        return _fused(cell, _look_up(x), state, p)
    if engine == "scan":
        return _scan(cell, x, state, p)
    if engine == "native":
        return _native(cell, x, state, p)
    return _loop(cell, _inputs(cell, x, p), state, p)


def run_documents(
    engine: str, cell: Cell, x: Tensor | Looked, state: States, p: Any, cuts: Sequence[int], begins: Tensor
) -> tuple[Tensor, States]:
    """As `run`, for a sequence in which rows begin anew: the same numbers as if each document were run alone.

    cuts: the steps, rising, at which some row does. begins: (T, B), whether a row does at a step. Any engine can:
    the sequence is run in pieces between the cuts, and a row that begins gets the cell's start state.
    """
    start = [torch.tensor(s).to(held) for s, held in zip(cell.start(()), state, strict=True)]
    bounds = [*([] if cuts[0] == 0 else [0]), *cuts, len(begins)]
    outputs = []
    for begin, end in itertools.pairwise(bounds):
        anew = begins[begin].unsqueeze(1)
        # `where`, not a product: a start state may be infinite.
        state = tuple(torch.where(anew, s, held) for s, held in zip(start, state, strict=True))
        piece = (x[0], x[1][begin:end]) if isinstance(x, tuple) else x[begin:end]
        y, state = run(engine, cell, piece, state, p)
        outputs.append(y)
    return torch.cat(outputs), state


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


def _scan(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
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
    if isinstance(x, tuple) and x[0].shape[0] < x[1].numel():  # the gates of a character are the same wherever it is
        table, ids = cell.inputs(x[0], p), x[1]
        a, b = cell.gates(table, p)
        looked = (ids, *(torch.nn.functional.embedding(ids, gate) for gate in (a.expand_as(b), b)))
        for ids_n, a_n, b_n in zip(*(torch.split(tensor, steps or len(ids)) for tensor in looked), strict=True):
            yield torch.nn.functional.embedding(ids_n, table), a_n, b_n
    else:
        z = cell.inputs(_look_up(x), p)
        for z_n in torch.split(z, steps or len(z)):
            yield z_n, *cell.gates(z_n, p)


def _native(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    if isinstance(x, tuple) and x[0].shape[0] < x[1].numel():
        return compiled.run(cell, *x, state, p)
    x = _look_up(x)
    index = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2])
    return compiled.run(cell, x.flatten(0, 1), index, state, p)


def multiplies_bf16(cell: Cell, device: str) -> bool:
    """Tell whether the fused engine has bf16 products for a cell.

    cuDNN's layers have none: under autocast torch gives them float16, in which small gradients become zero. And torch's
    LSTM lacks them on CPUs without AVX-512.
    """
    if cell.twin is None:
        return True
    return device == "cpu" and (cell.twin.layer != "LSTM" or _lstm_takes_bf16())


@cache
def _lstm_takes_bf16() -> bool:
    """Tried, because torch does not say: where its LSTM cannot, it raises."""
    x, state = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    weights = [torch.zeros(32, 8), torch.zeros(32, 8), torch.zeros(32), torch.zeros(32)]
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            torch.lstm(x, [state, state], weights, True, 1, 0.0, False, False, False)
    except RuntimeError:
        return False
    return True


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
    device = x.device.type
    in_float32 = torch.is_autocast_enabled(device) and not multiplies_bf16(cell, device)
    with torch.autocast(device, enabled=False) if in_float32 else nullcontext():
        x = x.to(state[0].dtype) if in_float32 else x
        weights = cuda.in_one_buffer(cell.twin.layer, weights) if device == "cuda" else weights
        if cell.twin.layer == "LSTM":
            y, *last = torch.lstm(x, hidden, weights, *options)
        else:
            function = {"GRU": torch.gru, "RNN": torch.rnn_tanh}[cell.twin.layer]
            y, *last = function(x, hidden[0], weights, *options)
    # Under autocast torch's layer hands its state back in bfloat16; what is carried on keeps its own precision.
    return y, tuple(after.squeeze(0).to(before.dtype) for after, before in zip(last, state, strict=True))
