"""A part of a corpus as training reads it: contiguous streams, cut into windows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.text import documents
from charrnn.text.copies import let_go
from charrnn.text.documents import Starts

# Of a part larger than this, no more than so many rows' pages are held at a time.
RELEASED_BYTES, RELEASED_ROWS = 1 << 26, 8


class Streams:
    """B contiguous streams over a part, cut into windows: the batch of step k is a pure function of k.

    Every stream has ceil(N / B) ids and starts at its B-th of the part, so that together they cover all of it; an
    epoch is cut into windows that differ by at most one id, none longer than `window`, nothing dropped. All streams
    end together: the next epoch begins anew.
    """

    def __init__(self, ids: NDArray[Any], batch: int, window: int, start: int, starts: Starts = documents.NONE) -> None:
        """ids: (N,). batch: B, lowered to N where there are fewer ids. start: the id of the start row.

        starts: where documents begin; their first targets are preceded by the start row too.
        """
        self._ids, self._start, self._starts = np.asarray(ids), start, starts
        self._mapped = ids if ids.nbytes > RELEASED_BYTES else None
        self.batch = min(batch, len(ids))
        self._length = -(-len(ids) // self.batch)
        self._begins = np.arange(self.batch) * len(ids) // self.batch
        self.steps_per_epoch = -(-self._length // window)

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Return the inputs (T, B) and targets (T, B) of a step, and whether the streams begin anew with it.

        An input is the id before its target; the part's first target is preceded by the start row.
        """
        index = step % self.steps_per_epoch
        begin = index * self._length // self.steps_per_epoch
        end = (index + 1) * self._length // self.steps_per_epoch
        positions = np.arange(begin, end)[:, None] + self._begins[None, :]
        inputs, targets = np.empty((2, *positions.shape), np.int64)
        together = self.batch if self._mapped is None else RELEASED_ROWS
        for rows in (slice(first, first + together) for first in range(0, self.batch, together)):
            at = positions[:, rows]
            targets[:, rows] = self._ids[at]
            inputs[:, rows] = np.where(at == 0, self._start, self._ids[np.maximum(at - 1, 0)])
            if self._mapped is not None:
                let_go(self._mapped)
        documents.mark(inputs, self._starts, self._begins + begin, self._start)
        return inputs, targets, index == 0

    def cuts(self, inputs: NDArray[np.int64]) -> list[int]:
        """List the time steps at which some row of `inputs`, as from `at`, begins a document and so its state anew."""
        return documents.cuts(inputs, self._start) if len(self._starts) else []
