"""A cell's equations as expressions, and their derivative: what the native training engine makes machine code of.

`trace` runs a cell's `inputs` and `step` once, on stand-ins for arrays. A traced array is a row of blocks, one scalar
expression for each H features (of z, 4 H wide, four): element j of every block is computed alike, so one expression
says it for all. Matrix products join blocks, so they are kept apart: a product has the blocks of its left operand and
gives new leaves. `differentiate` walks the expressions backwards (reverse mode) and gives the same kind of thing.

Expressions are made once each (equal ones are the same object) and numbered as they are made, so that a number is
larger than those of everything it is computed from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrnn.cell import Cell


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
        """The leaves of a kind, in the order in which they were made."""
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
    """A step of a cell. Leaves: ('x', block), ('state', j), ('vector', name, of a stack, block), ('out', product, block)."""

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


@dataclass
class _Trace:
    """The run of a cell's functions on stand-ins."""

    H: int
    graph: Graph = field(default_factory=Graph)
    x: tuple[Expr, ...] = ()
    products: dict[Any, Product] = field(default_factory=dict)

    def array(self, width: int, *data: Any) -> "_Traced":
        size = self.H if width % self.H == 0 else width
        return _Traced(self, tuple(self.graph.leaf(size, *data, i) for i in range(width // size)))

    def product(self, left: tuple[Expr, ...], weight: "_Weight") -> "_Traced":
        key = (left, weight.name, weight.index)
        if key not in self.products:
            if len(weight.shape) != 2 or sum(e.width for e in left) != weight.shape[0]:
                raise UnsupportedError("a product of shapes that do not fit")
            name = str(len(self.products))
            outputs = self.array(weight.shape[1], "out", name).blocks
            self.products[key] = Product(name, left, (weight.name, weight.index), outputs, left != self.x)
        return _Traced(self, self.products[key].outputs)


@dataclass(frozen=True)
class _Weight:
    """Stands for a parameter that is a matrix, or a stack of matrices or vectors."""

    trace: _Trace
    name: str
    shape: tuple[int, ...]
    index: int | None = None

    def __getitem__(self, k: int) -> "_Weight | _Traced":
        if not isinstance(k, int) or self.index is not None:
            raise UnsupportedError("a parameter is not indexed by one whole number")
        if not 0 <= k < self.shape[0]:
            raise IndexError(k)
        if len(self.shape) == 2:
            return self.trace.array(self.shape[1], "vector", self.name, k)
        return _Weight(self.trace, self.name, self.shape[1:], k)


class _Traced:
    """Stands for an array (..., width): has the methods that `charrnn.ops` and equations call on a tensor."""

    def __init__(self, trace: _Trace, blocks: tuple[Expr, ...]) -> None:
        self.trace, self.blocks = trace, blocks

    @property
    def shape(self) -> tuple[int]:
        return (sum(b.width for b in self.blocks),)

    def __getitem__(self, key: Any) -> "_Traced":
        if not (isinstance(key, tuple) and len(key) == 2 and key[0] is Ellipsis and isinstance(key[1], slice)):
            raise UnsupportedError(f"indexing by {key}")
        begin, end, stride = key[1].indices(self.shape[0])
        kept, at = [], 0
        for block in self.blocks:
            if begin <= at and at + block.width <= end:
                kept.append(block)
            at += block.width
        if stride != 1 or sum(b.width for b in kept) != end - begin:
            raise UnsupportedError("a slice that cuts blocks of H features")
        return _Traced(self.trace, tuple(kept))

    def split(self, width: int, dim: int = -1) -> tuple["_Traced", ...]:
        return tuple(self[..., i : i + width] for i in range(0, self.shape[0], width))

    def __matmul__(self, weight: _Weight) -> "_Traced":
        return self.trace.product(self.blocks, weight)

    def _with(self, other: Any, function: Callable[[Expr, Expr], Expr]) -> "_Traced":
        if isinstance(other, int | float):
            return _Traced(self.trace, tuple(function(a, self.trace.graph.constant(other)) for a in self.blocks))
        if not isinstance(other, _Traced) or len(other.blocks) != len(self.blocks):
            raise UnsupportedError("arithmetic of arrays that are not blocks alike")
        pairs = zip(self.blocks, other.blocks, strict=True)
        return _Traced(self.trace, tuple(function(a, b) for a, b in pairs))

    def __add__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: a / b)

    def __rtruediv__(self, other: Any) -> "_Traced":
        return self._with(other, lambda a, b: b / a)

    def __neg__(self) -> "_Traced":
        return _Traced(self.trace, tuple(-a for a in self.blocks))

    def __getattr__(self, name: str) -> Callable[[], "_Traced"]:
        if name not in DERIVATIVES:
            raise UnsupportedError(f"{name} of an array")
        return lambda: _Traced(self.trace, tuple(self.trace.graph.node(name, a) for a in self.blocks))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> "_Traced":
        name = function.__name__
        if name == "cat" and all(isinstance(a, _Traced) for a in args[0]):
            return _Traced(args[0][0].trace, tuple(block for a in args[0] for block in a.blocks))
        if name in ("maximum", "minimum") and isinstance(args[0], _Traced):
            result: _Traced = args[0]._with(args[1], lambda a, b: a.graph.node(name, a, b))
            return result
        raise UnsupportedError(f"{name} of an array")


def trace(cell: Cell, shapes: Mapping[str, tuple[int, ...]], I: int, H: int) -> Equations:
    """A cell's step, inputs(x) included, as expressions; shapes: of its parameters, by name.

    Raises UnsupportedError for equations that are more than products and arithmetic on whole blocks of H features.
    """
    run = _Trace(H)
    x = run.array(I, "x")
    run.x = x.blocks
    p = cell.pack(
        {
            name: run.array(shape[0], "vector", name, None) if len(shape) == 1 else _Weight(run, name, shape)
            for name, shape in shapes.items()
        }
    )
    state = tuple(_Traced(run, (run.graph.leaf(H, "state", j),)) for j in range(len(cell.state)))
    try:
        y, after = cell.step(cell.inputs(x, p), state, p)
    except (AttributeError, TypeError) as error:  # whatever else a tensor can do and a stand-in cannot
        raise UnsupportedError(str(error)) from None
    traced = all(isinstance(a, _Traced) for a in (y, *after))
    if not traced or [len(s.blocks) for s in after] != [1] * len(state):
        raise UnsupportedError("a step that does not give y and its states")
    return Equations(run.graph, x.blocks, tuple(run.products.values()), y.blocks, tuple(s.blocks[0] for s in after))


def differentiate(equations: Equations) -> Derivative:
    """The derivative of the sum of dy y + dstate state', by everything the step depends on."""
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
    """Everything the roots are computed from, through products too, in an order in which it can be computed."""
    made_by = {output: product for product in products for output in product.outputs}
    found: set[Expr] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += made_by[node].left if node in made_by else node.args
    return sorted(found, key=lambda e: e.number)
