"""Arithmetic on vectors of numbers, written as LLVM instructions.

float32 functions are a range reduction, a polynomial and exponent arithmetic, without a call or a branch, so that 16
of them take the time of one; they are within a few ulp. float64 is there to be exact, and calls the C library.
"""

import math
import struct
from typing import Any

from llvmlite import ir

from charrnn.cells import ops

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
ROUND = 1.5 * 2**23  # adding it leaves no room for a fraction: the sum's lowest bits are a whole number
LN2_HIGH = 0.693359375  # few bits, so that a whole number of it is exact
LN2_LOW = math.log(2) - LN2_HIGH


class BFloat(ir.Type):  # type: ignore[misc]  # llvmlite is not typed
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


class Maths:
    """Emits arithmetic on `lanes` numbers at once, float32 (or float64, then one at a time)."""

    def __init__(self, builder: Any, lanes: int, double: bool = False) -> None:
        self.builder, self.lanes, self.double = builder, lanes, double
        self.number = self.many(ir.DoubleType() if double else ir.FloatType())

    def many(self, kind: Any) -> Any:
        return kind if self.lanes == 1 else ir.VectorType(kind, self.lanes)

    def constant(self, value: float) -> "Value":
        if not self.double:
            value = struct.unpack("f", struct.pack("f", value))[0]
        return Value(self, self._all(self.number, value))

    def whole(self, value: int) -> Any:
        return self._all(self.many(I32), value)

    def _all(self, kind: Any, value: Any) -> Any:
        return ir.Constant(kind, value if self.lanes == 1 else [value] * self.lanes)

    def call(self, name: str, *args: "Value") -> "Value":
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(self.number, [self.number] * len(args)), name
        )
        return Value(self, self.builder.call(function, [a.ir for a in args]))

    def intrinsic(self, name: str, *args: "Value") -> "Value":
        letter = "f64" if self.double else "f32"
        return self.call(f"llvm.{name}.{letter if self.lanes == 1 else f'v{self.lanes}{letter}'}", *args)

    def choose(self, condition: Any, a: "Value | float", b: "Value | float") -> "Value":
        return Value(self, self.builder.select(condition, self.of(a).ir, self.of(b).ir))

    def of(self, a: "Value | float") -> "Value":
        return a if isinstance(a, Value) else self.constant(a)

    def apply(self, op: str, *args: "Value") -> "Value":
        """Emit an operation of the table."""
        emit = ops.TABLE[op].llvm
        assert emit is not None, op
        result: Value = emit(self, *args)
        return result

    def splat(self, number: "Value") -> "Value":
        """Return one number as many times as there are lanes."""
        if self.lanes == 1:
            return Value(self, number.ir)
        first = self.builder.insert_element(ir.Constant(self.number, ir.Undefined), number.ir, I32(0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return Value(self, self.builder.shuffle_vector(first, first, mask))

    def reduce(self, op: str, value: "Value") -> "Value":
        """Reduce all lanes to one number by a reduction of the table: half of them by the other half, and so on."""
        if self.lanes == 1:
            return value
        half = Maths(self.builder, self.lanes // 2, self.double)
        low, high = (half._lanes_of(value, at) for at in (0, half.lanes))
        reduced = half.reduce(op, half.apply(op, low, high))
        if self.lanes % 2 == 0:
            return reduced
        one = Maths(self.builder, 1, self.double)
        return one.apply(op, reduced, one._lanes_of(value, self.lanes - 1))

    def _lanes_of(self, value: "Value", first: int) -> "Value":
        """Take as many lanes as these have out of more, from one on."""
        if self.lanes == 1:
            return Value(self, self.builder.extract_element(value.ir, I32(first)))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), list(range(first, first + self.lanes)))
        return Value(self, self.builder.shuffle_vector(value.ir, value.ir, mask))

    # Functions, each element by element

    def exp(self, x: "Value") -> "Value":
        return self.call("exp", x) if self.double else _exp(self, x)

    def expm1(self, x: "Value") -> "Value":
        return self.call("expm1", x) if self.double else _expm1(self, x)

    def log1p(self, x: "Value") -> "Value":
        return self.call("log1p", x) if self.double else _log1p(self, x)

    def tanh(self, x: "Value") -> "Value":
        return self.call("tanh", x) if self.double else _tanh(self, x)

    def sigmoid(self, x: "Value") -> "Value":
        return _sigmoid(self, x)


class Value:
    """Numbers in a register, with the usual operators."""

    def __init__(self, maths: Maths, ir_value: Any) -> None:
        self.maths, self.ir = maths, ir_value

    def _operate(self, name: str, a: "Value | float", b: "Value | float") -> "Value":
        # A product may be fused with the sum it goes into; nothing else may be changed.
        a, b = self.maths.of(a), self.maths.of(b)
        return Value(self.maths, getattr(self.maths.builder, name)(a.ir, b.ir, flags=("contract",)))

    def __add__(self, other: "Value | float") -> "Value":
        return self._operate("fadd", self, other)

    def __sub__(self, other: "Value | float") -> "Value":
        return self._operate("fsub", self, other)

    def __rsub__(self, other: "Value | float") -> "Value":
        return self._operate("fsub", other, self)

    def __mul__(self, other: "Value | float") -> "Value":
        return self._operate("fmul", self, other)

    def __truediv__(self, other: "Value | float") -> "Value":
        return self._operate("fdiv", self, other)

    def __rtruediv__(self, other: "Value | float") -> "Value":
        return self._operate("fdiv", other, self)

    def __neg__(self) -> "Value":
        return Value(self.maths, self.maths.builder.fneg(self.ir))

    def compare(self, how: str, other: "Value | float") -> Any:
        """Return a condition; false where a number is NaN."""
        return self.maths.builder.fcmp_ordered(how, self.ir, self.maths.of(other).ir)

    def bits(self) -> Any:
        return self.maths.builder.bitcast(self.ir, self.maths.many(I32))


def _of_bits(m: Maths, bits: Any) -> Value:
    return Value(m, m.builder.bitcast(bits, m.number))


def _limited(m: Maths, x: Value, low: float, high: float) -> Value:
    x = m.choose(x.compare("<", low), low, x)
    return m.choose(x.compare(">", high), high, x)


def _reduced(m: Maths, x: Value) -> tuple[Any, Value]:
    """Return n as integers, and e^r - 1, for x = n ln 2 + r."""
    shifted = x * (1 / math.log(2)) + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    polynomial = m.constant(1 / math.factorial(7))
    for k in range(6, 1, -1):
        polynomial = polynomial * r + 1 / math.factorial(k)
    return m.builder.sub(shifted.bits(), m.constant(ROUND).bits()), r * r * polynomial + r


def _power_of_2(m: Maths, n: Any) -> Value:
    return _of_bits(m, m.builder.shl(m.builder.add(n, m.whole(127)), m.whole(23)))


def _exp(m: Maths, x: Value) -> Value:
    n, less_one = _reduced(m, _limited(m, x, -104, 89))
    half = m.builder.ashr(n, m.whole(1))  # in two factors, for subnormal results and for those above 2^127
    return (less_one + 1) * _power_of_2(m, half) * _power_of_2(m, m.builder.sub(n, half))


def _expm1(m: Maths, x: Value) -> Value:
    n, less_one = _reduced(m, _limited(m, x, -18, 88.3))
    half = m.builder.ashr(n, m.whole(1))
    low, high = _power_of_2(m, half), _power_of_2(m, m.builder.sub(n, half))
    return (low * less_one + (low - 1 / high)) * high


def _sigmoid(m: Maths, x: Value) -> Value:
    if m.double:
        e = m.call("exp", -m.intrinsic("fabs", x))
        return m.choose(x.compare("<", 0), e, 1) / (e + 1)
    n, less_one = _reduced(m, _limited(m, -x, -87, 88))
    return 1 / ((less_one + 1) * _power_of_2(m, n) + 1)


def _tanh(m: Maths, x: Value) -> Value:
    # (e^2a - 1) / (e^2a + 1) for a = |x|, by e^2a - 1, which keeps the digits of a small a
    n, less_one = _reduced(m, _limited(m, m.intrinsic("fabs", x) * 2, 0, 18.2))
    scale = _power_of_2(m, n)
    e = scale * less_one + (scale - 1)
    return m.intrinsic("copysign", e / (e + 2), x)


def _log1p(m: Maths, x: Value) -> Value:
    """Return log(1 + x) for x from 0 to 1 (softplus asks for no other), and somewhat beyond."""
    u = x + 1
    k = m.builder.ashr(m.builder.sub(u.bits(), m.constant(math.sqrt(0.5)).bits()), m.whole(23))
    f = _of_bits(m, m.builder.sub(u.bits(), m.builder.shl(k, m.whole(23)))) - 1
    s = f / (f + 2)
    z = s * s
    series = m.constant(2 / 9)
    for n in (7, 5, 3, 1):
        series = series * z + 2 / n
    logarithm = Value(m, m.builder.sitofp(k, m.number)) * math.log(2) + s * series
    return logarithm + (x - (u - 1)) / u  # what 1 + x has lost of a small x
