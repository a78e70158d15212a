"""Ids to text one at a time, for text that is shown while it is made."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError
from charrnn.text.utf8 import BYTES


class Vocabulary(Protocol):
    """What a stream asks of a tokenizer."""

    @property
    def characters(self) -> tuple[str, ...]:
        """The characters that have an id of their own, in the order of ids."""

    @property
    def next_state(self) -> NDArray[np.int16]:
        """The state after id v in state s, (8, V); -1 where v may not follow."""


class TextStream:
    """The text of ids that come one at a time.

    state: where in `tokenizer.next_state` the stream stands; 0 when no character is half made.
    """

    def __init__(self, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.state = 0
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """The bytes of the character that is half made."""
        return bytes(self._pending)

    def push(self, id_: int) -> str:
        """Return the character that this id ends, or "" while its bytes are incomplete.

        Raises CharRNNError, and stays as it was, for an id that may not follow.
        """
        known = 0 <= id_ < self.tokenizer.next_state.shape[1]
        after = int(self.tokenizer.next_state[self.state, id_]) if known else -1
        if after < 0:
            where = f"after byte 0x{self._pending[-1]:02X}" if self._pending else "between two characters"
            raise CharRNNError(
                f"id {id_} came {where}, where it is expected to begin or continue a character of valid UTF-8",
                "draw only ids that Tokenizer.allowed permits in this state",
            )
        self.state = after
        if id_ >= BYTES:
            return self.tokenizer.characters[id_ - BYTES]
        self._pending.append(id_)
        if after:
            return ""
        character = self._pending.decode("utf-8")
        self._pending.clear()
        return character
