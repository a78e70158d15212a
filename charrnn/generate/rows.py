"""Many completions at once: rows side by side, so that every weight that is read serves all of them, on all cores.

A row has its own prime, filters and source of draws, and comes and goes between two moves of STEPS ids. What it draws
is, to the last bit, what its decoder draws in one row alone, whatever the others are.
"""

import itertools
import os
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler.decoding.driver import LINE
from charrnn.compiler.decoding.memory import AT_ONCE, Layout, Weights, Workspace
from charrnn.errors import CharRNNError, WrongCodeWarning
from charrnn.generate.compiled import CompiledDecoder, prepare
from charrnn.generate.decoder import Decoder, State
from charrnn.generate.sampling import Primed, Sampling, cost, distribution, draw, draws, filters
from charrnn.text.text_stream import TextStream
from charrnn.text.tokenizer import Tokenizer

STEPS = AT_ONCE  # ids by which every row moves on at a time
AHEAD = 16 * STEPS  # numbers that are made at a time to draw a row's ids with


@dataclass(eq=False)
class Row:
    """A text that is decoded beside others.

    given: (N,), ids that are still to be read. ids, costs: what the last move drew, with its nats where those are
    wanted; an id of -1 is where the logits were not finite, and the row is over. logits: those that each of `ids` was
    drawn from, where is_noting.
    """

    state: State
    given: NDArray[np.int64]
    sampling: Sampling
    source: np.random.Generator
    is_noting: bool = False
    ids: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)

    def takes(self, steps: int) -> NDArray[np.int64]:
        """Return what is read of the ids that are given, in so many steps."""
        taken, self.given = self.given[:steps], self.given[steps:]
        return taken


