"""Which rows of tables the last ids choose, for direct connections: see `charrnn.model.direct`.

A hash of the last n ids chooses a row of the n-th table. With c_1 the id just read, c_2 the one before it, and R rows
in each table:

    h_0 = 0,   h_n = (P h_(n-1) + Q (c_n + 1)) mod 2^31,   row of table n: (n - 1) R + floor(h_n R / 2^31)

Whatever stands before a start token counts as start tokens, so a document knows nothing of the one before it. The
arithmetic is of whole numbers below 2^63, the same in NumPy, torch, machine code, ONNX and JavaScript.
"""

from collections.abc import Sequence
from typing import Any

P, Q, BITS = 0x4D2C6DFD, 0x2F0B4C47, 31  # odd and without a pattern
MASK = (1 << BITS) - 1


def rows(ids: Sequence[Any], start: int, R: int) -> list[Any]:
    """Return the row of each table, in the one weight that holds them all.

    ids: the last N, the newest first, int64 arrays or tensors of one shape. start: the id of the start token.
    """
    found: list[Any] = []
    h: Any = 0
    began: Any = None  # where a start token has been met
    for n, id_ in enumerate(ids):
        # A product instead of a choice: it is the same in both libraries.
        c = id_ if began is None else id_ + (start - id_) * began
        began = c == start
        h = (P * h + Q * (c + 1)) & MASK
        found.append(n * R + ((h * R) >> BITS))
    return found


def rows_of_window(ids: Any, before: Any, start: int, R: int, library: Any) -> Any:
    """Return the rows (N, T, B) for a window of ids (T, B).

    before: the last N - 1 ids before the window, (B, N - 1), the newest last. library: numpy or torch, whose arrays
    these are.
    """
    T, older = len(ids), before.shape[1]
    whole = library.concatenate([before.T, ids])
    return library.stack(rows([whole[older - n : older - n + T] for n in range(older + 1)], start, R))


def after_window(ids: Any, before: Any, library: Any) -> Any:
    """Return the last N - 1 ids after a window, (B, N - 1). Arguments are those of `rows_of_window`."""
    return library.concatenate([before.T, ids])[len(ids) :].T
