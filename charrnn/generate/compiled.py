"""The equations compiled: next-character logits and whole completions without torch, and without Python in the loop."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler import cache
from charrnn.compiler.decoding.driver import Driver
from charrnn.compiler.decoding.driver import write as write_driver
from charrnn.compiler.decoding.source import LINE, Layout
from charrnn.compiler.decoding.weights import aligned, pack, room
from charrnn.compiler.trace import slot
from charrnn.errors import CharRNNError
from charrnn.generate.decoder import Decoder, State
from charrnn.generate.sampling import Primed, Sampling, filters
from charrnn.model.architecture import Architecture, Weights
from charrnn.text import documents
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

CHUNKS = (1, 2, 4, 8, 16)  # characters drawn before they are handed out: the first at once, then more and more
NOT_GIVEN = np.full(max(CHUNKS), -1)
WINDOW = 1024
DRAW = Path(__file__).parent.parent / "compiler" / "decoding" / "draw.py"  # compiled once for all models

TRIED_SEED, TRIED_IDS = 7, 4  # of the weights, and of the text, by which new code is tried
TOLERANCE = {"float32": 1e-3, "bf16": 0.1, "int8": 0.2}  # of the logits' norm; wrong code is far off

DRAW_SIGNATURE = ("float32*", "int64", "bool_*", "float64*", "float64", "float64*", "int64*", "float64*")


def prepare(
    architecture: Architecture, kept: str = "float32"
) -> tuple[cache.Function, Driver, cache.Function, str | None]:
    """Return the compiled draw, the driver, its compiled `run` for models of these sizes, and notes for the user.

    Compiled once, and then tried against NumPy; later it is loaded from disk. Raises CharRNNError where the equations
    cannot be compiled or the code is wrong on this processor, and ImportError where they must be and there is no Numba.
    """
    draw, _ = cache.load(DRAW.read_text(encoding="utf-8"), "draw", DRAW_SIGNATURE)
    driver = write_driver(architecture, kept)
    run, note = cache.load(driver.text, "run", driver.signature)
    if run.is_new:
        run.is_new = False
        _try(architecture, kept, run)
    return draw, driver, run, note


def _try(architecture: Architecture, kept: str, run: cache.Function) -> None:
    """Raise CharRNNError where compiled code, which is forgotten then, differs from NumPy by more than rounding."""
    weights = architecture.initial(TRIED_SEED)
    compiled, exact = CompiledDecoder(architecture, weights, kept), Decoder(architecture, weights, "numpy")
    states = [compiled.start(), exact.start()]
    for id_ in np.arange(TRIED_IDS) * architecture.start // TRIED_IDS:
        found = []
        for i, decoder in enumerate((compiled, exact)):
            logits, states[i] = decoder.step(np.array([id_]), states[i])
            found.append(logits.astype(np.float64))
        error = np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[1])
        if not error <= TOLERANCE[kept]:  # NaN differs too
            cache.forget(run.key)
            raise CharRNNError(
                f"code compiled for {architecture.cell} computes something else than its equations on this processor "
                f"(logits differ by {error:.2g} of their norm)",
                "please report it with what `charrnn env` prints",
            )


def is_prepared(architecture: Architecture, kept: str = "float32") -> bool:
    """Tell whether what `prepare` compiles is on disk. Raises CharRNNError where the equations cannot be compiled."""
    driver = write_driver(architecture, kept)
    drawing = cache.is_kept(DRAW.read_text(encoding="utf-8"), DRAW_SIGNATURE)
    return drawing and cache.is_kept(driver.text, driver.signature)


class Workspace:
    """The memory in which one text is decoded: its state, and room to compute in.

    Compiled code runs without the interpreter's lock, so that several threads decode at once: what it writes to belongs
    to one text alone. vectors: one a layer, in which its state is. addresses: of the room and of every vector.
    """

    def __init__(self, driver: Driver):
        sizes = [-(-driver.half // LINE) * LINE, LINE, *(layout.size for layout in driver.layouts)]
        ends = list(itertools.accumulate(sizes))
        memory = room(ends[-1], np.float32)  # the rounded numbers are as large as these
        memory[:] = 0
        self.vectors = [memory[end - size : end] for size, end in zip(sizes[2:], ends[2:], strict=True)]
        first = memory.ctypes.data
        self.addresses = [first + memory.itemsize * (end - size) for size, end in zip(sizes, ends, strict=True)]


class CompiledDecoder(Decoder):
    """A Decoder whose single rows run compiled; several rows at once go through NumPy's products.

    It holds weights alone: threads may share it.
    """

    is_compiled = True

    def __init__(self, architecture: Architecture, weights: Weights, kept: str = "float32"):
        """kept: the dtype matrices are kept in while decoding: float32, bf16 or int8 with a scale per column.

        Raises CharRNNError where the equations cannot be compiled, and ImportError without Numba.
        """
        super().__init__(architecture, weights, "numpy")
        self.engine, self.kept = "native", kept  # the engine's name in settings and files
        draw, self._driver, self._run, note = prepare(architecture, kept)
        self.notes = (note,) if note else ()

        self._shapes = architecture.states

        # What every call is given; kept here, because compiled code knows addresses alone.
        self._source = weights
        self.table = aligned(self.first)
        self._weights = self.packed(self._driver)
        self._table_at, self._weights_at = address(self.table), [*map(address, self._weights)]
        self.draw_address = draw.address

    def packed(self, driver: Driver, for_rows: bool = False) -> list[NDArray[Any]]:
        """Return the weights as a driver, for rows or not, wants them: layers, head, bias."""
        arrays: list[NDArray[Any]] = []
        for layer, leaf, is_matrix in driver.weights:
            value = self._source[f"layers.{layer}.{leaf.name}"]
            for k in leaf.index:
                value = value[k]
            arrays += pack(value, self.kept, for_rows) if is_matrix else (aligned(value),)
        return [*arrays, *pack(self.head, self.kept, for_rows), aligned(self.bias)]

    @property
    def bytes_per_character(self) -> int:
        """The bytes of weights that are read for a character: all but the table, of which it is a row."""
        return sum(array.nbytes for array in self._weights) + int(self.first[0].nbytes)

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.step`; one row alone runs compiled."""
        if len(ids) > 1:
            return super().step(ids, state)
        work, logits = self.enter(state), np.empty(self._driver.logits(self.architecture.vocabulary), np.float32)
        self._call(work, ids, logits=logits)
        return logits[None, : self.architecture.vocabulary], self._leave(work)

    def read(self, ids: NDArray[Any], state: State) -> State:
        """As `Decoder.read`."""
        work = self.enter(state)
        self._call(work, ids)
        return self._leave(work)

    def logits(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.logits`."""
        work = self.enter(state)
        return self._logits(work, ids), self._leave(work)

    def _logits(self, work: Workspace, ids: NDArray[Any]) -> NDArray[np.float32]:
        outputs = np.empty((len(ids), self.architecture.hidden), np.float32)
        self._call(work, ids, outputs=outputs)
        logits: NDArray[np.float32] = outputs @ self.head + self.bias
        return logits

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""
        work, V = self.enter(primed.state), self.architecture.vocabulary
        settings, numbers, order = np.array(filters(sampling, V)), np.empty(2 * V), np.empty(2 * V, np.int64)
        position = np.zeros(1, np.int64)
        self._call(work, np.array([primed.last]))
        for n in self._chunks():
            drawn, costs = np.empty(n, np.int64), np.empty(n)
            self._call(
                work,
                NOT_GIVEN[:n],
                us=us.random(n),
                filters=settings,
                position=position,
                allowed=tokenizer.allowed,
                following=tokenizer.next_state,
                drawn=drawn,
                numbers=numbers,
                order=order,
                costs=costs,
            )
            yield from zip(drawn.tolist(), costs.tolist(), strict=True)

    def stream_costs(self, ids: NDArray[Any], starts: Starts = documents.NONE) -> NDArray[np.float64]:
        """Nats of every id of a text (N,), read as one stream from its first character.

        starts: the positions of documents, each of which is read from nothing.
        """
        ends = [*starts[(starts > 0) & (starts < len(ids))].tolist(), len(ids)]
        return np.concatenate([self._costs(ids[a:b]) for a, b in zip([0, *ends], ends, strict=False)])

    def _costs(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        work, costs = self.enter(self.start()), [np.empty(0)]
        before = np.concatenate([[self.architecture.start], ids[:-1]])[: len(ids)]
        for i in range(0, len(ids), WINDOW):
            logits = self._logits(work, before[i : i + WINDOW]).astype(np.float64)
            top = logits.max(axis=1)
            target = logits[np.arange(len(logits)), ids[i : i + WINDOW]]
            costs.append(np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - target)
        return np.concatenate(costs)

    @staticmethod
    def _chunks() -> Iterator[int]:
        yield from CHUNKS
        while True:
            yield CHUNKS[-1]

    def _call(
        self,
        work: Workspace,
        ids: NDArray[Any],
        *,
        outputs: NDArray[np.float32] | None = None,
        logits: NDArray[np.float32] | None = None,
        us: NDArray[np.float64] | None = None,
        filters: NDArray[np.float64] | None = None,
        position: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        following: NDArray[np.int16] | None = None,
        drawn: NDArray[np.int64] | None = None,
        numbers: NDArray[np.float64] | None = None,
        order: NDArray[np.int64] | None = None,
        costs: NDArray[np.float64] | None = None,
    ) -> None:
        """Read ids (N,), and draw where there are -1.

        outputs: (N, H), to be filled. logits: room for those after the last id. drawn: (N,), the ids that were read or
        drawn. numbers, order: (2 V,), for the draw to work in.
        """
        ids, V = np.ascontiguousarray(ids, np.int64), self.architecture.vocabulary
        wanted = 1 if outputs is not None else 2 if logits is not None else 0
        logits = np.empty(self._driver.logits(V), np.float32) if logits is None else logits
        drawn, last = np.empty(len(ids), np.int64) if drawn is None else drawn, np.zeros(1, np.int64)
        calls = map(address, (last, ids, outputs, logits, us, position, following, drawn))
        others = map(address, (logits, allowed, filters, numbers, order, costs))
        addresses = [self._table_at, *work.addresses, *self._weights_at, *calls, *others, self.draw_address]
        self._run(*addresses, 1, len(ids), V, 0 if following is None else len(following), wanted)

    def enter(self, state: State) -> Workspace:
        """Fresh memory to decode a text in that is in a state of one row."""
        work = Workspace(self._driver)
        for vector, layout, layer in zip(work.vectors, self._driver.layouts, state, strict=True):
            for name, value in zip(self._cell.state, layer, strict=True):
                self._state(vector, layout, name)[:] = value[0]
        return work

    def _leave(self, work: Workspace) -> State:
        return tuple(
            tuple(self._state(vector, layout, name)[None].copy() for name in self._cell.state)
            for vector, layout in zip(work.vectors, self._driver.layouts, strict=True)
        )

    def _state(self, vector: NDArray[np.float32], layout: Layout, name: str) -> NDArray[np.float32]:
        at, (width,) = layout.places[slot(name)], self._shapes[name]
        return vector[at : at + width]


NativeDecoder = CompiledDecoder  # its name in version 0.1


def address(array: NDArray[Any] | None) -> int:
    """Return where an array's numbers are; 0 for none."""
    return 0 if array is None else array.ctypes.data
