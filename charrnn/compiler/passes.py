"""The passes over a row that make up a stage: what is made of a reduction waits until the whole row was read.

As products cut a step into stages, reductions over features cut a stage into passes. A row of a few thousand numbers
stays in the first cache meanwhile, so all passes are made over one row before the next row begins. What a pass has
made and a later one needs is read again where it was stored anyway, recomputed if that is cheap, and else stored in a
row of scratch memory. A stage without reductions is one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from charrnn.compiler.graph import Node, rewriter, walk
from charrnn.compiler.schedule import SCRATCH, Buffer, Place, Step, Store, Stored, spill

Where = tuple[Place, int, int]


@dataclass(frozen=True)
class Pass:
    """One pass over the features of a row.

    reductions: numbers for a row, by the node that stands for each, with the expressions that it reduces.
    """

    reductions: Mapping[Node, tuple[Node, ...]]
    stores: tuple[Store, ...]

    @property
    def expressions(self) -> list[Node]:
        """All that is computed, one number of a row after the other or once for a row."""
        return [s.expr for s in self.stores] + [each for given in self.reductions.values() for each in given]

    def of_width(self, width: int) -> "Pass":
        """Return the part of it that blocks of a width have."""
        parts = {node: tuple(e for e in given if e.width == width) for node, given in self.reductions.items()}
        stores = tuple(s for s in self.stores if s.expr.width == width)
        return Pass({node: part for node, part in parts.items() if part}, stores)


def in_passes(stores: Sequence[Store], buffers: Mapping[Place, Buffer], same_dtype: bool) -> tuple[list[Pass], int]:
    """Cut a stage into passes.

    same_dtype: whether buffers for products hold what was stored in them to the last bit.
    Returns the passes, and how many columns of scratch memory they use.
    """
    stage = _Stage(stores, buffers, same_dtype)
    return stage.passes(), stage.columns


def scratch_of(step: Step) -> int:
    """Return how many columns of scratch memory the stages of a step use, where all is in one dtype."""
    return max(in_passes(stage, step.buffers, True)[1] for stage in step.forward.stages)


class _Stage:
    def __init__(self, stores: Sequence[Store], buffers: Mapping[Place, Buffer], same_dtype: bool) -> None:
        self.stores, self.buffers, self.same_dtype = stores, buffers, same_dtype
        self.columns = 0
        self._depths: dict[Node, int] = {}

    def passes(self) -> list[Pass]:
        depths = [self._depth(s.expr) for s in self.stores]
        reductions = [node for node in self._depths if node.is_reduction]
        passes = range(1 + max(self._depths.values(), default=0))
        self.reduced = [[node for node in reductions if self._depth(node) == p + 1] for p in passes]
        stored = self._when(depths)
        kept = self._kept(stored)

        def keep(node: Node, p: int) -> Node:
            load = _load(node, SCRATCH, self.columns, 0)
            stored[p].append(Store(node, SCRATCH, self.columns))
            self.columns += node.width
            return load

        spill((self._roots(stored, p) for p in passes), kept, keep, apart=lambda node: node.of_row)
        return [self._pass(p, stored[p], kept) for p in passes]

    def _pass(self, p: int, stores: list[Store], kept: Stored) -> Pass:
        """Return a pass, with loads of what a pass before it has stored; numbers of a row stay as they are."""

        @rewriter
        def read(node: Node) -> Node | None:
            return node if node.of_row else kept[node][0] if node in kept and kept[node][1] < p else None

        reductions = {node: tuple(map(read, node.args)) for node in self.reduced[p]}
        return Pass(reductions, tuple(replace(s, expr=read(s.expr)) for s in stores))

    def _roots(self, stored: list[list[Store]], p: int) -> list[Node]:
        """List what a pass computes."""
        return [*(s.expr for s in stored[p]), *(a for node in self.reduced[p] for a in node.args)]

    def _depth(self, node: Node) -> int:
        """Count the passes that must be complete before a node can be computed."""
        if node not in self._depths:
            below = max((self._depth(a) for a in node.args), default=0)
            self._depths[node] = below + node.is_reduction
        return self._depths[node]

    # When to store

    def _when(self, when: list[int]) -> list[list[Store]]:
        """Choose the pass of each store: as soon as may be, but not before the last pass that reads what was there."""
        while True:
            pairs = list(zip(self.stores, when, strict=True))
            stored = [[s for s, at in pairs if at == p] for p in range(len(self.reduced))]
            read = self._read(stored)
            later = [max(at, read.get(self._where(s.buffer, s.column, s.shift), 0)) for s, at in pairs]
            if later == when:
                return stored
            when = later

    def _read(self, stored: list[list[Store]]) -> dict[Where, int]:
        """Find the last pass that reads from each place."""
        found: dict[Where, int] = {}
        for p in range(len(stored)):
            for node in walk(self._roots(stored, p), lambda node: () if node.is_reduction else node.args):
                if node.op == "load":
                    found[self._where(*node.data)] = p
        return found

    def _where(self, place: Place, column: int, shift: int) -> Where:
        """Name what a load or a store touches: states of two steps are apart, other slots may be one for all steps."""
        apart = self.buffers[place].slots in ("state", "turns") if place in self.buffers else False
        return place, column, shift % 2 if apart else 0

    # What later passes read

    def _kept(self, stored: list[list[Store]]) -> Stored:
        """Find the results that a store keeps to the last bit: of each a load, and the pass that stores it."""
        kept: Stored = {}
        read = self._read(stored)
        for p, stores in enumerate(stored):
            for s in stores:
                exact = self.same_dtype or not self.buffers[s.buffer].product
                if exact and not s.add and s.expr.args and self._where(s.buffer, s.column, s.shift) not in read:
                    kept.setdefault(s.expr, (_load(s.expr, s.buffer, s.column, s.shift), p))
        return kept


def _load(node: Node, place: Place, column: int, shift: int) -> Node:
    return node.graph.node("load", width=node.width, data=(place, column, shift))
