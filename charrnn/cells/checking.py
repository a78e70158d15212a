"""Whether a cell can be used: one step of it is taken in NumPy, and what is wrong is said in words."""

import re
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.cells import operation, ops
from charrnn.cells.cell import Cell
from charrnn.cells.shapes import WANTED
from charrnn.cells.slips import (
    WRITTEN,
    ForeignCallError,
    explained,
    functions,
    wrong_result,
)
from charrnn.errors import CharRNNError

# At import nobody knows H. Most blocks fit into a size with many divisors: other sizes are met when weights are drawn.
_DRAWN = 8


def check(cell: object) -> None:
    """Raise CharRNNError for what is no cell, or one that nobody could list, ask for, count or train."""
    if not isinstance(cell, Cell):
        raise CharRNNError(f"its `cell` is of type {type(cell).__name__}", "give a charrnn.cells.cell.Cell")
    if not isinstance(cell.name, str) or not re.fullmatch(r"[^\s,/\\]+", cell.name):
        raise CharRNNError(
            f"its cell is named {cell.name!r}", "give it a name without spaces, commas and slashes, such as 'my-cell'"
        )
    if not isinstance(cell.summary, str) or not isinstance(cell.source, str):
        raise CharRNNError(
            f"the summary or the source of cell {cell.name!r} is no text", "give a line of text for each"
        )
    _check_state(cell)
    _check_parameters(cell)
    _check_equations(cell)


def _check_state(cell: Cell) -> None:
    state: Any = cell.state
    if not isinstance(state, Mapping) or not all(isinstance(value, Real) for value in state.values()):
        raise CharRNNError(
            f"the state of cell {cell.name!r} is {state!r}, expected the start value of each state by name",
            'write for instance state={"h": 0}; every state has H features, or a shape in state_shapes',
        )
    if unknown := [name for name in cell.state_shapes if name not in cell.state]:
        raise CharRNNError(
            f"cell {cell.name!r} has a shape for the state {unknown[0]!r}, which it has not",
            f"its states are {', '.join(cell.state)}",
        )
    cell.states(_DRAWN)


def _check_parameters(cell: Cell) -> None:
    try:
        cell.count(2, 3)
        cell.pack(dict.fromkeys(cell.parameter_names, 0))
    except CharRNNError:
        raise
    except Exception as error:
        raise CharRNNError(
            f"the parameters of cell {cell.name!r} cannot be told: {type(error).__name__}: {error}", WANTED
        ) from error
    cell.initial(np.random.default_rng(0), _DRAWN, _DRAWN)


def _check_equations(cell: Cell) -> None:
    """Take one step of one row in NumPy: a slip is met here, not in the middle of a comparison."""
    parts = functions(cell)
    for name, function in parts.items():
        if not callable(function):
            raise CharRNNError(
                f"{name} of cell {cell.name!r} is of type {type(function).__name__}, expected a function",
                f"give {name}={name} without calling it; it is {WRITTEN[name]}",
            )
    p = cell.pack({name: _watched(np.full(shape, 0.5)) for name, (shape, _) in cell.shapes(2, 3).items()})
    start = tuple(map(_watched, cell.start((1, 3))))
    z = _called(cell, "inputs", _watched(np.ones((2, 1, 2))), p)
    if not isinstance(z, np.ndarray) or z.shape[:-1] != (2, 1):
        raise wrong_result(
            cell, "inputs", _said(z), "one array (2, 1, ...) for x (2, 1, 2)", "keep the axes T and B as they are"
        )
    if cell.linear:
        _check_recurrence(cell, z, start[0], p)
    else:
        _check_step(cell, _called(cell, "step", z[0], start, p))


