"""A cell's equations as expressions, and their derivative: the compiled engine makes machine code of both.

`trace` takes what the decoder's `trace` records of a cell's `inputs` and `step`, and cuts every array into blocks of H
features (z, 4 H wide, into four). Element j of a block is computed like every other, so one expression says it for all.
Matrix products join blocks, so they are held apart: a product has the blocks of its left operand and gives new leaves.
`differentiate` walks the expressions backwards (reverse mode) and gives the same kind of thing.

Expressions are made once each (equal ones are the same object). They are numbered as they are made, so a number is
larger than those of everything it is computed from.
"""

import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.cells.cell import Cell
from charrnn.compiler.decoding.trace import Graph as DecodingGraph
from charrnn.compiler.decoding.trace import Leaf, Node, Parameter


class UnsupportedError(Exception):
    """The equations use what cannot be traced; another engine must run the cell."""


@dataclass(frozen=True, eq=False)
class Expr:
    """One number per feature of a block. op: 'leaf', 'constant' or what is done to args. width: features, 0 for any."""

    graph: "Graph"
    number: int
    op: str
    args: tuple["Expr", ...]
    width: int
    data: Any

    def __add__(self, other: "Expr") -> "Expr":
        return other if self.is_constant(0) else self if other.is_constant(0) else self.graph.node("add", self, other)

    def __sub__(self, other: "Expr") -> "Expr":
        return self if other.is_constant(0) else self.graph.node("sub", self, other)

    def __mul__(self, other: "Expr") -> "Expr":
        for a, b in ((self, other), (other, self)):
            if a.is_constant(0):
                return a
            if a.is_constant(1):
                return b
        return self.graph.node("mul", self, other)

    def __truediv__(self, other: "Expr") -> "Expr":
        return self if self.is_constant(0) or other.is_constant(1) else self.graph.node("div", self, other)

    def __neg__(self) -> "Expr":
        return self.args[0] if self.op == "neg" else self if self.is_constant(0) else self.graph.node("neg", self)

    def is_constant(self, value: float) -> bool:
        return self.op == "constant" and self.data == value


