"""Several rows by one matrix, for Numba: every weight that is read serves all rows.

A tile of rows and columns stays in registers while the matrix goes by from front to back, so that each of its numbers
that is loaded is used by all rows of the tile, and each number of the rows by all columns. A processor with bf16
units multiplies 32 pairs of bf16 numbers in one instruction and adds them up in float32; others multiply float32
numbers, and sum them in the order in which one row alone is summed: the results are the same to the last bit.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from charrnn.native.products import FLAGS, FLOAT, LANES, LONG, WORD, broadcast, multiply_add
from charrnn.native.weights import AT_ONCE, PANEL, TILE, TILE_ROWS

FEW = 2  # rows of the tile for what is left of rows
ROUND, ONE, HALF = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)


@njit(**FLAGS)
def rows_by_float32(x, x_at, I, panels, y, y_at, O, pairs, sums):
    """y[:, y_at:y_at + O] = x[:, x_at:x_at + I] by a float32 matrix in panels of tiles.

    x, y: (B, ...) float32, which may be one. sums: (384,) float32, to work in.
    """
    B, width = x.shape
    for first in range(0, O, TILE):
        tile = panels[first // PANEL, first % PANEL * I :]
        n = min(TILE, O - first)
        r = 0
        while r < B:
            rows = TILE_ROWS if r + TILE_ROWS <= B else FEW if r + FEW <= B else 1
            if rows == TILE_ROWS:
                _float32_tile(x[r:, x_at:], width, tile, sums, I)
            elif rows == FEW:
                _float32_few(x[r:, x_at:], width, tile, sums, I)
            else:
                _float32_one(x[r:, x_at:], width, tile, sums, I)
            for k in range(rows):
                for j in range(n):
                    y[r + k, y_at + first + j] = sums[k * TILE + j]
            r += rows


@njit(**FLAGS)
def rows_by_bf16(x, x_at, I, panels, y, y_at, O, pairs, sums):
    """y[:, y_at:y_at + O] = x[:, x_at:x_at + I] by a bf16 matrix in panels, on a processor with bf16 units.

    x, y: (B, ...) float32, which may be one. pairs: (B ceil(I / 2),) uint32 and sums: (384,) float32, to work in.
    """
    B, half = x.shape[0], (I + 1) // 2
    for r in range(B):
        for i in range(I // 2):
            low, high = _bf16(x[r, x_at + 2 * i]), _bf16(x[r, x_at + 2 * i + 1])
            pairs[r * half + i] = low | (high << HALF)
        if I % 2:
            pairs[r * half + half - 1] = _bf16(x[r, x_at + I - 1])
    for panel in range(panels.shape[0]):
        first = panel * PANEL
        n = min(PANEL, O - first)
        r = 0
        while r < B:
            rows = AT_ONCE if r + AT_ONCE <= B else FEW if r + FEW <= B else 1
            if rows == AT_ONCE:
                _bf16_tile(pairs[r * half :], half, panels[panel], sums, half)
            elif rows == FEW:
                _bf16_few(pairs[r * half :], half, panels[panel], sums, half)
            else:
                _bf16_one(pairs[r * half :], half, panels[panel], sums, half)
            for k in range(rows):
                for j in range(n):
                    y[r + k, y_at + first + j] = sums[k * PANEL + j]
            r += rows


@njit(**FLAGS)
def _bf16(number):
    """The nearest bf16 number's bits; of two equally near, the one whose last bit is 0."""
    bits = _bits(number)
    return (bits + (ROUND + ((bits >> HALF) & ONE))) >> HALF


@intrinsic
def _bits(context, number):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], WORD)

    return types.uint32(types.float32), generate


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


def _tile(rows, columns, word, add):
    """An intrinsic (x, words from one row of x to the next, panel (K, columns), sums, K) -> sums (rows, columns).

    word: what a number of x is loaded as. add(builder, sums, a, b): a register of sums with the products of a, a word
    of x in every lane, and b, a register of the panel, added.
    """
    lanes = min(LANES, columns)
    kind = ir.VectorType(FLOAT, lanes)
    loaded = ir.VectorType(word, lanes)

    def generate(context, builder, signature, arguments):
        x, panel, sums = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 3))
        x_row, K = arguments[1], arguments[4]
        x, panel = builder.bitcast(x, word.as_pointer()), builder.bitcast(panel, word.as_pointer())
        before, loop = builder.block, builder.append_basic_block("words")
        after = builder.append_basic_block("done")
        starts = [builder.mul(x_row, ir.Constant(LONG, r)) for r in range(rows)]
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(LONG)
        running = [builder.phi(kind) for _ in range(rows * columns // lanes)]
        weights = []
        for k in range(0, columns, lanes):
            place = builder.add(builder.mul(i, ir.Constant(LONG, columns)), ir.Constant(LONG, k))
            weights.append(builder.load(_vector_at(builder, panel, place, loaded), align=4))
        results = []
        for r in range(rows):
            a = broadcast(builder, builder.load(builder.gep(x, [builder.add(starts[r], i)])), lanes)
            for k, w in enumerate(weights):
                results.append(add(builder, running[r * len(weights) + k], a, w))
        following = builder.add(i, ir.Constant(LONG, 1))
        i.add_incoming(ir.Constant(LONG, 0), before)
        i.add_incoming(following, loop)
        for sum_, result in zip(running, results, strict=True):
            sum_.add_incoming(ir.Constant(kind, [0.0] * lanes), before)
            sum_.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, K), loop, after)
        builder.position_at_end(after)
        sums = builder.bitcast(sums, FLOAT.as_pointer())
        for k, result in enumerate(results):
            builder.store(result, _vector_at(builder, sums, ir.Constant(LONG, k * lanes), kind), align=4)
        return context.get_dummy_value()

    def tile(context, x, x_row, panel, sums, K):
        return types.void(x, types.int64, panel, sums, types.int64), generate

    return intrinsic(tile)


def _vector_at(builder, numbers, place, kind):
    return builder.bitcast(builder.gep(numbers, [place]), kind.as_pointer())


def _add_float32(builder, sums, a, b):
    return multiply_add(builder, a, b, sums)


def _add_bf16(builder, sums, a, b):
    kind = ir.VectorType(_BFloat(), 2 * LANES)
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(sums.type, [sums.type, kind, kind]), name
    )
    return builder.call(function, [sums, builder.bitcast(a, kind), builder.bitcast(b, kind)])


_float32_tile, _float32_few, _float32_one = (_tile(n, TILE, FLOAT, _add_float32) for n in (TILE_ROWS, FEW, 1))
_bf16_tile, _bf16_few, _bf16_one = (_tile(n, PANEL, WORD, _add_bf16) for n in (AT_ONCE, FEW, 1))
