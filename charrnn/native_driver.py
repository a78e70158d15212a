"""The decoding loop of one model, as a module's source for Numba: characters in, characters out, no Python in between.

It depends on the cell's equations and on the sizes alone, so that models of one shape share compiled code.
"""

from dataclasses import dataclass
from typing import Any

from charrnn.architecture import Architecture
from charrnn.native_source import FunctionSource, Layout
from charrnn.native_trace import Leaf, trace

PRODUCTS = {"float32": "by_array", "bf16": "by_bf16", "int8": "by_int8"}

MODULE = '''"""Written by charrnn: {cell}, {layers} layers of {hidden}, {weights} weights."""

import math
from math import inf, nan

import numpy as np
from numba import njit

from {draw} import choose, cost
from charrnn.native_math import *
from charrnn.native_products import {product} as product

FLAGS = {{"fastmath": {{"contract", "nsz"}}, "error_model": "numpy", "nogil": True}}
real = np.{real}


@njit(**FLAGS)
{first_step}

{upper}@njit(**FLAGS)
def advance(id_, table, s0, s, p0, p, q):
    for i in range({z_width}):
        s0[{z0} + i] = table[id_, i]
    first_step(s0, p0)
{climb}

@njit(**FLAGS)
def score(y, head, bias, logits):
    product(y, head, logits)
    for i in range(bias.size):
        logits[i] += bias[i]


@njit(cache=True, **FLAGS)
def run(
    ids, table, s0, s, p0, p, q, head, bias, outputs, logits, us, filters, automaton, allowed, following, drawn, costs
):
    y = {top}
    for t in range(ids.size):
        advance(ids[t], table, s0, s, p0, p, q)
        if outputs.shape[0] > 0:
            for i in range({hidden}):
                outputs[t, i] = y[i]
    temperature, top_k, top_p, min_p = filters
    for n in range(us.size):
        score(y, head, bias, logits)
        id_ = choose(logits, allowed[automaton], temperature, top_k, top_p, min_p, us[n])
        if id_ < 0:
            return n, automaton
        drawn[n], costs[n] = id_, cost(logits, id_)
        automaton = following[automaton, id_]
        advance(id_, table, s0, s, p0, p, q)
    if us.size == 0 and outputs.shape[0] == 0:
        score(y, head, bias, logits)
    return us.size, automaton
'''

UPPER = """@njit(**FLAGS)
{step}

@njit(**FLAGS)
{inputs}

"""

CLIMB = """    y, y_at = s0, {y0}
    for layer in range({layers} - 1):
        x = s[layer]
        for i in range({hidden}):
            x[{x} + i] = y[y_at + i]
        inputs(x, q[layer])
        step(x, p[layer])
        if {residual}:
            for i in range({hidden}):
                x[{y} + i] += x[{x} + i]
        y, y_at = x, {y}
"""


@dataclass(frozen=True)
class Driver:
    """A module's source, and what its `run` is to be given.

    first, upper: where the scratch vectors of the first layer and of each layer above it keep what.
    first_leaves, leaves, input_leaves: the parameters of the first layer's step, of a step above it, and of its inputs.
    matrices: those of them that are multiplied by, and may be kept in fewer bytes.
    """

    text: str
    first: Layout
    upper: Layout
    first_leaves: list[Leaf]
    leaves: list[Leaf]
    input_leaves: list[Leaf]
    matrices: set[tuple[str, tuple[int, ...]]]


def write(
    architecture: Architecture, weights: str = "float32", real: str = "float32", draw: str = "charrnn.native_draw"
) -> Driver:
    """The driver of a model.

    weights: float32, bf16 or int8. real: float32, or float64 to check the equations. draw: the module of the draw.

    Raises CharRNNError where the equations cannot be compiled.
    """
    cell, H, options = architecture.definition, architecture.hidden, dict(architecture.cell_options)
    _, below = trace(cell, architecture.input_size(0), H, H, options)
    above_inputs, above = trace(cell, H, H, H, options)
    first, upper = Layout(), Layout()
    first_step = FunctionSource("first_step", below, first, real)
    step = FunctionSource("step", above, upper, real)
    first_text, step_text = first_step.text(), step.text()
    inputs = FunctionSource("inputs", above_inputs, upper, real)
    values: dict[str, Any] = {
        "cell": cell.name,
        "draw": draw,
        "layers": architecture.layers,
        "hidden": H,
        "weights": weights,
        "residual": architecture.residual,
        "product": PRODUCTS[weights],
        "real": real,
        "first_step": first_text,
        "step": step_text,
        "inputs": inputs.text(),
        "z_width": below.inputs["z"],
        "z0": first.place("z", below.inputs["z"]),
        "y0": first.place("y", H),
        "x": upper.place("x", H),
        "y": upper.place("y", H),
    }
    if architecture.layers > 1:
        values["upper"], values["climb"] = UPPER.format(**values), CLIMB.format(**values)
        values["top"] = f"s[{architecture.layers - 2}, {values['y']} : {values['y'] + H}]"
    else:
        values["upper"] = values["climb"] = ""
        values["top"] = f"s0[{values['y0']} : {values['y0'] + H}]"
    used = [*first_step.matrices, *step.matrices, *inputs.matrices]
    matrices = {(leaf.name, leaf.index) for leaf in used}
    return Driver(MODULE.format(**values), first, upper, first_step.leaves, step.leaves, inputs.leaves, matrices)
