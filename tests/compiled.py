"""Equations compiled by Numba as the compiled decoder compiles them, but alone, and in float64 as well as float32."""

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from charrnn import cells
from charrnn.cells.cell import State
from charrnn.compiler.decoding import arithmetic
from charrnn.compiler.decoding.source import FunctionSource, Layout
from charrnn.compiler.trace import Function, trace

FLAGS: Any = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}  # the compiled decoder's

Params = dict[str, NDArray[Any]]


@njit(**FLAGS)
def product(x: Any, x_at: int, I: int, matrix: Any, y: Any, y_at: int, O: int, rounded: Any, steps: Any) -> None:
    """y[:, y_at:][:O] = x[:, x_at:][:I] by matrix, in any dtype; the decoder's own are tested by themselves."""
    for r in range(x.shape[0]):
        for j in range(O):
            total = x[r, x_at] * matrix[0, j]
            for i in range(1, I):
                total += x[r, x_at + i] * matrix[i, j]
            y[r, y_at + j] = total


class MachineCode:
    """Traced functions that run one after the other on one scratch vector, as one piece of machine code."""

    def __init__(self, functions: dict[str, Function], dtype: str):
        self._layout, self._dtype = Layout(), dtype
        self._sources = [FunctionSource(name, f, self._layout, "float32") for name, f in functions.items()]
        names: dict[str, Any] = {key: getattr(arithmetic, key) for key in dir(arithmetic) if key[:2] != "__"}
        names |= {"inf": math.inf, "nan": math.nan, "product": product, "real": getattr(np, dtype)}
        for name, source in zip(functions, self._sources, strict=True):
            exec(source.text(), names)
            names[name] = njit(inline="always", **FLAGS)(names[name])
        leaves = [", ".join(f"p[{i}][{k}]" for k in range(len(s.leaves))) for i, s in enumerate(self._sources)]
        calls = "".join(f"    {name}(s, s, s, {some})\n" for name, some in zip(functions, leaves, strict=True))
        exec(f"def run(s, p):\n{calls}", names)
        self._run = njit(**FLAGS)(names["run"])
        self._widths = {name: width for f in functions.values() for name, width in f.inputs.items()}
        self._widths |= {name: node.width for f in functions.values() for name, node in f.outputs.items()}

    def __call__(self, scratch: NDArray[Any], params: Params) -> None:
        leaves = [[np.ascontiguousarray(params[leaf.name][leaf.index]) for leaf in s.leaves] for s in self._sources]
        self._run(scratch[None], tuple((*some, np.zeros(1, self._dtype)) for some in leaves))  # () has no type

    def scratch(self) -> NDArray[Any]:
        """A fresh scratch vector, in which nothing may be read before it is written."""
        return np.full(self._layout.size, np.nan, self._dtype)

    def place(self, name: str) -> slice:
        """Where in the scratch vector an input or output is."""
        first = self._layout.places[name]
        return slice(first, first + self._widths[name])


class CompiledCell:
    """One row of a cell at one size and in one dtype."""

    def __init__(self, name: str, I: int, H: int, dtype: str):
        inputs, step = trace(cells.get(name), I, H, H, {})
        self._code = MachineCode({"inputs": inputs, "step": step}, dtype)
        self._states = [slot for slot in step.outputs if slot != "y"]

    def run(self, x: NDArray[Any], params: Params, state: State) -> tuple[NDArray[Any], State]:
        """As `charrnn.run` with inputs (T, I) and a state of (H,) arrays."""
        scratch, place, outputs = self._code.scratch(), self._code.place, []
        for slot, value in zip(self._states, state, strict=True):
            scratch[place(slot)] = value
        for x_t in x:
            scratch[place("x")] = x_t
            self._code(scratch, params)
            outputs.append(scratch[place("y")].copy())
        return np.stack(outputs), tuple(scratch[place(slot)].copy() for slot in self._states)


@cache
def compiled(name: str, I: int, H: int, dtype: str) -> CompiledCell:
    """Compiled once for all tests, since that takes half a second."""
    return CompiledCell(name, I, H, dtype)
