"""A step of a cell in blocks: what is made into stages of machine code, for training and for completing.

Every array that was recorded is cut into blocks of as many features (in training H: z, 4 H wide, into four). Element j
of a block is computed like every other, so one expression says it for all. Matrix products join blocks, so they are
held apart: a product has the blocks of its left operand and gives new leaves. An operation that looks across features
is written in other rows of the table, by its own row: sums over all blocks of an array, each one number for a row of
the batch, and arithmetic with them.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charrnn.cells import ops
from charrnn.cells.operation import Symbol
from charrnn.compiler.graph import Graph, Node, reachable, walk
from charrnn.compiler.trace import Function, Leaf


class UnsupportedError(Exception):
    """The equations use what cannot be cut into blocks; something else must run the cell."""


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
    """A step of a cell. before, states: the blocks of all states, as they come in and as they go out.

    Leaves: ('x', block), ('state', block), ('vector', parameter, which of a stack, block), ('out', number of the
    product, False, block).
    """

    graph: Graph
    x: tuple[Node, ...]
    products: tuple[Product, ...]
    y: tuple[Node, ...]
    states: tuple[Node, ...]
    before: tuple[Node, ...]
    across: tuple[Across, ...] = ()

    def made_by(self) -> dict[Node, Product]:
        """Return the product that gives each of the products' outputs."""
        return {output: product for product in self.products for output in product.outputs}

    def nodes(self) -> list[Node]:
        """List everything that the step is computed from, through products too, arguments before their users."""
        made_by = self.made_by()
        found = walk([*self.y, *self.states], lambda node: made_by[node].left if node in made_by else node.args)
        return sorted(found, key=lambda node: node.number)


def in_blocks(inputs: Function | None, step: Function, size: int, at_once: bool = True) -> Equations:
    """Return a step, what `inputs` makes of x included, in blocks of `size` features.

    inputs: None where x is z already, looked up. at_once: whether products by x itself can be made for a whole sequence
    at once. Raises UnsupportedError for equations that are more than products and arithmetic on whole blocks.
    """
    x, width = ("z", step.inputs["z"]) if inputs is None else ("x", inputs.inputs["x"])
    states = {name: n for name, n in step.inputs.items() if name != "z"}
    blocks = _Blocks(x, width, states, size, at_once)
    try:
        if inputs is not None:
            blocks.inputs["z"] = blocks.of(inputs.outputs["z"])
        after = {name: blocks.of(node) for name, node in step.outputs.items()}
    except ValueError as error:  # arrays of one width that are cut otherwise
        raise UnsupportedError(f"blocks that do not fit each other: {error}") from None
    for name in states:
        if len(after[name]) != len(blocks.inputs[name]):
            raise UnsupportedError("a state that is not of H features")
    return Equations(
        blocks.graph,
        blocks.inputs[x],
        tuple(blocks.products.values()),
        after["y"],
        tuple(block for name in states for block in after[name]),
        tuple(block for name in states for block in blocks.inputs[name]),
        tuple(blocks.across.values()),
    )


def largest_size(*functions: Function) -> int:
    """Return the size of the largest blocks that all arrays of some functions, and all parts of them, are made of."""
    nodes = [node for each in functions for node in reachable(each.outputs.values())]
    return math.gcd(*(node.width for node in nodes), *(node.data for node in nodes if node.op == "slice"))


class Array(Symbol):
    """An array in blocks, as rows of the table that look across features see it."""

    def __init__(self, graph: Graph, blocks: tuple[Node, ...], widths: tuple[int, ...]) -> None:
        self.graph, self.blocks, self.widths = graph, blocks, widths
        self.shape = (sum(widths),)

    @classmethod
    def of(cls, graph: Graph, blocks: tuple[Node, ...]) -> "Array":
        return cls(graph, blocks, tuple(block.width for block in blocks))

    def record(self, operation: str, *arguments: Any) -> "Array":
        arrays = [a if isinstance(a, Array) else Array(self.graph, (self.graph.constant(a),), (0,)) for a in arguments]
        identity = ops.TABLE[operation].identity
        if identity is not None:
            (array,) = arrays
            pairs = zip(array.blocks, array.widths, strict=True)
            given = [self.graph.wide(block, width) for block, width in pairs if not block.is_constant(identity)]
            total = self.graph.node(operation, *given, width=0) if given else self.graph.constant(identity)
            return Array(self.graph, (total,), (0,))
        widest = max(arrays, key=lambda a: len(a.blocks) if a.shape[0] else 0)
        columns = [a.blocks if a.shape[0] else a.blocks * len(widest.blocks) for a in arrays]
        blocks = tuple(self.graph.simplified(operation, *column) for column in zip(*columns, strict=True))
        return Array(self.graph, blocks, widest.widths)


class _Blocks:
    """Recorded arrays as blocks of so many features; a width that they do not divide is one block.

    inputs: the blocks of everything that comes in, by name.
    """

    def __init__(self, x: str, width: int, states: Mapping[str, int], size: int, at_once: bool) -> None:
        self.size, self.at_once, self.graph = size, at_once, Graph()
        self.x = self._leaves(width, "x")
        self.inputs = {x: self.x}
        count = itertools.count()
        for name, features in states.items():
            widths = [size] * (features // size) if features % size == 0 else [features]
            self.inputs[name] = tuple(self.graph.leaf(each, "state", next(count)) for each in widths)
        self.products: dict[Any, Product] = {}
        self.across: dict[Any, Across] = {}
        self._known: dict[Node, tuple[Node, ...]] = {}

    def of(self, node: Node) -> tuple[Node, ...]:
        if node not in self._known:
            self._known[node] = self._convert(node)
        return self._known[node]

    def _leaves(self, width: int, *data: Any) -> tuple[Node, ...]:
        size = self.size if width % self.size == 0 else width
        return tuple(self.graph.leaf(size, *data, i) for i in range(width // size))

    def _convert(self, node: Node) -> tuple[Node, ...]:
        arguments = [self.of(a) for a in node.args]
        if node.op == "input":
            return self.inputs[node.data]
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
        # A number stands for as many blocks as there are; an array may have become constant in each of its own.
        alone = [len(blocks) == 1 and blocks[0].op == "constant" for blocks in arguments]
        columns = [blocks * count if one else blocks for blocks, one in zip(arguments, alone, strict=True)]
        return tuple(self.graph.simplified(node.op, *column) for column in zip(*columns, strict=True))

    def _across(self, op: str, arguments: tuple[tuple[Node, ...], ...]) -> tuple[Node, ...]:
        emit = ops.TABLE[op].llvm
        if emit is None:
            raise UnsupportedError(f"{op} looks across features, and has no compiled form")
        if (op, arguments) not in self.across:
            result = emit(None, *(Array.of(self.graph, blocks) for blocks in arguments))
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
            self.products[left, weight] = Product(number, left, weight, outputs, left != self.x or not self.at_once)
        return self.products[left, weight].outputs


def _named(parameter: Leaf) -> tuple[str, int | None]:
    if len(parameter.index) > 1:
        raise UnsupportedError("a stack of stacks of parameters")
    return parameter.name, parameter.index[0] if parameter.index else None