class SideBySide:
    """Rows that come and go. One thread at a time may call."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def join(self, state: State, given: NDArray[Any], sampling: Sampling, completion: int, noting: bool = False) -> Row:
        """Add a row that goes on from a state of one row: it reads `given`, (N,) with N of 1 or more, then draws.

        completion: its number, which with the seed says what is drawn. noting: whether its logits are wanted.
        """
        row = Row(state, np.array(given, np.int64), sampling, draws(sampling.seed, completion), noting)
        self._rows.append(row)
        self._begin(row)
        return row

    def _begin(self, row: Row) -> None:
        """Prepare for a row, the last of all."""

    def leave(self, row: Row) -> None:
        """Take a row out; the last one takes its place."""
        self._rows[self._rows.index(row)] = self._rows[-1]
        self._rows.pop()

    def move_on(self) -> None:
        """Move every row on by STEPS ids, read and then drawn."""
        raise NotImplementedError


@dataclass(frozen=True)
class Groups:
    """Rows in as many groups as there are cores, so that none waits for another.

    each: the groups; a thread at a time may call one of them. few: rows of a group that take hardly longer than one.
    """

    each: Sequence[SideBySide]
    few: int

    def size(self, rows: int) -> int:
        """Return how many of so many rows a group may have."""
        return max(self.few, -(-rows // len(self.each)))


def in_groups(decoder: Decoder, tokenizer: Tokenizer, most: int) -> Groups:
    """Return room for up to `most` rows of a decoder, which threads move on group by group, without their costs.

    Where their code is wrong on this processor, that is said, and they are decoded one after the other.
    """
    weights = for_rows(decoder) if isinstance(decoder, CompiledDecoder) else None
    if weights is None:
        return Groups([OneAfterTheOther(decoder, tokenizer)], most)
    cores = os.cpu_count() or 1
    few = weights.driver.form.heights[0]
    size = max(few, -(-most // cores))
    return Groups([Rows(weights, tokenizer, size, with_costs=False, cores=1) for _ in range(cores)], few)


def for_rows(decoder: CompiledDecoder) -> "RowsDecoder | None":
    """Return the weights of a decoder as many rows read them; None, with a warning, where their code is wrong here."""
    try:
        return RowsDecoder(decoder)
    except CharRNNError as error:
        told = f"{error}: many completions are decoded one after the other, which is slower"
        warnings.warn(told, WrongCodeWarning, stacklevel=2)
        return None


class RowsDecoder:
    """The weights of a decoder as many rows at once read them."""

    def __init__(self, decoder: CompiledDecoder):
        """Raises CharRNNError where the equations cannot be compiled or the code is wrong on this processor."""
        self.decoder = decoder
        self.driver, self.run, _ = prepare(decoder.architecture, decoder.kept, rows=True)
        self.weights = Weights(self.driver, decoder, decoder.weights)

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, completions: Sequence[int]
    ) -> list[Iterator[tuple[int, float]]]:
        """Return, for each completion by number, what `CompiledDecoder.drawn` yields; who asks first moves all on."""
        together = Rows(self, tokenizer, len(completions))
        last = np.array([primed.last])
        rows = [together.join(primed.state, last, sampling, n) for n in completions]
        waiting: list[deque[tuple[int, float]]] = [deque() for _ in rows]
        moving = threading.Lock()  # rows may be asked for by different threads

        def of(queue: deque[tuple[int, float]]) -> Iterator[tuple[int, float]]:
            while True:
                if not queue:
                    with moving:
                        if not queue:  # still, after another thread moved all of them on
                            together.move_on()
                            for row, other in zip(rows, waiting, strict=True):
                                other.extend(zip(row.ids, row.costs, strict=True))
                yield queue.popleft()

        return [of(queue) for queue in waiting]


class Rows(SideBySide):
    """As `SideBySide`, in machine code, on all cores."""

    def __init__(
        self, weights: RowsDecoder, tokenizer: Tokenizer, most: int, with_costs: bool = True, cores: int | None = None
    ):
        """most: rows at once. with_costs: whether the nats of what is drawn are wanted. cores: all when None."""
        super().__init__()
        self._weights, self._with_costs = weights, with_costs
        self._V = weights.decoder.architecture.vocabulary
        self._work = work = Workspace(weights.driver, Layout(weights.driver, weights.weights, most))
        work.point(allowed=tokenizer.allowed, following=tokenizer.next_state)
        # The row r of these is the row's own.
        self._position, self._filters, self._logits = (
            work.array(LINE[name], kind)[0]
            for name, kind in (("position", np.int64), ("filters", np.float64), ("logits", np.float32))
        )
        # The numbers that ids are drawn with, and where the next one is: many are made at a time.
        self._random, self._next = np.empty((most, AHEAD)), np.zeros(most, np.int64)
        self._given, self._us = np.empty((most, STEPS), np.int64), np.empty((most, STEPS))
        self._drawn, self._costs = np.empty((most, STEPS), np.int64), np.empty((most, STEPS))
        work.point(given=self._given, us=self._us, drawn=self._drawn)
        if with_costs:
            work.point(costs=self._costs)
        self._cores = min(cores or os.cpu_count() or 1, most)
        # Threads of a pool end when nobody holds it any more.
        self._pool = ThreadPoolExecutor(self._cores, "rows")

    def _begin(self, row: Row) -> None:
        r = len(self) - 1
        self._work.enter(row.state, r)
        self._position[r], self._filters[r], self._next[r] = 0, filters(row.sampling, self._V), 0
        row.source.random(out=self._random[r])

    def leave(self, row: Row) -> None:
        """As `SideBySide.leave`."""
        r, last = self._rows.index(row), len(self) - 1
        for array in (self._position, self._filters, self._random, self._next):
            array[r] = array[last]
        self._work.move(last, r)
        super().leave(row)

    def move_on(self) -> None:
        """As `SideBySide.move_on`."""
        n, rows = len(self._rows), self._rows
        if not rows:
            return
        size = -(-n // self._cores)
        parts = [(first, min(first + size, n)) for first in range(0, n, size)]
        self._given[:n] = -1
        lengths = np.zeros(n, np.int64)  # of what is given: no number is needed to draw it with
        for r, row in enumerate(rows):
            if len(row.given):
                taken = row.takes(STEPS)
                lengths[r] = len(taken)
                self._given[r, : len(taken)] = taken
        first = self._next[:n] - lengths
        self._us[:n] = self._random[np.arange(n)[:, None], first[:, None] + np.arange(STEPS)]
        others = [self._pool.submit(self._move_part, *part, lengths) for part in parts[1:]]
        try:
            self._move_part(*parts[0], lengths)
        finally:
            if others:
                wait(others)  # nobody changes rows that move
        for each in others:
            each.result()
        self._next[:n] = first + STEPS
        for r in np.flatnonzero(self._next[:n] > AHEAD - STEPS).tolist():
            self._draw_ahead(r)
        ids = self._drawn[:n].tolist()
        costs = self._costs[:n].tolist() if self._with_costs else itertools.repeat([])
        for row, own, nats in zip(rows, ids, costs, strict=False):
            row.ids, row.costs = own, nats
        for r in np.flatnonzero(lengths).tolist():
            k = lengths[r]
            rows[r].ids, rows[r].costs = rows[r].ids[k:], rows[r].costs[k:]

    def _draw_ahead(self, r: int) -> None:
        """Make the next numbers of row r, after those that are left."""
        numbers = self._random[r]
        left = AHEAD - self._next[r]
        numbers[:left] = numbers[self._next[r] :].copy()
        self._rows[r].source.random(out=numbers[left:])
        self._next[r] = 0

    def _move_part(self, first: int, end: int, read: NDArray[np.int64]) -> None:
        """Move the rows from..to on. read: how many ids each is given."""
        noting = [(r, int(read[r]), self._rows[r]) for r in range(first, end) if self._rows[r].is_noting]
        if not noting:
            self._weights.run(self._work.address, 0, 0, STEPS, first, end, 0)
            return
        for _, _, row in noting:
            row.logits = []
        for n in range(STEPS):  # each step leaves its logits where the next one puts its own
            self._weights.run(self._work.address, 0, n, n + 1, first, end, 0)
            for r, k, row in noting:
                if n >= k:
                    row.logits.append(self._logits[r, : self._V].copy())


class OneAfterTheOther(SideBySide):
    """As `SideBySide`, with any decoder: every row is stepped alone, so that it gets what it would get alone."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer):
        super().__init__()
        self._decoder, self._tokenizer = decoder, tokenizer
        self._drawing: dict[Row, Iterator[tuple[int, float, NDArray[np.float32]]]] = {}

    def leave(self, row: Row) -> None:
        """As `SideBySide.leave`."""
        super().leave(row)
        self._drawing.pop(row, None)

    def move_on(self) -> None:
        """As `SideBySide.move_on`."""
        for row in self._rows:
            taken, row.ids, row.costs, row.logits = row.takes(STEPS), [], [], []
            if len(row.given):
                row.state = self._decoder.read(taken, row.state)
                continue
            if len(taken):
                row.state = self._decoder.read(taken[:-1], row.state)
                self._drawing[row] = self._drawn(row, int(taken[-1]))
            for id_, nats, logits in itertools.islice(self._drawing[row], STEPS - len(taken)):
                row.ids.append(id_)
                row.costs.append(nats)
                if row.is_noting:
                    row.logits.append(logits)

    def _drawn(self, row: Row, id_: int) -> Iterator[tuple[int, float, NDArray[np.float32]]]:
        """Read an id, then draw others: each with its nats and the logits; -1 where they are not finite."""
        stream, state = TextStream(self._tokenizer), row.state
        while True:
            (logits,), state = self._decoder.step(np.array([id_]), state)
            allowed = self._tokenizer.allowed[stream.state]
            if not np.isfinite(logits[allowed].max()):
                yield -1, 0.0, logits
                return
            id_ = draw(distribution(logits, allowed, row.sampling), row.source.random())
            stream.push(id_)
            yield id_, cost(logits, id_), logits
