"""Direct connections as a Triton kernel, for many rows on a GPU: hashes, look-ups, sums and the ids that follow.

It is what `charrnn.model.direct` says, an id in every row. Whole numbers have 64 bits, so rows are the same ones; their
sum is float32, in the order of the tables, as a decoder makes it.
"""

import triton
import triton.language as tl

from charrnn.text import contexts

P, Q, BITS, MASK = (tl.constexpr(value) for value in (contexts.P, contexts.Q, contexts.BITS, contexts.MASK))


@triton.jit
def add_direct(
    logits,
    ids,
    before,
    after,
    tables,
    V,
    start,
    first,
    R,
    C,
    N: tl.constexpr,
    CP: tl.constexpr,
):
    """Add what N tables say to the logits of a row, a program each, and move the ids before on.

    logits: (rows, V) float32, changed. ids: (rows,) int64, just read. before, after: (rows, N - 1) int64, the ids
    before, the newest last; after is written. tables: (N R, C) float32. start: the id of the start token. first: the
    column of logits that is the tables' first. CP: C as a power of two.
    """
    row, i = tl.program_id(0), tl.arange(0, CP)
    inside = i < C
    said = tl.zeros((CP,), tl.float32)
    h = tl.zeros((), tl.int64)
    c = h - 1  # no id
    for n in tl.static_range(N):
        id_ = tl.load(ids + row) if n == 0 else tl.load(before + row * (N - 1) + N - 1 - n)
        if n < N - 1:
            tl.store(after + row * (N - 1) + N - 2 - n, id_)
        c = tl.where(c == start, c, id_)  # before a start token there are start tokens
        h = (h * P + (c + 1) * Q) & MASK
        said += tl.load(tables + (n * R + ((h * R) >> BITS)) * C + i, inside, 0.0)
    here = logits + row * V + first + i
    tl.store(here, tl.load(here, inside, 0.0) + said, inside)
