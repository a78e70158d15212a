"""exp, expm1, log1p, sigmoid and tanh for Numba, written so that a loop over an array becomes vector code.

Where Intel's vector library is absent, Numba calls the C library for one element at a time. The functions here need a
range reduction, a polynomial and exponent arithmetic alone: no call, no branch, no table. float32 results are within
4 ulp of the exact ones over the whole range, float64 exp within 2. Infinities, NaN, signed zeros and subnormals come
out as they should.

    exp(x) = 2^n e^r,  n = round(x / ln 2),  |r| <= ln(2) / 2;  ln 2 is split in two so that x - n ln 2 is exact enough
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

# No reassociation: adding and subtracting ROUND below must stay two operations.
FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}

f4, f8 = np.float32, np.float64
ZERO, ONE, TWO = f4(0), f4(1), f4(2)
PER_LN2, LN2_HIGH, LN2_LOW = f4(1 / math.log(2)), f4(0.693359375), f4(math.log(2) - 0.693359375)
ROUND = f4(1.5 * 2**23)  # adding it leaves no room for a fraction: the sum is rounded to a whole number
LOWEST, HIGHEST = f4(-104), f4(89)  # beyond them exp is 0 and infinity
EXPM1_LOWEST = f4(-18)  # below it expm1 is -1
TANH_HIGHEST = f4(9.1)  # above it tanh is 1
T2, T3, T4, T5, T6, T7 = (f4(1 / math.factorial(k)) for k in range(2, 8))  # Taylor: its last term is a tenth of an ulp
A3, A5, A7, A9 = f4(1 / 3), f4(1 / 5), f4(1 / 7), f4(1 / 9)  # of artanh(t) / t
INFINITY = f4(math.inf)

# ln 2 = 0.693147180559945309417232...; the upper part has few enough bits that its product with n is exact.
LN2_HIGH8, LN2_LOW8 = f8(0.6931471803691238), f8(1.9082149292705877e-10)
PER_LN28, ROUND8, LOWEST8, HIGHEST8 = f8(1 / math.log(2)), f8(1.5 * 2**52), f8(-746), f8(710)
TAYLOR8 = tuple(f8(1 / math.factorial(k)) for k in range(13, 1, -1))


@intrinsic
def _float32_of_bits(context, bits):
    """Return the float32 that has the bits of an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of_float32(context, number):
    """Return the int32 that has the bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _float64_of_bits(context, bits):
    """Return the float64 that has the bits of an int64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@register_jitable(**FLAGS)
def _power_of_2(n):
    return _float32_of_bits((n + np.int32(127)) << np.int32(23))


@register_jitable(**FLAGS)
def _reduced(x):
    """Return n as a float, and e^r - 1."""
    n = (x * PER_LN2 + ROUND) - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    return n, r + r * r * (T2 + r * (T3 + r * (T4 + r * (T5 + r * (T6 + r * T7)))))


@register_jitable(**FLAGS)
def exp_float32(x):
    n, less_one = _reduced(min(max(x, LOWEST), HIGHEST))
    whole = np.int32(n)
    half = whole >> np.int32(1)  # in two factors, for subnormal results and for those above 2^127
    y = (ONE + less_one) * _power_of_2(half) * _power_of_2(whole - half)
    return y if x == x else x


@register_jitable(**FLAGS)
def expm1_float32(x):
    n, less_one = _reduced(min(max(x, EXPM1_LOWEST), HIGHEST))
    whole = np.int32(n)
    half = whole >> np.int32(1)
    low, high = _power_of_2(half), _power_of_2(whole - half)
    y = (low * less_one + (low - ONE / high)) * high
    return (y if abs(x) > ZERO else x) if x == x else x


@register_jitable(**FLAGS)
def sigmoid_float32(x):
    e = exp_float32(-abs(x))
    return (ONE if x >= ZERO else e) / (ONE + e)


@register_jitable(**FLAGS)
def tanh_float32(x):
    # (e^2a - 1) / (e^2a + 1) for a = |x|, by e^2a - 1, which keeps the digits of a small a
    n, less_one = _reduced(TWO * min(abs(x), TANH_HIGHEST))
    scale = _power_of_2(np.int32(n))
    e = scale * less_one + (scale - ONE)
    y = math.copysign(e / (e + TWO), x)
    return y if x == x else x


@register_jitable(**FLAGS)
def exp_float64(x):
    c = min(max(x, LOWEST8), HIGHEST8)
    n = (c * PER_LN28 + ROUND8) - ROUND8
    r = (c - n * LN2_HIGH8) - n * LN2_LOW8
    q = f8(0)
    for k in range(len(TAYLOR8)):
        q = q * r + TAYLOR8[k]
    whole = np.int64(n)
    half = whole >> 1
    low = _float64_of_bits((half + 1023) << 52)
    high = _float64_of_bits((whole - half + 1023) << 52)
    y = (f8(1) + (r + r * r * q)) * low * high
    return y if x == x else x


@register_jitable(**FLAGS)
def log1p_float32(x):
    u = ONE + x
    bits = _bits_of_float32(u) - np.int32(
        0x3F3504F3
    )  # the bits of sqrt(1/2): so the mantissa is in sqrt(1/2) .. sqrt(2)
    n = np.float32(bits >> np.int32(23))
    m = _float32_of_bits((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))
    t = (m - ONE) / (m + ONE)  # log(m) = 2 artanh(t)
    s = t * t
    log = n * LN2_HIGH + (n * LN2_LOW + TWO * t * (ONE + s * (A3 + s * (A5 + s * (A7 + s * A9)))))
    y = log * (x / (u - ONE))  # the digits of x that u lost, in proportion
    return (x if u == ONE else y) if x < INFINITY else x


@register_jitable(**FLAGS)
def sigmoid_float64(x):
    e = exp_float64(-abs(x))
    return (f8(1) if x >= 0 else e) / (f8(1) + e)


expm1_float64, tanh_float64, log1p_float64 = math.expm1, math.tanh, math.log1p


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
