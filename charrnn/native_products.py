"""A vector by a matrix, for Numba: one row of numbers in, one out, as fast as memory hands over the matrix.

    y_j = sum over i of x_i W_ij,  W stored by rows: rows are read from left to right, four at a time, so that the
    running sums y are read and written once for that many rows

A matrix is a plain array, or one of the two kept in fewer bytes, which are widened in registers:

BF16Matrix   two rows in one: the even one in the low, the odd one in the high half of a 32-bit word (a bf16 number is
             the upper half of a float32)
INT8Matrix   whole numbers from -127 to 127 with a scale per column, in panels of 64 columns and pairs of rows
"""

from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

# The order of a sum is the compiler's: it may keep several running sums, and fuse a product with its addition.
FLAGS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy", "nogil": True}
HIGH_HALF, HALF_WORD = np.uint32(0xFFFF0000), np.uint32(16)


class BF16Matrix(NamedTuple):
    """pairs: (ceil(I / 2), O) uint32; the high half of the last row is 0 where I is odd."""

    pairs: NDArray[np.uint32]


class INT8Matrix(NamedTuple):
    """panels: (ceil(O / 64), ceil(I / 2), 64, 2) int8, zeros where I or O end. scale: (O,) float32."""

    panels: NDArray[np.int8]
    scale: NDArray[np.float32]


PANEL, LANES = 64, 16  # columns of an INT8Matrix's panel, and of one vector register
PAIRS_AT_ONCE = 256  # pairs of rows whose products, 2 x 127 x 32767 each at most, cannot overflow an int32


@intrinsic
def _float32_of_bits(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@njit(**FLAGS)  # type: ignore[untyped-decorator]
def by_array(x, w, y):  # type: ignore[no-untyped-def]
    """y = x (I,) by W (I, O); y: (O,), of x's dtype."""
    I, O = w.shape
    for j in range(O):
        y[j] = 0
    fours = I // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(O):
            y[j] += (a * w[i, j] + b * w[i + 1, j]) + (c * w[i + 2, j] + d * w[i + 3, j])
    for i in range(fours, I):
        a = x[i]
        for j in range(O):
            y[j] += a * w[i, j]


@njit(**FLAGS)  # type: ignore[untyped-decorator]
def by_bf16(x, w, y):  # type: ignore[no-untyped-def]
    """y = x (I,) by a BF16Matrix; x, y: float32."""
    pairs = w.pairs
    I, O = x.size, y.size
    for j in range(O):
        y[j] = 0
    fours = I // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        k = i // 2
        for j in range(O):
            low, high = pairs[k, j], pairs[k + 1, j]
            y[j] += (a * _float32_of_bits(low << HALF_WORD) + b * _float32_of_bits(low & HIGH_HALF)) + (
                c * _float32_of_bits(high << HALF_WORD) + d * _float32_of_bits(high & HIGH_HALF)
            )
    for i in range(fours, I):
        a, shift = x[i], np.uint32(HALF_WORD if i % 2 == 0 else 0)
        for j in range(O):
            y[j] += a * _float32_of_bits((pairs[i // 2, j] << shift) & HIGH_HALF)


@njit(**FLAGS)  # type: ignore[untyped-decorator]
def by_int8(x, w, y):  # type: ignore[no-untyped-def]
    """y = x (I,) by an INT8Matrix; x, y: float32.

    x is rounded to 16 bits, a thousandth of the error of the weights, so that products and sums are whole numbers:
    one instruction multiplies 32 weights where the processor has it.
    """
    panels, O = w.panels, y.size
    pairs = panels.shape[1]
    largest = np.float32(0)
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    step = largest / np.float32(32767)
    inverse = np.float32(32767) / largest if largest > 0 else np.float32(0)
    rounded = np.zeros(2 * pairs, np.int16)
    for i in range(x.size):
        rounded[i] = np.int16(np.rint(x[i] * inverse))
    sums = np.empty(PANEL, np.int32)
    for panel in range(panels.shape[0]):
        first = panel * PANEL
        n = min(PANEL, O - first)
        for i in range(0, pairs, PAIRS_AT_ONCE):
            _sum_panel(rounded[2 * i :], panels[panel, i:], sums, min(PAIRS_AT_ONCE, pairs - i))
            for j in range(n):
                y[first + j] = np.float32(sums[j]) + (y[first + j] if i > 0 else np.float32(0))
        for j in range(n):
            y[first + j] *= step * w.scale[first + j]


@intrinsic
def _sum_panel(context: Any, x: Any, panel: Any, sums: Any, pairs: Any) -> Any:
    """sums (64,) int32 = x (2 pairs,) int16 by panel (pairs, 64, 2) int8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = zip(signature.args[:3], arguments[:3], strict=True)
        x, panel, sums = (context.make_array(kind)(context, builder, array).data for kind, array in given)
        accumulators = PANEL // LANES
        integers, word = ir.VectorType(ir.IntType(32), LANES), ir.IntType(32)
        before = builder.block
        loop, after = builder.append_basic_block("rows"), builder.append_basic_block("done")
        x = builder.bitcast(x, word.as_pointer())
        panel = builder.bitcast(panel, ir.IntType(8).as_pointer())
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(ir.IntType(64))
        i.add_incoming(ir.Constant(i.type, 0), before)
        running = [builder.phi(integers) for _ in range(accumulators)]
        pair = builder.load(builder.gep(x, [i]), align=2)
        both = builder.insert_element(ir.Constant(integers, ir.Undefined), pair, ir.Constant(word, 0))
        both = builder.shuffle_vector(both, both, ir.Constant(integers, [0] * LANES))
        both = builder.bitcast(both, ir.VectorType(ir.IntType(16), 2 * LANES))
        for k, sum_ in enumerate(running):
            sum_.add_incoming(ir.Constant(integers, [0] * LANES), before)
            at = builder.add(builder.mul(i, ir.Constant(i.type, 2 * PANEL)), ir.Constant(i.type, 2 * LANES * k))
            weights = builder.bitcast(builder.gep(panel, [at]), ir.VectorType(ir.IntType(8), 2 * LANES).as_pointer())
            wide = builder.sext(builder.load(weights, align=1), both.type)
            sum_.add_incoming(_add_products(builder, sum_, both, wide), loop)
        following = builder.add(i, ir.Constant(i.type, 1))
        i.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[3]), loop, after)
        builder.position_at_end(after)
        sums = builder.bitcast(sums, integers.as_pointer())
        for k, sum_ in enumerate(running):
            result = next(value for value, block in sum_.incomings if block is loop)
            builder.store(result, builder.gep(sums, [ir.Constant(word, k)]), align=4)
        return context.get_dummy_value()

    return types.void(x, panel, sums, types.int64), generate


def _add_products(builder: Any, sums: Any, a: Any, b: Any) -> Any:
    """sums (16) int32 + a_0 b_0 + a_1 b_1 of each pair of int16."""
    if llvmlite.binding.get_host_cpu_features().get("avx512vnni"):
        name = "llvm.x86.avx512.vpdpwssd.512"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(sums.type, [sums.type, sums.type, sums.type]), name
        )
        return builder.call(function, [sums, builder.bitcast(a, sums.type), builder.bitcast(b, sums.type)])
    for half in (0, 1):
        lanes = ir.Constant(sums.type, list(range(half, 2 * LANES, 2)))
        factors = [builder.sext(builder.shuffle_vector(v, v, lanes), sums.type) for v in (a, b)]
        sums = builder.add(sums, builder.mul(*factors))
    return sums


# From arrays of float32, by NumPy


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
