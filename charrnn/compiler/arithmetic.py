"""Arithmetic on vectors of numbers, written as LLVM instructions: for training and for completing.

exp, expm1, log1p, sigmoid and tanh of float32 are a range reduction, a polynomial and exponent arithmetic, without a
call or a branch, so that a register of them takes the time of one; they are within a few ulp. So is exp of float64. The
others of float64 are there to be exact, and call the C library.

    exp(x) = 2^n e^r,  n = round(x / ln 2),  |r| <= ln(2) / 2;  ln 2 is split in two so that x - n ln 2 is exact enough
"""

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from charrnn.cells import ops
from charrnn.cells.operation import Symbol
from charrnn.compiler.emitting import DOUBLE, FLOAT, I16, I32, I64, BFloat, call, load, loop, splat, store
from charrnn.compiler.processor import processor

# The upper part of ln 2 = 0.693147180559945309417232... has few bits, so that a whole number of it is exact.
LN2 = {False: (0.693359375, math.log(2) - 0.693359375), True: (0.6931471803691238, 1.9082149292705877e-10)}
TERMS = {False: 7, True: 13}  # of the series of e^r: the last one is a tenth of an ulp
LIMITS = {False: (-104, 89), True: (-746, 710)}  # beyond them exp is 0 and infinity


