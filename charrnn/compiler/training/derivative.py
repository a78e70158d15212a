"""A cell's equations as expressions, and their derivative: the compiled engine makes machine code of both.

`trace` takes what the decoder's `trace` records of a cell's `inputs` and `step`, and cuts every array into blocks of H
features (z, 4 H wide, into four). Element j of a block is computed like every other, so one expression says it for all.
Matrix products join blocks, so they are held apart: a product has the blocks of its left operand and gives new leaves.
An operation that looks across features is written in other rows of the table, by its own row: sums over all blocks of
an array, each one number for a row of the batch, and arithmetic with them.
`differentiate` walks the expressions backwards (reverse mode) and gives the same kind of thing.

Expressions are made once each (equal ones are the same object). They are numbered as they are made, so a number is
larger than those of everything it is computed from.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.cells import ops
from charrnn.cells.cell import Cell
from charrnn.cells.operation import Symbol
from charrnn.compiler.graph import Graph, Node, walk
from charrnn.compiler.trace import Leaf, Parameter, named


class UnsupportedError(Exception):
    """The equations use what cannot be traced; another engine must run the cell."""


@dataclass(frozen=True)
class Product:
    """left (K features in blocks) by a matrix (K, N), or by its transpose; gives the leaves `outputs`.

    number: among the products of the equations; by the transpose: of the one whose left operand it differentiates.
    weight: the parameter's name and, where it is one of a stack, which. per_step: whether it has to wait for the
    state; else its left operand is x itself, and it can be made for the whole sequence at once.
    """

    number: int
    left: tuple[Node, ...]
    weight: tuple[str, int | None]
    outputs: tuple[Node, ...]
    per_step: bool
    transposed: bool = False


@dataclass(frozen=True)
class Across:
    """An operation of the table that looks across features, of arrays in blocks, and the blocks of its result."""

    op: str
    arguments: tuple[tuple[Node, ...], ...]
    outputs: tuple[Node, ...]


@dataclass(frozen=True)
class Equations:
    """A step of a cell.

    Leaves: ('x', block), ('state', j), ('vector', parameter, which of a stack, block), ('out', number of the product,
    False, block).
    """

    graph: Graph
    x: tuple[Node, ...]
    products: tuple[Product, ...]
    y: tuple[Node, ...]
    states: tuple[Node, ...]
    across: tuple[Across, ...] = ()


@dataclass(frozen=True)
class Derivative:
    """The derivative of a step.

    Further leaves: ('dy', block), ('dstate', j), ('out', number of the product, True, block).

    products: by the transposed matrices, in the order they can be computed; the left operand of one is the derivative
    by the outputs of the product of the equations with the same number, and `douts` has it under that. dx, dstates: by
    the leaves of x and the state before the step. dvectors: by leaf, one row's share.
    """

    products: tuple[Product, ...]
    douts: Mapping[int, tuple[Node, ...]]
    dx: tuple[Node, ...]
    dstates: tuple[Node, ...]
    dvectors: Mapping[Node, Node]


def trace(cell: Cell, shapes: Mapping[str, tuple[int, ...]], I: int, H: int) -> Equations:
    """Return a cell's step, inputs(x) included, as expressions; shapes: of its parameters, by name.

    Raises UnsupportedError for equations that are more than products and arithmetic on whole blocks of H features.
    """
    if cell.state_shapes:
        raise UnsupportedError(f"a state that is not of H features, {', '.join(cell.state_shapes)}")
    recorded = Graph()
    p = cell.pack([Parameter(recorded, Leaf(n, (), shape)) for n, shape in shapes.items()])
    state = tuple(named(recorded, f"state {name}", H) for name in cell.state)
    try:
        z = cell.inputs(named(recorded, "x", I), p)
        y, after = cell.step(z, state, p)
        nodes = [array.node for array in (y, *after)]
    except (AttributeError, TypeError, ValueError) as error:  # what a tensor can do and a stand-in cannot
        raise UnsupportedError(str(error)) from None
    blocks = _Blocks([f"state {name}" for name in cell.state], I, H)
    try:
        y_blocks, *states = [blocks.of(node) for node in nodes]
    except ValueError as error:  # arrays of one width that are cut otherwise
        raise UnsupportedError(f"blocks that do not fit each other: {error}") from None
    if [len(s) for s in states] != [1] * len(cell.state):
        raise UnsupportedError("a state that is not of H features")
    return Equations(
        blocks.graph,
        blocks.x,
        tuple(blocks.products.values()),
        y_blocks,
        tuple(s[0] for s in states),
        tuple(blocks.across.values()),
    )


class _Array(Symbol):
    """An array in blocks, as rows of the table that look across features see it."""

    def __init__(self, graph: Graph, blocks: tuple[Node, ...], widths: tuple[int, ...]) -> None:
        self.graph, self.blocks, self.widths = graph, blocks, widths
        self.shape = (sum(widths),)

    @classmethod
    def of(cls, graph: Graph, blocks: tuple[Node, ...]) -> "_Array":
        return cls(graph, blocks, tuple(block.width for block in blocks))

    def record(self, operation: str, *arguments: Any) -> "_Array":
        arrays = [
            a if isinstance(a, _Array) else _Array(self.graph, (self.graph.constant(a),), (0,)) for a in arguments
        ]
        identity = ops.TABLE[operation].identity
        if identity is not None:
            (array,) = arrays
            pairs = zip(array.blocks, array.widths, strict=True)
            given = [self.graph.wide(block, width) for block, width in pairs if not block.is_constant(identity)]
            total = self.graph.node(operation, *given, width=0) if given else self.graph.constant(identity)
            return _Array(self.graph, (total,), (0,))
        widest = max(arrays, key=lambda a: len(a.blocks) if a.shape[0] else 0)
        columns = [a.blocks if a.shape[0] else a.blocks * len(widest.blocks) for a in arrays]
        blocks = tuple(self.graph.simplified(operation, *column) for column in zip(*columns, strict=True))
        return _Array(self.graph, blocks, widest.widths)


class _Blocks:
    """Recorded arrays as blocks of H features; a width that H does not divide is one block."""

    def __init__(self, states: list[str], I: int, H: int) -> None:
        self.states, self.H, self.graph = states, H, Graph()
        self.x = self._leaves(I, "x")
        self.products: dict[Any, Product] = {}
        self.across: dict[Any, Across] = {}
        self._known: dict[int, tuple[Node, ...]] = {}

    def of(self, node: Node) -> tuple[Node, ...]:
        if id(node) not in self._known:
            self._known[id(node)] = self._convert(node)
        return self._known[id(node)]

    def _leaves(self, width: int, *data: Any) -> tuple[Node, ...]:
        size = self.H if width % self.H == 0 else width
        return tuple(self.graph.leaf(size, *data, i) for i in range(width // size))

    def _convert(self, node: Node) -> tuple[Node, ...]:
        arguments = [self.of(a) for a in node.args]
        if node.op == "input":
            if node.data == "x":
                return self.x
            return (self.graph.leaf(self.H, "state", self.states.index(node.data)),)
        if node.op == "parameter":
            return self._leaves(node.width, "vector", *_named(node.data))
        if node.op == "constant":
            return (self.graph.constant(node.data),)
        if node.op == "concat":
            return tuple(block for blocks in arguments for block in blocks)
        if node.op == "slice":
            return self._part(arguments[0], node.data, node.width)
        if node.op == "matmul":
            return self._product(arguments[0], node.data)
        if not node.elementwise:
            return self._across(node.op, tuple(arguments))
        count = max(len(blocks) for blocks in arguments)
        columns = [blocks * count if blocks[0].op == "constant" else blocks for blocks in arguments]
        return tuple(self.graph.simplified(node.op, *column) for column in zip(*columns, strict=True))

    def _across(self, op: str, arguments: tuple[tuple[Node, ...], ...]) -> tuple[Node, ...]:
        emit = ops.TABLE[op].llvm
        if emit is None:
            raise UnsupportedError(f"{op} looks across features, and has no compiled form")
        if (op, arguments) not in self.across:
            result = emit(None, *(_Array.of(self.graph, blocks) for blocks in arguments))
            self.across[op, arguments] = Across(op, arguments, result.blocks)
        return self.across[op, arguments].outputs

    def _part(self, blocks: tuple[Node, ...], first: int, width: int) -> tuple[Node, ...]:
        ends = list(itertools.accumulate((b.width for b in blocks), initial=0))
        if first not in ends or first + width not in ends:
            raise UnsupportedError("a slice that cuts blocks of H features")
        return blocks[ends.index(first) : ends.index(first + width)]

    def _product(self, left: tuple[Node, ...], matrix: Leaf) -> tuple[Node, ...]:
        weight = _named(matrix)
        if (left, weight) not in self.products:
            number = len(self.products)
            outputs = self._leaves(matrix.shape[1], "out", number, False)
            self.products[left, weight] = Product(number, left, weight, outputs, left != self.x)
        return self.products[left, weight].outputs


def _named(parameter: Leaf) -> tuple[str, int | None]:
    if len(parameter.index) > 1:
        raise UnsupportedError("a stack of stacks of parameters")
    return parameter.name, parameter.index[0] if parameter.index else None


def differentiate(equations: Equations) -> Derivative:
    """Return the derivative of the sum of dy y + dstate state', by everything the step depends on."""
    graph, adjoint = equations.graph, dict[Node, Node]()
    zero = graph.constant(0)

    def pass_back(to: Node, d: Node) -> None:
        if not d.is_constant(0) and to.op != "constant":
            adjoint[to] = adjoint[to] + d if to in adjoint else d

    for i, y in enumerate(equations.y):
        pass_back(y, graph.leaf(y.width, "dy", i))
    for j, state in enumerate(equations.states):
        pass_back(state, graph.leaf(state.width, "dstate", j))
    made_by = {output: product for product in equations.products for output in product.outputs}
    across = {output: each for each in equations.across for output in each.outputs}
    products: list[Product] = []
    douts: dict[int, tuple[Node, ...]] = {}
    passed: set[Across] = set()
    for node in ordered([*equations.y, *equations.states], equations.products)[::-1]:
        if node not in adjoint or node.op == "constant":
            continue
        if node in made_by:
            product = made_by[node]
            if product.number in douts:
                continue
            # All that uses any of a product's outputs has a larger number, so all their derivatives are complete.
            dout = tuple(adjoint.get(output, zero) for output in product.outputs)
            douts[product.number] = dout
            if product.per_step:
                number = product.number
                outputs = tuple(graph.leaf(e.width, "out", number, True, i) for i, e in enumerate(product.left))
                products.append(Product(number, dout, product.weight, outputs, True, transposed=True))
                for left, output in zip(product.left, outputs, strict=True):
                    pass_back(left, output)
        elif node in across:
            if across[node] not in passed:  # as with products, the derivatives by all its outputs are complete
                passed.add(across[node])
                for to, d in _back_across(graph, across[node], adjoint):
                    pass_back(to, d)
        elif node.args:
            derivative = ops.TABLE[node.op].derivative
            assert derivative is not None, node.op
            for arg, d in zip(node.args, derivative(adjoint[node], *node.args, node), strict=True):
                pass_back(arg, d)
    states = [graph.leaf(s.width, "state", j) for j, s in enumerate(equations.states)]
    return Derivative(
        tuple(products),
        douts,
        tuple(adjoint.get(x, zero) for x in equations.x),
        tuple(adjoint.get(state, zero) for state in states),
        {leaf: d for leaf, d in adjoint.items() if leaf.op == "leaf" and leaf.data[0] == "vector"},
    )


def _back_across(graph: Graph, each: Across, adjoint: Mapping[Node, Node]) -> Iterator[tuple[Node, Node]]:
    """Give the blocks of an operation's arguments, each with its share of the derivatives by the results."""
    derivative = ops.TABLE[each.op].derivative
    assert derivative is not None, each.op
    # Equal blocks of the result are one node, whose derivative is complete: it counts once.
    zero, known = graph.constant(0), each.outputs
    by_block = tuple(zero if node in known[:i] else adjoint.get(node, zero) for i, node in enumerate(known))
    y = _Array.of(graph, each.outputs)
    d = _Array(graph, by_block, y.widths)
    arguments = [_Array.of(graph, blocks) for blocks in each.arguments]
    for array, share in zip(arguments, derivative(d, *arguments, y), strict=True):
        yield from zip(array.blocks, share.blocks, strict=True)


def ordered(roots: list[Node], products: tuple[Product, ...]) -> list[Node]:
    """List everything the roots are computed from, through products too, arguments before their users."""
    made_by = {output: product for product in products for output in product.outputs}
    found = walk(roots, lambda node: made_by[node].left if node in made_by else node.args)
    return sorted(found, key=lambda e: e.number)
