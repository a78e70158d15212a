"""The passes over a row that make up a stage: what is made of a reduction waits until the whole row was read.

As products cut a step into stages, reductions over features cut a stage into passes. A row of a few thousand numbers
stays in the first cache meanwhile, so all passes are made over one row before the next row begins. What a pass has
made and a later one needs is read again where it was stored anyway, recomputed if that is cheap, and else stored in a
row of scratch memory. A stage without reductions is one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from charrnn.compiler.graph import Node, walk
from charrnn.compiler.schedule import SCRATCH, Buffer, Place, Step, Store, is_cheap

Where = tuple[Place, int, int]


@dataclass(frozen=True)
class Reduction:
    """One number for a row: `node` stands for it in expressions, of which `given` are reduced by its operation."""

    node: Node
    given: tuple[Node, ...]

    def of_width(self, width: int) -> "Reduction":
        """Return the part of it that blocks of a width have."""
        return Reduction(self.node, tuple(node for node in self.given if node.width == width))


@dataclass(frozen=True)
class Pass:
    """One pass over the features of a row."""

    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]

    @property
    def expressions(self) -> list[Node]:
        """All that is computed, one number of a row after the other or once for a row."""
        return [s.expr for s in self.stores] + [each for r in self.reductions for each in r.given]


def in_passes(stores: Sequence[Store], buffers: Mapping[Place, Buffer], same_dtype: bool) -> tuple[list[Pass], int]:
    """Cut a stage into passes.

    same_dtype: whether buffers for products hold what was stored in them to the last bit.
    Returns the passes, and how many columns of scratch memory they use.
    """
    stage = _Stage(stores, buffers, same_dtype)
    return stage.passes(), stage.columns


def scratch_of(step: Step) -> int:
    """Return how many columns of scratch memory the stages of a step use, where all is in one dtype."""
    way = step.forward
    return max(in_passes(stage, step.buffers, True)[1] for stage in (way.head, *way.middle, way.tail))


class _Stage:
    def __init__(self, stores: Sequence[Store], buffers: Mapping[Place, Buffer], same_dtype: bool) -> None:
        self.stores, self.buffers, self.same_dtype = stores, buffers, same_dtype
        self.columns = 0
        self._depths: dict[Node, int] = {}

    def passes(self) -> list[Pass]:
        depths = [self._depth(s.expr) for s in self.stores]
        reductions = [node for node in self._depths if node.is_reduction]
        passes = range(1 + max(self._depths.values(), default=0))
        reduced = [[node for node in reductions if self._depth(node) == p + 1] for p in passes]
        when = self._when(depths, reduced)
        stored = [[s for s, at in zip(self.stores, when, strict=True) if at == p] for p in passes]
        kept = self._kept(stored, self._read(stored, reduced))
        self._spill(stored, reduced, kept)
        return [
            Pass(
                tuple(Reduction(node, tuple(_rewritten(a, p, kept) for a in node.args)) for node in reduced[p]),
                tuple(replace(s, expr=_rewritten(s.expr, p, kept)) for s in stored[p]),
            )
            for p in passes
        ]

    def _depth(self, node: Node) -> int:
        """Count the passes that must be complete before a node can be computed."""
        if node not in self._depths:
            below = max((self._depth(a) for a in node.args), default=0)
            self._depths[node] = below + node.is_reduction
        return self._depths[node]

    # When to store

    def _when(self, depths: list[int], reduced: list[list[Node]]) -> list[int]:
        """Choose the pass of each store: as soon as may be, but not before the last pass that reads what was there."""
        when = depths
        while True:
            stored = [[s for s, at in zip(self.stores, when, strict=True) if at == p] for p in range(len(reduced))]
            read = self._read(stored, reduced)
            later = [
                max(at, read.get(self._where(s.buffer, s.column, s.shift), 0))
                for s, at in zip(self.stores, when, strict=True)
            ]
            if later == when:
                return when
            when = later

    def _read(self, stored: list[list[Store]], reduced: list[list[Node]]) -> dict[Where, int]:
        """Find the last pass that reads from each place."""
        found: dict[Where, int] = {}
        for p, (stores, reductions) in enumerate(zip(stored, reduced, strict=True)):
            roots = [*(s.expr for s in stores), *(a for node in reductions for a in node.args)]
            for node in walk(roots, lambda node: () if node.is_reduction else node.args):
                if node.op == "load":
                    found[self._where(*node.data)] = p
        return found

    def _where(self, place: Place, column: int, shift: int) -> Where:
        """Name what a load or a store touches: states of two steps are apart, other slots may be one for all steps."""
        apart = self.buffers[place].slots in ("state", "turns") if place in self.buffers else False
        return place, column, shift % 2 if apart else 0

    # What later passes read

    def _kept(self, stored: list[list[Store]], read: Mapping[Where, int]) -> dict[Node, tuple[Node, int]]:
        """Find the results that a store keeps to the last bit: of each a load, and the pass that stores it."""
        kept: dict[Node, tuple[Node, int]] = {}
        for p, stores in enumerate(stored):
            for s in stores:
                exact = self.same_dtype or not self.buffers[s.buffer].product
                if exact and not s.add and s.expr.args and self._where(s.buffer, s.column, s.shift) not in read:
                    kept.setdefault(s.expr, (_load(s.expr, s.buffer, s.column, s.shift), p))
        return kept

    def _spill(self, stored: list[list[Store]], reduced: list[list[Node]], kept: dict[Node, tuple[Node, int]]) -> None:
        """Store what a later pass would have to recompute, where that is costly."""
        first: dict[Node, int] = {}

        def into(node: Node, p: int) -> Sequence[Node]:
            if node.of_row or (node in kept and kept[node][1] < p):
                return ()
            if first.setdefault(node, p) == p or is_cheap(node, kept):
                return node.args
            kept[node] = _load(node, SCRATCH, self.columns, 0), first[node]
            stored[first[node]].append(Store(node, SCRATCH, self.columns))
            self.columns += node.width
            return ()

        for p, (stores, reductions) in enumerate(zip(stored, reduced, strict=True)):
            roots = [*(s.expr for s in stores), *(a for node in reductions for a in node.args)]
            for _ in walk(roots, partial(into, p=p)):
                pass


def _load(node: Node, place: Place, column: int, shift: int) -> Node:
    return node.graph.node("load", width=node.width, data=(place, column, shift))


def _rewritten(node: Node, p: int, kept: Mapping[Node, tuple[Node, int]]) -> Node:
    """Rewrite a node with loads of what a pass before p has stored; numbers of a row stay as they are."""
    if node.of_row or not node.args:
        return node
    if node in kept and kept[node][1] < p:
        return kept[node][0]
    return node.graph.node(node.op, *(_rewritten(a, p, kept) for a in node.args), width=node.width, data=node.data)
