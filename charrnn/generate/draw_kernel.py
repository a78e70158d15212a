"""The draw as a Triton kernel, for many rows on a GPU: Philox, float64 softmax, filters, and the first id above u.

It obeys what `charrnn.generate.sampling` says of a draw. Its sums are in another order, so probabilities may differ by
a rounding of float64; an id is another one only where u lies that near to a border.
"""

import triton
import triton.language as tl


@triton.jit
def uniform(key0, key1, position):
    """Return the number at a position of NumPy's Generator(Philox(key)).random(): Philox4x64-10, 53 bits."""
    c0, c1 = position.to(tl.uint64) // 4 + 1, position.to(tl.uint64) * 0
    c2, c3 = c1, c1
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, c1 * 0 + 0xD2E7470EE14C6C93), c0 * 0xD2E7470EE14C6C93
        high1, low1 = tl.umulhi(c2, c1 * 0 + 0xCA5A826395121157), c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = key0 + 0x9E3779B97F4A7C15, key1 + 0xBB67AE8584CAA73B
    word = position % 4
    drawn = tl.where(word == 0, c0, tl.where(word == 1, c1, tl.where(word == 2, c2, c3)))
    return (drawn >> 11).to(tl.float64) * (1.0 / 9007199254740992.0)


@triton.jit
def draw(
    logits,
    allowed,
    following,
    filters,
    keys,
    automaton,
    position,
    ids,
    drawn,
    costs,
    scratch,
    V,
    VP: tl.constexpr,
    ORDERED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Draw an id for each row, a program each.

    logits: (R, V) float32. allowed, following: (states, V), of the automaton. filters: (R, 4) float64, as
    `sampling.filters`. keys: (R, 2), of Philox, bits of uint64. automaton, position: (R,) int64, moved on. ids: (R,)
    int64, what was drawn, 0 for none. drawn, costs: (R,), the same and its nats; -1 where logits are not finite.
    scratch: (R, 2, VP) float64. VP: V as a power of two. ORDERED: whether top-k or top-p may be on in any row.
    """
    row, i = tl.program_id(0), tl.arange(0, VP)
    inside, infinity = i < V, float("inf")
    x = tl.load(logits + row * V + i, inside, -infinity).to(tl.float64)
    state = tl.load(automaton + row)
    masked = tl.where(tl.load(allowed + state * V + i, inside, 0) != 0, x, -infinity)
    largest, top = tl.max(x, 0), tl.max(masked, 0)
    total = tl.sum(tl.exp(x - largest), 0)
    is_wrong = (tl.sum((masked != masked).to(tl.int32), 0) > 0) | (tl.abs(top) == infinity)
    temperature = tl.load(filters + 4 * row)
    p = tl.exp((masked - top) / tl.where(temperature == 0, 1.0, temperature))
    likeliest = tl.min(tl.where(masked == top, i, VP), 0)
    p = tl.where(temperature == 0, (i == likeliest).to(tl.float64), p)
    p = p / tl.sum(p, 0)
    if ORDERED:
        top_k, top_p = tl.load(filters + 4 * row + 1), tl.load(filters + 4 * row + 2)
        given, left = scratch + 2 * row * VP, scratch + 2 * row * VP + VP
        tl.store(given + i, p)
        tl.debug_barrier()
        rank = tl.zeros((VP,), tl.int32)
        for first in range(0, VP, CHUNK):
            j = first + tl.arange(0, CHUNK)
            q = tl.load(given + j)[None, :]
            before = (q > p[:, None]) | ((q == p[:, None]) & (j[None, :] < i[:, None]))
            rank += tl.sum(before.to(tl.int32), 1)
        ordered = p
        p = tl.where(rank < top_k, p, 0.0)
        p = p / tl.sum(p, 0)
        tl.store(left + i, p)
        tl.debug_barrier()
        sums = tl.zeros((VP,), tl.float64)
        for first in range(0, VP, CHUNK):
            j = first + tl.arange(0, CHUNK)
            q, share = tl.load(given + j)[None, :], tl.load(left + j)[None, :]
            before = (q > ordered[:, None]) | ((q == ordered[:, None]) & (j[None, :] < i[:, None]))
            sums += tl.sum(tl.where(before, share, 0.0), 1)
        p = tl.where(sums < top_p, p, 0.0)
        p = p / tl.sum(p, 0)
    p = tl.where(p >= tl.load(filters + 4 * row + 3) * tl.max(p, 0), p, 0.0)
    p = p / tl.sum(p, 0)
    at = tl.load(position + row)
    u = uniform(tl.load(keys + 2 * row).to(tl.uint64), tl.load(keys + 2 * row + 1).to(tl.uint64), at)
    last = tl.max(tl.where(p > 0, i, -1), 0)
    id_ = tl.minimum(tl.min(tl.where(tl.cumsum(p, 0) > u, i, VP), 0), last)
    kept = tl.where(is_wrong, 0, id_)
    cost = tl.log(total) + largest - tl.sum(tl.where(i == kept, x, 0.0), 0)
    tl.store(ids + row, kept.to(tl.int64))
    tl.store(drawn + row, tl.where(is_wrong, -1, id_).to(tl.int64))
    tl.store(costs + row, cost)
    tl.store(automaton + row, tl.maximum(tl.load(following + state * V + kept).to(tl.int64), 0))
    tl.store(position + row, at + 1)
