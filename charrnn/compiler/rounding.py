"""Numbers that are kept in fewer bits, as LLVM instructions: bf16, and whole numbers of 16 bits."""

from typing import Any

from charrnn.compiler.arithmetic import I16, I32, I64, BFloat, Maths, Value, define, in_parts
from charrnn.compiler.processor import processor
from charrnn.compiler.products import FLOAT, Form, load, loop, store

LARGEST = 32767  # of a whole number of 16 bits
WHOLE = 1.5 * 2**23  # added to a float32 number, it leaves a whole number in the lowest bits


def read(maths: Maths, address: Any, size: int) -> Value:
    """Load numbers from an address; bf16 ones, of 2 bytes, are widened."""
    builder = maths.builder
    if size != 2:
        return Value(maths, load(builder, address, maths.number))
    bits = builder.zext(load(builder, address, maths.many(I16)), maths.many(I32))
    return Value(maths, builder.bitcast(builder.shl(bits, maths.whole(16)), maths.number))


def write(maths: Maths, value: Value, address: Any, size: int) -> None:
    """Store numbers, rounded to the nearest bf16 ones where they have 2 bytes."""
    builder, result = maths.builder, value.ir
    if size == 2 and processor().multiplies_bf16:
        result = builder.bitcast(builder.fptrunc(result, maths.many(BFloat())), maths.many(I16))
    elif size == 2:  # to nearest, ties to even; LLVM would call a function that may not be there
        bits = value.bits()
        odd = builder.and_(builder.lshr(bits, maths.whole(16)), maths.whole(1))
        rounded = builder.add(builder.add(bits, maths.whole(0x7FFF)), odd)
        number = builder.select(value.compare("==", value), rounded, maths.whole(0x7FC00000))  # NaN stays NaN
        result = builder.trunc(builder.lshr(number, maths.whole(16)), maths.many(I16))
    store(builder, result, address)


def emit_round(module: Any, form: Form) -> Any:
    """Emit the function that rounds x, n float32 numbers, to whole numbers of 16 bits, and returns their step.

    Its arguments: the address of x, n, where they go. The error is far below that of int8 weights, and products and
    sums are whole numbers: one instruction multiplies as many weights as a register has bytes or half of them.
    """
    if "round" in module.globals:
        return module.globals["round"]
    function, builder, (x, n, rounded) = define(module, "round", [I64] * 3, FLOAT, "internal")
    one, parts = Maths(builder, 1), in_parts(builder, n, form.lanes)

    def number(maths: Maths, j: Any) -> Value:
        return read(maths, builder.add(x, builder.mul(j, I64(4))), 4)

    largest = one.constant(0)
    for maths, begin, end in parts:
        turns = loop(builder, begin, end, maths.lanes, [maths.splat(largest).ir])
        with turns as j:
            size = maths.intrinsic("fabs", number(maths, j))
            turns.carry([maths.apply("maximum", Value(maths, turns.carried[0]), size).ir])
        largest = maths.reduce("maximum", Value(maths, turns.carried[0]))
    inverse = one.choose(largest.compare(">", 0), LARGEST / largest, 0)
    for maths, begin, end in parts:
        with loop(builder, begin, end, maths.lanes) as j:
            shifted = number(maths, j) * maths.splat(inverse) + WHOLE
            result = builder.trunc(shifted.bits(), maths.many(I16))
            store(builder, result, builder.add(rounded, builder.mul(j, I64(2))))
    builder.ret((largest / LARGEST).ir)
    return function
