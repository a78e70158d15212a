"""A step and its derivative, cut into stages of machine code, and the buffers that they use.

Matrix products cut a step: whatever can be computed before the first of them is one stage, and so on. A stage is a
list of stores, each of one expression into a column of a buffer; between two stages stand products. The last stage of
a step and the first of the next one are merged, so that a step of the lstm is one stage and one product.
Completing has the stages of a step alone, since characters come between.

The derivative needs numbers of the step itself. Results of functions (gates) are saved. What a few operations make of
the saved ones and the states is recomputed.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from charrnn.cells import ops
from charrnn.compiler.blocks import Equations, Product, ordered
from charrnn.compiler.graph import Node, walk

if TYPE_CHECKING:
    from charrnn.compiler.training.derivative import Derivative

Outer = Literal["x", "y", "dy", "dx", "state", "dstate", "vector", "dvector"]
Inner = Literal["left", "dout", "out", "packed", "saved", "between", "scratch", "index"]
OfInt8 = Literal["scale", "rounded", "steps"]
Kind = Outer | Inner | OfInt8
Slots = Literal["history", "state", "turns", "one", "rows", "fixed"]
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

    place: Place
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
class Multiply:
    """rows of slot t of `left`, from a column on, K wide, by a packed matrix into `out`."""

    product: Product
    left: Place
    column: int
    out: Place


@dataclass(frozen=True)
class Way:
    """One direction through time. step: 1 or -1.

    Stages `head`, `middle` and `tail` make up a step, `multiply[s]` follows stage s; `merged` is the tail of a step
    and the head of the next, where steps follow each other. Without products there is `tail` alone.
    """

    step: int
    head: tuple[Store, ...]
    middle: tuple[tuple[Store, ...], ...]
    tail: tuple[Store, ...]
    merged: tuple[Store, ...]
    multiply: tuple[tuple[Multiply, ...], ...]


@dataclass(frozen=True, eq=False)
class Step:
    """The plan of a layer's step: all that is done for it, and where everything is stored.

    lefts: of each product by number, the buffer and first column of its left operand. y: buffer and slot of the first
    output; Y, where nothing is differentiated. products: all, those of the derivative too.
    """

    equations: Equations
    buffers: Mapping[Place, Buffer]
    forward: Way
    lefts: Mapping[int, tuple[Place, int]]
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

    kept: the states whose history the derivative reads. douts: as lefts, of the derivative by a product's outputs.
    vectors: for each vector parameter (name, which of a stack) the buffer of its derivative.
    """

    kept: frozenset[int]
    derivative: "Derivative"
    backward: Way
    douts: Mapping[int, tuple[Place, int]]
    vectors: Mapping[tuple[str, int | None], Place]


