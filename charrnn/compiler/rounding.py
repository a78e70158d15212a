"""Numbers rounded to whole ones of 16 bits, as LLVM instructions: what int8 weights are multiplied by."""

from typing import Any

from charrnn.compiler.arithmetic import Maths, Value, in_parts, read
from charrnn.compiler.emitting import FLOAT, I16, I64, define, loop, nth, store

LARGEST = 32767  # of a whole number of 16 bits
WHOLE = 1.5 * 2**23  # added to a float32 number, it leaves a whole number in the lowest bits


def emit_round(module: Any) -> Any:
    """Emit the function that rounds x, n float32 numbers, to whole numbers of 16 bits, and returns their step.

    Its arguments: the address of x, n, where they go. The error is far below that of int8 weights, and products and
    sums are whole numbers: one instruction multiplies as many weights as a register has bytes or half of them.
    """
    if "round" in module.globals:
        return module.globals["round"]
    function, builder, (x, n, rounded) = define(module, "round", [I64] * 3, FLOAT, "internal")
    one, parts = Maths(builder, 1), in_parts(builder, n)

    def number(maths: Maths, j: Any) -> Value:
        return read(maths, nth(builder, x, j, 4), 4)

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
            store(builder, result, nth(builder, rounded, j, 2))
    builder.ret((largest / LARGEST).ir)
    return function
