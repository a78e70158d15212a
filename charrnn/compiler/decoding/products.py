"""A vector by a matrix: one row of numbers in, one out, as fast as memory hands over the matrix.

    y_j = sum over i of x_i W_ij

A matrix is cut into panels of 64 columns, each laid out row after row, as `weights` beside this makes them. So memory
is read from one end to the other, and the 64 sums of a panel stay in registers meanwhile. bf16 and int8 weights are
widened there too. The loop over a panel's rows is written for LLVM directly: its vectorizer keeps sums in memory.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from charrnn.compiler.decoding.weights import PANEL, WIDE
from charrnn.compiler.processor import processor

FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}
LANES = 16  # numbers in a vector register
BF16_COLUMNS = PANEL if WIDE else PANEL // 2  # whose sums fill half of the registers there are
AHEAD = 2048  # bytes between what is multiplied and what is prefetched: docs/results/completing-speed.md
PAIRS_AT_ONCE = 256  # pairs of rows whose products, 2 x 127 x 32767 each at most, cannot overflow an int32
LOW_HALF, HALF = np.int32(0xFFFF), np.int32(16)

BYTE, HALF_WORD, WORD, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(WORD, LANES)


@njit(**FLAGS)
def by_float32(x, panels, y, sums, rounded):
    """Set y to x (I,) by W (I, O). panels: (ceil(O / 64), I 64). sums: (64,), to work in."""
    I, O = x.size, y.size
    for panel in range(panels.shape[0]):
        _sum_float32(x, panels[panel], sums, I)
        for j in range(min(PANEL, O - panel * PANEL)):
            y[panel * PANEL + j] = sums[j]


@njit(**FLAGS)
def by_bf16(x, panels, y, sums, rounded):
    """Set y to x (I,) by W (I, O). panels: (ceil(O / 64), ceil(I / 2) 64) uint32, two rows in one, as x is here."""
    I, O = x.size, y.size
    for panel in range(panels.shape[0]):
        for column in range(0, min(PANEL, O - panel * PANEL), BF16_COLUMNS):
            _sum_bf16(x, panels[panel, column:], sums[column:], I // 2)
        for j in range(min(PANEL, O - panel * PANEL)):
            y[panel * PANEL + j] = sums[j]
            if I % 2:
                y[panel * PANEL + j] += x[I - 1] * low_half(panels[panel, I // 2 * PANEL + j])


@njit(**FLAGS)
def by_int8(x, panels, scale, y, sums, rounded):
    """Set y to x (I,) by W (I, O), W of int8 weights.

    panels: (ceil(O / 64), ceil(I / 2) 128) int8. rounded: (ceil(I / 2),) int32, to work in.
    x is rounded to 16 bits, an error far below that of the weights, so that products and sums are whole numbers: one
    instruction multiplies 32 weights where the processor has it.
    """
    I, O = x.size, y.size
    pairs = (I + 1) // 2
    step = round_to_16_bits(x, rounded)
    for panel in range(panels.shape[0]):
        first = panel * PANEL
        n = min(PANEL, O - first)
        for i in range(0, pairs, PAIRS_AT_ONCE):
            _sum_int8(rounded[i:], panels[panel, 2 * PANEL * i :], sums, min(PAIRS_AT_ONCE, pairs - i))
            for j in range(n):
                y[first + j] = sums[j] + (y[first + j] if i > 0 else np.float32(0))
        for j in range(n):
            y[first + j] *= step * scale[first + j]


@njit(**FLAGS)
def round_to_16_bits(x, rounded):
    """Round x (I,) to whole numbers of 16 bits, two in each of rounded (ceil(I / 2),) int32; return their step."""
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


@intrinsic
def low_half(context, pair):
    """Return the bf16 number in the low half of a uint32, as float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.shl(arguments[0], ir.Constant(WORD, 16)), FLOAT)

    return types.float32(types.uint32), generate


