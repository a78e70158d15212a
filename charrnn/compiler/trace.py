"""A record of what a cell's equations do, made by running them once on stand-ins that record every op.

The equations are Python: loops over parameters, helpers and closures all run here. What is left is a graph of
products, element-wise ops and slices of known widths, from which `source` beside this writes plain loops. The
equations' own source is not needed, so cells typed into a notebook are compiled like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from charrnn.cells.cell import Cell
from charrnn.errors import CharRNNError

ARITHMETIC = {"add", "sub", "mul", "truediv", "neg"}
ELEMENTWISE = ARITHMETIC | {
    *("abs", "maximum", "minimum", "relu", "sqrt"),
    *("sigmoid", "tanh", "exp", "expm1", "log1p"),
}


@dataclass(frozen=True)
class Leaf:
    """A parameter, or one of several stacked along its first axes: name[index]."""

    name: str
    index: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One result of `width` numbers.

    op: an element-wise op; 'input' (detail: its name); 'parameter' (detail: a Leaf); 'constant' (detail: the number);
    'slice' (detail: where it begins in its argument); 'matmul' (detail: the matrix, a Leaf); 'concat'; 'layernorm'.
    """

    op: str
    arguments: tuple["Node", ...]
    width: int
    detail: Any = None

    @property
    def elementwise(self) -> bool:
        return self.op in ELEMENTWISE


class Traced:
    """A stand-in for an array: it behaves like a tensor of shape (width,) and records what is done to it."""

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic to us

    def __init__(self, graph: "Graph", node: Node):
        self.graph, self.node = graph, node
        self.library = graph  # where `charrnn.cells.ops` finds functions of several arrays
        self.shape: tuple[int, ...] = (node.width,)

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
        return Traced(self.graph, self.graph.node("matmul", (self.node,), matrix.leaf.shape[1], matrix.leaf))

    def __getattr__(self, name: str) -> Any:
        if name in ELEMENTWISE:
            return lambda: self.graph.apply(name, self)
        raise AttributeError(str(_unsupported(f"{name} of an array")))


class Parameter(Traced):
    """A parameter of any rank; an integer picks one of those stacked along its first axis."""

    def __init__(self, graph: "Graph", leaf: Leaf):
        super().__init__(graph, graph.node("parameter", (), leaf.shape[-1], leaf))
        self.leaf, self.shape = leaf, leaf.shape

    def __getitem__(self, key: Any) -> Traced:
        if isinstance(key, int) and len(self.shape) > 1:
            at = range(self.shape[0])[key]  # an IndexError ends a loop over the parameter
            return Parameter(self.graph, Leaf(self.leaf.name, (*self.leaf.index, at), self.shape[1:]))
        if len(self.shape) > 1:
            raise _unsupported(f"indexing a parameter of shape {self.shape} by {key!r}")
        return super().__getitem__(key)


def _binary(name: str, swapped: bool = False) -> Callable[[Traced, Any], Traced]:
    def method(self: Traced, other: Any) -> Traced:
        return self.graph.apply(name, other, self) if swapped else self.graph.apply(name, self, other)

    return method


for _name in ("add", "sub", "mul", "truediv"):
    setattr(Traced, f"__{_name}__", _binary(_name))
    setattr(Traced, f"__r{_name}__", _binary(_name, swapped=True))
for _name in ("neg", "abs"):
    setattr(Traced, f"__{_name}__", lambda self, _name=_name: self.graph.apply(_name, self))


