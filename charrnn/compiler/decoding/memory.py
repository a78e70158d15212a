"""The memory that texts are decoded in, and the table that says where in it everything is.

Compiled code runs without the interpreter's lock, so that several threads decode at once: what it writes to belongs to
some rows alone.
"""

from collections.abc import Mapping
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler.decoding.driver import LINE, Driver
from charrnn.compiler.decoding.weights import Packed, aligned, pack, room
from charrnn.compiler.passes import scratch_of
from charrnn.compiler.schedule import INDEX, MATRIX, ROUNDED, ROUNDING, SCRATCH, Place, X, Y

if TYPE_CHECKING:
    from charrnn.generate.decoder import Decoder

CACHE_LINE = 64  # bytes
LINE_NUMBERS = 16  # float32
AT_ONCE = 16  # ids that are given, or drawn, in one call for many rows
State = tuple[tuple[NDArray[Any], ...], ...]


class Weights:
    """The weights of a model as its driver's code reads them. arrays: of numbers; table: where each of them is."""

    def __init__(self, driver: Driver, decoder: "Decoder", weights: Mapping[str, NDArray[Any]]) -> None:
        """decoder: of the same weights, on NumPy; it has what is made of those of no layer alone."""
        self.arrays: list[NDArray[Any]] = []
        self.table = np.zeros((driver.first_line(len(driver.steps)), 4), np.int64)
        self.V = len(decoder.bias)

        def keep(line: int, array: NDArray[Any]) -> None:
            self.arrays.append(array)
            self.table[line, 0] = array.ctypes.data

        def part(layer: int, weight: tuple[str, int | None]) -> NDArray[Any]:
            value = weights[f"layers.{layer}.{weight[0]}"]
            return value if weight[1] is None else value[weight[1]]

        for layer, step in enumerate(driver.steps):
            packed: dict[Any, Packed] = {}
            for product in step.products:
                if product.weight not in packed:
                    packed[product.weight] = pack(part(layer, product.weight), driver.form)
                for kind, array in zip(MATRIX, packed[product.weight], strict=False):
                    keep(driver.line(layer, Place.of(kind, product)), array)
            for place in step.buffers:
                if isinstance(place.which, tuple):
                    keep(driver.line(layer, place), aligned(part(layer, place.which).astype(driver.real)))
        self.panels = driver.form.panels(self.V)
        for name, array in zip(("head", "head_scale"), pack(decoder.head, driver.form), strict=False):
            keep(LINE[name], array)
        padding = self.panels * driver.form.panel - self.V
        keep(LINE["bias"], aligned(np.pad(decoder.bias.astype(driver.real), (0, padding))))
        self.table[LINE["head"], 1] = self.panels
        if decoder.tables is not None:
            self.tables = np.ascontiguousarray(decoder.tables, np.float32)
            columns, rows = self.tables.shape[1], decoder.architecture.direct_rows
            self.table[LINE["direct"]] = self.tables.ctypes.data, columns, self.V - columns, rows
        self.first = aligned(decoder.first.astype(driver.real))
        self.table[driver.line(0, X)] = self.first.ctypes.data, 0, self.first.strides[0], 0


