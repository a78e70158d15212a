"""The derivative of a cell's equations in blocks, by walking their expressions backwards (reverse mode)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from charrnn.cells import ops
from charrnn.cells.cell import Cell
from charrnn.compiler.blocks import Across, Array, Equations, Product, UnsupportedError, in_blocks
from charrnn.compiler.graph import Graph, Node
from charrnn.compiler.trace import UNTRACEABLE, record


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
    """Return a cell's step, inputs(x) included, in blocks of H; shapes: of its parameters, by name.

    Raises UnsupportedError for equations that are more than products and arithmetic on whole blocks of H features.
    """
    if cell.state_shapes:
        raise UnsupportedError(f"a state that is not of H features, {', '.join(cell.state_shapes)}")
    try:
        functions = record(cell, shapes, I, dict.fromkeys(cell.state, H))
    except UNTRACEABLE as error:
        raise UnsupportedError(str(error)) from None
    return in_blocks(*functions, H)


def differentiate(equations: Equations) -> Derivative:
    """Return the derivative of the sum of dy y + dstate state', by everything the step depends on."""
    graph, adjoint = equations.graph, dict[Node, Node]()
    zero = graph.constant(0)

    def pass_back(to: Node, d: Node) -> None:
        if not d.is_constant(0) and to.op != "constant":
            adjoint[to] = graph.simplified("add", adjoint[to], d) if to in adjoint else d

    for i, y in enumerate(equations.y):
        pass_back(y, graph.leaf(y.width, "dy", i))
    for j, state in enumerate(equations.states):
        pass_back(state, graph.leaf(state.width, "dstate", j))
    made_by = equations.made_by()
    across = {output: each for each in equations.across for output in each.outputs}
    products: list[Product] = []
    douts: dict[int, tuple[Node, ...]] = {}
    passed: set[Across] = set()
    for node in reversed(equations.nodes()):
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
    return Derivative(
        tuple(products),
        douts,
        tuple(adjoint.get(x, zero) for x in equations.x),
        tuple(adjoint.get(state, zero) for state in equations.before),
        {leaf: d for leaf, d in adjoint.items() if leaf.op == "leaf" and leaf.data[0] == "vector"},
    )


def _back_across(graph: Graph, each: Across, adjoint: Mapping[Node, Node]) -> Iterator[tuple[Node, Node]]:
    """Give the blocks of an operation's arguments, each with its share of the derivatives by the results."""
    derivative = ops.TABLE[each.op].derivative
    assert derivative is not None, each.op
    # Equal blocks of the result are one node, whose derivative is complete: it counts once.
    zero, known = graph.constant(0), each.outputs
    by_block = tuple(zero if node in known[:i] else adjoint.get(node, zero) for i, node in enumerate(known))
    y = Array.of(graph, each.outputs)
    d = Array(graph, by_block, y.widths)
    arguments = [Array.of(graph, blocks) for blocks in each.arguments]
    for array, share in zip(arguments, derivative(d, *arguments, y), strict=True):
        yield from zip(array.blocks, share.blocks, strict=True)
