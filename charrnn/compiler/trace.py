"""A record of what a cell's equations do, made by running them once on stand-ins that record every op.

The equations are Python: loops over parameters, helpers and closures all run here. What is left is a graph of
products, operations and slices of known widths. The equations' own source is not needed, so cells typed into a
notebook are compiled like any other.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.cells.cell import Cell
from charrnn.cells.operation import Symbol
from charrnn.compiler.graph import Graph, Node, reachable
from charrnn.errors import CharRNNError

UNTRACEABLE = (AttributeError, TypeError, ValueError)  # raised for what a tensor can do and a stand-in cannot
SMALL = (2, 3, 3)  # I, H, O of a record that is made for its equations alone


@dataclass(frozen=True)
class Leaf:
    """A parameter, or one of several stacked along its first axes: name[index]."""

    name: str
    index: tuple[int, ...]
    shape: tuple[int, ...]


class Traced(Symbol):
    """A stand-in for an array: it behaves like a tensor of shape (width,) and records what is done to it."""

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic to us

    def __init__(self, graph: Graph, node: Node):
        self.graph, self.node = graph, node
        self.shape: tuple[int, ...] = (node.width,)

    def record(self, operation: str, *arguments: Any) -> "Traced":
        nodes = [self._as_node(a) for a in arguments]
        width = sum(node.width for node in nodes) if operation == "concat" else None
        return Traced(self.graph, self.graph.node(operation, *nodes, width=width))

    def _as_node(self, value: Any) -> Node:
        if isinstance(value, Parameter) and len(value.shape) > 1:
            raise _unsupported(f"arithmetic on a parameter of shape {value.shape}")
        return value.node if isinstance(value, Traced) else self.graph.constant(value)

    def __getitem__(self, key: Any) -> "Traced":
        part = key[-1] if isinstance(key, tuple) and key[0] is Ellipsis else key
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise _unsupported(f"indexing by {key!r}")
        first, last, _ = part.indices(self.node.width)
        return Traced(self.graph, self.graph.slice(self.node, first, last - first))

    def split(self, width: int, dim: int = -1) -> tuple["Traced", ...]:
        return tuple(self[..., i : i + width] for i in range(0, self.node.width, width))

    def __matmul__(self, matrix: Any) -> "Traced":
        if not isinstance(matrix, Parameter) or len(matrix.leaf.shape) != 2 or matrix.leaf.shape[0] != self.node.width:
            raise _unsupported(f"a product of {self.shape} by {getattr(matrix, 'shape', matrix)}")
        width = matrix.leaf.shape[1]
        return Traced(self.graph, self.graph.node("matmul", self.node, width=width, data=matrix.leaf))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(str(_unsupported(f"{name} of an array")))


class Parameter(Traced):
    """A parameter of any rank; an integer picks one of those stacked along its first axis."""

    def __init__(self, graph: Graph, leaf: Leaf):
        super().__init__(graph, graph.node("parameter", width=leaf.shape[-1], data=leaf))
        self.leaf, self.shape = leaf, leaf.shape

    def __getitem__(self, key: Any) -> Traced:
        if isinstance(key, int) and len(self.shape) > 1:
            at = range(self.shape[0])[key]  # an IndexError ends a loop over the parameter
            return Parameter(self.graph, Leaf(self.leaf.name, (*self.leaf.index, at), self.shape[1:]))
        if len(self.shape) > 1:
            raise _unsupported(f"indexing a parameter of shape {self.shape} by {key!r}")
        return super().__getitem__(key)


def named(graph: Graph, name: str, width: int) -> Traced:
    """Return the stand-in of an input."""
    return Traced(graph, graph.node("input", width=width, data=name))


@dataclass(frozen=True)
class Function:
    """inputs: name -> width. outputs: name -> node, in the order they are returned."""

    inputs: dict[str, int]
    outputs: dict[str, Node]

    def lines(self) -> Iterator[str]:
        """Write the record down, a line a node: equal for equal equations, and for no others."""
        number = {node: i for i, node in enumerate(reachable(self.outputs.values()))}
        for node, i in number.items():
            yield f"{i} {node.op} {node.width} {node.data!r} {[number[a] for a in node.args]}"
        for name, node in self.outputs.items():
            yield f"{name} {number[node]}"


def trace(cell: Cell, I: int, H: int, O: int, options: dict[str, int]) -> tuple[Function, Function]:
    """Record a cell's `inputs` (x -> z) and `step` (z, states -> y, states) at the sizes of one layer.

    Raises CharRNNError where the equations do what only Python can, such as a decision that depends on a value.
    """
    shapes = {name: tuple(shape) for name, (shape, _) in cell.shapes(I, H, O, **options).items()}
    try:
        states = cell.states(H, **options)
        for name, shape in states.items():
            if len(shape) != 1:
                raise TypeError(f"its state {name} is {cell.state_shapes[name]!r}, and compiled code has rows alone")
        return record(cell, shapes, I, {name: width for name, (width,) in states.items()})
    except UNTRACEABLE as error:
        raise CharRNNError(
            f"the equations of cell {cell.name!r} cannot be compiled: {error}",
            "write them with charrnn.cells.ops, + - * / and numbers alone",
        ) from error


def record(
    cell: Cell, shapes: Mapping[str, tuple[int, ...]], I: int, states: Mapping[str, int]
) -> tuple[Function, Function]:
    """Record as `trace` does. shapes: of the parameters, by name. states: the width of each. Raises UNTRACEABLE."""

    def given(inputs: Mapping[str, int]) -> tuple[list[Traced], Any]:
        graph = Graph()
        parameters = [Parameter(graph, Leaf(name, (), shape)) for name, shape in shapes.items()]
        return [named(graph, name, width) for name, width in inputs.items()], cell.pack(parameters)

    (x,), p = given({"x": I})
    z = cell.inputs(x, p).node
    widths = {"z": z.width} | {slot(name): width for name, width in states.items()}
    (first, *state), p = given(widths)
    y, after = cell.step(first, tuple(state), p)
    outputs = {"y": y.node} | {slot(name): new.node for name, new in zip(states, after, strict=True)}
    return Function({"x": I}, {"z": z}), Function(widths, outputs)


def fingerprint(cell: Cell, options: dict[str, int]) -> str | None:
    """Return the SHA-256 of a cell's equations and of the states that it starts from, or None where no record is
    possible. Other equations that compute the same numbers give another one.
    """
    try:
        functions = trace(cell, *SMALL, options)
    except CharRNNError:
        return None
    lines = [f"{name} starts at {value!r}" for name, value in cell.state.items()]
    for function in functions:
        lines += function.lines()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def state_matrices(cell: Cell, options: Mapping[str, int]) -> frozenset[str]:
    """Return the names of the matrices by which a cell's next state is computed from the last one.

    There are none where no record of its equations is possible. The matrix of an output layer is not among them.
    """
    try:
        _, step = trace(cell, *SMALL, dict(options))
    except CharRNNError:
        return frozenset()
    names = {slot(name) for name in cell.state}
    of_state: set[Node] = set()
    found: set[str] = set()
    for node in reachable(step.outputs[name] for name in names):  # what a node is computed from comes before it
        if (node.op == "input" and node.data in names) or any(each in of_state for each in node.args):
            of_state.add(node)
            if node.op == "matmul":
                found.add(node.data.name)
    return frozenset(found)


def slot(state: str) -> str:
    """Return the name of a state's place."""
    return f"state_{state}"


def _unsupported(what: str) -> TypeError:
    return TypeError(f"{what} is not among the ops")
