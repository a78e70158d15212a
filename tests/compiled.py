"""Pieces of what completing compiles, each alone, and in float64 as well as float32."""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from charrnn import cells
from charrnn.cells.cell import State
from charrnn.compiler import objects
from charrnn.compiler.decoding import weights
from charrnn.compiler.decoding.draw import emit_choose, emit_cost
from charrnn.compiler.decoding.driver import in_largest_blocks
from charrnn.compiler.emitting import I64
from charrnn.compiler.passes import scratch_of
from charrnn.compiler.rounding import emit_round
from charrnn.compiler.schedule import SCRATCH, Place, X, Y, make_step
from charrnn.compiler.stages import Stages
from charrnn.compiler.trace import Function, trace

Params = dict[str, NDArray[Any]]
PADDED = 64  # numbers: rows are so much longer, since products write whole panels


def function_of(source: str, name: str, result: Any, *kinds: Any) -> Callable[..., Any]:
    """A function of some LLVM source, as ctypes calls it; the cache holds its code."""
    return ctypes.CFUNCTYPE(result, *kinds)(objects.compiled(source).address(name))


class CompiledStep:
    """A step of a layer, for one row: it takes x and the states as they are by name, and gives y and all states."""

    def __init__(self, inputs: Function | None, step: Function, dtype: str):
        self._step, self._dtype = step, np.dtype(dtype)
        self.plan = make_step(in_largest_blocks(inputs, step), looked_up=False)
        self._form = weights.form(dtype, False)
        module = objects.new_module()
        Stages(module, self.plan, self._form, gradual=True).emit_step("step")
        self._run = function_of(str(module), "step", None, *[ctypes.c_int64] * 4)

    def __call__(self, x: NDArray[Any], states: Mapping[str, NDArray[Any]], params: Params) -> dict[str, NDArray[Any]]:
        arrays = {
            place: np.full((2 if buffer.slots == "state" else 1, buffer.width + PADDED), np.nan, self._dtype)
            for place, buffer in self.plan.buffers.items()
        }
        arrays[SCRATCH] = np.full((1, scratch_of(self.plan) + PADDED), np.nan, self._dtype)
        arrays[X][0, : len(x)] = x
        blocks = [Place("state", j) for j in range(len(self.plan.equations.before))]
        given = np.concatenate([np.empty(0, self._dtype), *states.values()])
        for place in blocks:
            width = self.plan.buffers[place].width
            arrays[place][0, :width], given = given[:width], given[width:]
        for place in self.plan.buffers:
            if isinstance(place.which, tuple):
                arrays[place] = self._parameter(params, place.which)[None]
        for product in self.plan.products:
            arrays[Place.of("packed", product)] = weights.pack(self._parameter(params, product.weight), self._form)[0]
        table = np.zeros((len(self.plan.lines), 4), np.int64)
        for place, array in arrays.items():
            table[self.plan.lines[place]] = array.ctypes.data, array.strides[0], array.strides[0], len(array) - 1
        self._run(table.ctypes.data, 0, 0, 1)
        after = np.concatenate([np.empty(0), *(arrays[place][1, : self.plan.buffers[place].width] for place in blocks)])
        results, first = {"y": arrays[Y][0, : self.plan.buffers[Y].width].copy()}, 0
        for name, width in self._step.inputs.items():
            if name != "z":
                results[name] = after[first : first + width].astype(self._dtype)
                first += width
        return results

    def _parameter(self, params: Params, weight: tuple[str, int | None]) -> NDArray[Any]:
        value = params[weight[0]] if weight[1] is None else params[weight[0]][weight[1]]
        return np.ascontiguousarray(value, self._dtype)


