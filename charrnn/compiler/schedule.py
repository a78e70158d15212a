"""A step and its derivative, cut into stages of machine code, and the buffers that they use.

Matrix products cut a step: whatever can be computed before the first of them is one stage, and so on. A stage is a
list of stores, each of one expression into a column of a buffer; between two stages stand products. The last stage of
a step and the first of the next one are merged, so that a step of the lstm is one stage and one product.
Completing has the stages of a step alone, since characters come between.

The derivative needs numbers of the step itself. Results of functions (gates) are saved. What a few operations make of
the saved ones and the states is recomputed.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from charrnn.cells import ops
from charrnn.compiler.blocks import Equations, Product
from charrnn.compiler.graph import Node, rewriter, walk

if TYPE_CHECKING:
    from charrnn.compiler.training.derivative import Derivative

Outer = Literal["x", "y", "dy", "dx", "state", "dstate", "vector", "dvector"]
OfProduct = Literal["left", "dout", "out", "packed", "scale"]
Kind = Outer | OfProduct | Literal["saved", "between", "scratch", "index", "rounded", "steps"]
Slots = Literal["history", "state", "turns", "one", "rows", "fixed"]
Stored = dict[Node, tuple[Node, int]]  # of results, the load that reads each, and the stage that stores it
CHEAP = 3  # so many operations are recomputed in a later stage rather than stored
OF_ROW = 16  # columns for one number of a row: a line of the cache, so that what follows stays aligned


class Place(NamedTuple):
    """Which buffer is meant: a kind, and which of that kind.

    'x', 'y', 'dy', 'dx': inputs, outputs, and their derivatives. 'state', 'dstate': which block of them by number.
    'vector' and 'dvector': a parameter, by name and which of a stack. 'left', 'dout', 'out', 'packed': a product's left
    operand, the derivative by its outputs, its outputs, its matrix; which by number, and transposed for one of the
    derivative. 'saved': what the derivative reads of the step. 'between': what a later stage reads, of the step or
    (transposed) of its derivative. 'scratch': what a later pass over the same row reads. 'index': which row of x is
    read. Of an int8 matrix, 'scale': its columns'. 'rounded', 'steps': a left operand in whole numbers, and their step.
    """

    kind: Kind
    which: int | tuple[str, int | None] | None = None
    transposed: bool = False

    @classmethod
    def of(cls, kind: Kind, product: Product) -> "Place":
        """Name the buffer of a product."""
        return cls(kind, product.number, product.transposed)


X, Y, DY, DX = Place("x"), Place("y"), Place("dy"), Place("dx")
MATRIX: tuple[Kind, ...] = ("packed", "scale")
SAVED, INDEX, SCRATCH = Place("saved"), Place("index"), Place("scratch")
ROUNDED, ROUNDING = Place("rounded"), Place("steps")


@dataclass(frozen=True)
class Buffer:
    """Numbers in rows. product: in the products' dtype, else in the state's. width: columns.

    slots: what there is for each time step. 'history' a slot each; 'state' one more, kept where `kept`; 'turns' two
    that take turns; 'one' for all; 'rows' a row looked up by index for each; 'fixed' one row for all.
    """

    width: int
    product: bool
    slots: Slots


@dataclass(frozen=True)
class Store:
    """expr into columns from `column` of the buffer's slot t + shift; add: onto what is there."""

    expr: Node
    buffer: Place
    column: int
    shift: int = 0
    add: bool = False


