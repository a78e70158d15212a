"""The draw of `charrnn.generate.sampling`, compiled: the same float64 arithmetic in the same order, so the same ids.

All loops are plain and work on memory that is handed in. Numba is slow to compile the assignment of a slice, and code
that allocates needs Numba's run time.
"""

import math

import numpy as np
from numba import njit

from charrnn.compiler.decoding.arithmetic import op_exp
from charrnn.compiler.decoding.views import is_nowhere, vector

FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}


@njit(**FLAGS)
def choose(logits, allowed, temperature, top_k, top_p, min_p, u, p, kept, order):
    """Return the id drawn with u, or -1 where the logits are not finite.

    logits: (V,). allowed: (V,) bool. top_k: V or more is off; top_p: above 1 is off; min_p: below 0 is off.
    p, kept: (V,) float64, and order: (2 V,) int64, to work in.
    """
    V = logits.size
    top, likeliest = -np.inf, 0
    for i in range(V):
        p[i] = logits[i] if allowed[i] else -np.inf
        if not p[i] < np.inf:
            return -1
        if p[i] > top:
            top, likeliest = p[i], i
    if top == -np.inf:
        return -1
    if temperature == 0:
        return likeliest
    for i in range(V):
        p[i] = op_exp((p[i] - top) / temperature)
    _normalise(p)
    if top_k < V or top_p <= 1:
        _cut(p, top_k, top_p, kept, order)
    if min_p >= 0:
        largest = 0.0
        for i in range(V):
            largest = max(largest, p[i])
        for i in range(V):
            if p[i] < min_p * largest:
                p[i] = 0
        _normalise(p)
    cumulative, last = 0.0, 0
    for i in range(V):
        cumulative += p[i]
        if cumulative > u:
            return i
        if p[i] > 0:
            last = i
    return last


@njit(**FLAGS)
def _normalise(p):
    total = 0.0
    for i in range(p.size):
        total += p[i]
    for i in range(p.size):
        p[i] /= total


@njit(**FLAGS)
def _cut(p, top_k, top_p, kept, order):
    """Apply top-k, then top-p, to p (V,) in place."""
    V = p.size
    k = min(top_k, V)
    heap, order = order[:V], order[V:]
    for i in range(V):
        heap[i], kept[i] = i, 0.0
    for i in range(V // 2 - 1, -1, -1):
        _sift(heap, V, i, p)
    if k < V:
        for n in range(k):
            order[n] = _pop(heap, V - n, p)
            kept[order[n]] = p[order[n]]
        _move(kept, p)
        _normalise(p)
    if top_p > 1:
        return
    cumulative = 0.0
    for n in range(k):
        i = order[n] if k < V else _pop(heap, V - n, p)
        cumulative += p[i]
        if cumulative - p[i] >= top_p:
            break
        kept[i] = p[i]
    _move(kept, p)
    _normalise(p)


@njit(**FLAGS)
def _move(kept, p):
    """Set p to kept, and kept to zeros."""
    for i in range(p.size):
        p[i], kept[i] = kept[i], 0.0


@njit(**FLAGS)
def _pop(heap, size, p):
    """Take the likeliest id from the heap, the lowest among equals."""
    first = heap[0]
    heap[0] = heap[size - 1]
    _sift(heap, size - 1, 0, p)
    return first


@njit(**FLAGS)
def _sift(heap, size, at, p):
    """Let the id at a place of the heap sink until both below it come later in the order."""
    while True:
        best, child = at, 2 * at + 1
        for other in range(child, min(child + 2, size)):
            a, b = heap[other], heap[best]
            if p[a] > p[b] or (p[a] == p[b] and a < b):
                best = other
        if best == at:
            return
        heap[at], heap[best] = heap[best], heap[at]
        at = best


@njit(**{**FLAGS, "fastmath": {"contract", "nsz", "reassoc"}})
def cost(logits, id_):
    """Return the nats of an id under logits (V,), as `charrnn.generate.sampling.cost` does."""
    top = logits[0]
    for i in range(logits.size):
        top = max(top, logits[i])
    total = 0.0
    for i in range(logits.size):
        total += op_exp(np.float64(logits[i]) - np.float64(top))
    return math.log(total) + np.float64(top) - np.float64(logits[id_])


def draw(logits, n, allowed, filters, u, numbers, order, cost_at):
    """Draw from n logits at an address: the id, or -1, and its cost, where that has a place.

    filters: the four of `choose`. numbers: 2 n float64, and order: 2 n int64, to work in.
    """
    x = vector(logits, n)
    settings = vector(filters, 4)
    work = vector(numbers, 2 * n)
    temperature, top_k, top_p, min_p = settings[0], int(settings[1]), settings[2], settings[3]
    permitted = vector(allowed, n)
    id_ = choose(x, permitted, temperature, top_k, top_p, min_p, u, work[:n], work[n:], vector(order, 2 * n))
    if not is_nowhere(cost_at):
        vector(cost_at, 1)[0] = cost(x, max(id_, 0))
    return id_
