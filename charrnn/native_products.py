"""A vector by a matrix, for Numba: one row of numbers in, one out, as fast as memory hands over the matrix.

    y_j = sum over i of x_i W_ij,  W stored by rows: rows are read from left to right, four at a time, so that the
    running sums y are read and written once for that many rows

A matrix is a plain array, or one of those of `charrnn.native_weights`, which are widened in registers.
"""

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from charrnn.native_weights import PANEL

# The order of a sum is the compiler's: it may keep several running sums, and fuse a product with its addition.
FLAGS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy", "nogil": True}
HIGH_HALF, HALF_WORD = np.uint32(0xFFFF0000), np.uint32(16)
LANES = 16  # numbers in a vector register
PAIRS_AT_ONCE = 256  # pairs of rows whose products, 2 x 127 x 32767 each at most, cannot overflow an int32


@intrinsic
def _float32_of_bits(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@njit(**FLAGS)
def by_array(x, w, y):
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


@njit(**FLAGS)
def by_bf16(x, w, y):
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


@njit(**FLAGS)
def by_int8(x, w, y):
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
def _sum_panel(context, x, panel, sums, pairs):
    """sums (64,) int32 = x (2 pairs,) int16 by panel (pairs, 64, 2) int8."""

    def generate(context, builder, signature, arguments):
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


def _add_products(builder, sums, a, b):
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
