"""The source of plain loops, made from traced equations; Numba compiles it to vector code.

Everything a layer computes lives in one scratch vector: its inputs, states and intermediate results each have a fixed
place there. So the compiler knows that they do not overlap, and nothing is allocated while decoding. Element-wise ops
of one width are computed together in one loop, as late as something needs them. Results are kept in memory only where
another loop or a product reads them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from charrnn.cells import ops
from charrnn.compiler.decoding.weights import WIDEST
from charrnn.compiler.graph import Node, reachable
from charrnn.compiler.trace import Function, Leaf

LINE = 16  # numbers; places begin at multiples of it, a cache line in float32


@dataclass
class Layout:
    """The places of things in the scratch vector. size: of the vector."""

    places: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def place(self, name: str, width: int) -> int:
        """Return where `name` is; make room for `width` numbers when it is new."""
        if name not in self.places:
            self.places[name] = self.size
            self.size += -(-width // LINE) * LINE
        return self.places[name]


class FunctionSource:
    """The source of one traced function: Python for Numba, with scratch s (rows, size) and room for products.

    leaves: the parameters. matrices: those of them that are multiplied by, of this dtype; an int8 one arrives as two,
    its panels and its scales. product: the function that multiplies by them. A row of s is a text of its own.
    """

    def __init__(self, name: str, function: Function, layout: Layout, dtype: str, product: str = "product"):
        self.name, self._function, self._layout, self._dtype, self._product = name, function, layout, dtype, product
        self._order = reachable(function.outputs.values())
        self._stored: dict[Node, int] = {}
        self._lines: list[str] = []
        self.leaves = list(dict.fromkeys(n.data for n in self._order if n.op in ("parameter", "matmul")))
        self.matrices = {n.data for n in self._order if n.op == "matmul"}
        for node in self._order:
            if node.op == "input":
                self._stored[node] = layout.place(node.data, function.inputs[node.data])

    def text(self) -> str:
        """Return the function's source; outputs go to the places of their names."""
        for node in self._order:
            if not node.elementwise and node.op not in ("input", "parameter", "constant", "slice"):
                self._compute(node)
        self._finish()
        names = [name for leaf in self.leaves for name in self._names(leaf)]
        head = f"def {self.name}({', '.join(['s', 'rounded', 'steps', *names])}):"
        return "\n".join([head, *(f"    {line}" for line in self._lines), ""])

    def _names(self, leaf: Leaf) -> list[str]:
        k = self.leaves.index(leaf)
        return [f"p{k}", f"scale{k}"] if self._dtype == "int8" and leaf in self.matrices else [f"p{k}"]

    def _compute(self, node: Node) -> None:
        """Emit a product, an operation that looks across features, or a join; what it reads is put in memory first."""
        for argument in node.args:
            self._set_aside(argument) if self._ends_within(node, argument) else self._materialise(argument)
        width = -(-node.width // WIDEST) * WIDEST if node.op == "matmul" else node.width  # whole panels are written
        at = self._stored[node] = self._layout.place(f"{self.name} {self._order.index(node)}", width)
        if node.op == "matmul":
            base, first = self._origin(node.args[0])
            assert base in self._stored, "a parameter is multiplied by a matrix"
            x, weights = f"s, {self._stored[base] + first}, {node.args[0].width}", ", ".join(self._names(node.data))
            self._lines.append(f"{self._product}({x}, {weights}, s, {at}, {node.width}, rounded, steps)")
        elif node.op in ops.TABLE:
            line = ops.TABLE[node.op].numba.format(*map(self._view, node.args), self._part(at, node.width))
            self._lines += ["for r in range(s.shape[0]):", f"    {line}"]
        else:
            for argument in node.args:
                self._loop(argument.width, [f"{self._number(at)} = {self._element(argument)}"])
                at += argument.width

    def _ends_within(self, node: Node, argument: Node) -> bool:
        """Tell whether a product of pairs would read the number after a part, which belongs to something else."""
        is_part = argument.op == "slice" and argument not in self._stored
        return node.op == "matmul" and is_part and argument.width % 2 > 0

    def _materialise(self, node: Node) -> None:
        """Put an element-wise result in memory, with those it is made of that others need too."""
        if not node.elementwise or node in self._stored:
            return
        wanted = self._pending([node])
        here = set(wanted)
        users = {n: [u for u in self._order if n in u.args] for n in wanted}
        outputs = set(self._function.outputs.values())
        kept = [n for n in wanted if n is node or n in outputs or any(u not in here for u in users[n])]
        stores = {n: self._layout.place(f"{self.name} {self._order.index(n)}", n.width) for n in kept}
        self._emit(wanted, list(stores.items()))
        self._stored |= stores

    def _set_aside(self, node: Node) -> None:
        """Put a result where no output is written."""
        self._materialise(node)
        if not node.elementwise:
            at = self._layout.place(f"{self.name} copy {self._order.index(node)}", node.width)
            self._emit([], [(node, at)])
            self._stored[node] = at

    def _finish(self) -> None:
        """Emit what is still wanted, a loop for each width, and bring every output to its place."""
        outputs = self._function.outputs
        widths = list(dict.fromkeys(node.width for node in outputs.values()))
        # A state may be written in the loop that reads its old value, but then at the same index alone.
        cut = any(n.op == "slice" and n.args[0].data in outputs for n in self._order)
        if cut or len(widths) > 1:
            for node in outputs.values():
                self._set_aside(node)
        for width in widths:
            here = {name: node for name, node in outputs.items() if node.width == width}
            stores = [(node, self._layout.place(name, width)) for name, node in here.items()]
            self._emit(self._pending(here.values()), stores)

    def _emit(self, wanted: Sequence[Node], stores: Sequence[tuple[Node, int]]) -> None:
        """Write one loop that computes the nodes of one width and stores some."""
        names = {node: f"v{k}" for k, node in enumerate(wanted)}
        loads: dict[Node, str] = {}
        body = []
        for node in wanted:
            terms = [names.get(a) or loads.setdefault(a, f"w{len(loads)}") for a in node.args]
            body.append(f"{names[node]} = op_{node.op}({', '.join(terms)})")
        for node, _ in stores:
            if node not in names:
                loads.setdefault(node, f"w{len(loads)}")
        reads = [f"{name} = {self._element(node)}" for node, name in loads.items()]
        writes = [f"{self._number(at)} = {names.get(node) or loads[node]}" for node, at in stores]
        self._loop(stores[0][0].width, [*reads, *body, *writes])

    def _loop(self, width: int, body: Iterable[str]) -> None:
        self._lines += ["for r in range(s.shape[0]):", f"    for i in range({width}):", *(f"        {x}" for x in body)]

    def _pending(self, nodes: Iterable[Node]) -> list[Node]:
        """List the element-wise nodes not in memory yet that these need, themselves included, in order."""
        found: set[Node] = set()

        def visit(node: Node) -> None:
            if node.elementwise and node not in self._stored and node not in found:
                found.add(node)
                for argument in node.args:
                    visit(argument)

        for node in nodes:
            visit(node)
        return [node for node in self._order if node in found]

    def _element(self, node: Node) -> str:
        """Write the i-th number of something that is in memory."""
        if node.op == "constant":
            return f"real({node.data!r})"
        base, first = self._origin(node)
        if base.op == "parameter":
            return f"p{self.leaves.index(base.data)}[{first} + i]"
        return self._number(self._stored[base] + first)

    def _number(self, at: int) -> str:
        return f"s[r, {at} + i]"

    def _part(self, at: int, width: int) -> str:
        return f"s[r, {at}:{at + width}]"

    def _origin(self, node: Node) -> tuple[Node, int]:
        """Find what is in memory that this is or is part of, and where in it."""
        return (node.args[0], node.data) if node.op == "slice" and node not in self._stored else (node, 0)

    def _view(self, node: Node) -> str:
        """Write something in memory as an array."""
        base, first = self._origin(node)
        if base.op == "parameter":
            return f"p{self.leaves.index(base.data)}[{first}:{first + node.width}]"
        return self._part(self._stored[base] + first, node.width)
