"""Several rows by one matrix, for Numba, in bf16: every weight that is read serves all rows.

A processor with bf16 units multiplies 32 pairs in one instruction and adds them up in float32. Six rows and a panel of
64 columns fill its registers with sums; the panel stays in cache while the rows go by, six at a time.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from charrnn.native.products import FLAGS, FLOATS, LANES, LONG, WORD, WORDS
from charrnn.native.weights import AT_ONCE, PANEL

ROUND, ONE, HALF = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)


@njit(**FLAGS)
def rows_by_bf16(x, x_at, I, panels, y, y_at, O, pairs, sums):
    """y[:, y_at:y_at + O] = x[:, x_at:x_at + I] by a bf16 matrix in panels.

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
            rows = AT_ONCE if r + AT_ONCE <= B else 1
            if rows == AT_ONCE:
                _sum_rows(pairs[r * half :], half, panels[panel], sums)
            else:
                _sum_row(pairs[r * half :], half, panels[panel], sums)
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


def _kernel(rows):
    """Code for: sums (rows, 64) = pairs (rows, half) by panel (half, 64), pair by pair."""

    def generate(context, builder, signature, arguments):
        x, panel, sums = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 3))
        half = arguments[1]
        x, panel = builder.bitcast(x, WORD.as_pointer()), builder.bitcast(panel, WORDS.as_pointer())
        before, loop = builder.block, builder.append_basic_block("pairs")
        after = builder.append_basic_block("done")
        starts = [builder.mul(half, ir.Constant(LONG, r)) for r in range(rows)]
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(LONG)
        running = [builder.phi(FLOATS) for _ in range(rows * PANEL // LANES)]
        first = builder.mul(i, ir.Constant(LONG, PANEL // LANES))
        places = [builder.add(first, ir.Constant(LONG, k)) for k in range(PANEL // LANES)]
        weights = [builder.load(builder.gep(panel, [place]), align=4) for place in places]
        results = []
        for r in range(rows):
            pair = builder.load(builder.gep(x, [builder.add(starts[r], i)]))
            both = builder.insert_element(ir.Constant(WORDS, ir.Undefined), pair, ir.Constant(WORD, 0))
            both = builder.shuffle_vector(both, both, ir.Constant(WORDS, [0] * LANES))
            for k, w in enumerate(weights):
                results.append(_add_products(builder, running[r * len(weights) + k], both, w))
        following = builder.add(i, ir.Constant(LONG, 1))
        i.add_incoming(ir.Constant(LONG, 0), before)
        i.add_incoming(following, loop)
        for sum_, result in zip(running, results, strict=True):
            sum_.add_incoming(ir.Constant(FLOATS, [0.0] * LANES), before)
            sum_.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, half), loop, after)
        builder.position_at_end(after)
        sums = builder.bitcast(sums, FLOATS.as_pointer())
        for k, result in enumerate(results):
            builder.store(result, builder.gep(sums, [ir.Constant(WORD, k)]), align=4)
        return context.get_dummy_value()

    return generate


def _add_products(builder, sums, a, b):
    kind = ir.VectorType(_BFloat(), 2 * LANES)
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(FLOATS, [FLOATS, kind, kind]), name
    )
    return builder.call(function, [sums, builder.bitcast(a, kind), builder.bitcast(b, kind)])


@intrinsic
def _sum_rows(context, x, half, panel, sums):
    return types.void(x, types.int64, panel, sums), _kernel(AT_ONCE)


@intrinsic
def _sum_row(context, x, half, panel, sums):
    return types.void(x, types.int64, panel, sums), _kernel(1)