@dataclass(frozen=True)
class Way:
    """One direction through time. step: 1 or -1.

    stages: of a step. multiply: the products that follow each but the last. merged: the last stage of a step and the
    first one of the next, where steps follow each other.
    """

    step: int
    stages: tuple[tuple[Store, ...], ...]
    multiply: tuple[tuple[Product, ...], ...]
    merged: tuple[Store, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """The plan of a layer's step: all that is done for it, and where everything is stored.

    lefts: of each product, by number and whether it is of the derivative, the buffer and first column of its left
    operand. y: buffer and slot of the first output; Y, where nothing is differentiated. products: all, those of the
    derivative too.
    """

    equations: Equations
    buffers: Mapping[Place, Buffer]
    forward: Way
    lefts: Mapping[tuple[int, bool], tuple[Place, int]]
    y: tuple[Place, int]
    products: tuple[Product, ...]

    @cached_property
    def lines(self) -> dict[Place, int]:
        """The line of each buffer in the table that code is given; also of each product's matrix and its scales."""
        matrices = [Place.of(kind, product) for kind in MATRIX for product in self.products]
        return {place: i for i, place in enumerate([*self.buffers, INDEX, *matrices, SCRATCH, ROUNDED, ROUNDING])}


@dataclass(frozen=True, eq=False)
class Plan(Step):
    """The plan of a layer that is trained.

    kept: the states whose history the derivative reads. vectors: for each vector parameter (name, which of a stack) the
    buffer of its derivative.
    """

    kept: frozenset[int]
    derivative: "Derivative"
    backward: Way
    vectors: Mapping[tuple[str, int | None], Place]


def make_plan(equations: Equations, derivative: "Derivative", same_dtype: bool) -> Plan:
    """Make the plan of a layer that is trained, whose x is looked up.

    same_dtype: whether products are in the state's dtype, so that a state can be a left operand as it is.
    """
    return _Maker(equations, derivative.products, same_dtype).plan(derivative)


def make_step(equations: Equations, looked_up: bool) -> Step:
    """Make the plan of a step alone. looked_up: whether x is a row of a table, by index."""
    return _Maker(equations).step(looked_up)


class _Maker:
    """Makes plans. derived: the products of the derivative; None where there is none."""

    def __init__(
        self, equations: Equations, derived: tuple[Product, ...] | None = None, same_dtype: bool = True
    ) -> None:
        self.equations, self.same_dtype, self.trains = equations, same_dtype, derived is not None
        self.graph = equations.graph
        self.buffers: dict[Place, Buffer] = {}
        self.kept: set[int] = set()
        self.lefts: dict[tuple[int, bool], tuple[Place, int]] = {}
        self.levels: dict[Node, int] = {}
        self.products = (*equations.products, *(derived or ()))
        self.made_by = {out: product for product in self.products for out in product.outputs}

    def step(self, looked_up: bool, saved: Mapping[Node, Node] | None = None) -> Step:
        """Plan the way forwards. saved: what the derivative reads, with the load of each."""
        for j, leaf in enumerate(self.equations.before):
            self._buffer(Place("state", j), leaf.width, False, "state")
        self._buffer(X, _width(self.equations.x), True, "rows" if looked_up else "one")
        for product in self.products:
            slots: Slots = "one" if product.per_step else "rows"
            self._buffer(Place.of("out", product), _width(product.outputs), not product.per_step, slots)
        stores, stored = self._forward_stores(saved or {})
        forward = self._way(1, self.equations.products, stores, stored)
        return Step(self.equations, self.buffers, forward, self.lefts, self.y, self.products)

    def plan(self, derivative: "Derivative") -> Plan:
        self.derivative = derivative
        for j, leaf in enumerate(self.equations.before):
            self._buffer(Place("dstate", j), leaf.width, False, "turns")
        saved = self._saved()
        step = self.step(True, saved)
        stores, vectors = self._backward_stores()
        stored = {e: (load, -1) for e, load in saved.items()}
        for j, state in enumerate(self.equations.states):
            if state.op != "leaf" and j in self.kept:
                stored.setdefault(state, (self._load(Place("state", j), 0, state.width, 1), -1))
        backward = self._way(-1, derivative.products, stores, stored)
        return Plan(**vars(step), kept=frozenset(self.kept), derivative=derivative, backward=backward, vectors=vectors)

    # Buffers

    def _buffer(self, place: Place, width: int, product: bool, slots: Slots) -> Place:
        self.buffers.setdefault(place, Buffer(width, product, slots))
        return place

    def _room(self, node: Node, place: Place, slots: Slots) -> Node:
        """Make room for one more block in a buffer, or for a number of a row; return its load."""
        old = self.buffers.get(place, Buffer(0, False, slots))
        self.buffers[place] = replace(old, width=old.width + (node.width or OF_ROW))
        return self._load(place, old.width, node.width)

    def _load(self, place: Place, column: int, width: int, shift: int = 0) -> Node:
        return self.graph.node("load", width=width, data=(place, column, shift))

    def _leaf(self, leaf: Node) -> Node:
        """Return the load that reads a leaf of the equations or the derivative."""
        kind, *key = leaf.data
        if kind in ("state", "dstate"):
            return self._load(Place(kind, key[0]), 0, leaf.width, 0 if kind == "state" else 1)
        if kind == "vector":
            name, index, block = key
            blocks = self._blocks_of_vector(name, index)
            place = self._buffer(Place("vector", (name, index)), _width(blocks), False, "fixed")
            return self._load(place, _width(blocks[:block]), leaf.width)
        if kind == "dy":
            place = self._buffer(DY, _width(self.equations.y), True, "history")
            return self._load(place, _width(self.equations.y[: key[0]]), leaf.width)
        product = self.made_by.get(leaf)
        blocks = self.equations.x if product is None else product.outputs
        place = X if product is None else Place.of("out", product)
        return self._load(place, _width(blocks[: blocks.index(leaf)]), leaf.width)

    def _blocks_of_vector(self, name: str, index: int | None) -> tuple[Node, ...]:
        return tuple(e for e in self.graph.leaves("vector") if e.data[1:3] == (name, index))

    # What the derivative reads of the step

    def _saved(self) -> dict[Node, Node]:
        """Choose which results of the step are saved; return the load of each."""
        step = set(self.equations.nodes())
        roots = [e for d in self.derivative.douts.values() for e in d]
        roots += [*self.derivative.dx, *self.derivative.dstates, *self.derivative.dvectors.values()]
        needed = {node for node in walk(roots, lambda node: () if node in step else node.args) if node in step}
        free = {*self.equations.before, *self.equations.states}
        saved: dict[Node, Node] = {}

        def recomputed(node: Node) -> bool:
            if node in free or node in saved or node.op == "constant" or node.of_row:
                return True
            return bool(node.data[0] == "vector") if node.op == "leaf" else all(map(recomputed, node.args))

        self._buffer(SAVED, 0, False, "history")
        for node in sorted(needed, key=lambda e: e.number):
            to_save = [node]
            if recomputed(node):  # perhaps with numbers of a row: those are saved
                found = walk([node], lambda e: () if e in free or e in saved or e.of_row else e.args)
                to_save = [each for each in found if each.of_row and each not in saved]
            for each in to_save:
                saved[each] = self._room(each, SAVED, "history")
        # A state is kept for all steps only where the derivative reads it.
        after = {e: j for j, e in reversed(list(enumerate(self.equations.states)))}
        for node in walk(needed, lambda node: () if node in saved or node in after else node.args):
            if node not in saved and (node in after or (node.op == "leaf" and node.data[0] == "state")):
                self.kept.add(after[node] if node in after else node.data[1])
        return saved

    # Stores

    def _forward_stores(self, saved: Mapping[Node, Node]) -> tuple[list[Store], Stored]:
        stores = [Store(e, *load.data[:2]) for e, load in saved.items()]
        stored = {e: (load, self._level(e)) for e, load in saved.items()}
        for j, state in enumerate(self.equations.states):
            stores.append(Store(self.graph.wide(state, self.equations.before[j].width), Place("state", j), 0, 1))
            if state.op != "leaf":
                stored.setdefault(state, (self._load(Place("state", j), 0, state.width, 1), self._level(state)))
        made: dict[tuple[Node, ...], tuple[Place, int]] = {}  # left operands that have a place
        y: tuple[Place, int] | None = None
        for product in self.equations.products:
            left = product.left
            which = next((j for j, state in enumerate(self.equations.before) if left == (state,)), None)
            if left == self.equations.x and (self.buffers[X].slots != "rows" or not product.per_step):
                self.lefts[product.number, False] = X, 0
                continue
            if which is not None and self.same_dtype:
                made[left] = Place("state", which), 0
                self.kept.add(which)
            elif left not in made:
                place = self._buffer(Place.of("left", product), _width(left), True, "history")
                made[left] = place, 0
                stores += _columns(left, place)
                if which is not None and self.equations.y == (self.equations.states[which],) and y is None:
                    # The output is what the next step's product reads: one buffer for both, of one slot more.
                    self.buffers[place] = replace(self.buffers[place], slots="state")
                    stores.append(Store(self.equations.y[0], place, 0, 1))
                    y = place, 1
            self.lefts[product.number, False] = made[left]
        for j in sorted(self.kept) if self.trains else ():
            if y is None and self.same_dtype and self.equations.y == (self.equations.states[j],):
                y = Place("state", j), 1
        if y is None:
            y = self._buffer(Y, _width(self.equations.y), True, "history"), 0
            stores += _columns(self.equations.y, Y)
        self.y = y
        return stores, stored

    def _backward_stores(self) -> tuple[list[Store], dict[tuple[str, int | None], Place]]:
        equations, derivative = self.equations, self.derivative
        dstates = enumerate(zip(derivative.dstates, equations.before, strict=True))
        stores = [Store(self.graph.wide(d, leaf.width), Place("dstate", j), 0) for j, (d, leaf) in dstates]
        placed: list[tuple[tuple[Node, ...], Place]] = []
        for number, blocks in sorted(derivative.douts.items(), key=lambda item: -len(item[1])):
            at = next(((b, i) for whole, b in placed if (i := _find(blocks, whole)) is not None), None)
            if at is None:
                outputs = equations.products[number].outputs
                at = self._buffer(Place("dout", number), _width(outputs), True, "history"), 0
                stores += _columns(blocks, at[0], outputs)
                placed.append((blocks, at[0]))
            self.lefts[number, True] = at
        if any(not d.is_constant(0) for d in derivative.dx):
            self._buffer(DX, self.buffers[X].width, False, "history")
            stores += _columns(derivative.dx, DX, equations.x)
        vectors: dict[tuple[str, int | None], Place] = {}
        sums: dict[tuple[Node, ...], Place] = {}
        for name, index in dict.fromkeys(leaf.data[1:3] for leaf in derivative.dvectors):
            leaves = self._blocks_of_vector(name, index)
            blocks = tuple(derivative.dvectors.get(e, self.graph.constant(0)) for e in leaves)
            if blocks not in sums:
                sums[blocks] = self._buffer(Place("dvector", (name, index)), _width(leaves), False, "fixed")
                columns = _columns(blocks, sums[blocks], leaves)
                stores += [replace(s, add=True) for s in columns if not s.expr.is_constant(0)]
            vectors[name, index] = sums[blocks]
        return stores, vectors

    # Stages

    def _level(self, node: Node) -> int:
        """Count the products that must be computed before a node can be."""
        if node not in self.levels:
            product = self.made_by.get(node)
            if product is not None and product.per_step:
                self.levels[node] = 1 + max(self._level(e) for e in product.left)
            else:
                self.levels[node] = max((self._level(a) for a in node.args), default=0)
        return self.levels[node]

    def _way(self, step: int, products: tuple[Product, ...], stores: list[Store], stored: Stored) -> Way:
        if step < 0:  # within the derivative, what the step has made costs no product
            self.levels |= dict.fromkeys(self.equations.nodes(), 0)
        level_of = {p: max(self._level(e) for e in p.left) for p in products if p.per_step}
        last = max([1 + level for level in level_of.values()], default=0)
        stages: list[list[Store]] = [[] for _ in range(last + 1)]
        for store in stores:
            stages[self._level(store.expr)].append(store)

        def keep(node: Node, level: int) -> Node:
            load = self._room(node, Place("between", transposed=step < 0), "one")
            stages[level].append(Store(node, *load.data[:2]))
            return load

        spill(([s.expr for s in stage] for stage in stages), stored, keep)
        rewritten = tuple(self._rewritten(stage, level, stored) for level, stage in enumerate(stages))
        multiply = tuple(tuple(p for p in level_of if level_of[p] == level) for level in range(last))
        merged = self._merge(step, rewritten[0], rewritten[-1]) if last and self.trains else ()
        return Way(step, rewritten, multiply, merged)

    def _rewritten(self, stage: list[Store], level: int, stored: Stored) -> tuple[Store, ...]:
        """Rewrite a stage with leaves as loads, and with loads of what an earlier stage has stored."""

        @rewriter
        def read(node: Node) -> Node | None:
            if node in stored and stored[node][1] < level:
                return stored[node][0]
            return self._leaf(node) if node.op == "leaf" else None

        return tuple(replace(s, expr=read(s.expr)) for s in stage)

    def _merge(self, step: int, head: tuple[Store, ...], tail: tuple[Store, ...]) -> tuple[Store, ...]:
        """Merge the tail of step t with the head of step t + step: what one stores the other has at hand."""
        at_hand = {(s.buffer, s.column, s.shift): s.expr for s in tail if not s.add}

        @rewriter
        def moved(node: Node) -> Node | None:
            if node.op != "load":
                return None
            place, column, shift = node.data
            return at_hand.get((place, column, shift + step)) or self._load(place, column, node.width, shift + step)

        merged = {(s.buffer, s.column, s.shift): s for s in tail}
        for store in head:
            expr, key = moved(store.expr), (store.buffer, store.column, 0 if store.add else store.shift + step)
            if store.add and key in merged:
                expr = self.graph.simplified("add", merged[key].expr, expr)
            merged[key] = Store(expr, *key, store.add)
        return tuple(merged.values())


def spill(
    stages: Iterable[Sequence[Node]],
    stored: Stored,
    keep: Callable[[Node, int], Node],
    apart: Callable[[Node], bool] = lambda node: False,
) -> None:
    """Store what a later stage would have to recompute, where that is costly.

    stages: what each computes. keep: stores a node in a stage, and returns its load. apart: of which nothing is asked.
    """
    first: dict[Node, int] = {}

    def into(node: Node, level: int) -> Sequence[Node]:
        if apart(node) or (node in stored and stored[node][1] < level):
            return ()
        if first.setdefault(node, level) == level or (_is_cheap(node, stored) and not node.of_row):
            return node.args
        stored[node] = keep(node, first[node]), first[node]
        return ()

    for level, roots in enumerate(stages):
        for _ in walk(roots, partial(into, level=level)):
            pass


def _is_cheap(node: Node, stored: Container[Node]) -> bool:
    """Tell whether few operations recompute a node from what is stored, as every number of a row is."""

    def left(node: Node, budget: int) -> int:
        budget -= ops.TABLE[node.op].cost if node.args else 0
        for a in node.args:
            if budget >= 0 and a not in stored and not a.of_row:
                budget = left(a, budget)
        return budget

    return left(node, CHEAP) >= 0


def _width(blocks: Iterable[Node]) -> int:
    return sum(e.width for e in blocks)


def _columns(blocks: Sequence[Node], place: Place, like: Sequence[Node] = ()) -> list[Store]:
    """Store blocks side by side, as wide as others where some are given."""
    like = like or blocks
    pairs = enumerate(zip(blocks, like, strict=True))
    return [Store(e.graph.wide(e, wide.width), place, _width(like[:i])) for i, (e, wide) in pairs]


def _find(part: tuple[Node, ...], whole: tuple[Node, ...]) -> int | None:
    """Find the column at which blocks stand within others."""
    at = (i for i in range(len(whole) - len(part) + 1) if whole[i : i + len(part)] == part)
    return next((_width(whole[:i]) for i in at), None)
