"""Matrices in fewer bytes, laid out as `charrnn.native_products` reads them.

BF16Matrix   two rows in one: the even one in the low, the odd one in the high half of a 32-bit word (a bf16 number is
             the upper half of a float32)
INT8Matrix   whole numbers from -127 to 127 with a scale per column, in panels of 64 columns and pairs of rows
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PANEL = 64  # columns of an INT8Matrix that are read together


class BF16Matrix(NamedTuple):
    """pairs: (ceil(I / 2), O) uint32; the high half of the last row is 0 where I is odd."""

    pairs: NDArray[np.uint32]


class INT8Matrix(NamedTuple):
    """panels: (ceil(O / 64), ceil(I / 2), 64, 2) int8, zeros where I or O end. scale: (O,) float32."""

    panels: NDArray[np.int8]
    scale: NDArray[np.float32]


def to_bf16(matrix: NDArray[np.float32]) -> BF16Matrix:
    """The nearest BF16Matrix to (I, O) float32; of two equally near, the one whose last bit is 0."""
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    if len(rounded) % 2:
        rounded = np.concatenate([rounded, np.zeros((1, rounded.shape[1]), np.uint32)])
    return BF16Matrix(aligned(rounded[::2] | (rounded[1::2] << np.uint32(16))))


def to_int8(matrix: NDArray[np.float32]) -> INT8Matrix:
    """The nearest INT8Matrix to (I, O) float32; the largest weight of each column is 127."""
    I, O = matrix.shape
    scale = (np.abs(matrix).max(axis=0) / np.float32(127)).astype(np.float32)
    padded = np.zeros((I + I % 2, -(-O // PANEL) * PANEL), np.int8)
    padded[:I, :O] = np.rint(matrix / np.where(scale > 0, scale, np.float32(1)))
    panels = padded.reshape(-1, 2, padded.shape[1] // PANEL, PANEL).transpose(2, 0, 3, 1)
    return INT8Matrix(aligned(panels), scale)


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous copy that begins at a cache line, so that no vector of it lies across two."""
    room = np.empty(array.nbytes + 64, np.uint8)
    first = -room.ctypes.data % 64
    copy = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
