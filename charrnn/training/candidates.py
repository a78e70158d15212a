"""Which engine, precision and number of threads train a model fastest, by steps of training as they will run.

Every engine and precision runs one and a few characters of a window forwards and backwards, with the most threads there
may be; those that are not far behind longer pieces, with each number of threads; and those still near the fastest whole
steps, the optimizer's work included. Two lengths tell apart what a character takes and what any piece takes. All of a
stage run in short rounds, one after the other, and the least of each one's times counts: other work comes and goes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from charrnn.engines import cuda
from charrnn.text.corpus import Corpus
from charrnn.training.config import Config
from charrnn.training.start import initial_weights
from charrnn.training.trainer import Trainer
from charrnn.training.waiting import Waiting, delayed_seconds


class Candidate(NamedTuple):
    """A way to train: the name of an engine, 'float32' or 'bf16', and how many threads."""

    engine: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} {self.threads}"


@dataclass(frozen=True)
class Stage:
    """Rounds of one kind. lengths: of the pieces in a round, in characters; None for a whole step with all of it.

    within: so many times the fastest's time before it, and a candidate still runs. share: of the seconds there are in
    all, by which the stage ends; those of its first ROUNDS may take it all. most_threads: of an engine and precision
    that alone runs which has the most threads, and stands for the others.
    """

    lengths: Sequence[int | None]
    within: float
    share: float
    most_threads: bool = False


STAGES = (Stage((1, 8), float("inf"), 0.25, True), Stage((8, 32), 2.0, 0.6), Stage((None,), 1.3, 1.0))
ON_A_GPU = (Stage((None,), float("inf"), 0.5), Stage((None,), 1.3, 1.0))  # a recorded step is whole
ROUNDS, MOST_ROUNDS = 2, 12  # of a stage: one may be disturbed, and so many are enough
RECORDING_STEPS = 3
CLEARLY = 0.87  # fewer bits are worth it from this share of float32's time down
# The first work of other threads wakes them up. They may wake on one core: it takes the system a while to part them.
WAKING_SECONDS = 0.02
# What is shorter than this is run again, so often, where threads waited for a core for more than a share of its time.
SHORT_SECONDS, TRIES = 0.03, 4
UNDISTURBED = 0.1  # of a time that threads waited for a core, at the most, where its figure counts
WORTH_A_THREAD = 0.95  # and more threads from this share of the time of fewer

Timed = Callable[[Candidate, int | None], float]


def thread_counts(most: int) -> tuple[int, ...]:
    """List the numbers of threads to try, up to the most there may be: halved until one is left."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return tuple(counts)


def compare(
    candidates: Sequence[Candidate],
    window: int,
    timed: Timed,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    stages: Sequence[Stage] = STAGES,
) -> dict[Candidate, float]:
    """Give the seconds of a step by candidate that ran, fastest first.

    timed: runs some characters of a window, or a whole step, by a candidate, and gives the seconds that took. seconds:
    that comparing may take; no stage begins that would end after them, but one round of the first.
    """
    began, best, most = clock(), dict.fromkeys(candidates, float("inf")), max(c.threads for c in candidates)
    pieces: dict[Candidate, dict[int, float]] = {c: {} for c in candidates}  # seconds by characters
    ran: set[Candidate] = set()

    def expected(c: Candidate, n: int | None) -> float:
        """Return the seconds of a piece, at the most: of one that has not run as if it were one thread's work."""
        like, times = (c, 1.0) if c in ran else (c._replace(threads=most), most / c.threads)
        return times * (best[like] if n is None else _line(pieces[like], n))

    for stage in stages:
        left = [c for c in candidates if best[c] <= stage.within * min(best.values())]
        left = [c for c in left if not stage.most_threads or c.threads == most]
        lengths = list(dict.fromkeys(n if n is None else min(n, window) for n in stage.lengths))
        found = {(c, n): float("inf") for c in left for n in lengths}
        cost = sum(expected(c, n) for c, n in found)
        done = 0
        while done < MOST_ROUNDS:
            there_is = seconds if done < ROUNDS else stage.share * seconds
            to_come = cost * (max(1, ROUNDS - done) + (None in lengths and not done))  # the first whole step warms up
            if clock() - began + to_come > there_is and cost < float("inf"):
                break
            last = {piece: timed(*piece) for piece in found}
            found = {piece: min(found[piece], last[piece]) for piece in found}
            cost, done = sum(last.values()), done + 1
        if done >= ROUNDS or stage is stages[0]:
            for (c, n), took in found.items():
                if n is not None:
                    pieces[c][n] = took
            whole = {c: found[c, None] if (c, None) in found else _line(pieces[c], window) for c in left}
            best = _carried(best, whole)
            ran.update(left)
        if stage.most_threads:
            best = {c: best[c._replace(threads=most)] for c in best}
    return {c: s for c, s in sorted(best.items(), key=lambda item: item[1]) if c in ran}


