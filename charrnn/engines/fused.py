"""The fused engine: torch's own layer over the whole sequence. It runs cells that have a twin."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines import cuda
from charrnn.engines.sequence import Looked, States, look_up


def supports(cell: Cell, device: str) -> bool:
    """Tell whether the engine can run a cell on a device: where torch has a layer that is the same function.

    Not on a Mac's GPU: torch's layers have given wrong gradients there.
    """
    return cell.twin is not None and device != "mps"


def note(cell: Cell, device: str, precision: str) -> str | None:
    """Say that products are not bf16 though they were asked for."""
    if precision != "bf16" or multiplies_bf16(cell, device):
        return None
    where = "on a GPU: its products are TF32" if device == "cuda" else "here: its products are float32"
    return f"torch's own layer has no bf16 {where}"


def run(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence, as `Engine.run` says."""
    y, (last,) = run_layers(cell, x, [state], [p])
    return y, last


def run_layers(
    cell: Cell, x: Tensor | Looked, states: Sequence[States], ps: Sequence[Any]
) -> tuple[Tensor, list[States]]:
    """Run layers over a sequence, as `Engine.run_layers` says."""
    assert cell.twin is not None
    x, like = look_up(x), states[0][0]
    weights = [w.contiguous() for p in ps for w in cell.twin.to_torch(p)]
    hidden = [torch.stack(of_layers) for of_layers in zip(*states, strict=True)]
    options = (
        True,
        len(ps),
        0.0,
        torch.is_grad_enabled(),
        False,
        False,
    )  # biases, layers, dropout, train, one way, time-major
    device = x.device.type
    in_float32 = torch.is_autocast_enabled(device) and not multiplies_bf16(cell, device)
    with torch.autocast(device, enabled=False) if in_float32 else nullcontext():
        x = x.to(like.dtype) if in_float32 else x
        weights = cuda.in_one_buffer(cell.twin.layer, weights) if device == "cuda" else weights
        if cell.twin.layer == "LSTM":
            y, *last = torch.lstm(x, hidden, weights, *options)
        else:
            function = {"GRU": torch.gru, "RNN": torch.rnn_tanh}[cell.twin.layer]
            y, *last = function(x, hidden[0], weights, *options)
    # Under autocast torch's layer hands its state back in bfloat16; what is carried on keeps its own precision.
    kept = [after.to(before.dtype).unbind() for after, before in zip(last, hidden, strict=True)]
    return y, list(zip(*kept, strict=True))


def multiplies_bf16(cell: Cell, device: str) -> bool:
    """Tell whether torch's layer has bf16 products for a cell.

    cuDNN's layers have none: under autocast torch gives them float16, in which small gradients become zero. And torch's
    LSTM lacks them on CPUs without AVX-512.
    """
    if cell.twin is None:
        return True
    return device == "cpu" and (cell.twin.layer != "LSTM" or lstm_takes_bf16())


@cache
def lstm_takes_bf16() -> bool:
    """Tell whether torch's LSTM has bf16 products here: tried, because torch does not say, and raises where not."""
    x, state = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    weights = [torch.zeros(32, 8), torch.zeros(32, 8), torch.zeros(32), torch.zeros(32)]
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            torch.lstm(x, [state, state], weights, True, 1, 0.0, False, False, False)
    except RuntimeError:
        return False
    return True
