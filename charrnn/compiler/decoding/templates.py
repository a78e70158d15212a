"""The text that every driver has around the functions written for its cell; `driver` beside this fills it in."""

HEADER = '''"""Written by charrnn: {cell}, {layers} layers of {hidden}, {dtype} weights."""

from math import inf, nan

import numpy as np
from numba import njit

from charrnn.compiler.decoding.arithmetic import *
from charrnn.compiler.decoding.products import {product} as product
from charrnn.compiler.decoding.views import draw_at, matrix, vector

FLAGS = {{"fastmath": {{"contract", "nsz"}}, "error_model": "numpy", "nogil": True}}
real = np.{real}


@njit(**FLAGS)
def look_up(table, ids, s, at):
    for r in range(ids.size):
        id_ = ids[r]
        for i in range(table.shape[1]):
            s[r, at + i] = table[id_, i]


@njit(**FLAGS)
def move(a, a_at, b, b_at, n):
    for r in range(a.shape[0]):
        for i in range(n):
            b[r, b_at + i] = a[r, a_at + i]


@njit(**FLAGS)
def add(a, a_at, b, b_at, n):
    for r in range(a.shape[0]):
        for i in range(n):
            b[r, b_at + i] += a[r, a_at + i]
'''

LOOP = """
@njit(**FLAGS)
def advance(ids, table, rounded, steps, {vectors}):
{advance}


@njit(**FLAGS)
def score(bias, logits, rounded, steps, {top}, {head}):
    product({top}, {y}, {hidden}, {head}, logits, 0, bias.size, rounded, steps)
    for r in range(logits.shape[0]):
        for i in range(bias.size):
            logits[r, i] += bias[i]


def run({parameters}):
{views}
    for n in range(N):
        some = False
        for r in range(T):
            some = some or given[n, r] < 0
        if some:
            score(bias, logits, rounded, steps, {top}, {head})
        for r in range(T):
            id_ = given[n, r]
            if id_ < 0:
                x, allowed = logits_at + 4 * logits.shape[1] * r, allowed_at + position[r] * V
                filters, costs = filters_at + 32 * r, costs_at + 8 * (n * T + r) if costs_at > 0 else 0
                id_ = draw_at(draw, x, V, allowed, filters, us[n, r], numbers_at, order_at, costs)
                if id_ >= 0:
                    position[r] = following[position[r] * V + id_]
            drawn[n, r] = id_
            if id_ >= 0:
                ids[r] = id_
        advance(ids, table, rounded, steps, {vectors})
        if wanted == 1:
            for r in range(T):
                for i in range({hidden}):
                    outputs[n * T + r, i] = {top}[r, {y} + i]
    if wanted == 2:
        score(bias, logits, rounded, steps, {top}, {head})
    return N
"""
