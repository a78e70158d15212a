"""Rows of numbers by a matrix, for Numba: one row as fast as memory hands over the matrix, or several by each weight.

The products are those of `charrnn.compiler.products`. One row has panels as wide as its sums fit registers. Of several
rows a tile is multiplied together. Each row's results are the same to the last bit, however many rows there are.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from charrnn.compiler.arithmetic import I64
from charrnn.compiler.decoding.weights import form

FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}
LOW_HALF, HALF = np.int32(0xFFFF), np.int32(16)


def _product(dtype, rows):
    """Make an intrinsic that sets y[:, y_at:y_at + O] to x[:, x_at:x_at + I] by a packed matrix, for all rows of y.

    steps: float32, one a row of x, which an int8 matrix's results are multiplied with, and with scales of its columns.
    y is written up to the end of the last panel.
    """
    shape = form(dtype, rows)

    def generate(context, builder, signature, arguments):
        def array(k):
            return context.make_array(signature.args[k])(context, builder, arguments[k])

        def memory(k):
            """Return the address of an array, and bytes from one row to the next."""
            return builder.ptrtoint(array(k).data, I64), cgutils.unpack_tuple(builder, array(k).strides)[0]

        _, x_at, I, _, _, _, y_at, O, _ = arguments
        (x, x_row), (panels, _), (scales, _), (y, y_row), (steps, _) = map(memory, (0, 3, 4, 5, 8))
        x, y = (builder.add(a, builder.mul(at, I64(4))) for a, at in ((x, x_at), (y, y_at)))
        rows, _ = cgutils.unpack_tuple(builder, array(5).shape)
        sizes = ((I, shape.group), (O, shape.panel))
        K, P = (builder.udiv(builder.add(size, I64(by - 1)), I64(by)) for size, by in sizes)
        others = [scales, steps] if dtype == "int8" else []
        builder.call(shape.emit(builder.module), [x, x_row, panels, y, y_row, rows, K, P, *others])
        return context.get_dummy_value()

    def product(context, x, x_at, I, panels, scales, y, y_at, O, steps):
        whole = types.int64
        return types.void(x, whole, whole, panels, scales, y, whole, whole, steps), generate

    return intrinsic(product)


def _by_numbers(dtype, rows):
    product = _product(dtype, rows)

    @njit(**FLAGS)
    def by(x, x_at, I, panels, y, y_at, O, rounded, steps):
        product(x, x_at, I, panels, steps, y, y_at, O, steps)

    return by


def _by_int8(rows):
    product = _product("int8", rows)

    @njit(**FLAGS)
    def by(x, x_at, I, panels, scales, y, y_at, O, rounded, steps):
        for r in range(x.shape[0]):
            steps[r] = round_to_16_bits(x[r, x_at : x_at + I], rounded[r])
        product(rounded, 0, I, panels, scales, y, y_at, O, steps)

    return by


@njit(**FLAGS)
def round_to_16_bits(x, rounded):
    """Round x (I,) to whole numbers of 16 bits, two in each of rounded (ceil(I / 2),) int32; return their step.

    The error is far below that of int8 weights, and products and sums are whole numbers: one instruction multiplies as
    many weights as a register has bytes or half of them.
    """
    I = x.size
    largest = np.float32(0)
    for i in range(I):
        largest = max(largest, abs(x[i]))
    inverse = np.float32(32767) / largest if largest > 0 else np.float32(0)
    for i in range(I // 2):
        low, high = np.int32(np.rint(x[2 * i] * inverse)), np.int32(np.rint(x[2 * i + 1] * inverse))
        rounded[i] = (low & LOW_HALF) | (high << HALF)
    if I % 2:
        rounded[I // 2] = np.int32(np.rint(x[I - 1] * inverse)) & LOW_HALF
    return largest / np.float32(32767)


# Each sets y[:, y_at:y_at + O] to x[:, x_at:x_at + I] by a matrix as `weights` packs it. x, y: (B, ...) float32, which
# may be one. rounded: (B, ceil(I / 2)) int32 and steps: (B,) float32, to work in.
by_float32, rows_by_float32 = (_by_numbers("float32", rows) for rows in (False, True))
by_bf16, rows_by_bf16 = (_by_numbers("bf16", rows) for rows in (False, True))
by_int8, rows_by_int8 = (_by_int8(rows) for rows in (False, True))