def _line(pieces: Mapping[int, float], characters: int) -> float:
    """Return the seconds of so many characters, by the shortest and the longest piece; infinity for none."""
    if not pieces:
        return float("inf")
    first, last = min(pieces), max(pieces)
    if first == last:
        return pieces[last] * characters / last
    each = max(0.0, (pieces[last] - pieces[first]) / (last - first))
    return pieces[last] + each * (characters - last)


def _carried(best: Mapping[Candidate, float], found: Mapping[Candidate, float]) -> dict[Candidate, float]:
    """Put what a stage found in place of what was known; the others become longer as the fastest one did.

    A whole step has work that a piece has not, the same for all. So who was left behind stays behind.
    """
    first = min(found, key=lambda c: found[c])
    longer = max(1.0, found[first] / best[first]) if best[first] < float("inf") else 1.0
    return {c: found.get(c, s * longer) for c, s in best.items()}


def fastest(seconds: Mapping[Candidate, float]) -> Candidate:
    """Return the fastest in float32, unless bf16 is clearly faster; with no more threads than are worth it."""
    best = min(seconds, key=lambda c: seconds[c])
    exact = min((c for c in seconds if c.precision == "float32"), key=lambda c: seconds[c], default=best)
    chosen = best if seconds[best] <= CLEARLY * seconds[exact] else exact
    alike = [c for c in seconds if c[:2] == chosen[:2] and WORTH_A_THREAD * seconds[c] <= seconds[chosen]]
    return min(alike, key=lambda c: c.threads)


class Steps:
    """Steps of training as a configuration will take them, by any candidate. They change no run.

    waiting: watches how threads wait, as it will in training.
    """

    def __init__(self, config: Config, corpus: Corpus, waiting: Waiting) -> None:
        self._config, self._corpus, self._waiting = config, corpus, waiting
        self._weights = initial_weights(config, corpus)
        self._trainers: dict[tuple[str, ...], Trainer] = {}
        self._threads = 0
        self._stepped: set[tuple[str, ...]] = set()

    def timed(self, candidate: Candidate, characters: int | None) -> float:
        """Run some characters of a window, or a whole step, and return the seconds it took."""
        trainer = self._ready(candidate)
        if candidate.threads != self._threads:
            torch.set_num_threads(candidate.threads)
            self._threads = candidate.threads
            until = time.perf_counter() + WAKING_SECONDS * (candidate.threads > 1)
            self._run(trainer, 1)
            while time.perf_counter() < until:
                self._run(trainer, 1)
        if characters is None and candidate[:2] not in self._stepped:  # its memory is new to the process
            self._stepped.add(candidate[:2])
            self._run(trainer, None)
        least = float("inf")
        for _ in range(TRIES):
            waited = delayed_seconds()[0]
            cuda.wait(self._config.device)
            began = time.perf_counter()
            self._run(trainer, characters)
            cuda.wait(self._config.device)
            took = time.perf_counter() - began
            self._waiting.look()
            least = min(least, took)
            if took > SHORT_SECONDS or delayed_seconds()[0] - waited < UNDISTURBED * took:
                break
        return least

    def prepare(self, candidate: Candidate) -> None:
        """Compile what a candidate needs, make its moments, and wake up memory and caches."""
        trainer = self._ready(candidate)
        if trainer.graphed is not None:  # a few steps record those of all lengths, mostly
            for _ in range(RECORDING_STEPS):
                trainer.update()
            return
        self._run(trainer, 1)
        trainer.optimizer.update(0.0)

    def _ready(self, candidate: Candidate) -> Trainer:
        engine, precision, _ = candidate
        key = (engine,) if self._config.device == "cpu" else (engine, precision)  # of which one may be recorded
        if key not in self._trainers:
            self._trainers[key] = Trainer(self._config.replace(engine=engine), self._corpus, self._weights)
        trainer = self._trainers[key]
        trainer.config = trainer.config.replace(precision=precision)
        return trainer

    def _run(self, trainer: Trainer, characters: int | None) -> None:
        if characters is None or trainer.graphed is not None:
            trainer.update()
            return
        inputs, targets, _ = trainer.streams.at(0)
        ids, wanted = (torch.from_numpy(part[:characters]) for part in (inputs, targets))
        loss, _ = trainer.loss(ids, wanted, trainer.model.start(ids.shape[1]), None)
        trainer.optimizer.forget_gradients()
        torch.autograd.backward(loss)
