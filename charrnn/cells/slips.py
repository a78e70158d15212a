"""What goes wrong in equations, in words: the cell, its function, the line, what is expected and what to do."""

import linecache
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from charrnn.cells import ops
from charrnn.cells.cell import Cell, letters, linear_inputs
from charrnn.errors import CharRNNError, did_you_mean
from charrnn.patterns import pattern

# Modules of the folder that serve all cells, and are none.
SERVING = (
    "cell",
    "cell_files",
    "checking",
    "initialisation",
    "latex",
    "operation",
    "ops",
    "registry",
    "shapes",
    "slips",
)
OPERATIONS = tuple(ops.public())
# What other libraries call the same operation.
_OTHER_NAMES = {
    **dict.fromkeys(("concatenate", "hstack", "cat"), "concat"),
    **dict.fromkeys(("dot", "mm", "einsum"), "matmul"),
    **dict.fromkeys(("array_split", "hsplit", "chunk"), "split"),
    "expit": "sigmoid",
    "layer_norm": "layernorm",
}
_CALL = pattern(r"\b(np|numpy|math|torch|scipy)((?:\.\w+)*)\.(\w+)\(")
# How each function of a cell is written.
WRITTEN = {
    "inputs": "inputs(x, p) -> z",
    "step": "step(z, state, p) -> (y, state)",
    "gates": "gates(z, p) -> (a, b)",
    "readout": "readout(z, h, p) -> y",
}
_FOLDER = Path(__file__).parent


class EquationsError(CharRNNError):
    """A cell whose equations are wrong. The problem begins with the file and the line, where there are any."""


class ForeignCallError(TypeError):
    """An equation calls what has no form under torch or in machine code. called: its name, as it is written."""

    def __init__(self, called: str) -> None:
        super().__init__(f"{called} is not among the operations")
        self.called = called


def instead_of(name: str) -> str:
    """Say which operation stands for a function of another library."""
    known = _OTHER_NAMES.get(name, name)
    if known in OPERATIONS:
        return f"use charrnn.cells.ops.{known}"
    return f"use + - * / @, numbers and charrnn.cells.ops: {', '.join(OPERATIONS)}"


def functions(cell: Cell) -> dict[str, Callable[..., Any]]:
    """Return the functions that hold a cell's equations, by name."""
    if cell.gates is not None and cell.readout is not None:
        return {"inputs": cell.inputs, "gates": cell.gates, "readout": cell.readout}
    return {"inputs": cell.inputs, "step": cell.step}


def wrong_result(cell: Cell, function: str, returned: str, expected: str, hint: str) -> EquationsError:
    """Make the error for a function that returns something else than is expected of it."""
    code = getattr(functions(cell)[function], "__code__", None)
    place = f"{Path(code.co_filename).name}, line {code.co_firstlineno}: " if code and _is_ours(code, cell) else ""
    return EquationsError(f"{place}{function} of cell {cell.name!r} returns {returned}, expected {expected}", hint)


def explained(cell: Cell, error: BaseException, function: str = "") -> EquationsError | None:
    """Say in words what an equation raised.

    function: the one that was called, read off the traceback when empty. Returns None where the error was not raised in
    the cell's own lines, and no function was named.
    """
    frames = [frame for frame in _frames(error.__traceback__) if _is_ours(frame.f_code, cell)]
    inside = {id(getattr(f, "__code__", None)): name for name, f in functions(cell).items()}
    called = [inside[id(frame.f_code)] for frame in frames if id(frame.f_code) in inside]
    function = called[0] if called else function
    if not function:
        return None
    place = line = ""
    if frames:
        last = [s for s in traceback.extract_tb(error.__traceback__) if s.filename == frames[-1].f_code.co_filename][-1]
        place = f"{Path(last.filename).name}, line {last.lineno}: "
        line = linecache.getline(last.filename, last.lineno or 0)
    problem, hint = _in_words(cell, error, function, line, called=bool(called))
    return EquationsError(f"{place}{function} of cell {cell.name!r} {problem}", hint)


def _frames(trace: TracebackType | None) -> list[Any]:
    return [frame for frame, _ in traceback.walk_tb(trace)]


def _is_ours(code: Any, cell: Cell) -> bool:
    """Tell whether code is in the cell's file, or beside it in a file that is no part of the library."""
    path = Path(code.co_filename)
    if path.parent == _FOLDER:
        return path.stem not in ("__init__", *SERVING)
    folders = {Path(f.__code__.co_filename).parent for f in functions(cell).values() if hasattr(f, "__code__")}
    return path.parent in folders - {_FOLDER}


def _in_words(cell: Cell, error: BaseException, function: str, line: str, called: bool) -> tuple[str, str]:
    """Return what a function of a cell does wrong, to come after its name, and what to do."""
    text = " ".join(str(error).split())
    states = f"state has {len(cell.state)} ({', '.join(cell.state)})"
    if isinstance(error, ForeignCallError):
        name = error.called.rpartition(".")[2]
        return f"calls {error.called}, which neither torch nor machine code can follow", instead_of(name)
    if isinstance(error, AttributeError) and getattr(error.obj, "_fields", None) == cell.parameter_names:
        return _unknown_parameter(cell, function, str(error.name))
    if "truth value of" in text or "Boolean value of" in text:
        return (
            "decides by the value of an array, which holds many values",
            "write the choice as arithmetic, with maximum, minimum, relu or sigmoid of charrnn.cells.ops",
        )
    if "modified inplace" in text:
        return "changes an array that it was given", "make a new one: h = h + x in place of h += x"
    foreign = _CALL.search(line)
    if foreign is not None and isinstance(error, TypeError | RuntimeError):
        written = f"{foreign[1]}{foreign[2]}.{foreign[3]}"
        return f"calls {written} on an array: {text}", instead_of(foreign[3])
    if isinstance(error, AttributeError) and hasattr(error.obj, "shape"):
        return f"uses .{error.name} of an array, which not every array has", instead_of(str(error.name))
    if isinstance(error, NameError) and error.name in OPERATIONS:
        return f"fails: NameError: {text}", f"from charrnn.cells.ops import {error.name}"
    if "values to unpack" in text:
        return f"fails: ValueError: {text}", f"unpack as many as there are: {states}, split(x, n) gives n arrays"
    if not called and isinstance(error, TypeError):
        return f"cannot be called: {text}", f"it is {WRITTEN[function]}"
    shapes = ", ".join(f"{name} ({', '.join(axes)})" for name, axes in letters(cell).items())
    return f"fails: {type(error).__name__}: {text}", f"correct the equations: the parameters are {shapes}; {states}"


def _unknown_parameter(cell: Cell, function: str, name: str) -> tuple[str, str]:
    known = ", ".join(cell.parameter_names) or "none"
    if function == "inputs" and cell.inputs is linear_inputs:
        return (
            f"reads p.{name}, and its parameters are {known}: without inputs=..., z is x W + b",
            f"add {name!r} to the parameters, or correct the equations by giving inputs(x, p)",
        )
    near = did_you_mean(name, list(cell.parameter_names))
    return (
        f"reads p.{name}, expected one of its parameters: {known}",
        f"{near} Or add {name!r} to the parameters" if near.endswith("?") else f"add {name!r} to the parameters",
    )
