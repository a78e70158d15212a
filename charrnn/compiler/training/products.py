"""The form of the products of a time step, and matrices of torch packed for it.

Packing is worth it because the same matrix is used at every time step.
"""

import torch
from torch import Tensor

from charrnn.compiler.processor import processor
from charrnn.compiler.products import Form, Kind

ROWS = 4  # of a tile; with as many registers across, or half as many, the sums fill half of those there are
KINDS: dict[torch.dtype, Kind] = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "pairs"}


def form(dtype: torch.dtype) -> Form:
    """Return the form of products in a dtype."""
    return Form(KINDS[dtype], 4 if processor().vector_bytes == 64 else 2, (ROWS, 1))


def pack(matrix: Tensor, shape: Form, transposed: bool) -> Tensor:
    """Pack a matrix (K, N) in the dtype of a form's products, or the transpose of (N, K)."""
    matrix = matrix.contiguous()
    if shape.group == 2 and matrix.shape[transposed] % 2:
        matrix = torch.nn.functional.pad(matrix, (0, 1) if transposed else (0, 0, 0, 1))
    if transposed:
        words = matrix.view(torch.int32) if shape.group == 2 else matrix  # pairs are side by side
        words = words.t().contiguous()  # torch goes through a matrix in squares, through more axes it does not
    elif shape.group == 2:
        even, odd = matrix.view(torch.int16).view(len(matrix) // 2, 2, -1).unbind(1)
        words = torch.stack((even, odd), dim=-1).view(torch.int32).squeeze(-1)
    else:
        words = matrix
    if missing := -words.shape[1] % shape.panel:
        words = torch.nn.functional.pad(words, (0, missing))
    return words.view(len(words), -1, shape.panel).transpose(0, 1).contiguous()
