"""The recurrence h_t = a_t h_{t-1} + b_t as one Triton kernel: an associative scan over blocks of time.

Two steps after each other are one of the same kind: (a, b) and then (c, d) is (c a, c b + d). So a block's steps are
joined in a tree, and its last state is carried into the next block. Columns do not depend on each other.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK, COLUMNS = 64, 32  # time steps, and numbers of a step, of a program at a time


@triton.jit
def joined(a, b, c, d):
    return c * a, c * b + d


@triton.jit
def kernel(a, b, h, states, T, N, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """a, b, states: (T, N). h: (N,), before the first step."""
    t, column = tl.arange(0, BLOCK), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    before = tl.load(h + column, column < N, 0.0)
    for first in range(0, T, BLOCK):
        at = (first + t)[:, None].to(tl.int64) * N + column[None, :]
        mask = ((first + t) < T)[:, None] & (column < N)[None, :]
        kept, made = tl.associative_scan((tl.load(a + at, mask, 1.0), tl.load(b + at, mask, 0.0)), 0, joined)
        after = kept * before[None, :] + made
        tl.store(states + at, after, mask)
        before = tl.sum(tl.where((t == BLOCK - 1)[:, None], after, 0.0), 0)  # past the end nothing changes


def run(a: Tensor, b: Tensor, h: Tensor, states: Tensor) -> None:
    """Fill states (T, B, H), contiguous. a, b: (T, B, H). h: (B, H)."""
    if not len(b):
        return
    N = b[0].numel()
    given = [a.contiguous(), b.contiguous(), h.contiguous(), states]
    kernel[(-(-N // COLUMNS),)](*given, len(b), N, BLOCK=BLOCK, COLUMNS=COLUMNS)
