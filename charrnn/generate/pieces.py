"""The text of a completion whose ids come some at a time: what of it is sure, when it ends, and why."""

from collections.abc import Sequence

from charrnn.generate.completion import Ended
from charrnn.generate.stopping import StopStrings
from charrnn.text import documents
from charrnn.text.text_stream import TextStream
from charrnn.text.tokenizer import BYTES, Tokenizer


class Pieces:
    """Text made of ids as `CompletionStream` makes it of characters: the same text, and the same reason to end.

    ended: why, once it has; None before. text: all that is sure so far. ids: how many of them were taken, those of a
    stop string too, when it has ended. most: ids that it takes.
    """

    def __init__(
        self, tokenizer: Tokenizer, most: int, stop: Sequence[str] = (), prime: str = "", document: str = "file"
    ) -> None:
        """Begin after a prime, with none drawn.

        most: ids. stop: texts before which it ends. document: the kind that the model learned.
        """
        self._characters, self._tokenizer, self._stream = tokenizer.characters, tokenizer, TextStream(tokenizer)
        self.most, self._search = most, StopStrings(stop)
        self._document = document if document in ("line", "blank") else None
        self._read, self._drawn = prime, ""
        self.ids = 0
        self.ended: Ended | None = None if most else "length"
        self._parts: list[str] = []

    def push(self, ids: Sequence[int]) -> str:
        """Take the next ids; return what is sure now and was not before."""
        ids = ids[: self.most - self.ids]
        self.ids += len(ids)
        piece = self._spelled(ids)
        end = self._end_of_document(piece)
        if end is not None:
            piece = piece[:end]
        self._drawn += piece
        sure = self._search.push(piece)
        if self._search.found is not None:
            self.ended = "stop"
            before = sum(map(len, self._parts)) + len(sure)
            self._count(before + len(self._search.found))
        elif end is not None:
            self.ended = "document"
            self._count(len(self._drawn))
        elif self.ids == self.most:
            self.ended = "length"
        if self.ended in ("document", "length"):
            sure += self._search.held
        self._parts.append(sure)
        return sure

    def goes_on(self, ids: int) -> bool:
        """Tell whether so many more ids cannot end it, whatever they are."""
        return not self._search.strings and self._document is None and self.ids + ids < self.most

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def _spelled(self, ids: Sequence[int]) -> str:
        if not self._stream.state and ids and min(ids) >= BYTES:
            return "".join([self._characters[id_ - BYTES] for id_ in ids])
        return "".join(map(self._stream.push, ids))

    def _end_of_document(self, piece: str) -> int | None:
        """Return where in a piece the document ends, after its last character."""
        if self._document is None:
            return None
        text, at = self._read + self._drawn, piece.find("\n")
        while at >= 0:
            if documents.ends(text + piece[: at + 1], self._document):
                return at + 1
            at = piece.find("\n", at + 1)
        return None

    def _count(self, characters: int) -> None:
        """Count the ids of so many characters that were drawn: a text has one spelling."""
        self.ids = len(self._tokenizer.encode(self._drawn[:characters]))