@intrinsic
def _sum_float32(context, x, panel, sums, rows):
    """Set sums (64,) to x (rows,) by panel (rows, 64)."""

    def row(builder, x, panel, i, accumulators):
        factor = broadcast(builder, builder.load(builder.gep(_pointer(builder, x, FLOAT), [i])))
        weights = _row(builder, panel, i, FLOATS)
        return [multiply_add(builder, factor, w, a) for w, a in zip(weights, accumulators, strict=True)]

    return types.void(x, panel, sums, types.int64), _loop(row, FLOATS)


@intrinsic
def _sum_bf16(context, x, panel, sums, rows):
    """Set sums (BF16_COLUMNS,) to x (2 rows,) by the first columns of a panel (rows, 64) of pairs.

    The first and the second numbers of pairs are summed apart: one sum would wait twice a row for its last product.
    """

    def row(builder, x, panel, i, accumulators):
        x, at = _pointer(builder, x, FLOAT), builder.shl(i, ir.Constant(LONG, 1))
        low = broadcast(builder, builder.load(builder.gep(x, [at])))
        high = broadcast(builder, builder.load(builder.gep(x, [builder.add(at, ir.Constant(LONG, 1))])))
        firsts, seconds = accumulators[::2], accumulators[1::2]
        after = []
        for pair, a, b in zip(_row(builder, panel, i, WORDS, len(firsts)), firsts, seconds, strict=True):
            after.append(multiply_add(builder, low, low_numbers(builder, pair), a))
            after.append(multiply_add(builder, high, high_numbers(builder, pair), b))
        return after

    def finish(builder, accumulators):
        return [builder.fadd(a, b) for a, b in zip(accumulators[::2], accumulators[1::2], strict=True)]

    return types.void(x, panel, sums, types.int64), _loop(row, FLOATS, finish, 4 * PANEL, BF16_COLUMNS)


@intrinsic
def _sum_int8(context, x, panel, sums, rows):
    """Set sums (64,) to x (rows,), two int16 in each int32, by panel (rows, 64, 2) int8."""
    narrow, wide = ir.VectorType(BYTE, 2 * LANES), ir.VectorType(HALF_WORD, 2 * LANES)

    def row(builder, x, panel, i, accumulators):
        pair = broadcast(builder, builder.load(builder.gep(_pointer(builder, x, WORD), [i])))
        both = builder.bitcast(pair, wide)
        weights = [builder.sext(w, wide) for w in _row(builder, panel, i, narrow)]
        return [add_products(builder, a, both, w) for w, a in zip(weights, accumulators, strict=True)]

    return types.void(x, panel, sums, types.int64), _loop(row, WORDS, row_bytes=2 * PANEL)


def _loop(row, kind, finish=None, row_bytes=None, columns=PANEL):
    """Emit: a = 0; for i in range(rows): a = row(x, panel, i, a); sums = finish(a), with a in registers.

    finish: from twice as many vectors as there are sums. row_bytes: of the panel, for the prefetch.
    """
    registers = columns // LANES * (2 if finish else 1)

    def generate(context, builder, signature, arguments):
        given = zip(signature.args[:3], arguments[:3], strict=True)
        x, panel, sums = (context.make_array(array)(context, builder, value).data for array, value in given)
        before = builder.block
        loop, after = builder.append_basic_block("rows"), builder.append_basic_block("done")
        more = builder.icmp_signed("<", ir.Constant(LONG, 0), arguments[3])
        builder.cbranch(more, loop, after)
        builder.position_at_end(loop)
        i = builder.phi(LONG)
        running = [builder.phi(kind) for _ in range(registers)]
        if row_bytes and not WIDE:
            _prefetch(builder, panel, i, row_bytes, row_bytes * columns // PANEL // 64)
        results = row(builder, x, panel, i, running)
        following = builder.add(i, ir.Constant(LONG, 1))
        zero = ir.Constant(kind, [0] * LANES)
        for phi, result, start in zip(
            [i, *running], [following, *results], [ir.Constant(LONG, 0)] + [zero] * registers, strict=True
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[3]), loop, after)
        builder.position_at_end(after)
        for k, result in enumerate(results):
            total = builder.phi(kind)
            total.add_incoming(zero, before)
            total.add_incoming(result, loop)
            results[k] = total
        for k, total in enumerate(finish(builder, results) if finish else results):
            place = builder.gep(_pointer(builder, sums, FLOATS), [ir.Constant(WORD, k)])
            builder.store(total if kind is FLOATS else builder.sitofp(total, FLOATS), place, align=4)
        return context.get_dummy_value()

    return generate


