"""Several rows by one matrix, for Numba: every weight that is read serves all rows.

A tile of rows and columns stays in registers while the matrix goes by from front to back, so that each of its numbers
that is loaded is used by all rows of the tile, and each number of the rows by all columns. Every row is multiplied and
summed in the order in which `products` beside this does it for one row alone: the results are the same to the last
bit, however many rows there are.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from charrnn.compiler.decoding.products import (
    BYTE,
    FLAGS,
    FLOAT,
    FLOATS,
    HALF_WORD,
    LANES,
    LONG,
    PAIRS_AT_ONCE,
    WORD,
    WORDS,
    add_products,
    broadcast,
    high_numbers,
    low_half,
    low_numbers,
    multiply_add,
    round_to_16_bits,
)
from charrnn.compiler.decoding.weights import PANEL, TILE, TILE_ROWS

FEW = 2  # rows of the tile for what is left of rows
SUMS = TILE * TILE_ROWS  # of a tile; a number of each row follows them


@njit(**FLAGS)
def rows_by_float32(x, x_at, I, panels, y, y_at, O, rounded, sums):
    """Set y[:, y_at:y_at + O] to x[:, x_at:x_at + I] by a float32 matrix in panels of tiles.

    x, y: (B, ...) float32, which may be one. sums: (SUMS,) float32, to work in.
    """
    B, width = x.shape
    for first in range(0, O, TILE):
        tile = panels[first // PANEL, first % PANEL * I :]
        r = 0
        while r < B:
            r, rows = _next_tile(r, B)
            _float32(rows, x[r:, x_at:], width, tile, sums, I)
            for k in range(rows):
                for j in range(min(TILE, O - first)):
                    y[r + k, y_at + first + j] = sums[k * TILE + j]
            r += rows


@njit(**FLAGS)
def rows_by_bf16(x, x_at, I, panels, y, y_at, O, rounded, sums):
    """Do as `rows_by_float32`, by a bf16 matrix."""
    B, width = x.shape
    for first in range(0, O, TILE):
        tile = panels[first // PANEL, first % PANEL * ((I + 1) // 2) :]
        r = 0
        while r < B:
            r, rows = _next_tile(r, B)
            _bf16_low(rows, x[r:, x_at:], width, tile, sums, I // 2)
            if I > 1:
                _bf16_high(rows, x[r:, x_at + 1 :], width, tile, sums, I // 2)
            for k in range(rows):
                for j in range(min(TILE, O - first)):
                    at = y_at + first + j
                    y[r + k, at] = sums[k * TILE + j]
                    if I % 2:
                        y[r + k, at] += x[r + k, x_at + I - 1] * low_half(tile[I // 2 * TILE + j])
            r += rows


@njit(**FLAGS)
def rows_by_int8(x, x_at, I, panels, scale, y, y_at, O, rounded, sums):
    """Do as `rows_by_float32`, by an int8 matrix. rounded: (B ceil(I / 2),) int32 and sums: (SUMS + B,), to work in."""
    B, pairs = x.shape[0], (I + 1) // 2
    for r in range(B):
        sums[SUMS + r] = round_to_16_bits(x[r, x_at : x_at + I], rounded[r * pairs :])
    for first in range(0, O, TILE):
        tile = panels[first // PANEL, first % PANEL * 2 * pairs :]
        n = min(TILE, O - first)
        r = 0
        while r < B:
            r, rows = _next_tile(r, B)
            for i in range(0, pairs, PAIRS_AT_ONCE):
                _int8(rows, rounded[r * pairs + i :], pairs, tile[2 * TILE * i :], sums, min(PAIRS_AT_ONCE, pairs - i))
                for k in range(rows):
                    for j in range(n):
                        at = y_at + first + j
                        y[r + k, at] = sums[k * TILE + j] + (y[r + k, at] if i > 0 else np.float32(0))
            for k in range(rows):
                for j in range(n):
                    y[r + k, y_at + first + j] *= sums[SUMS + r + k] * scale[first + j]
            r += rows


@njit(**FLAGS)
def _next_tile(r, B):
    """Return where the next tile begins, of rows of which r are done, and how many it has.

    A whole tile costs little more than a part of one: where some rows are left, those before them are done once more.
    """
    left = B - r
    if left >= TILE_ROWS:
        return r, TILE_ROWS
    if left > FEW and B >= TILE_ROWS:
        return B - TILE_ROWS, TILE_ROWS
    return r, FEW if left >= FEW else 1


def _tile(rows, word, weights, kind, add, step=1, onto=False):
    """Make an intrinsic (x, words from one row of x to the next, panel (K, TILE), sums, K) -> sums (rows, TILE).

    word: the type that a number of x is loaded as; every step-th is. weights: the type that a register of the panel
    is loaded as. kind: of a register of sums. add(builder, sums, a, b): returns sums plus the products of a, a word of
    x in every lane, and b, weights. onto: whether what is in sums already is added in the end.
    """

    def generate(context, builder, signature, arguments):
        x, panel, sums = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 3))
        x_row, K = arguments[1], arguments[4]
        x, panel, sums = (builder.bitcast(p, t.as_pointer()) for p, t in ((x, word), (panel, weights), (sums, FLOATS)))
        vectors = TILE // LANES
        before, loop = builder.block, builder.append_basic_block("words")
        after = builder.append_basic_block("done")
        starts = [builder.mul(x_row, ir.Constant(LONG, r)) for r in range(rows)]
        builder.cbranch(builder.icmp_signed("<", ir.Constant(LONG, 0), K), loop, after)
        builder.position_at_end(loop)
        i = builder.phi(LONG)
        running = [builder.phi(kind) for _ in range(rows * vectors)]
        first, at = builder.mul(i, ir.Constant(LONG, vectors)), builder.mul(i, ir.Constant(LONG, step))
        places = [builder.add(first, ir.Constant(LONG, k)) for k in range(vectors)]
        columns = [builder.load(builder.gep(panel, [place]), align=1) for place in places]
        results = []
        for r in range(rows):
            a = broadcast(builder, builder.load(builder.gep(x, [builder.add(starts[r], at)])))
            results += [add(builder, running[r * vectors + k], a, b) for k, b in enumerate(columns)]
        following, zero = builder.add(i, ir.Constant(LONG, 1)), ir.Constant(kind, [0] * LANES)
        begins = [ir.Constant(LONG, 0), *[zero] * len(running)]
        for phi, begin, result in zip([i, *running], begins, [following, *results], strict=True):
            phi.add_incoming(begin, before)
            phi.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, K), loop, after)
        builder.position_at_end(after)
        totals = [builder.phi(kind) for _ in results]
        for total, result in zip(totals, results, strict=True):
            total.add_incoming(zero, before)
            total.add_incoming(result, loop)
        for k, total in enumerate(totals):
            place = builder.gep(sums, [ir.Constant(LONG, k)])
            numbers = total if kind is FLOATS else builder.sitofp(total, FLOATS)
            numbers = builder.fadd(builder.load(place, align=4), numbers) if onto else numbers
            builder.store(numbers, place, align=4)
        return context.get_dummy_value()

    def tile(context, x, x_row, panel, sums, K):
        return types.void(x, types.int64, panel, sums, types.int64), generate

    return intrinsic(tile)


def _tiles(*options, **more):
    """Make a function (rows, ...) that runs the `_tile` of so many rows."""
    whole, few, one = (_tile(rows, *options, **more) for rows in (TILE_ROWS, FEW, 1))

    @njit(**FLAGS)
    def tiles(rows, x, x_row, panel, sums, K):
        if rows == TILE_ROWS:
            whole(x, x_row, panel, sums, K)
        elif rows == FEW:
            few(x, x_row, panel, sums, K)
        else:
            one(x, x_row, panel, sums, K)

    return tiles


def _add_float32(builder, sums, a, b):
    return multiply_add(builder, a, b, sums)


def _add_low(builder, sums, a, b):
    return multiply_add(builder, a, low_numbers(builder, b), sums)


def _add_high(builder, sums, a, b):
    return multiply_add(builder, a, high_numbers(builder, b), sums)


def _add_int8(builder, sums, a, b):
    kind = ir.VectorType(HALF_WORD, 2 * LANES)
    return add_products(builder, sums, builder.bitcast(a, kind), builder.sext(b, kind))


_float32 = _tiles(FLOAT, FLOATS, FLOATS, _add_float32)
# The first and the second numbers of pairs are summed apart, as for one row.
_bf16_low = _tiles(FLOAT, WORDS, FLOATS, _add_low, step=2)
_bf16_high = _tiles(FLOAT, WORDS, FLOATS, _add_high, step=2, onto=True)
_int8 = _tiles(WORD, ir.VectorType(BYTE, 2 * LANES), WORDS, _add_int8)
