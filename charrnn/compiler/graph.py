"""The one graph of equations: what a cell computes, for completing and for training alike.

`charrnn.compiler.trace` records a cell's equations as nodes whose widths are those of its arrays. Training cuts them
into blocks of H features, which are nodes too, and differentiates those. What an operation is, its row in
`charrnn.cells.ops` says.

Nodes are made once each: equal ones are the same object. They are numbered as they are made, so a number is larger
than those of everything it is computed from.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from charrnn.cells import ops
from charrnn.cells.operation import Symbol


@dataclass(frozen=True, eq=False)
class Node(Symbol):
    """One result of `width` numbers; 0 for what is the same for all features: a constant, or one number for a row.

    op: an operation of the table; or what the graph says by itself, with `data` for which:
    'constant' (the number); 'input' (its name); 'parameter' and 'matmul' (a Leaf); 'slice' (where it begins in its
    argument); 'concat'; 'leaf' (of a training step: what it is) and 'load' (what a stage reads from where).
    """

    graph: "Graph"
    number: int
    op: str
    args: tuple["Node", ...]
    width: int
    data: Any = None

    @property
    def elementwise(self) -> bool:
        """Tell whether number j of the result is computed from numbers j of the arguments."""
        return self.op in ops.TABLE and ops.TABLE[self.op].elementwise

    @property
    def of_row(self) -> bool:
        """Tell whether it is one number for all of a row's features: a sum over them, or made of such sums."""
        return self.width == 0 and (self.op == "load" or self.is_reduction or any(a.of_row for a in self.args))

    @property
    def is_reduction(self) -> bool:
        """Tell whether it is made of all of a row's features, as a sum is."""
        return self.op in ops.TABLE and ops.TABLE[self.op].identity is not None

    def is_constant(self, value: float) -> bool:
        return self.op == "constant" and bool(self.data == value)

    def record(self, operation: str, *arguments: Any) -> "Node":
        """Return the node of an operation, as a derivative writes it: of what is nothing, nothing is left."""
        nodes = (each if isinstance(each, Node) else self.graph.constant(each) for each in arguments)
        return self.graph.simplified(operation, *nodes)


class Graph:
    """All nodes made for one purpose."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def node(self, op: str, *args: Node, width: int | None = None, data: Any = None) -> Node:
        """Return the node of an operation; width: what its arguments have, where none is given."""
        if width is None:
            widths = {a.width for a in args} - {0}
            if len(widths) > 1:
                listed = ", ".join(map(str, sorted(widths)))
                raise ValueError(f"{op} of arrays of widths {listed} is not among the ops")
            width = widths.pop() if widths else 0
        key = (op, *(a.number for a in args), width, data, type(data))
        if key not in self._nodes:
            self._nodes[key] = Node(self, len(self._nodes), op, args, width, data)
        return self._nodes[key]

    def simplified(self, op: str, *args: Node) -> Node:
        """Return the node of an operation, or what equals it where an argument is 0 or 1 or was negated."""
        a, b = args[0], args[-1]
        if op in ("mul", "div", "neg") and a.is_constant(0):
            return a
        if (op == "add" and a.is_constant(0)) or (op == "mul" and (a.is_constant(1) or b.is_constant(0))):
            return b
        if (op in ("add", "sub") and b.is_constant(0)) or (op in ("mul", "div") and b.is_constant(1)):
            return a
        return a.args[0] if op == a.op == "neg" else self.node(op, *args)

    def constant(self, value: float) -> Node:
        return self.node("constant", width=0, data=float(value))

    def leaf(self, width: int, *data: Any) -> Node:
        return self.node("leaf", width=width, data=data)

    def leaves(self, kind: str) -> list[Node]:
        """List the leaves of a kind, in the order in which they were made."""
        return [node for node in self._nodes.values() if node.op == "leaf" and node.data[0] == kind]

    def wide(self, node: Node, width: int) -> Node:
        """Return a node of a certain width: what is the same for all features, that many times."""
        if node.width:
            return node
        if node.op == "constant":
            return self.node("constant", width=width, data=node.data)
        return self.node("add", node, self.constant(0), width=width)

    def slice(self, node: Node, first: int, width: int) -> Node:
        """Cut a part of a result; of an element-wise one, apply the op to parts of its arguments, to join a loop."""
        if width == node.width or node.op == "constant":
            return node
        if node.elementwise:
            return self.node(node.op, *(self.slice(a, first, width) for a in node.args), width=width)
        if node.op == "slice":
            return self.node("slice", *node.args, width=width, data=node.data + first)
        return self.node("slice", node, width=width, data=first)


def walk(roots: Iterable[Node], into: Callable[[Node], Iterable[Node]]) -> Iterator[Node]:
    """Yield the roots and all that is reached from them, each once. into: where to go on from a node."""
    seen: set[Node] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += into(node)


def rewriter(instead: Callable[[Node], Node | None]) -> Callable[[Node], Node]:
    """Return what rewrites nodes: `instead` gives what stands for one, or None for the same of its arguments."""

    @cache
    def rewritten(node: Node) -> Node:
        return instead(node) or node.graph.node(node.op, *map(rewritten, node.args), width=node.width, data=node.data)

    return rewritten


def reachable(outputs: Iterable[Node]) -> list[Node]:
    """List every node that the outputs need, arguments before their users."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for argument in node.args:
                visit(argument)
            order[node] = None

    for node in outputs:
        visit(node)
    return list(order)