def _prefetch(builder, panel, i, row_bytes, lines):
    """Ask for some cache lines AHEAD of a row."""
    name, kinds = "llvm.prefetch.p0", [BYTE.as_pointer(), WORD, WORD, WORD]
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(ir.VoidType(), kinds), name
    )
    at = builder.add(builder.mul(i, ir.Constant(LONG, row_bytes)), ir.Constant(LONG, AHEAD))
    for k in range(lines):
        place = builder.gep(_pointer(builder, panel, BYTE), [builder.add(at, ir.Constant(LONG, 64 * k))])
        builder.call(function, [place, *(ir.Constant(WORD, n) for n in (0, 3, 1))])  # to read, to keep, data


def _pointer(builder, address, kind):
    return builder.bitcast(address, kind.as_pointer())


def broadcast(builder, value, lanes=LANES):
    """Return a vector with a number in every lane."""
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(WORD, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(WORD, lanes), [0] * lanes))


def _row(builder, panel, i, kind, vectors=PANEL // LANES):
    """Load the first vectors of a panel's row i, all by default."""
    panel = _pointer(builder, panel, kind)
    first = builder.mul(i, ir.Constant(LONG, PANEL // LANES))
    places = [builder.add(first, ir.Constant(LONG, k)) for k in range(vectors)]
    return [builder.load(builder.gep(panel, [place]), align=1) for place in places]


def low_numbers(builder, pairs):
    """Return the bf16 numbers in the low halves of 16 words, as float32."""
    return builder.bitcast(builder.shl(pairs, ir.Constant(WORDS, [16] * LANES)), FLOATS)


def high_numbers(builder, pairs):
    """Return the bf16 numbers in the high halves of 16 words, as float32."""
    return builder.bitcast(builder.and_(pairs, ir.Constant(WORDS, [0xFFFF0000] * LANES)), FLOATS)


def multiply_add(builder, a, b, c):
    """Return a b + c, in one operation where the processor has it."""
    return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])


def add_products(builder, sums, a, b):
    """Return sums (16,) int32 + a_0 b_0 + a_1 b_1 of each pair of int16."""
    if processor().has("avx512vnni"):
        name = "llvm.x86.avx512.vpdpwssd.512"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(WORDS, [WORDS, WORDS, WORDS]), name
        )
        return builder.call(function, [sums, builder.bitcast(a, WORDS), builder.bitcast(b, WORDS)])
    if processor().has("avx2"):
        name, narrow = "llvm.x86.avx2.pmadd.wd", ir.VectorType(HALF_WORD, LANES)
        half = ir.VectorType(WORD, LANES // 2)
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(half, [narrow, narrow]), name
        )
        parts = []
        for first in (0, LANES):
            lanes = ir.Constant(ir.VectorType(WORD, LANES), list(range(first, first + LANES)))
            parts.append(builder.call(function, [builder.shuffle_vector(v, v, lanes) for v in (a, b)]))
        both = ir.Constant(WORDS, list(range(LANES)))
        return builder.add(sums, builder.shuffle_vector(*parts, both))
    for half in (0, 1):
        lanes = ir.Constant(WORDS, list(range(half, 2 * LANES, 2)))
        factors = [builder.sext(builder.shuffle_vector(v, v, lanes), WORDS) for v in (a, b)]
        sums = builder.add(sums, builder.mul(*factors))
    return sums
