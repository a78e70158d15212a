"""The form of the products of a time step: packing for it is worth it, since the same matrix is used at every step."""

import torch

from charrnn.compiler.processor import processor
from charrnn.compiler.products import Form, Kind

ROWS = 4  # of a tile; with as many registers across, or half as many, the sums fill half of those there are
KINDS: dict[torch.dtype, Kind] = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "pairs"}


def form(dtype: torch.dtype) -> Form:
    """Return the form of products in a dtype."""
    return Form(KINDS[dtype], 4 if processor().registers == 32 else 2, (ROWS, 1))
