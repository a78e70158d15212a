"""A model as it is served: its name, what decodes it, and a prompt as it reads it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError
from charrnn.generate.decoder import Decoder, State
from charrnn.text import documents
from charrnn.text.tokenizer import BYTES, Tokenizer

if TYPE_CHECKING:
    from charrnn.api import TextModel

START = "<|start|>"  # how the start token, of which no text is spelled, is written where one is asked for by its text

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is read. text: in the model's normal form. ids: (N,), of all of it. given: what a row reads: the
    start token, and the ids of the document that the completion belongs to. begun: whether it gave the start token.
    """

    text: str
    ids: Ids
    given: Ids
    begun: bool = False


@dataclass(frozen=True)
class Served:
    """A model with a name. clean: gives a text the form that the model learned. document: the kind that it learned.

    created: when, in seconds since 1970. model: what it was made of, where that is known.
    """

    name: str
    decoder: Decoder
    tokenizer: Tokenizer
    clean: Callable[[str], str]
    document: str = "file"
    created: int = 0
    model: "TextModel | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, model: "TextModel") -> "Served":
        """Serve a loaded run under its name. Raises CharRNNError where nothing can decode it."""
        assert model.run is not None
        created = int(model.run.path.stat().st_mtime) if model.run.path.exists() else int(time.time())
        config = model.config
        return cls(model.run.name, model.decoder(), model.tokenizer, model.clean, config.document, created, model)

    @property
    def start(self) -> int:
        """The id of the start token."""
        return self.decoder.architecture.start

    @cached_property
    def start_state(self) -> State:
        """The state of a row before any character."""
        return self.decoder.start()

    def prompt(self, given: str | tuple[int, ...]) -> Prompt:
        """Return a prompt as the model reads it. Raises CharRNNError for what is no text, and for foreign ids."""
        if isinstance(given, str):
            text, begun = self.clean(given), False
            ids = self.encode(text)
        else:
            begun = given[:1] == (self.start,)
            text = self.decode(given[begun:])  # which refuses what is no id
            ids = np.array(given[begun:], np.int64)
        current = documents.current(text, self.document)
        own = ids if current == text else self.encode(current)
        return Prompt(text, ids, np.concatenate([[self.start], own]), begun)

    def encode(self, text: str) -> Ids:
        """Return the ids of a text. Raises CharRNNError for half a surrogate pair."""
        return self.tokenizer.encode(text).astype(np.int64)

    def decode(self, ids: tuple[int, ...]) -> str:
        """Return the text that ids spell. Raises CharRNNError for ids that are not how this model spells a text."""
        size = self.tokenizer.size
        strange = next((id_ for id_ in ids if not 0 <= id_ < size), None)
        if strange is not None:
            raise CharRNNError(f"id {strange} is none of this model's", f"its ids are 0 to {size - 1}; see /tokenize")
        array = np.array(ids, np.int64)
        text = self.tokenizer.decode(array)
        if not np.array_equal(self.encode(text), array):
            raise CharRNNError("these ids are not how the model spells a text", "take them from /tokenize")
        return text

    def token(self, id_: int) -> str:
        """Return an id as logprobs show it: a character, or bytes:\\xNN for a byte that is not one by itself."""
        if id_ >= BYTES:
            return self.tokenizer.characters[id_ - BYTES] if id_ < self.tokenizer.size else START
        character = chr(id_)
        return character if id_ < 0x80 and character not in self._known else f"bytes:\\x{id_:02x}"

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.tokenizer.characters)