def make_plan(equations: Equations, derivative: "Derivative", same_dtype: bool) -> Plan:
    """Make the plan of a layer that is trained, whose x is looked up.

    same_dtype: whether products are in the state's dtype, so that a state can be a left operand as it is.
    """
    maker = _Maker(equations, derivative.products, same_dtype)
    return maker.plan(derivative)


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
        self.levels: dict[Node, int] = {}
        self.products = (*equations.products, *(derived or ()))
        self.made_by = {out: product for product in self.products for out in product.outputs}

    def step(self, looked_up: bool, saved: Mapping[Node, Node] | None = None) -> Step:
        """Plan the way forwards. saved: what the derivative reads, with the load of each."""
        for j, leaf in enumerate(self.equations.before):
            self._buffer(Place("state", j), leaf.width, False, "state")
        self._buffer(X, sum(e.width for e in self.equations.x), True, "rows" if looked_up else "one")
        for product in self.products:
            slots: Slots = "one" if product.per_step else "rows"
            width = sum(e.width for e in product.outputs)
            self._buffer(Place.of("out", product), width, not product.per_step, slots)
        stores, stored, lefts, y = self._forward_stores(saved or {})
        forward = self._way(1, self.equations.products, stores, stored, lefts)
        return Step(self.equations, self.buffers, forward, lefts, y, self.products)

    def plan(self, derivative: "Derivative") -> Plan:
        self.derivative = derivative
        for j, leaf in enumerate(self.equations.before):
            self._buffer(Place("dstate", j), leaf.width, False, "turns")
        saved = self._saved()
        step = self.step(True, saved)
        stores, douts, vectors = self._backward_stores()
        stored = {e: (load, -1) for e, load in self._from_forward(saved).items()}
        backward = self._way(-1, derivative.products, stores, stored, douts)
        return Plan(
            **vars(step),
            kept=frozenset(self.kept),
            derivative=derivative,
            backward=backward,
            douts=douts,
            vectors=vectors,
        )

    def _buffer(self, place: Place, width: int, product: bool, slots: Slots) -> Place:
        self.buffers.setdefault(place, Buffer(place, width, product, slots))
        return place

    def _load(self, buffer: Place, column: int, width: int, shift: int = 0) -> Node:
        return self.graph.node("load", width=width, data=(buffer, column, shift))

    def _leaf(self, leaf: Node) -> Node:
        """Return the load that reads a leaf of the equations or the derivative."""
        kind, *key = leaf.data
        if kind == "state":
            return self._load(Place("state", key[0]), 0, leaf.width)
        if kind == "dstate":
            return self._load(Place("dstate", key[0]), 0, leaf.width, 1)
        if kind == "vector":
            name, index, block = key
            widths = [b.width for b in self._blocks_of_vector(name, index)]
            buffer = self._buffer(Place("vector", (name, index)), sum(widths), False, "fixed")
            return self._load(buffer, sum(widths[:block]), leaf.width)
        if kind == "dy":
            widths = [e.width for e in self.equations.y]
            return self._load(self._buffer(DY, sum(widths), True, "history"), sum(widths[: key[0]]), leaf.width)
        product = self.made_by.get(leaf)
        blocks = self.equations.x if product is None else product.outputs
        column = sum(e.width for e in blocks[: blocks.index(leaf)])
        return self._load(X if product is None else Place.of("out", product), column, leaf.width)

    def _blocks_of_vector(self, name: str, index: int | None) -> list[Node]:
        return [e for e in self.graph.leaves("vector") if e.data[1:3] == (name, index)]

    # What the derivative reads of the step.

    def _saved(self) -> dict[Node, Node]:
        """Choose which results of the step are saved; return the load of each."""
        step = self._of_step()
        roots = [e for d in self.derivative.douts.values() for e in d]
        roots += [*self.derivative.dx, *self.derivative.dstates, *self.derivative.dvectors.values()]
        needed = {node for node in walk(roots, lambda node: () if node in step else node.args) if node in step}
        free = {*self.equations.before, *self.equations.states}
        saved: dict[Node, Node] = {}
        self._buffer(SAVED, 0, False, "history")
        for node in sorted(needed, key=lambda e: e.number):
            for each in self._to_save(node, free, saved):
                saved[each] = self._load(SAVED, self._widen(SAVED, each.width), each.width)
        # A state is kept for all steps only where the derivative reads it.
        self._keep_states(needed, saved)
        return saved

    def _to_save(self, node: Node, free: set[Node], saved: Mapping[Node, Node]) -> list[Node]:
        """List what to save for a result: itself, or the numbers of a row that it is recomputed with."""
        if not self._recomputed(node, free, saved):
            return [node]

        def is_found(each: Node) -> bool:
            return each.of_row and each not in saved

        def into(each: Node) -> Sequence[Node]:
            return () if is_found(each) or each in free or each in saved else each.args

        return [each for each in walk([node], into) if is_found(each)]

    def _of_step(self) -> set[Node]:
        return set(ordered([*self.equations.y, *self.equations.states], self.equations.products))

    def _recomputed(self, node: Node, free: set[Node], saved: Mapping[Node, Node]) -> bool:
        if node in free or node in saved or node.op == "constant" or node.of_row:
            return True
        if node.op == "leaf":
            return bool(node.data[0] == "vector")
        return all(self._recomputed(a, free, saved) for a in node.args)

    def _keep_states(self, needed: set[Node], saved: Mapping[Node, Node]) -> None:
        after = {e: j for j, e in reversed(list(enumerate(self.equations.states)))}
        for node in walk(needed, lambda node: () if node in saved or node in after else node.args):
            if node in after and node not in saved:
                self.kept.add(after[node])
            elif node.op == "leaf" and node.data[0] == "state" and node not in saved:
                self.kept.add(node.data[1])

    def _from_forward(self, saved: Mapping[Node, Node]) -> dict[Node, Node]:
        """Return the loads that stand for results of the step in its derivative."""
        loads = dict(saved)
        for j, state in enumerate(self.equations.states):
            if state not in loads and state.op != "leaf" and j in self.kept:
                loads[state] = self._load(Place("state", j), 0, state.width, 1)
        return loads

    def _widen(self, place: Place, width: int) -> int:
        """Make room for one more block in a buffer, or for a number of a row; return its column."""
        old = self.buffers[place]
        self.buffers[place] = replace(old, width=old.width + (width or OF_ROW))
        return old.width

    # Stores

    def _forward_stores(
        self, saved: Mapping[Node, Node]
    ) -> tuple[list[Store], dict[Node, tuple[Node, int]], dict[int, tuple[Place, int]], tuple[Place, int]]:
        stores = [Store(e, *load.data[:2]) for e, load in saved.items()]
        stored = {e: (load, self._level(e)) for e, load in saved.items()}
        for j, state in enumerate(self.equations.states):
            stores.append(Store(self.graph.wide(state, self.equations.before[j].width), Place("state", j), 0, 1))
            if state.op != "leaf":
                stored.setdefault(state, (self._load(Place("state", j), 0, state.width, 1), self._level(state)))
        lefts: dict[int, tuple[Place, int]] = {}
        y: tuple[Place, int] | None = None
        for product in self.equations.products:
            if product.left == self.equations.x and (self.buffers[X].slots != "rows" or not product.per_step):
                lefts[product.number] = (X, 0)
                continue
            state_index = self._is_state(product.left)
            if state_index is not None and self.same_dtype:
                lefts[product.number] = (Place("state", state_index), 0)
                self.kept.add(state_index)
                continue
            same = next((p for p in self.equations.products if p.left == product.left and p.number in lefts), None)
            if same is not None:
                lefts[product.number] = lefts[same.number]
                continue
            left = self._buffer(Place.of("left", product), sum(e.width for e in product.left), True, "history")
            lefts[product.number] = (left, 0)
            stores += _columns(product.left, left)
            if state_index is not None and self.equations.y == (self.equations.states[state_index],) and y is None:
                # The output is what the next step's product reads: one buffer for both, of one slot more.
                self.buffers[left] = replace(self.buffers[left], slots="state")
                stores.append(Store(self.equations.y[0], left, 0, 1))
                y = (left, 1)
        for j in sorted(self.kept) if self.trains else ():
            if y is None and self.same_dtype and self.equations.y == (self.equations.states[j],):
                y = (Place("state", j), 1)
        if y is None:
            y = (self._buffer(Y, sum(e.width for e in self.equations.y), True, "history"), 0)
            stores += _columns(self.equations.y, Y)
        return stores, stored, lefts, y

    def _is_state(self, left: tuple[Node, ...]) -> int | None:
        return self.equations.before.index(left[0]) if len(left) == 1 and left[0] in self.equations.before else None

    def _backward_stores(
        self,
    ) -> tuple[list[Store], dict[int, tuple[Place, int]], dict[tuple[str, int | None], Place]]:
        widths = [e.width for e in self.equations.before]
        stores = [
            Store(self.graph.wide(d, widths[j]), Place("dstate", j), 0) for j, d in enumerate(self.derivative.dstates)
        ]
        placed: list[tuple[tuple[Node, ...], Place]] = []
        douts: dict[int, tuple[Place, int]] = {}
        for number, blocks in sorted(self.derivative.douts.items(), key=lambda item: -len(item[1])):
            at = next(((b, i) for whole, b in placed if (i := _find(blocks, whole)) is not None), None)
            if at is None:
                widths = [e.width for p in self.equations.products if p.number == number for e in p.outputs]
                at = self._buffer(Place("dout", number), sum(widths), True, "history"), 0
                stores += _columns(blocks, at[0], widths)
                placed.append((blocks, at[0]))
            douts[number] = at
        if any(not d.is_constant(0) for d in self.derivative.dx):
            self._buffer(DX, self.buffers[X].width, False, "history")
            stores += _columns(self.derivative.dx, DX, [e.width for e in self.equations.x])
        vectors: dict[tuple[str, int | None], Place] = {}
        sums: dict[tuple[Node, ...], Place] = {}
        for leaf in self.derivative.dvectors:
            name, index = leaf.data[1:3]
            if (name, index) in vectors:
                continue
            leaves = self._blocks_of_vector(name, index)
            blocks = tuple(self.derivative.dvectors.get(e, self.graph.constant(0)) for e in leaves)
            if blocks not in sums:
                widths = [e.width for e in leaves]
                sums[blocks] = self._buffer(Place("dvector", (name, index)), sum(widths), False, "fixed")
                stores += [
                    Store(s.expr, s.buffer, s.column, add=True)
                    for s in _columns(blocks, sums[blocks], widths)
                    if not s.expr.is_constant(0)
                ]
            vectors[name, index] = sums[blocks]
        return stores, douts, vectors

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

    def _way(
        self,
        step: int,
        products: tuple[Product, ...],
        stores: list[Store],
        stored: dict[Node, tuple[Node, int]],
        lefts: Mapping[int, tuple[Place, int]],
    ) -> Way:
        if step < 0:  # within the derivative, what the step has made costs no product
            for node in self._of_step():
                self.levels[node] = 0
        per_step = [p for p in products if p.per_step]
        level_of = {p.number: max(self._level(e) for e in p.left) for p in per_step}
        last = max([1 + level for level in level_of.values()], default=0)
        stages: list[list[Store]] = [[] for _ in range(last + 1)]
        for store in stores:
            stages[self._level(store.expr)].append(store)
        self._spill(step, stages, stored)
        rewritten = []
        for level, stage in enumerate(stages):
            made: dict[Node, Node] = {}
            rewritten.append(tuple(replace(s, expr=self._rewrite(s.expr, level, stored, made)) for s in stage))
        multiply = tuple(
            tuple(Multiply(p, *lefts[p.number], Place.of("out", p)) for p in per_step if level_of[p.number] == level)
            for level in range(last)
        )
        head, tail = rewritten[0], rewritten[-1]
        if last == 0:
            return Way(step, (), (), tail, (), ())
        merged = self._merge(step, head, tail) if self.trains else ()
        return Way(step, head, tuple(rewritten[1:-1]), tail, merged, multiply)

    def _spill(self, step: int, stages: list[list[Store]], stored: dict[Node, tuple[Node, int]]) -> None:
        """Store what a later stage would have to recompute, where that is costly."""
        first: dict[Node, int] = {}

        def into(node: Node, level: int) -> Sequence[Node]:
            if node in stored and stored[node][1] < level:
                return ()
            if first.setdefault(node, level) == level or (is_cheap(node, stored) and not node.of_row):
                return node.args
            place = self._buffer(Place("between", transposed=step < 0), 0, False, "one")
            load = self._load(place, self._widen(place, node.width), node.width)
            stored[node] = (load, first[node])
            stages[first[node]].append(Store(node, *load.data[:2]))
            return ()

        for level, stage in enumerate(stages):
            for _ in walk([s.expr for s in stage], partial(into, level=level)):
                pass

    def _rewrite(self, node: Node, level: int, stored: Mapping[Node, tuple[Node, int]], made: dict[Node, Node]) -> Node:
        """Rewrite a node with leaves as loads, and with loads of what an earlier stage has stored."""
        if node in stored and stored[node][1] < level:
            return stored[node][0]
        if node.op == "leaf":
            return self._leaf(node)
        if not node.args:
            return node
        if node not in made:
            args = [self._rewrite(a, level, stored, made) for a in node.args]
            made[node] = self.graph.node(node.op, *args, width=node.width, data=node.data)
        return made[node]

    def _merge(self, step: int, head: tuple[Store, ...], tail: tuple[Store, ...]) -> tuple[Store, ...]:
        """Merge the tail of step t with the head of step t + step: what one stores the other has at hand."""
        at_hand = {(s.buffer, s.column, s.shift): s.expr for s in tail if not s.add}

        @cache
        def moved(node: Node) -> Node:
            if node.op == "load":
                buffer, column, shift = node.data
                return at_hand.get((buffer, column, shift + step)) or self._load(
                    buffer, column, node.width, shift + step
                )
            return self.graph.node(node.op, *map(moved, node.args), width=node.width, data=node.data)

        merged = {(s.buffer, s.column, s.shift): s for s in tail}
        for store in head:
            expr, key = moved(store.expr), (store.buffer, store.column, store.shift + step)
            if store.add:
                key = (store.buffer, store.column, 0)
                expr = self.graph.simplified("add", merged[key].expr, expr) if key in merged else expr
            merged[key] = Store(expr, *key, store.add)
        return tuple(merged.values())


def is_cheap(node: Node, stored: Container[Node]) -> bool:
    """Tell whether few operations recompute a node from what is stored, as every number of a row is."""

    def left(node: Node, budget: int) -> int:
        budget -= ops.TABLE[node.op].cost if node.args else 0
        for a in node.args:
            if budget >= 0 and a not in stored and not a.of_row:
                budget = left(a, budget)
        return budget

    return left(node, CHEAP) >= 0


def _columns(blocks: tuple[Node, ...], buffer: Place, widths: list[int] | None = None) -> list[Store]:
    """Store blocks side by side."""
    widths = widths or [e.width for e in blocks]
    return [
        Store(e.graph.wide(e, w), buffer, sum(widths[:i])) for i, (e, w) in enumerate(zip(blocks, widths, strict=True))
    ]


def _find(part: tuple[Node, ...], whole: tuple[Node, ...]) -> int | None:
    """Find the column at which blocks stand within others."""
    for i in range(len(whole) - len(part) + 1):
        if whole[i : i + len(part)] == part:
            return sum(e.width for e in whole[:i])
    return None