def _check_step(cell: Cell, returned: Any) -> None:
    row = f"({', '.join(cell.state)}{',' if len(cell.state) == 1 else ''})"
    hint = f"end it with `return y, {row}`: y is the output, {row} the new state as a tuple"
    right = isinstance(returned, tuple | list) and len(returned) == 2 and isinstance(returned[1], tuple | list)
    if (
        right
        and len(returned[1]) == len(cell.state)
        and all(isinstance(a, np.ndarray) for a in (returned[0], *returned[1]))
    ):
        shapes = [(1, 3), *((1, *shape) for shape in cell.states(3).values())]
        if all(array.shape == shape for array, shape in zip((returned[0], *returned[1]), shapes, strict=True)):
            return
        hint = (
            "an output and a state have H features, unless state_shapes gives a state another shape: "
            "what is wider belongs into z or the parameters"
        )
    others = "".join(f", {name} {(1, *shape)}" for name, shape in cell.states(3).items() if shape != (3,))
    expected = f"(y, {row}), each an array (1, 3){others} for one row and H = 3"
    raise wrong_result(cell, "step", _said(returned), expected, hint)


def _check_recurrence(cell: Cell, z: Any, h: Any, p: Any) -> None:
    returned = _called(cell, "gates", z[0], p)
    pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not pair or not all(isinstance(each, np.ndarray) and _spreads(each, h) for each in returned):
        expected = f"(a, b), each an array {h.shape} for one row and H = 3"
        raise wrong_result(cell, "gates", _said(returned), expected, "h = a h + b: end it with `return a, b`")
    y = _called(cell, "readout", z[0], returned[0] * h + returned[1], p)
    if not isinstance(y, np.ndarray) or y.shape != (1, 3):
        expected = "one array (1, 3) for one row and H = 3"
        raise wrong_result(cell, "readout", _said(y), expected, "end it with `return y`; h is carried on by itself")


def _spreads(array: Any, h: Any) -> bool:
    """Tell whether an array has the shape of h, or is a vector that all rows share."""
    try:
        return bool(np.broadcast_shapes(array.shape, h.shape) == h.shape)
    except ValueError:
        return False


def _called(cell: Cell, function: str, *arguments: Any) -> Any:
    """Call one of a cell's functions, and say in words what it raises."""
    try:
        with np.errstate(all="ignore"):
            return functions(cell)[function](*arguments)
    except CharRNNError:
        raise
    except Exception as error:
        said = explained(cell, error, function)
        assert said is not None
        raise said from error


def _said(returned: Any) -> str:
    """Say what a function returned: shapes in place of numbers."""
    if isinstance(returned, np.ndarray):
        return f"array {returned.shape}"
    if isinstance(returned, tuple | list):
        comma = "," if len(returned) == 1 else ""
        return f"({', '.join(map(_said, returned))}{comma})"
    return "nothing" if returned is None else f"a {type(returned).__name__}"


class _Watched(np.ndarray[Any, Any]):
    """A NumPy array that refuses the functions of NumPy which torch and machine code cannot follow.

    Operators are let through, and so is whatever `charrnn.cells.ops` and NumPy itself do.
    """

    # NumPy computes some powers by functions of their own.
    OPERATORS = frozenset(
        {
            *("add", "subtract", "multiply", "divide", "matmul", "negative", "positive", "absolute"),
            *("floor_divide", "remainder", "divmod", "power", "square", "sqrt", "reciprocal"),
            *("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"),
            *("bitwise_and", "bitwise_or", "bitwise_xor", "invert"),
        }
    )
    # What reads a shape alone: torch's tensors have it too.
    SHAPES = ("shape", "ndim", "size")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if ufunc.__name__ not in self.OPERATORS:
            _refuse(ufunc.__name__, sys._getframe(1).f_code.co_filename)
        if out is not None:
            options["out"] = tuple(map(_plain, out))
        return _watched(getattr(ufunc, method)(*map(_plain, inputs), **options))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function.__name__ not in self.SHAPES:
            _refuse(function.__name__, sys._getframe(1).f_code.co_filename)
        return _watched(super().__array_function__(function, types, arguments, options))


def _refuse(name: str, caller: str) -> None:
    """Raise for a function of NumPy or SciPy that is not called by the operations or by NumPy itself."""
    if caller not in (ops.__file__, operation.__file__) and not Path(caller).is_relative_to(Path(np.__file__).parent):
        raise ForeignCallError(f"np.{name}" if hasattr(np, name) else name)


def _watched(value: Any) -> Any:
    return value.view(_Watched) if isinstance(value, np.ndarray) else value


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, _Watched) else value
