"""The automaton that keeps ids inside well-formed UTF-8. Ids 0..255 are the bytes, those above are whole characters."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES = 256

# Well-formed UTF-8: the Unicode Standard, table 3-7. State 0 is between characters; states 1, 2 and 3 want that many
# more continuation bytes; states 4 to 7 want a second byte of a narrower range, which is what shuts out overlong forms
# (E0, F0), surrogates (ED) and everything past U+10FFFF (F4). C0, C1 and F5..FF lead nowhere.
STATES = 8
TRANSITIONS = (  # in state, the bytes from..to lead to state
    (0, 0x00, 0x7F, 0),
    (0, 0xC2, 0xDF, 1),
    (0, 0xE0, 0xE0, 4),
    (0, 0xE1, 0xEC, 2),
    (0, 0xED, 0xED, 5),
    (0, 0xEE, 0xEF, 2),
    (0, 0xF0, 0xF0, 6),
    (0, 0xF1, 0xF3, 3),
    (0, 0xF4, 0xF4, 7),
    (1, 0x80, 0xBF, 0),
    (2, 0x80, 0xBF, 1),
    (3, 0x80, 0xBF, 2),
    (4, 0xA0, 0xBF, 1),
    (5, 0x80, 0x9F, 1),
    (6, 0x90, 0xBF, 2),
    (7, 0x80, 0x8F, 2),
)


def next_state(V: int) -> NDArray[np.int8]:
    """Return the state after id v in state s, (8, V); -1 where v may not follow. State 0 is between characters.

    Byte ids follow table 3-7 of the Unicode Standard (TRANSITIONS, above); character ids go from state 0 to
    state 0. At most three more ids return to state 0 from anywhere. Read-only.
    """
    table = np.full((STATES, V), -1, np.int8)
    for state, first, last, after in TRANSITIONS:
        table[state, first : last + 1] = after
    table[0, BYTES:] = 0
    table.flags.writeable = False
    return table


def is_continuation(ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Say which ids are UTF-8 continuation bytes, the ones that begin no character."""
    return (ids >= 0x80) & (ids < 0xC0)
