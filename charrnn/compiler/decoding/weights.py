"""Matrices as `products` and `rows` beside this read them: in panels of 64 columns, the last filled up with zeros.

float32   row after row
bf16      two rows in one: the even one in the low, the odd one in the high half of a 32-bit word (a bf16 number is the
          upper half of a float32)
int8      whole numbers from -127 to 127, of two rows in turn, and a scale per column

For several rows of numbers a panel is cut again, into tiles of TILE columns, each laid out in that way.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler.processor import processor

WIDE = processor().has("avx512f")  # 32 registers of 64 bytes, else (as a rule) 16 of 32
PANEL = 64  # columns that are summed together
TILE, TILE_ROWS = (PANEL, 6) if WIDE else (16, 6)  # multiplied together: the sums fill 24 of 32 registers, or 12 of 16
GROUP = {"float32": 1, "bf16": 2, "int8": 2}  # rows of the matrix in one of a panel
Packed = tuple[NDArray[Any], ...]


def pack(matrix: NDArray[np.float32], dtype: str, for_rows: bool = False) -> Packed:
    """Pack (I, O) float32 as panels (ceil(O / 64), ...), and for int8 the scales (O,).

    dtype: of the weights: float32, bf16 or int8. for_rows: whether several rows of numbers will be multiplied by it,
    and not one.
    """
    scales: Packed = ()
    if dtype == "float32":
        panels = _panels(matrix, 1)
    elif dtype == "bf16":
        pairs = _panels(to_bf16(matrix).astype(np.uint32), 2).reshape(-1, PANEL, 2)
        joined = pairs[..., 0] | (pairs[..., 1] << np.uint32(16))
        panels = aligned(joined.reshape(-(-matrix.shape[1] // PANEL), -1))
    else:
        scale = (np.abs(matrix).max(axis=0) / np.float32(127)).astype(np.float32)
        whole = np.rint(matrix / np.where(scale > 0, scale, np.float32(1))).astype(np.int8)
        panels, scales = _panels(whole, 2), (scale,)
    if for_rows and TILE < PANEL:
        groups = -(-len(matrix) // GROUP[dtype])
        tiles = panels.reshape(len(panels), groups, PANEL // TILE, -1).swapaxes(1, 2)
        panels = aligned(tiles.reshape(panels.shape))
    return (panels, *scales)


def to_bf16(matrix: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of the nearest bf16 numbers; of two equally near, the one whose last bit is 0."""
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def _panels(matrix: NDArray[Any], rows: int) -> NDArray[Any]:
    """Lay out (I, O) as (ceil(O / 64), ceil(I / rows) 64 rows): panel, group of rows, column, row of the group."""
    I, O = matrix.shape
    padded = np.zeros((-(-I // rows) * rows, -(-O // PANEL) * PANEL), matrix.dtype)
    padded[:I, :O] = matrix
    panels = padded.reshape(-1, rows, padded.shape[1] // PANEL, PANEL).transpose(2, 0, 3, 1)
    return aligned(panels.reshape(len(panels), -1))


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Make a contiguous copy that begins at a cache line, so that no vector of it lies across two."""
    copy = room(array.size, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def room(n: int, dtype: Any) -> NDArray[Any]:
    """Return room for n numbers that begins at a cache line; it holds whatever was there before."""
    size = n * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype)
