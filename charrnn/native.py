"""The equations compiled: next-character logits and whole completions without torch, and without Python in the loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import native_cache, native_driver
from charrnn.architecture import Architecture, Weights
from charrnn.decoding import Decoder, State
from charrnn.native_trace import Leaf
from charrnn.native_weights import aligned, to_bf16, to_int8
from charrnn.sampling import Primed, Sampling
from charrnn.tokenizer import Tokenizer

CHUNKS = (1, 2, 4, 8, 16)  # characters drawn before they are handed out: the first at once, then more and more
WINDOW = 1024
DRAW = Path(__file__).parent / "native_draw.py"  # compiled once for all models

PACK = {"float32": aligned, "bf16": to_bf16, "int8": to_int8}
Scratch = tuple[NDArray[np.float32], NDArray[np.float32]]


class NativeDecoder(Decoder):
    """A Decoder whose single rows run compiled; several rows at once go through NumPy's products."""

    def __init__(self, architecture: Architecture, weights: Weights, kept: str = "float32"):
        """kept: the dtype matrices are kept in while decoding: float32, bf16 or int8 with a scale per column.

        Raises CharRNNError where the equations cannot be compiled, and ImportError without Numba.
        """
        super().__init__(architecture, weights, "numpy")
        draw, _ = native_cache.load(DRAW.read_text(encoding="utf-8"))
        driver = native_driver.write(architecture, kept, draw=draw.__name__)
        module, note = native_cache.load(driver.text)
        self.notes = (note,) if note else ()
        self.engine = "native"
        self._run, self._driver = module.run, driver
        pack = PACK[kept]

        def leaves(layer: int, wanted: list[Leaf]) -> tuple[Any, ...]:
            packed: list[Any] = []
            for leaf in wanted:
                value = weights[f"layers.{layer}.{leaf.name}"]
                for k in leaf.index:
                    value = value[k]
                packed.append(pack(value) if (leaf.name, leaf.index) in driver.matrices else aligned(value))
            return (*packed, np.zeros(1, np.float32))  # a tuple of nothing has no type

        upper = range(1, architecture.layers)
        self._parameters = (
            leaves(0, driver.first_leaves),
            tuple(leaves(n, driver.leaves) for n in upper) or 0,
            tuple(leaves(n, driver.input_leaves) for n in upper) or 0,
        )
        self._table = aligned(self._first)
        self._packed_head = pack(self._head)
        self._no_outputs = np.empty((0, architecture.hidden), np.float32)
        self._nothing = np.empty(0, np.float64)

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """As `Decoder.step`; one row alone runs compiled."""
        if len(ids) > 1:
            return super().step(ids, state)
        scratch = self._enter(state)
        logits = self._feed(ids, scratch)
        return logits[None, :], self._leave(scratch)

    def read(self, ids: NDArray[Any], state: State) -> State:
        """As `Decoder.read`."""
        scratch = self._enter(state)
        self._feed(ids, scratch)
        return self._leave(scratch)

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""
        scratch, V = self._enter(primed.state), self.architecture.vocabulary
        filters = (
            float(sampling.temperature),
            V if sampling.top_k is None else int(sampling.top_k),
            2.0 if sampling.top_p is None else float(sampling.top_p),
            -1.0 if sampling.min_p is None else float(sampling.min_p),
        )
        tables = np.array(tokenizer.allowed), np.array(tokenizer.next_state)
        ids, automaton, logits = np.array([primed.last], np.int64), 0, np.empty(V, np.float32)
        for n in self._chunks():
            drawn, costs = np.empty(n, np.int64), np.empty(n)
            done, automaton = self._call(
                ids, scratch, self._no_outputs, logits, us.random(n), filters, automaton, *tables, drawn, costs
            )
            yield from zip(drawn[:done].tolist(), costs[:done].tolist(), strict=True)
            if done < n:
                yield -1, 0.0
            ids = ids[:0]

    def stream_costs(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        """Nats of every id of a text (N,), read as one stream from its first character."""
        scratch, costs = self._enter(self.start()), []
        before = np.concatenate([[self.architecture.start], ids[:-1]]).astype(np.int64)
        for i in range(0, len(ids), WINDOW):
            outputs = np.empty((len(before[i : i + WINDOW]), self.architecture.hidden), np.float32)
            self._feed(before[i : i + WINDOW], scratch, outputs)
            logits = (outputs @ self._head + self._bias).astype(np.float64)
            top = logits.max(axis=1)
            target = logits[np.arange(len(logits)), ids[i : i + WINDOW]]
            costs.append(np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - target)
        return np.concatenate([*costs, self._nothing])

    @staticmethod
    def _chunks() -> Iterator[int]:
        yield from CHUNKS
        while True:
            yield CHUNKS[-1]

    def _feed(
        self, ids: NDArray[Any], scratch: Scratch, outputs: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Read ids (T,); returns the logits after them, or fills outputs (T, H) instead."""
        logits = np.empty(self.architecture.vocabulary, np.float32)
        outputs = self._no_outputs if outputs is None else outputs
        none = np.empty((1, 1), np.bool_), np.empty((1, 1), np.int8), np.empty(0, np.int64), self._nothing
        self._call(ids.astype(np.int64), scratch, outputs, logits, self._nothing, (1.0, 0, 2.0, -1.0), 0, *none)
        return logits

    def _call(self, ids: NDArray[np.int64], scratch: Scratch, outputs: Any, *rest: Any) -> tuple[int, int]:
        result: tuple[int, int] = self._run(
            ids, self._table, *scratch, *self._parameters, self._packed_head, self._bias, outputs, *rest
        )
        return result

    def _enter(self, state: State) -> Scratch:
        """Fresh scratch vectors, the first layer's and the others', that hold a state of one row."""
        first, upper = self._driver.first, self._driver.upper
        s0 = aligned(np.zeros(first.size, np.float32))
        s = aligned(np.zeros((max(1, self.architecture.layers - 1), upper.size), np.float32))
        for row, layout, layer in self._rows(s0, s, state):
            for name, value in zip(self._cell.state, layer, strict=True):
                at = layout.places[f"state_{name}"]
                row[at : at + self.architecture.hidden] = value[0]
        return s0, s

    def _leave(self, scratch: Scratch) -> State:
        H = self.architecture.hidden
        places = self._rows(*scratch, range(self.architecture.layers))
        return tuple(
            tuple(
                row[None, layout.places[f"state_{name}"] : layout.places[f"state_{name}"] + H].copy()
                for name in self._cell.state
            )
            for row, layout, _ in places
        )

    def _rows(self, s0: NDArray[Any], s: NDArray[Any], layers: Any) -> Iterator[tuple[NDArray[Any], Any, Any]]:
        for n, layer in enumerate(layers):
            yield (s0, self._driver.first, layer) if n == 0 else (s[n - 1], self._driver.upper, layer)
