"""The draw of `charrnn.sampling`, compiled: the same float64 arithmetic in the same order, so the same ids.

Plain loops throughout: Numba takes seconds to compile the assignment of a slice, with its error messages.
"""

import math

import numpy as np
from numba import njit

from charrnn.native_math import exp_float64

FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}
KEPT = __name__ != "charrnn.native_draw"  # compiled code is kept where `charrnn.native_cache` put a copy of this file


@njit(cache=KEPT, **FLAGS)
def choose(logits, allowed, temperature, top_k, top_p, min_p, u):
    """The id drawn with u, or -1 where the logits are not finite.

    logits: (V,). allowed: (V,) bool. top_k: V or more is off; top_p: above 1 is off; min_p: below 0 is off.
    """
    V = logits.size
    p = np.empty(V, np.float64)
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
        p[i] = exp_float64((p[i] - top) / temperature)
    _normalise(p)
    if top_k < V or top_p <= 1:
        _cut(p, top_k, top_p)
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
def _cut(p, top_k, top_p):
    """Top-k, then top-p, on p (V,) in place."""
    V = p.size
    k = min(top_k, V)
    heap, order, kept = np.empty(V, np.int64), np.empty(k, np.int64), np.zeros(V, np.float64)
    for i in range(V):
        heap[i] = i
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
    """p = kept, which is zeros afterwards."""
    for i in range(p.size):
        p[i], kept[i] = kept[i], 0.0


@njit(**FLAGS)
def _pop(heap, size, p):
    """The likeliest id of the heap, the lowest among equals."""
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


@njit(cache=KEPT, **{**FLAGS, "fastmath": {"contract", "nsz", "reassoc"}})
def cost(logits, id_):
    """Nats of an id under logits (V,), as `charrnn.sampling.cost`."""
    top = logits[0]
    for i in range(logits.size):
        top = max(top, logits[i])
    total = 0.0
    for i in range(logits.size):
        total += exp_float64(np.float64(logits[i]) - np.float64(top))
    return math.log(total) + np.float64(top) - np.float64(logits[id_])
