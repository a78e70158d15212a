"""The automaton that keeps ids inside well-formed UTF-8, and inside the one spelling that encoding gives.

Ids 0..255 are the bytes, those above are whole characters. A character that has an id of its own is never spelled in
bytes: each text has one sequence of ids, and what a model says of that sequence is what it says of the text.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES = 256
BYTE_ORDER_MARK = "\ufeff"  # what some programs put at the beginning of a text

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


def next_state(characters: Sequence[str]) -> NDArray[np.int16]:
    """Return the state after id v in state s, (S, V); -1 where v may not follow. State 0 is between characters.

    characters: those with ids of their own, from 256 on; they go from state 0 to state 0. Byte ids follow table 3-7 of
    the Unicode Standard (TRANSITIONS, above), and never end in one of the characters: bytes with which some of them
    begin have states of their own. At most three more ids return to state 0 from anywhere that is reached. Read-only.
    """
    rows = _rows({character.encode("utf-8") for character in characters})
    table = np.full((len(rows), BYTES + len(characters)), -1, np.int16)
    table[:, :BYTES] = rows
    table[0, BYTES:] = 0
    table.flags.writeable = False
    return table


def _rows(known: set[bytes]) -> NDArray[np.int16]:
    """Return the states after bytes, (S, 256), where none of the known characters may be spelled."""
    rows = np.full((STATES, BYTES), -1, np.int16)
    for state, first, last, after in TRANSITIONS:
        rows[state, first : last + 1] = after
    endings: dict[bytes, list[int]] = defaultdict(list)  # what begins some of the known characters -> what would end it
    for spelled in known:
        endings[spelled[:-1]].append(spelled[-1])
        for n in range(1, len(spelled) - 1):
            endings.setdefault(spelled[:n], [])
    endings.setdefault(b"", [])
    numbers = {row.tobytes(): state for state, row in enumerate(rows) if state}  # equal rows are one state
    found, beyond = list(rows), defaultdict[bytes, dict[int, int]](dict)  # from there: byte -> state, -1 for none
    for begun in sorted(endings, key=lambda begun: (-len(begun), begun)):
        state = 0
        for byte in begun:
            state = int(rows[state, byte])
        row = rows[state].copy()
        row[endings[begun]] = -1
        for byte, after in beyond[begun].items():
            row[byte] = after
        if not begun:
            found[0] = row
            continue
        after = -1 if (row < 0).all() else numbers.setdefault(row.tobytes(), len(found))
        if after == len(found):
            found.append(row)
        beyond[begun[:-1]][begun[-1]] = after
    return np.stack(found)


def is_continuation(ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Say which ids are UTF-8 continuation bytes, the ones that begin no character."""
    return (ids >= 0x80) & (ids < 0xC0)
