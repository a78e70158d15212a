"""The text that every driver has around the functions written for its cell; `driver` beside this fills it in.

ONE_ROW and LOOP decode one text, ROWS and ROWS_LOOP several side by side.
"""

HEADER = '''"""Written by charrnn: {cell}, {layers} layers of {hidden}, {dtype} weights."""

import math
from math import inf, nan

import numpy as np
from numba import njit

from charrnn.compiler.decoding.arithmetic import *
from charrnn.compiler.decoding.{module} import {product}
from charrnn.compiler.decoding.views import draw_at, matrix, vector

FLAGS = {{"fastmath": {{"contract", "nsz"}}, "error_model": "numpy", "nogil": True}}
real = np.{real}
'''

ONE_ROW = """

@njit(**FLAGS)
def look_up(table, id_, s, at):
    for i in range(table.shape[1]):
        s[at + i] = table[id_, i]


@njit(**FLAGS)
def move(a, a_at, b, b_at, n):
    for i in range(n):
        b[b_at + i] = a[a_at + i]


@njit(**FLAGS)
def add(a, a_at, b, b_at, n):
    for i in range(n):
        b[b_at + i] += a[a_at + i]
"""

LOOP = """
@njit(**FLAGS)
def advance(id_, table, sums, rounded, {vectors}):
{advance}

@njit(**FLAGS)
def score(y, bias, logits, sums, rounded, {head}):
    {product}
    for i in range(bias.size):
        logits[i] += bias[i]


def run({parameters}):
{views}
    for t in range(T):
        advance(ids[t], table, sums, rounded, {vectors})
        if wanted:
            move({top}, {y}, outputs, t * {hidden}, {hidden})
    y = {top}[{y} : {y} + {hidden}]
    for n in range(N):
        score(y, bias, logits, sums, rounded, {head})
        allowed = allowed_at + position[0] * V
        id_ = draw_at(draw, logits_at, V, allowed, filters_at, us[n], numbers_at, order_at, costs_at + 8 * n)
        if id_ < 0:
            return n
        drawn[n] = id_
        position[0] = following[position[0] * V + id_]
        advance(id_, table, sums, rounded, {vectors})
    if N == 0 and not wanted:
        score(y, bias, logits, sums, rounded, {head})
    return N
"""

ROWS = """

@njit(**FLAGS)
def look_up(table, ids, s, at):
    for r in range(ids.size):
        for i in range(table.shape[1]):
            s[r, at + i] = table[ids[r], i]


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
"""

ROWS_LOOP = """
@njit(**FLAGS)
def advance(id_, table, sums, rounded, {vectors}):
{advance}


def run({parameters}):
{views}
    for n in range(N):
        {product}
        for r in range(T):
            k = n * T + r
            if given[k] >= 0:
                drawn[k] = ids[r] = given[k]
                continue
            for i in range(V):
                logits[r, i] += bias[i]
            x, allowed, filters = logits_at + 4 * V * r, allowed_at + position[r] * V, filters_at + 32 * r
            cost_at = costs_at + 8 * k if costs_at > 0 else 0
            id_ = draw_at(draw, x, V, allowed, filters, us[k], numbers_at, order_at, cost_at)
            drawn[k] = id_
            if id_ >= 0:
                ids[r] = id_
                position[r] = following[position[r] * V + id_]
        advance(ids, table, sums, rounded, {vectors})
    return N
"""
