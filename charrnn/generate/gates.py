"""The gates of a model on a text: every result of a sigmoid in the equations of its cell.

The equations are recorded as a graph. The states before each character are known, so every gate is computed for the
whole text at once.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.cells import ops
from charrnn.cells.cell import Cell
from charrnn.compiler.graph import Node, reachable
from charrnn.compiler.trace import Function, slot, trace
from charrnn.model.architecture import Architecture

Weights = Mapping[str, NDArray[np.float32]]
States = Sequence[Sequence[NDArray[np.float32]]]  # by layer, then as the cell names them: (T, H)


@dataclass(frozen=True)
class Gate:
    """A gate of a layer. layer: from 1. name: its letter in the equations. openness: (T, width), from 0 to 1."""

    layer: int
    name: str
    openness: NDArray[np.float32]


def of(architecture: Architecture, weights: Weights, ids: NDArray[Any], before: States) -> list[Gate]:
    """Compute every gate of a model at every id of a text.

    ids: (T,), start tokens among them. before: the states that the model has before each of them.
    Returns the gates, layer after layer in the order of the equations; none for a cell without gates.
    Raises CharRNNError where the equations cannot be recorded.
    """
    cell, H = architecture.definition, architecture.hidden
    options = dict(architecture.cell_options)
    table = weights.get("embedding")
    x = np.eye(architecture.vocabulary + 1, dtype=np.float32)[ids] if table is None else table[ids]
    found: list[Gate] = []
    for layer, states in enumerate(before):
        inputs, step = trace(cell, architecture.input_size(layer), H, H, options)
        p = {name: weights[f"layers.{layer}.{name}"] for name in cell.parameter_names}
        of_x = _values(inputs, {"x": x}, p)
        z = of_x[inputs.outputs["z"]]
        given = {slot(name): value for name, value in zip(cell.state, states, strict=True)}
        of_step = _values(step, {"z": z, **given}, p)
        opened = [value for node, value in (*of_x.items(), *of_step.items()) if node.op == ops.sigmoid.name]
        names = _names(cell, len(opened))
        found += [Gate(layer + 1, name, value) for name, value in zip(names, opened, strict=True)]
        y = of_step[step.outputs["y"]]
        x = y + x if architecture.residual and layer else y
    return found


def _values(function: Function, given: Mapping[str, Any], p: Mapping[str, Any]) -> dict[Node, Any]:
    """Compute every node that a recorded function needs, in the order in which the equations make them."""
    values: dict[Node, Any] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged model has such numbers
        for node in sorted(reachable(function.outputs.values()), key=lambda node: node.number):
            values[node] = _value(node, [values[argument] for argument in node.args], given, p)
    return values


def _value(node: Node, arguments: list[Any], given: Mapping[str, Any], p: Mapping[str, Any]) -> Any:
    if node.op == "constant":
        return np.float32(node.data)
    if node.op == "input":
        return given[node.data]
    if node.op == "parameter":
        return p[node.data.name][node.data.index]
    if node.op == "matmul":
        return arguments[0] @ p[node.data.name][node.data.index]
    if node.op == "slice":
        return arguments[0][..., node.data : node.data + node.width]
    if node.op == "concat":
        return np.concatenate(arguments, axis=-1)
    return ops.TABLE[node.op].numpy(*arguments)


def _names(cell: Cell, count: int) -> list[str]:
    """Return the letters of a cell's gates in its equations: f of `sigmoid(f)` and of `f = sigmoid(...)`.

    Where the source does not show one letter for each gate, as in a loop, they are gate1, gate2 and so on.
    """
    functions = (cell.inputs, *((cell.gates, cell.readout) if cell.linear else (cell.step,)))
    found = [name for function in functions for name in _letters(function)]
    numbered = [f"gate{number}" for number in range(1, count + 1)]
    return found if len(found) == len(set(found)) == count and not set(found) & set(cell.state) else numbered


def _letters(function: Any) -> list[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):  # typed where Python keeps no source
        return []
    named: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_sigmoid(node.value):
            named[id(node.value)] = node.targets[0].id
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_sigmoid(node)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [named.get(id(call)) or _first_name(call.args[0]) for call in calls]


def _is_sigmoid(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(node.args) and ast.unparse(node.func).endswith(ops.sigmoid.name)


def _first_name(node: ast.AST) -> str:
    return next((inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)), "")
