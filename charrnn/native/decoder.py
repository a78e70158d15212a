"""The equations compiled: next-character logits and whole completions without torch, and without Python in the loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.architecture import Architecture, Weights
from charrnn.completing.decoding import Decoder, State
from charrnn.completing.sampling import Primed, Sampling, filters
from charrnn.native import cache as native_cache
from charrnn.native import driver as native_driver
from charrnn.native.source import Layout
from charrnn.native.trace import slot
from charrnn.native.weights import aligned, pack
from charrnn.texts import documents
from charrnn.texts.documents import Starts
from charrnn.tokenizer import Tokenizer

CHUNKS = (1, 2, 4, 8, 16)  # characters drawn before they are handed out: the first at once, then more and more
WINDOW = 1024
DRAW = Path(__file__).parent / "draw.py"  # compiled once for all models

DRAW_SIGNATURE = ("float32*", "int64", "bool_*", "float64*", "float64", "float64*", "int64*", "float64*")
Scratch = list[NDArray[np.float32]]  # one vector a layer


def prepare(
    architecture: Architecture, kept: str = "float32"
) -> tuple[native_cache.Function, native_driver.Driver, native_cache.Function, str | None]:
    """The compiled draw, the driver and its compiled `run` for models of these sizes, and what to tell the user.

    Compiled once, then loaded from disk. Raises CharRNNError where the equations cannot be compiled, and ImportError
    where they must be and there is no Numba.
    """
    draw, _ = native_cache.load(DRAW.read_text(encoding="utf-8"), "draw", DRAW_SIGNATURE)
    driver = native_driver.write(architecture, kept)
    run, note = native_cache.load(driver.text, "run", driver.signature)
    return draw, driver, run, note


class NativeDecoder(Decoder):
    """A Decoder whose single rows run compiled; several rows at once go through NumPy's products."""

    def __init__(self, architecture: Architecture, weights: Weights, kept: str = "float32"):
        """kept: the dtype matrices are kept in while decoding: float32, bf16 or int8 with a scale per column.

        Raises CharRNNError where the equations cannot be compiled, and ImportError without Numba.
        """
        super().__init__(architecture, weights, "numpy")
        self.engine = "native"
        draw, driver, self._run, note = prepare(architecture, kept)
        self.notes = (note,) if note else ()
        self._layouts, V = driver.layouts, architecture.vocabulary

        # What every call is given; kept here, because compiled code knows addresses alone.
        self._source = weights
        self.table = aligned(self.first)
        self._room = aligned(np.empty(driver.room[0], np.float32)), np.empty(driver.room[1], np.int32)
        self._weights = self.packed(driver, kept)
        self._work = np.empty(2 * V), np.empty(2 * V, np.int64)
        self.draw_address = draw.address

    def packed(self, driver: native_driver.Driver, kept: str, for_rows: bool = False) -> list[NDArray[Any]]:
        """The weights as a driver, for rows or not, wants them: layers, head, bias."""
        arrays: list[NDArray[Any]] = []
        for layer, leaf, is_matrix in driver.weights:
            value = self._source[f"layers.{layer}.{leaf.name}"]
            for k in leaf.index:
                value = value[k]
            arrays += pack(value, kept, for_rows) if is_matrix else (aligned(value),)
        return [*arrays, *pack(self.head, kept, for_rows), aligned(self.bias)]

    @property
    def bytes_per_character(self) -> int:
        """How many bytes of weights are read for a character: all but the table, of which it is a row."""
        return sum(array.nbytes for array in self._weights) + int(self.first[0].nbytes)

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.step`; one row alone runs compiled."""
        if len(ids) > 1:
            return super().step(ids, state)
        scratch, logits = self.enter(state), np.empty(self.architecture.vocabulary, np.float32)
        self._call(scratch, ids, logits=logits)
        return logits[None, :], self._leave(scratch)

    def read(self, ids: NDArray[Any], state: State) -> State:
        """As `Decoder.read`."""
        scratch = self.enter(state)
        self._call(scratch, ids)
        return self._leave(scratch)

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""
        scratch, V = self.enter(primed.state), self.architecture.vocabulary
        settings = np.array(filters(sampling, V))
        position, ids = np.zeros(1, np.int64), np.array([primed.last])
        for n in self._chunks():
            drawn, costs = np.empty(n, np.int64), np.empty(n)
            done = self._call(
                scratch,
                ids,
                us=us.random(n),
                filters=settings,
                position=position,
                allowed=tokenizer.allowed,
                following=tokenizer.next_state,
                drawn=drawn,
                costs=costs,
            )
            yield from zip(drawn[:done].tolist(), costs[:done].tolist(), strict=True)
            if done < n:
                yield -1, 0.0
            ids = ids[:0]

    def stream_costs(self, ids: NDArray[Any], starts: Starts = documents.NONE) -> NDArray[np.float64]:
        """Nats of every id of a text (N,), read as one stream from its first character.

        starts: the positions of documents, each of which is read from nothing.
        """
        ends = [*starts[(starts > 0) & (starts < len(ids))].tolist(), len(ids)]
        return np.concatenate([self._costs(ids[a:b]) for a, b in zip([0, *ends], ends, strict=False)])

    def _costs(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        scratch, costs = self.enter(self.start()), [np.empty(0)]
        before = np.concatenate([[self.architecture.start], ids[:-1]])[: len(ids)]
        for i in range(0, len(ids), WINDOW):
            outputs = np.empty((len(before[i : i + WINDOW]), self.architecture.hidden), np.float32)
            self._call(scratch, before[i : i + WINDOW], outputs=outputs)
            logits = (outputs @ self.head + self.bias).astype(np.float64)
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
        scratch: Scratch,
        ids: NDArray[Any],
        *,
        outputs: NDArray[np.float32] | None = None,
        logits: NDArray[np.float32] | None = None,
        us: NDArray[np.float64] | None = None,
        filters: NDArray[np.float64] | None = None,
        position: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        following: NDArray[np.int8] | None = None,
        drawn: NDArray[np.int64] | None = None,
        costs: NDArray[np.float64] | None = None,
    ) -> int:
        """Read ids (T,), then draw len(us) more; returns how many were drawn before logits were not finite.

        outputs: (T, H), to be filled; else, and if nothing is drawn, logits (V,) are.
        """
        ids, V = np.ascontiguousarray(ids, np.int64), self.architecture.vocabulary
        logits = np.empty(V, np.float32) if logits is None else logits
        calls = [ids, outputs, logits, us, position, following, drawn]
        numbers, order = self._work
        addresses = [*map(address, (self.table, *self._room, *scratch, *self._weights, *calls))]
        others = [*map(address, (logits, allowed, filters, numbers, order, costs)), self.draw_address]
        return self._run(*addresses, *others, len(ids), 0 if us is None else len(us), V, outputs is not None)

    def enter(self, state: State) -> Scratch:
        """Fresh scratch vectors, one a layer, that hold a state of one row."""
        scratch = [aligned(np.zeros(layout.size, np.float32)) for layout in self._layouts]
        for vector, layout, layer in zip(scratch, self._layouts, state, strict=True):
            for name, value in zip(self._cell.state, layer, strict=True):
                self._state(vector, layout, name)[:] = value[0]
        return scratch

    def _leave(self, scratch: Scratch) -> State:
        return tuple(
            tuple(self._state(vector, layout, name)[None].copy() for name in self._cell.state)
            for vector, layout in zip(scratch, self._layouts, strict=True)
        )

    def _state(self, vector: NDArray[np.float32], layout: Layout, name: str) -> NDArray[np.float32]:
        at = layout.places[slot(name)]
        return vector[at : at + self.architecture.hidden]


def address(array: NDArray[Any] | None) -> int:
    """Where an array's numbers are; 0 for none."""
    return 0 if array is None else array.ctypes.data
