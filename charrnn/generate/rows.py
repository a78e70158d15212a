"""Many completions at once: rows side by side, so that every weight that is read serves all of them, on all cores."""

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler import cache
from charrnn.compiler.decoding.driver import Driver
from charrnn.compiler.decoding.driver import write as write_driver
from charrnn.compiler.decoding.weights import aligned
from charrnn.generate.compiled import CompiledDecoder, address
from charrnn.generate.sampling import Primed, Sampling, draws, filters
from charrnn.text.tokenizer import Tokenizer

STEPS = 16  # ids that every row draws at a time


class RowsDecoder:
    """Draws in several rows that begin alike; each is, to the last bit, what its decoder draws in one row alone."""

    def __init__(self, decoder: CompiledDecoder):
        """Raises CharRNNError where the equations cannot be compiled."""
        self._decoder = decoder
        self._driver = write_driver(decoder.architecture, decoder.kept, rows=True)
        self._run, _ = cache.load(self._driver.text, "run", self._driver.signature)
        self._weights = decoder.packed(self._driver, for_rows=True)

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, completions: Sequence[int]
    ) -> list[Iterator[tuple[int, float]]]:
        """For each completion by number, what `CompiledDecoder.drawn` yields; who asks first moves all of them on."""
        cores = min(os.cpu_count() or 1, len(completions))
        parts = [
            _Rows(self._run, self._driver, self._decoder, self._weights, primed, tokenizer, sampling, numbers.tolist())
            for numbers in np.array_split(np.array(completions), cores)
        ]
        waiting: list[deque[tuple[int, float]]] = [queue for part in parts for queue in part.waiting]
        moving = threading.Lock()  # rows may be asked for by different threads

        def row(queue: deque[tuple[int, float]]) -> Iterator[tuple[int, float]]:
            while True:
                if not queue:
                    with moving:
                        if not queue:  # still, after another thread moved all of them on
                            with ThreadPoolExecutor(cores) as pool:
                                list(pool.map(_Rows.move_on, parts))
                yield queue.popleft()

        return [row(queue) for queue in waiting]


class _Rows:
    """The rows of one thread. waiting: what each has drawn that nobody has asked for yet."""

    def __init__(
        self,
        run: cache.Function,
        driver: Driver,
        decoder: CompiledDecoder,
        weights: Sequence[NDArray[Any]],
        primed: Primed,
        tokenizer: Tokenizer,
        sampling: Sampling,
        completions: Sequence[int],
    ):
        B, V = len(completions), decoder.architecture.vocabulary
        self.waiting: list[deque[tuple[int, float]]] = [deque() for _ in completions]
        self._run, self._V, self._fresh = run, V, True
        self._sources = [draws(sampling.seed, n) for n in completions]
        sums, half = driver.room
        room = np.empty(sums + B, np.float32), np.empty(B * half, np.int32)
        scratch = [aligned(np.repeat(vector[None], B, axis=0)) for vector in decoder.enter(primed.state).vectors]
        self._ids, self._position = np.full(B, primed.last, np.int64), np.zeros(B, np.int64)
        self._logits, self._us = np.empty((B, V), np.float32), np.empty((STEPS, B))
        self._drawn, self._costs = np.empty((STEPS, B), np.int64), np.empty((STEPS, B))
        calls = [self._ids, None, self._logits, self._us, self._position, tokenizer.next_state, self._drawn]
        others = [
            self._logits,
            tokenizer.allowed,
            np.array(filters(sampling, V)),
            np.empty(2 * V),
            np.empty(2 * V, np.int64),
            self._costs,
        ]
        # Compiled code knows addresses alone: what is at them is kept here.
        self._kept = [decoder.table, *room, *scratch, *weights, *calls, *others]
        self._arguments = [*map(address, self._kept), decoder.draw_address]
        self._states = len(tokenizer.next_state)

    def move_on(self) -> None:
        """Draw STEPS ids in every row."""
        for r, source in enumerate(self._sources):
            self._us[:, r] = source.random(STEPS)
        done = self._run(*self._arguments, len(self._ids), STEPS, self._V, self._states, self._fresh)
        self._fresh = False
        for r, queue in enumerate(self.waiting):
            queue.extend(zip(self._drawn[:done, r].tolist(), self._costs[:done, r].tolist(), strict=True))
            if done < STEPS:
                queue.append((-1, 0.0))
