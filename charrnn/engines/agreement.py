"""Whether compiled code computes what the equations say on this processor: tried when it was compiled, not when loaded.

An assembler, a processor or a virtual machine that gets an instruction wrong is rare. But whoever meets one must hear
of it, and not get a model that learned something else.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.engines import loop

T, B = 3, 53  # of the sequence: states are carried, and rows are of each kind of tile, and not a multiple of any
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2}  # of an array's norm; wrong code is far off
SMALLEST = 1e-3  # share of the largest norm, below which an array is noise

Run = Callable[[Tensor, Tensor, tuple[Tensor, ...], Any], tuple[Tensor, tuple[Tensor, ...]]]


def difference(
    cell: Cell,
    shapes: dict[str, tuple[int, ...]],
    I: int,
    H: int,
    dtype: torch.dtype,
    run: Run,
    device: str = "cpu",
) -> str | None:
    """Say where a compiled layer differs from the equations, forwards or backwards; None where it does not.

    shapes: of the parameters. dtype: of the products. run: runs the layer on rows (T B, I), an index (T, B), states
    and parameters, on the device.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rng = np.random.default_rng(7)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        scale = 1 / math.sqrt(shape[-2]) if len(shape) > 1 else 0.5  # by what is summed, in a stack of matrices too
        return torch.tensor(scale * rng.standard_normal(shape), dtype=wide, device=device)

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        x, params = drawn((T * B, I)), {name: drawn(shape) for name, shape in shapes.items()}
        states = tuple(
            torch.full((B, H), float(start), dtype=wide, device=device) + 0.1 * drawn((B, H))
            for start in cell.state.values()
        )
        index = torch.arange(T * B, device=device).view(T, B)
        found = []
        for way in ("compiled", "loop"):
            leaves = [t.clone().requires_grad_() for t in (x, *states, *params.values())]
            given, begun, p = leaves[0], tuple(leaves[1 : 1 + len(states)]), cell.pack(leaves[1 + len(states) :])
            if way == "loop":
                y, after = loop.run(cell, given.view(T, B, I), begun, p)
            else:
                with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    y, after = run(given, index, begun, p)
            outputs = [y.to(wide), *after]
            weights = [torch.linspace(0.5, 1.5, o.numel(), dtype=wide, device=device).view_as(o) for o in outputs]
            gradients = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
            found.append([*outputs, *(torch.zeros(1) if g is None else g for g in gradients)])
    names = ["the output", *(f"state {n}" for n in cell.state), "the gradient of x"]
    names += [f"the gradient of state {n}" for n in cell.state] + [f"the gradient of {n}" for n in params]
    for group in (slice(0, 1 + len(states)), slice(1 + len(states), None)):
        norms = [float(of_loop.detach().norm()) for of_loop in found[1][group]]
        largest = max((norm for norm in norms if math.isfinite(norm)), default=0.0)
        for name, got, expected, norm in zip(names[group], found[0][group], found[1][group], norms, strict=True):
            if not math.isfinite(norm):  # equations that overflow say nothing about the code
                continue
            error = float((got - expected).detach().norm())
            if not error <= TOLERANCE[dtype] * max(norm, SMALLEST * largest):  # NaN differs too
                return f"{name} differs by {error / max(norm, 1e-30):.2g} of its norm"
    return None