class Maths:
    """Emits arithmetic on `lanes` numbers at once, float32 (or float64, then one at a time).

    gradual: whether the smallest results keep what digits they have, where it takes longer.
    """

    def __init__(self, builder: Any, lanes: int, double: bool = False, gradual: bool = False) -> None:
        self.builder, self.lanes, self.double, self.gradual = builder, lanes, double, gradual or double
        self.number, self.integer = self.many(DOUBLE if double else FLOAT), I64 if double else I32
        self.mantissa = 52 if double else 23  # its bits

    def many(self, kind: Any) -> Any:
        return kind if self.lanes == 1 else ir.VectorType(kind, self.lanes)

    def constant(self, value: float) -> "Value":
        if not self.double:
            value = struct.unpack("f", struct.pack("f", value))[0]
        return Value(self, self._all(self.number, value))

    def whole(self, value: int) -> Any:
        return self._all(self.many(self.integer), value)

    def _all(self, kind: Any, value: Any) -> Any:
        return ir.Constant(kind, value if self.lanes == 1 else [value] * self.lanes)

    def call(self, name: str, *args: "Value") -> "Value":
        return Value(self, call(self.builder, name, self.number, [a.ir for a in args]))

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
        return Value(self, splat(self.builder, number.ir, self.lanes))

    def numbers(self, value: "Value") -> list["Value"]:
        """Return the numbers of all lanes, one by one."""
        one = Maths(self.builder, 1, self.double)
        return [value] if self.lanes == 1 else [one._lanes_of(value, lane) for lane in range(self.lanes)]

    def reduce(self, op: str, value: "Value") -> "Value":
        """Reduce all lanes to one number by a reduction of the table: half of them by the other half, and so on."""
        if self.lanes == 1:
            return value
        half = Maths(self.builder, self.lanes // 2, self.double, self.gradual)
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
        n, less_one = self._reduced(self._limited(x, *LIMITS[self.double]))
        low, high = self._powers_of_2(n)
        return (less_one + 1) * low * high

    def expm1(self, x: "Value") -> "Value":
        if self.double:
            return self.call("expm1", x)
        n, less_one = self._reduced(self._limited(x, -18, 89))
        low, high = self._powers_of_2(n)
        y = (low * less_one + (low - 1 / high)) * high
        return self.choose(x.compare("==", 0), x, y)  # a zero keeps its sign

    def sigmoid(self, x: "Value") -> "Value":
        if self.gradual:
            e = self.exp(-self.intrinsic("fabs", x))  # at most 1
            return self.choose(x.compare("<", 0), e, 1) / (e + 1)
        n, less_one = self._reduced(self._limited(-x, -87, 88))
        return 1 / ((less_one + 1) * self._power_of_2(n) + 1)

    def tanh(self, x: "Value") -> "Value":
        if self.double:
            return self.call("tanh", x)
        # (e^2a - 1) / (e^2a + 1) for a = |x|, by e^2a - 1, which keeps the digits of a small a
        n, less_one = self._reduced(self._limited(self.intrinsic("fabs", x) * 2, 0, 18.2))
        scale = self._power_of_2(n)
        e = scale * less_one + (scale - 1)
        return self.intrinsic("copysign", e / (e + 2), x)

    def log1p(self, x: "Value") -> "Value":
        """Return log(1 + x) by the exponent of 1 + x and the series of artanh, for x above -1."""
        if self.double:
            return self.call("log1p", x)
        u = x + 1
        above = self.builder.sub(u.bits(), self.constant(math.sqrt(0.5)).bits())
        k = self.builder.ashr(above, self.whole(self.mantissa))
        f = self._of_bits(self.builder.sub(u.bits(), self.builder.shl(k, self.whole(self.mantissa)))) - 1
        s = f / (f + 2)
        z = s * s
        series = self.constant(2 / 9)
        for n in (7, 5, 3, 1):
            series = series * z + 2 / n
        exponent = Value(self, self.builder.sitofp(k, self.number))
        y = exponent * LN2[False][0] + (exponent * LN2[False][1] + s * series)
        y = y + (x - (u - 1)) / u  # what 1 + x has lost of a small x
        return self.choose(x.compare("<", math.inf), y, x)

    def _limited(self, x: "Value", low: float, high: float) -> "Value":
        x = self.choose(x.compare("<", low), low, x)
        return self.choose(x.compare(">", high), high, x)

    def _reduced(self, x: "Value") -> tuple[Any, "Value"]:
        """Return n as integers, and e^r - 1, for x = n ln 2 + r."""
        whole = 1.5 * 2**self.mantissa  # adding it leaves no room for a fraction: the lowest bits are a whole number
        (high, low), terms = LN2[self.double], TERMS[self.double]
        shifted = x * (1 / math.log(2)) + whole
        n = shifted - whole
        r = (x - n * high) - n * low
        polynomial = self.constant(1 / math.factorial(terms))
        for k in range(terms - 1, 1, -1):
            polynomial = polynomial * r + 1 / math.factorial(k)
        return self.builder.sub(shifted.bits(), self.constant(whole).bits()), r * r * polynomial + r

    def _power_of_2(self, n: Any) -> "Value":
        biased = self.builder.add(n, self.whole(1023 if self.double else 127))
        return self._of_bits(self.builder.shl(biased, self.whole(self.mantissa)))

    def _powers_of_2(self, n: Any) -> tuple["Value", "Value"]:
        """Return 2^n in two factors, for results that are subnormal and for those that one factor cannot reach."""
        half = self.builder.ashr(n, self.whole(1))
        return self._power_of_2(half), self._power_of_2(self.builder.sub(n, half))

    def _of_bits(self, bits: Any) -> "Value":
        return Value(self, self.builder.bitcast(bits, self.number))


class Value(Symbol):
    """Numbers in a register, with the usual operators."""

    def __init__(self, maths: Maths, ir_value: Any) -> None:
        self.maths, self.ir = maths, ir_value

    def record(self, operation: str, *arguments: "Value | float") -> "Value":
        emit = getattr(self.maths.builder, f"f{operation}")
        # A product may be fused with the sum it goes into; nothing else may be changed.
        flags = () if operation == "neg" else ("contract",)
        return Value(self.maths, emit(*[self.maths.of(a).ir for a in arguments], flags=flags))

    def compare(self, how: str, other: "Value | float") -> Any:
        """Return a condition; false where a number is NaN."""
        return self.maths.builder.fcmp_ordered(how, self.ir, self.maths.of(other).ir)

    def bits(self) -> Any:
        return self.maths.builder.bitcast(self.ir, self.maths.many(self.maths.integer))


def read(maths: Maths, address: Any, size: int) -> Value:
    """Load numbers of some bytes from an address; bf16 ones, and float32 ones for float64 arithmetic, are widened."""
    builder = maths.builder
    if maths.double and size == 4:
        return Value(maths, builder.fpext(load(builder, address, maths.many(FLOAT)), maths.number))
    if size != 2:
        return Value(maths, load(builder, address, maths.number))
    bits = builder.zext(load(builder, address, maths.many(I16)), maths.many(I32))
    return Value(maths, builder.bitcast(builder.shl(bits, maths.whole(16)), maths.number))


def write(maths: Maths, value: Value, address: Any, size: int) -> None:
    """Store numbers, rounded to the nearest bf16 ones where they have 2 bytes."""
    store(maths.builder, as_bf16(value) if size == 2 else value.ir, address)


def as_bf16(value: Value) -> Any:
    """Return the bits of the nearest bf16 numbers."""
    maths, builder = value.maths, value.maths.builder
    if processor().multiplies_bf16:
        return builder.bitcast(builder.fptrunc(value.ir, maths.many(BFloat())), maths.many(I16))
    # To nearest, ties to even; LLVM would call a function that may not be there.
    bits = value.bits()
    odd = builder.and_(builder.lshr(bits, maths.whole(16)), maths.whole(1))
    rounded = builder.add(builder.add(bits, maths.whole(0x7FFF)), odd)
    number = builder.select(value.compare("==", value), rounded, maths.whole(0x7FC00000))  # NaN stays NaN
    return builder.trunc(builder.lshr(number, maths.whole(16)), maths.many(I16))


def in_parts(builder: Any, n: Any, double: bool = False) -> list[tuple[Maths, Any, Any]]:
    """Cut n numbers into whole registers and the rest: what computes each part, and where it begins and ends."""
    lanes = processor().vector_bytes // (8 if double else 4)
    whole = builder.and_(n, I64(-lanes))
    return [(Maths(builder, lanes, double), I64(0), whole), (Maths(builder, 1, double), whole, n)]


def registers(builder: Any, n: Any, double: bool = False) -> Iterator[tuple[Maths, Any]]:
    """Emit loops over n numbers, a register of them at a time and then one by one; a `for` emits what is in them.

    Gives what computes, and the number that its first lane is of.
    """
    for maths, begin, end in in_parts(builder, n, double):
        with loop(builder, begin, end, maths.lanes) as j:
            yield maths, j


def reduced(
    builder: Any, n: Any, op: str, start: float, emit: Callable[[Maths, Any], Value], double: bool = False
) -> Value:
    """Reduce n numbers by an operation of the table, in any order. start: what changes no result."""
    one = Maths(builder, 1, double)
    result = one.constant(start)
    for maths, begin, end in in_parts(builder, n, double):
        turns = loop(builder, begin, end, maths.lanes, [maths.constant(start).ir])
        with turns as j:
            turns.carry([maths.apply(op, Value(maths, turns.carried[0]), emit(maths, j)).ir])
        result = one.apply(op, result, maths.reduce(op, Value(maths, turns.carried[0])))
    return result
