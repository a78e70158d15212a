"""Matrices packed for completing, as `charrnn.compiler.products` multiplies by them.

float32   as they are
bf16      two rows in one: the even one in the low, the odd one in the high half of a 32-bit word (a bf16 number is the
          upper half of a float32)
int8      whole numbers from -127 to 127, of two rows in turn, and a scale per column
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDEST = 64  # columns: of a panel on any processor this or a part of it
Packed = tuple[NDArray[Any], ...]


@cache
def form(dtype: Any, rows: bool) -> Any:
    """Return the form of products by a matrix of a dtype: of one row alone, or of several."""
    from charrnn.compiler.processor import processor
    from charrnn.compiler.products import Form

    wide = processor().registers == 32
    if rows:
        return Form(dtype, 4 if wide else 2, (6, 4, 2, 1))
    tiles = 2 if dtype == "bf16" and not wide else 1  # each number of the result has two sums
    return Form(dtype, 4 if wide else 8 // tiles, (1,), tiles, is_read_once=dtype in ("bf16", "int8"))


def pack(matrix: NDArray[np.float32], shape: Any) -> Packed:
    """Pack (I, O) float32 as panels (panels, ...) of a form, and for int8 the scales of all their columns."""
    if shape.kind == "bf16":
        return (_panels(to_bf16(matrix), shape).view(np.uint32),)
    if shape.kind == "int8":
        whole, scale = to_int8(matrix)
        return _panels(whole, shape), aligned(np.pad(scale, (0, -len(scale) % shape.panel)))
    return (_panels(matrix.astype(np.float64 if shape.kind == "float64" else np.float32), shape),)


def to_bf16(matrix: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of the nearest bf16 numbers; of two equally near, the one whose last bit is 0."""
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def to_int8(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the nearest whole numbers from -127 to 127 (I, O), and the scales (O,) that columns are multiplied by."""
    scale = (np.abs(matrix).max(axis=0) / np.float32(127)).astype(np.float32)
    return np.rint(matrix / np.where(scale > 0, scale, np.float32(1))).astype(np.int8), scale


def _panels(matrix: NDArray[Any], shape: Any) -> NDArray[Any]:
    """Lay out (I, O) by panel, group of rows, column, row of the group: (panels, ...)."""
    I, O = matrix.shape
    padded = np.pad(matrix, ((0, -I % shape.group), (0, -O % shape.panel)))
    panels = padded.reshape(-1, shape.group, shape.panels(O), shape.panel).transpose(2, 0, 3, 1)
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
