"""Operations of the table for Numba: `op_tanh` and so on, each the instructions that its row emits for LLVM.

They are without a call or a branch, so that a loop over an array becomes vector code. Where Intel's vector library is
absent, Numba would call the C library for one element at a time. Infinities, NaN, signed zeros and subnormals come out
as they should.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic, register_jitable

from charrnn.cells import ops
from charrnn.compiler.arithmetic import Maths, Value


def _function(name):
    """Make a function of one number, or of two of one type, that Numba inlines."""

    def typed(number):
        def generate(context, builder, signature, arguments):
            maths = Maths(builder, 1, number == types.float64, gradual=True)
            return maths.apply(name, *(Value(maths, each) for each in arguments)).ir

        return generate

    def of_one(context, x):
        return x(x), typed(x)

    def of_two(context, a, b):
        return a(a, b), typed(a)

    return intrinsic(of_one if len(ops.TABLE[name].parameters) == 1 else of_two)


globals().update({f"op_{name}": _function(name) for name, operation in ops.TABLE.items() if operation.elementwise})


@register_jitable(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
def layernorm(x, epsilon, y):
    """Set y to x with zero mean and unit variance, epsilon added to the variance; x, y: (H,)."""
    total = x[0] * 0
    for i in range(x.size):
        total += x[i]
    mean = total / y.dtype.type(x.size)
    total = x[0] * 0
    for i in range(x.size):
        total += (x[i] - mean) * (x[i] - mean)
    scale = y.dtype.type(1) / np.sqrt(total / y.dtype.type(x.size) + y.dtype.type(epsilon))
    for i in range(x.size):
        y[i] = (x[i] - mean) * scale