class Graph:
    """All expressions made for one cell."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Expr] = {}

    def node(self, op: str, *args: Expr, width: int | None = None, data: Any = None) -> Expr:
        if width is None:
            widths = {a.width for a in args} - {0}
            if len(widths) > 1:
                raise UnsupportedError(f"{op} of blocks of {widths} features")
            width = widths.pop() if widths else 0
        key = (op, *(a.number for a in args), width, data)
        if key not in self._nodes:
            self._nodes[key] = Expr(self, len(self._nodes), op, args, width, data)
        return self._nodes[key]

    def constant(self, value: float) -> Expr:
        return self.node("constant", width=0, data=float(value))

    def leaf(self, width: int, *data: Any) -> Expr:
        return self.node("leaf", width=width, data=data)

    def leaves(self, kind: str) -> list[Expr]:
        """List the leaves of a kind, in the order in which they were made."""
        return [node for node in self._nodes.values() if node.op == "leaf" and node.data[0] == kind]


# What each function's result y = f(x) passes back of d, the derivative by y.
DERIVATIVES: dict[str, Callable[[Expr, Expr, Expr], Expr]] = {
    "neg": lambda d, x, y: -d,
    "sigmoid": lambda d, x, y: d * (y * (x.graph.constant(1) - y)),
    "tanh": lambda d, x, y: d * (x.graph.constant(1) - y * y),
    "exp": lambda d, x, y: d * y,
    "expm1": lambda d, x, y: d * (y + x.graph.constant(1)),
    "log1p": lambda d, x, y: d / (x.graph.constant(1) + x),
    "sqrt": lambda d, x, y: d / (y + y),
    "relu": lambda d, x, y: d * x.graph.node("positive", x),
    "abs": lambda d, x, y: d * x.graph.node("sign", x),
}
# The same for y = f(a, b). Where a equals b, the larger and the smaller are half each, as torch has it.
DERIVATIVES_OF_TWO: dict[str, Callable[[Expr, Expr, Expr, Expr], tuple[Expr, Expr]]] = {
    "add": lambda d, a, b, y: (d, d),
    "sub": lambda d, a, b, y: (d, -d),
    "mul": lambda d, a, b, y: (d * b, d * a),
    "div": lambda d, a, b, y: (d / b, -(d / b * y)),
    "maximum": lambda d, a, b, y: (d * a.graph.node("above", a, b), d * a.graph.node("above", b, a)),
    "minimum": lambda d, a, b, y: (d * a.graph.node("above", b, a), d * a.graph.node("above", a, b)),
}


@dataclass(frozen=True)
class Product:
    """left (K features in blocks) by a matrix (K, N), or by its transpose; gives the leaves `outputs`.

    weight: the parameter's name and, where it is one of a stack, which. per_step: whether it has to wait for the
    state; else its left operand is x itself, and it can be made for the whole sequence at once.
    """

    name: str
    left: tuple[Expr, ...]
    weight: tuple[str, int | None]
    outputs: tuple[Expr, ...]
    per_step: bool
    transposed: bool = False


@dataclass(frozen=True)
class Equations:
    """A step of a cell.

    Leaves: ('x', block), ('state', j), ('vector', parameter, which of a stack, block), ('out', product, block).
    """

    graph: Graph
    x: tuple[Expr, ...]
    products: tuple[Product, ...]
    y: tuple[Expr, ...]
    states: tuple[Expr, ...]


@dataclass(frozen=True)
class Derivative:
    """The derivative of a step. Further leaves: ('dy', block), ('dstate', j), ('out', product, block).

    products: by the transposed matrices, in the order they can be computed; the left operand of one is the derivative
    by the outputs of a product of the equations, under whose name `douts` has it too. dx, dstates: by the leaves of x
    and the state before the step. dvectors: by leaf, one row's share.
    """

    products: tuple[Product, ...]
    douts: Mapping[str, tuple[Expr, ...]]
    dx: tuple[Expr, ...]
    dstates: tuple[Expr, ...]
    dvectors: Mapping[Expr, Expr]


def trace(cell: Cell, shapes: Mapping[str, tuple[int, ...]], I: int, H: int) -> Equations:
    """Return a cell's step, inputs(x) included, as expressions; shapes: of its parameters, by name.

    Raises UnsupportedError for equations that are more than products and arithmetic on whole blocks of H features.
    """
    recorded = DecodingGraph()
    p = cell.pack([Parameter(recorded, Leaf(n, (), shape)) for n, shape in shapes.items()])
    state = tuple(recorded.input(f"state {name}", H) for name in cell.state)
    try:
        z = cell.inputs(recorded.input("x", I), p)
        y, after = cell.step(z, state, p)
        nodes = [array.node for array in (y, *after)]
    except (AttributeError, TypeError, ValueError) as error:  # what a tensor can do and a stand-in cannot
        raise UnsupportedError(str(error)) from None
    blocks = _Blocks([f"state {name}" for name in cell.state], I, H)
    y_blocks, *states = [blocks.of(node) for node in nodes]
    if [len(s) for s in states] != [1] * len(cell.state):
        raise UnsupportedError("a state that is not of H features")
    return Equations(blocks.graph, blocks.x, tuple(blocks.products.values()), y_blocks, tuple(s[0] for s in states))


class _Blocks:
    """Recorded arrays as blocks of H features; a width that H does not divide is one block."""

    def __init__(self, states: list[str], I: int, H: int) -> None:
        self.states, self.H, self.graph = states, H, Graph()
        self.x = self._leaves(I, "x")
        self.products: dict[Any, Product] = {}
        self._known: dict[int, tuple[Expr, ...]] = {}

    def of(self, node: Node) -> tuple[Expr, ...]:
        if id(node) not in self._known:
            self._known[id(node)] = self._convert(node)
        return self._known[id(node)]

    def _leaves(self, width: int, *data: Any) -> tuple[Expr, ...]:
        size = self.H if width % self.H == 0 else width
        return tuple(self.graph.leaf(size, *data, i) for i in range(width // size))

    def _convert(self, node: Node) -> tuple[Expr, ...]:
        arguments = [self.of(a) for a in node.arguments]
        if node.op == "input":
            if node.detail == "x":
                return self.x
            return (self.graph.leaf(self.H, "state", self.states.index(node.detail)),)
        if node.op == "parameter":
            return self._leaves(node.width, "vector", *_named(node.detail))
        if node.op == "constant":
            return (self.graph.constant(node.detail),)
        if node.op == "concat":
            return tuple(block for blocks in arguments for block in blocks)
        if node.op == "slice":
            return self._part(arguments[0], node.detail, node.width)
        if node.op == "matmul":
            return self._product(arguments[0], node.detail)
        if not node.elementwise:
            raise UnsupportedError(f"{node.op} looks across features, and has no compiled form")
        count = max(len(blocks) for blocks in arguments)
        columns = [blocks * count if blocks[0].op == "constant" else blocks for blocks in arguments]
        return tuple(self._apply(node.op, *column) for column in zip(*columns, strict=True))

    def _apply(self, op: str, *args: Expr) -> Expr:
        if op in ("add", "sub", "mul", "truediv", "neg"):
            result: Expr = getattr(operator, op)(*args)
            return result
        return self.graph.node(op, *args)

    def _part(self, blocks: tuple[Expr, ...], first: int, width: int) -> tuple[Expr, ...]:
        ends = list(itertools.accumulate((b.width for b in blocks), initial=0))
        if first not in ends or first + width not in ends:
            raise UnsupportedError("a slice that cuts blocks of H features")
        return blocks[ends.index(first) : ends.index(first + width)]

    def _product(self, left: tuple[Expr, ...], matrix: Leaf) -> tuple[Expr, ...]:
        weight = _named(matrix)
        if (left, weight) not in self.products:
            name = str(len(self.products))
            outputs = self._leaves(matrix.shape[1], "out", name)
            self.products[left, weight] = Product(name, left, weight, outputs, left != self.x)
        return self.products[left, weight].outputs


def _named(parameter: Leaf) -> tuple[str, int | None]:
    if len(parameter.index) > 1:
        raise UnsupportedError("a stack of stacks of parameters")
    return parameter.name, parameter.index[0] if parameter.index else None


def differentiate(equations: Equations) -> Derivative:
    """Return the derivative of the sum of dy y + dstate state', by everything the step depends on."""
    graph, adjoint = equations.graph, dict[Expr, Expr]()
    zero = graph.constant(0)

    def pass_back(to: Expr, d: Expr) -> None:
        if not d.is_constant(0) and to.op != "constant":
            adjoint[to] = adjoint[to] + d if to in adjoint else d

    for i, y in enumerate(equations.y):
        pass_back(y, graph.leaf(y.width, "dy", i))
    for j, state in enumerate(equations.states):
        pass_back(state, graph.leaf(state.width, "dstate", j))
    made_by = {output: product for product in equations.products for output in product.outputs}
    products: list[Product] = []
    douts: dict[str, tuple[Expr, ...]] = {}
    for node in ordered([*equations.y, *equations.states], equations.products)[::-1]:
        if node not in adjoint or node.op == "constant":
            continue
        if node in made_by:
            product = made_by[node]
            if product.name in douts:
                continue
            # All that uses any of a product's outputs has a larger number, so all their derivatives are complete.
            dout = tuple(adjoint.get(output, zero) for output in product.outputs)
            douts[product.name] = dout
            if product.per_step:
                name = f"d{product.name}"
                outputs = tuple(graph.leaf(e.width, "out", name, i) for i, e in enumerate(product.left))
                products.append(Product(name, dout, product.weight, outputs, True, transposed=True))
                for left, output in zip(product.left, outputs, strict=True):
                    pass_back(left, output)
        elif len(node.args) == 1:
            pass_back(node.args[0], DERIVATIVES[node.op](adjoint[node], node.args[0], node))
        elif len(node.args) == 2:
            for arg, d in zip(node.args, DERIVATIVES_OF_TWO[node.op](adjoint[node], *node.args, node), strict=True):
                pass_back(arg, d)
    states = [graph.leaf(s.width, "state", j) for j, s in enumerate(equations.states)]
    return Derivative(
        tuple(products),
        douts,
        tuple(adjoint.get(x, zero) for x in equations.x),
        tuple(adjoint.get(state, zero) for state in states),
        {leaf: d for leaf, d in adjoint.items() if leaf.op == "leaf" and leaf.data[0] == "vector"},
    )


def ordered(roots: list[Expr], products: tuple[Product, ...]) -> list[Expr]:
    """List everything the roots are computed from, through products too, arguments before their users."""
    made_by = {output: product for product in products for output in product.outputs}
    found: set[Expr] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += made_by[node].left if node in made_by else node.args
    return sorted(found, key=lambda e: e.number)