class CompiledCell:
    """One row of a cell at one size and in one dtype."""

    def __init__(self, name: str, I: int, H: int, dtype: str):
        self._code = CompiledStep(*trace(cells.get(name), I, H, H, {}), dtype)
        self._states = [f"state_{state}" for state in cells.get(name).state]

    def run(self, x: NDArray[Any], params: Params, state: State) -> tuple[NDArray[Any], State]:
        """As `charrnn.run` with inputs (T, I) and a state of (H,) arrays."""
        states, outputs = dict(zip(self._states, state, strict=True)), []
        for x_t in x:
            states = self._code(x_t, states, params)
            outputs.append(states.pop("y"))
        return np.stack(outputs), tuple(states.values())


@cache
def compiled(name: str, I: int, H: int, dtype: str) -> CompiledCell:
    """Compiled once for all tests, since that takes half a second."""
    return CompiledCell(name, I, H, dtype)


@cache
def product(kept: str, rows: bool) -> Callable[..., NDArray[np.float32]]:
    """A product as completing makes it: of x (B, I), rows of an array, by a matrix as `weights.pack` packs it."""
    form = weights.form(kept, rows)
    module = objects.new_module()
    inner, round_ = form.emit(module), emit_round(module)
    round_.linkage = "external"
    function = ir.Function(module, inner.ftype, "outer")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.call(inner, function.args)
    builder.ret_void()
    outer = function_of(str(module), "outer", None, *[ctypes.c_int64] * len(inner.args))
    rounded_by = function_of(str(module), "round", ctypes.c_float, *[ctypes.c_int64] * 3)

    def call(x: NDArray[np.float32], I: int, packed: weights.Packed, y: NDArray[np.float32], O: int) -> None:
        left, steps, scales = x, np.empty(len(x), np.float32), []
        if kept == "int8":
            left = np.full((len(x), I + 1), 3, np.int16)
            for r, row in enumerate(x):
                steps[r] = rounded_by(row.ctypes.data, I, left[r].ctypes.data)
            scales = [packed[1].ctypes.data, steps.ctypes.data]
        sizes = len(x), form.steps(I), form.panels(O)
        outer(left.ctypes.data, left.strides[0], packed[0].ctypes.data, y.ctypes.data, y.strides[0], *sizes, *scales)

    return call


@cache
def drawing() -> tuple[Callable[..., int], Callable[..., float]]:
    """The compiled `choose` and `cost`, of arrays: of logits float32, allowed, filters, u; and of logits, an id."""
    module = objects.new_module()
    emit_choose(module)
    emit_cost(module)
    whole, real = ctypes.c_int64, ctypes.c_double
    choose = function_of(str(module), "choose", whole, whole, whole, whole, whole, real, whole)
    cost = function_of(str(module), "cost", real, whole, whole, whole)

    def choose_of(logits: Any, allowed: Any, filters: Any, u: float) -> int:
        room, settings = np.empty(2 * len(logits)), np.array(filters, np.float64)
        at = logits.ctypes.data, len(logits), allowed.ctypes.data, settings.ctypes.data
        return int(choose(*at, u, room.ctypes.data))

    return choose_of, lambda logits, id_: float(cost(logits.ctypes.data, len(logits), id_))


def map_of(emit: Callable[[Any, Any], Any], x: NDArray[np.float32], lanes: int = 8) -> NDArray[np.float32]:
    """What code computes of each float32 number. emit(maths, value): emits it."""
    from charrnn.compiler.arithmetic import Maths, read, write
    from charrnn.compiler.emitting import loop

    module = objects.new_module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 3), "map")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    from_, to, n = function.args
    maths = Maths(builder, lanes, gradual=True)
    with loop(builder, I64(0), builder.mul(n, I64(4)), 4 * lanes) as at:
        write(maths, emit(maths, read(maths, builder.add(from_, at), 4)), builder.add(to, at), 4)
    builder.ret_void()
    given = np.concatenate([x, np.ones(-len(x) % lanes, np.float32)])
    result = np.empty_like(given)
    run = function_of(str(module), "map", None, *[ctypes.c_int64] * 3)
    run(given.ctypes.data, result.ctypes.data, len(given))
    return result[: len(x)]