class Layout:
    """Where the memory of some rows has what. size: bytes. table: as for memory that begins at 0.

    is_inside: 1 for each number of the table that is an address in that memory. real: the dtype of arithmetic. weights:
    held as long as a table says where they are.
    """

    def __init__(self, driver: Driver, weights: Weights, rows: int) -> None:
        self.rows, self.size, self.real, self.weights = rows, 0, driver.real, weights
        self.table = weights.table.copy()
        self.is_inside = np.zeros_like(self.table)
        form, V = driver.form, weights.V
        for name in ("given", "us", "drawn", "costs"):
            self.table[LINE[name]] = 0, 8, 8 * AT_ONCE, -1
        self.hidden = -(-driver.hidden // LINE_NUMBERS) * LINE_NUMBERS
        self.table[LINE["outputs"]] = 0, self.real.itemsize * self.hidden, 0, -1
        self._place(LINE["logits"], weights.panels * form.panel * self.real.itemsize)
        for name, size in (("position", 8), ("filters", 4 * 8), ("numbers", 2 * V * 8)):
            self._place(LINE[name], size)
        self._place(LINE["past"], 8 * driver.direct)
        self.table[LINE["allowed"], 2], self.table[LINE["following"], 2] = V, 2 * V
        self._place(driver.line(0, INDEX), 8)
        widest = max([driver.hidden, *(sum(e.width for e in p.left) for step in driver.steps for p in step.products)])
        for layer, step in enumerate(driver.steps):
            for place, buffer in step.buffers.items():
                width = form.panels(buffer.width) * form.panel if place.kind == "out" else buffer.width
                if place.kind != "vector" and place != X:
                    row = -(-width // LINE_NUMBERS) * LINE_NUMBERS * self.real.itemsize
                    self._place(driver.line(layer, place), row, 2 if buffer.slots == "state" else 1)
            self._place(driver.line(layer, SCRATCH), scratch_of(step) * self.real.itemsize)
            self._place(driver.line(layer, ROUNDED), -(-widest // LINE_NUMBERS) * LINE_NUMBERS * 2)
            self._place(driver.line(layer, ROUNDING), 4)
            if layer > 0:
                below = driver.line(layer - 1, Y)
                self.table[driver.line(layer, X)] = self.table[below]
                self.is_inside[driver.line(layer, X), 0] = 1

    def _place(self, line: int, row: int, slots: int = 1) -> None:
        """Make room for a buffer. row: its bytes."""
        self.table[line] = self.size, row * self.rows, row, slots - 1
        self.is_inside[line, 0] = 1
        self.size += -(-row * self.rows * slots // CACHE_LINE) * CACHE_LINE


class Workspace:
    """The memory in which some texts are decoded. t: the step that comes next.

    table: for compiled code, and its address. states: of each layer the blocks of all states, each (2, rows, features);
    of the two, t & 1 is the one that step t begins with.
    """

    def __init__(self, driver: Driver, layout: Layout) -> None:
        self._layout, self.t = layout, 0
        self._held: dict[str, NDArray[Any]] = {}
        self._memory = room(layout.size, np.uint8)
        self._memory[:] = 0  # what is beyond a row's numbers must be finite
        self.table = layout.table + layout.is_inside * self._memory.ctypes.data
        self.address = self.table.ctypes.data
        self.states = [
            [
                self.array(driver.line(layer, Place("state", j)), layout.real)[:, :, : leaf.width]
                for j, leaf in enumerate(step.equations.before)
            ]
            for layer, step in enumerate(driver.steps)
        ]
        self._past: NDArray[np.int64] = self.array(LINE["past"], np.int64)[0]
        self._ends = list(accumulate(driver.states))[:-1]
        self._outputs = self.array(driver.line(len(driver.steps) - 1, Y), layout.real)  # what the next logits are of

    def array(self, line: int, dtype: Any) -> NDArray[Any]:
        """Return what is at a line of the table: (slots, rows, numbers)."""
        at, slot, row, mask = self._layout.table[line].tolist()
        numbers = self._memory[at : at + slot * (mask + 1)].view(dtype)
        array: NDArray[Any] = numbers.reshape(mask + 1, self._layout.rows, row // numbers.itemsize)
        return array

    def enter(self, state: State, r: int = 0) -> None:
        """Put row r in a state of one row."""
        for blocks, states in zip(self.states, state[: len(self.states)], strict=True):
            given = np.concatenate([value[0] for value in states])
            for block in blocks:
                block[self.t & 1, r], given = given[: block.shape[2]], given[block.shape[2] :]
        if len(state) > len(self.states):
            self._past[r, :-1] = state[-1][0][0, ::-1]

    def state(self) -> State:
        """Return the state of the first row."""
        layers = [np.concatenate([block[self.t & 1, :1] for block in blocks], axis=1) for blocks in self.states]
        whole: State = tuple(tuple(np.split(layer, self._ends, axis=1)) for layer in layers)
        return (*whole, (self.before(),)) if self._past.shape[1] > 1 else whole

    def before(self) -> NDArray[np.int64]:
        """Return the last N - 1 ids of the first row, (1, N - 1), the newest last; (1, 0) where there are none."""
        return self._past[:1, -2::-1].copy() if self._past.shape[1] else self._past[:1].copy()

    def move(self, r: int, to: int) -> None:
        """Let row `to` go on where row r is."""
        for block in (self._outputs, *chain(*self.states)):
            block[:, to] = block[:, r]
        self._past[to] = self._past[r]

    def point(self, **arrays: NDArray[Any]) -> None:
        """Say where what is given and wanted is, by the names of lines. The arrays are held: code writes to them."""
        self._held.update(arrays)
        for name, array in arrays.items():
            self.table[LINE[name], 0] = array.ctypes.data
