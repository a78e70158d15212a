"""The GPU of a Mac, tried against the CPU when it is first used: torch's MPS has computed wrong numbers before."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from charrnn import cells
from charrnn.engines import loop
from charrnn.text import contexts

T, B, H = 7, 5, 48
TOLERANCE = 1e-4  # of an array's norm: float32 rounds, and sums are in another order


@cache
def difference(device: str = "mps") -> str | None:
    """Say where equations on a device differ from those on the CPU, forwards or backwards; None where they do not.

    Before them whole numbers are tried, as direct connections hash them.
    """
    if not torch.equal(*(whole_numbers_on(each).cpu() for each in ("cpu", device))):
        return "arithmetic of whole numbers of 64 bits differs"
    for name in cells.names():
        expected, found = (outcome_on(name, each) for each in ("cpu", device))
        for what, value in expected.items():
            error = float((found[what] - value).norm() / value.norm().clamp(min=1e-6))
            if not error <= TOLERANCE or math.isnan(error):
                return f"{what} of {name} differs by {error:.2g} of its norm"
    return None


def whole_numbers_on(device: str) -> Tensor:
    """Return what products, sums, masks and shifts make of whole numbers below 2^63."""
    n = torch.arange(1, 1000, device=device) * 2_000_003 + 1  # below 2^31
    product = n * contexts.P + n * contexts.Q
    return torch.stack([product, product & contexts.MASK, product >> contexts.BITS, (n == n[7]) * product])


def outcome_on(name: str, device: str) -> dict[str, Tensor]:
    """Return the outputs and gradients of a short sequence, on the CPU in float64."""
    cell, rng = cells.get(name), np.random.default_rng(7)

    def on_device(array: object) -> Tensor:
        return torch.tensor(array, dtype=torch.float32).to(device).requires_grad_()

    params = {key: on_device(value) for key, value in cell.initial(rng, H, H).items()}
    x = on_device(rng.standard_normal((T, B, H)))
    state = tuple(on_device(0.1 * rng.standard_normal((B, *shape))) for shape in cell.states(H).values())
    y, last = loop.run(cell, x, state, cell.pack(params))
    torch.autograd.backward(torch.stack([each.square().sum() for each in (y, *last)]).sum())
    found = {"the output": y, "the gradient of x": x.grad}
    found |= {f"the gradient of {key}": value.grad for key, value in params.items()}
    return {what: value.detach().cpu().double() for what, value in found.items() if value is not None}
