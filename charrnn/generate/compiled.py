"""The equations compiled: next-character logits and whole completions without torch, and without Python in the loop."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler import cache
from charrnn.compiler.decoding import driver as drivers
from charrnn.compiler.decoding.driver import LINE, Driver
from charrnn.compiler.decoding.memory import AT_ONCE, Layout, Workspace
from charrnn.compiler.decoding.memory import Weights as PackedWeights
from charrnn.errors import CharRNNError
from charrnn.generate.decoder import Decoder, State
from charrnn.generate.sampling import Primed, Sampling, filters
from charrnn.model.architecture import Architecture, Weights
from charrnn.progress import SCORING, Progress, silent
from charrnn.text import contexts, documents
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

CHUNKS = (1, 2, 4, 8, 16)  # characters drawn before they are handed out: the first at once, then more and more
NOT_GIVEN = np.full(max(CHUNKS), -1)
WINDOW = 1024

TRIED_SEED, TRIED_IDS = 7, 4  # of the weights, and of the texts, by which new code is tried
TRIED_TABLE_ROWS = 50
TRIED_ROWS = 5  # where it is for several: not a multiple of any tile
TOLERANCE = {"float32": 1e-3, "bf16": 0.1, "int8": 0.2}  # of the logits' norm; wrong code is far off

Run = Callable[..., None]
_preparing = threading.Lock()  # of threads that need the same code at once, one tries it and the others wait


def prepare(architecture: Architecture, kept: str = "float32", rows: bool = False) -> tuple[Driver, Run, str | None]:
    """Return the driver, its compiled `run` for models of these sizes, and a note for the user or None.

    rows: as `drivers.make` has it. Compiled once, tried against NumPy, and kept; later it is loaded from disk. Raises
    CharRNNError where the equations cannot be compiled or the code is wrong on this processor.
    """
    driver = drivers.make(architecture, kept, rows)
    with _preparing:
        run, code = load(driver)
        if code.is_new:
            error = _error(architecture, driver, run, TRIED_ROWS if rows else 1)
            if not error <= TOLERANCE[kept]:
                raise CharRNNError(
                    f"code compiled for {architecture.cell} computes something else than its equations on this "
                    f"processor (logits differ by {error:.2g} of their norm)",
                    "please report it with what `charrnn env` prints",
                )
            code = cache.keep(code)
    return driver, run, code.note


def load(driver: Driver) -> tuple[Run, cache.Code]:
    """Return the compiled `run` of a driver, as `charrnn.compiler.decoding.llvm` says, and the code that it is in."""
    code = cache.code(driver.description, drivers.made_by(), lambda: _compiled(driver))
    return code.function("run", 7), code


def _compiled(driver: Driver) -> bytes:
    from charrnn.compiler.decoding.llvm import source
    from charrnn.compiler.objects import object_code

    return object_code(source(driver))


def _error(architecture: Architecture, driver: Driver, run: Run, rows: int) -> float:
    """Return by how much of their norm logits of compiled code differ from those that NumPy gives, at most; or NaN."""
    # Code does not depend on how many rows tables have.
    architecture = replace(architecture, direct_rows=min(architecture.direct_rows, TRIED_TABLE_ROWS))
    weights, V, errors = architecture.initial(TRIED_SEED), architecture.vocabulary, []
    if architecture.direct:
        weights["direct"] += np.random.default_rng(TRIED_SEED).normal(size=weights["direct"].shape)
    exact = Decoder(architecture, weights, "numpy")
    state, work = exact.start(rows), Workspace(driver, Layout(driver, PackedWeights(driver, exact, weights), rows))
    ids = np.zeros((rows, AT_ONCE), np.int64)
    ids[:, :TRIED_IDS] = (np.arange(rows * TRIED_IDS) * (V + 1) // (rows * TRIED_IDS)).reshape(rows, TRIED_IDS)
    ids[0, 1] = V  # what stands before a start token is another thing to direct connections
    work.point(given=ids, drawn=np.empty_like(ids))
    for r in range(rows):
        work.enter(exact.start(), r)
    for n in range(TRIED_IDS):
        run(work.address, 0, n, n + 1, 0, rows, 1)
        logits, state = exact.step(ids[:, n], state)
        differences = work.array(LINE["logits"], driver.real)[0, :, :V] - logits.astype(np.float64)
        errors.append(np.linalg.norm(differences, axis=1) / np.linalg.norm(logits, axis=1))
    return float(np.max(errors))


def is_prepared(architecture: Architecture, kept: str = "float32") -> bool:
    """Tell whether what `prepare` compiles is on disk. Raises CharRNNError where the equations cannot be compiled."""
    return cache.is_kept(drivers.make(architecture, kept).description, drivers.made_by())


class CompiledDecoder(Decoder):
    """A Decoder whose single rows run compiled; several rows at once go through NumPy's products.

    It holds weights alone: threads may share it.
    """

    is_compiled = True

    def __init__(self, architecture: Architecture, weights: Weights, kept: str = "float32"):
        """kept: the dtype matrices are kept in while decoding: float32, bf16 or int8 with a scale per column.

        Raises CharRNNError where the equations cannot be compiled.
        """
        super().__init__(architecture, weights, "numpy")
        self.engine, self.kept = "native", kept  # the engine's name in settings and files
        self._driver, self._run, note = prepare(architecture, kept)
        self.notes = (note,) if note else ()
        self.weights = weights
        self._weights = PackedWeights(self._driver, self, weights)
        self._layout = Layout(self._driver, self._weights, 1)

    @property
    def bytes_per_character(self) -> int:
        """The bytes of weights that are read for a character: all but the tables, of which it is a row each."""
        looked_up = 0 if self.tables is None else self.architecture.direct * int(self.tables[0].nbytes)
        return sum(array.nbytes for array in self._weights.arrays) + int(self.first[0].nbytes) + looked_up

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.step`; one row alone runs compiled."""
        if len(ids) > 1:
            return super().step(ids, state)
        work = self._enter(state)
        self._call(work, ids, scores=True)
        logits = work.array(LINE["logits"], self._driver.real)[0, :, : self.architecture.vocabulary]
        return logits.copy(), work.state()

    def read(self, ids: NDArray[Any], state: State) -> State:
        """As `Decoder.read`."""
        work = self._enter(state)
        self._call(work, ids)
        return work.state()

    def logits(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.logits`."""
        work = self._enter(state)
        return self._logits(work, ids), work.state()

    def _logits(self, work: Workspace, ids: NDArray[Any]) -> NDArray[np.float32]:
        architecture, before = self.architecture, work.before()
        outputs = np.empty((len(ids), self._layout.hidden), self._driver.real)
        self._call(work, ids, outputs=outputs)
        logits: NDArray[np.float32] = outputs[:, : architecture.hidden] @ self.head + self.bias
        if self.tables is not None:
            given = np.asarray(ids, np.int64)[:, None]
            rows = contexts.rows_of_window(given, before, architecture.start, architecture.direct_rows, np)
            logits[:, architecture.columns] += sum(self.tables[of_table[:, 0]] for of_table in rows)
        return logits

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Yield ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""
        work = self._enter(primed.state)
        work.point(allowed=tokenizer.allowed, following=tokenizer.next_state)
        work.array(LINE["filters"], np.float64)[0, 0] = filters(sampling, self.architecture.vocabulary)
        self._call(work, np.array([primed.last]))
        for n in itertools.chain(CHUNKS, itertools.repeat(CHUNKS[-1])):
            drawn, costs = np.empty(n, np.int64), np.empty(n)
            self._call(work, NOT_GIVEN[:n], us=us.random(n), drawn=drawn, costs=costs)
            yield from zip(drawn.tolist(), costs.tolist(), strict=True)

    def stream_costs(
        self, ids: NDArray[Any], starts: Starts = documents.NONE, progress: Progress = silent
    ) -> NDArray[np.float64]:
        """Return the nats of every id of a text (N,), read as one stream from its first character.

        starts: the positions of documents, each of which is read from nothing.
        """
        ends = [*starts[(starts > 0) & (starts < len(ids))].tolist(), len(ids)]
        costs, done = np.empty(len(ids)), 0
        for begin, end in zip([0, *ends], ends, strict=False):
            for of_window in self._costs(ids[begin:end]):
                done += len(of_window)
                costs[done - len(of_window) : done] = of_window
                progress(SCORING, done, len(ids))
        return costs

    def _costs(self, ids: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
        """Yield the nats of the ids of a text that is read from nothing, window by window."""
        work = self._enter(self.start())
        before = np.concatenate([[self.architecture.start], ids[:-1]])[: len(ids)]
        for i in range(0, len(ids), WINDOW):
            logits = self._logits(work, before[i : i + WINDOW]).astype(np.float64)
            top = logits.max(axis=1)
            target = logits[np.arange(len(logits)), ids[i : i + WINDOW]]
            yield np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - target

    def _call(self, work: Workspace, ids: NDArray[Any], scores: bool = False, **arrays: NDArray[Any]) -> None:
        """Read ids (N,), and draw where there are -1.

        scores: whether the logits after the last id are wanted. arrays: by the names of lines: us (N,), outputs (N, H)
        to be filled, drawn (N,), the ids that were read or drawn, costs (N,).
        """
        ids = np.ascontiguousarray(ids, np.int64)
        arrays = {"given": ids, "drawn": np.empty(len(ids), np.int64), **arrays}
        work.point(**arrays)
        self._run(work.address, work.t, 0, len(ids), 0, 1, scores)
        work.t += len(ids)

    def _enter(self, state: State) -> Workspace:
        """Return fresh memory to decode a text in that is in a state of one row."""
        work = Workspace(self._driver, self._layout)
        work.enter(state)
        return work


NativeDecoder = CompiledDecoder  # its name in version 0.1