class Graph:
    """The nodes of one function, in the order they were made; equal ones are made once."""

    def __init__(self) -> None:
        self._known: dict[Any, Node] = {}
        self.nn = SimpleNamespace(functional=SimpleNamespace(layer_norm=self._layernorm))

    def node(self, op: str, arguments: tuple[Node, ...], width: int, detail: Any = None) -> Node:
        key = (op, tuple(map(id, arguments)), width, detail, type(detail))
        return self._known.setdefault(key, Node(op, arguments, width, detail))

    def input(self, name: str, width: int) -> Traced:
        return Traced(self, self.node("input", (), width, name))

    def slice(self, node: Node, first: int, width: int) -> Node:
        """Cut a part of a result; of an element-wise one, apply the op to parts of its arguments, to join a loop."""
        if width == node.width or node.op == "constant":
            return node
        if node.elementwise:
            return self.node(node.op, tuple(self.slice(a, first, width) for a in node.arguments), width)
        if node.op == "slice":
            return self.node("slice", node.arguments, width, node.detail + first)
        return self.node("slice", (node,), width, first)

    def apply(self, op: str, *arguments: Any) -> Traced:
        """Record an element-wise op on arrays of one width and numbers."""
        nodes = [self._as_node(a) for a in arguments]
        widths = {node.width for node in nodes if node.op != "constant"}
        if len(widths) != 1:
            raise _unsupported(f"{op} of arrays of widths {', '.join(map(str, sorted(widths)))}")
        return Traced(self, self.node(op, tuple(nodes), widths.pop()))

    def _as_node(self, value: Any) -> Node:
        if isinstance(value, Parameter) and len(value.shape) > 1:
            raise _unsupported(f"arithmetic on a parameter of shape {value.shape}")
        if isinstance(value, Traced):
            return value.node
        return self.node("constant", (), 0, float(value))

    # What `charrnn.cells.ops` asks an array's library for

    def cat(self, arrays: Sequence[Traced], dim: int) -> Traced:
        nodes = tuple(a.node for a in arrays)
        return Traced(self, self.node("concat", nodes, sum(node.width for node in nodes)))

    def maximum(self, a: Any, b: Any) -> Traced:
        return self.apply("maximum", a, b)

    def minimum(self, a: Any, b: Any) -> Traced:
        return self.apply("minimum", a, b)

    def _layernorm(self, x: Traced, shape: Any, eps: float) -> Traced:
        return Traced(self, self.node("layernorm", (x.node,), x.node.width, eps))


@dataclass(frozen=True)
class Function:
    """inputs: name -> width. outputs: name -> node, in the order they are returned."""

    inputs: dict[str, int]
    outputs: dict[str, Node]


def trace(cell: Cell, I: int, H: int, O: int, options: dict[str, int]) -> tuple[Function, Function]:
    """Record a cell's `inputs` (x -> z) and `step` (z, states -> y, states) at the sizes of one layer.

    Raises CharRNNError where the equations do what only Python can, such as a decision that depends on a value.
    """
    shapes = {name: tuple(shape) for name, (shape, _) in cell.shapes(I, H, O, **options).items()}
    try:
        graph = Graph()
        p = cell.pack([Parameter(graph, Leaf(name, (), shape)) for name, shape in shapes.items()])
        z = cell.inputs(graph.input("x", I), p)
        inputs = Function({"x": I}, {"z": z.node})
        graph = Graph()
        p = cell.pack([Parameter(graph, Leaf(name, (), shape)) for name, shape in shapes.items()])
        state = tuple(graph.input(name, H) for name in map(slot, cell.state))
        y, after = cell.step(graph.input("z", z.node.width), state, p)
        outputs = {"y": y.node} | {slot(name): new.node for name, new in zip(cell.state, after, strict=True)}
        return inputs, Function({"z": z.node.width} | dict.fromkeys(map(slot, cell.state), H), outputs)
    except (AttributeError, TypeError, ValueError) as error:
        raise CharRNNError(
            f"the equations of cell {cell.name!r} cannot be compiled: {error}",
            "write them with charrnn.cells.ops, + - * / and numbers alone",
        ) from error


def slot(state: str) -> str:
    """Return the name of a state's place."""
    return f"state_{state}"


def _unsupported(what: str) -> TypeError:
    return TypeError(f"{what} is not among the ops")
