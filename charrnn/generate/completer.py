"""From a request to completions: the prime is read once, and many rows are drawn side by side."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from charrnn.errors import OptionError
from charrnn.generate.completion import CompletionStream
from charrnn.generate.copying import CopyLimit, TrainingText
from charrnn.generate.decoder import Stepping
from charrnn.generate.likeliest import Alternatives, NextCharacters, likeliest
from charrnn.generate.picking import Picking
from charrnn.generate.request import MOST, Request
from charrnn.generate.sampling import DrawingTogether, Forbidden, Primed, generate, read_prime
from charrnn.text import documents
from charrnn.text.tokenizer import Tokenizer

Ids = Iterator[tuple[int, float]]

ROWS = 64  # completions drawn side by side
ROWS_AT_LEAST = 8  # with fewer, one after the other is as fast


class Choosing(Protocol):
    """The decoders of a model, or of several as one."""

    def chosen(self, characters: int | None = None) -> Stepping:
        """Return the one to use. characters: how many are to be read and drawn; None: that is not known."""


@dataclass(frozen=True)
class Completer:
    """Completes text with one model. clean: what is done to a prime. document: the kind that the model learned."""

    decoders: Choosing
    tokenizer: Tokenizer
    clean: Callable[[str], str]
    document: str

    def one(self, request: Request) -> CompletionStream:
        """Return a completion, without a limit on copies. Raises CharRNNError for settings out of range."""
        noted = None if request.alternatives is None else Alternatives(self.tokenizer, request.alternatives)
        decoder = self.decoders.chosen(request.characters)
        return self._drawn(decoder, request, self._primed(decoder, request.prime), alternatives=noted)

    def several(
        self, request: Request, count: int, first: int, training_text: Callable[[], TrainingText]
    ) -> Iterator[CompletionStream]:
        """Return `count` different completions; alternatives are not noted.

        first: the number of the first one. training_text: gives the text that is not to be copied, where copies are
        limited. Raises CharRNNError for a count below 1.
        """
        if not 1 <= count <= MOST:
            raise OptionError(f"count is {count}", "expected a whole number of 1 or more, below 2^63")
        source = None if request.max_copy is None else training_text()
        decoder = self.decoders.chosen(count * request.characters)
        primed, numbers = self._primed(decoder, request.prime), range(first, first + count)
        rows = self._rows(decoder, request, primed, numbers) if source is None else None

        def completion(n: int) -> CompletionStream:
            if source is None or request.max_copy is None:
                return self._drawn(decoder, request, primed, n, ids=next(rows) if rows else None)
            limit = CopyLimit(source, self.tokenizer, request.max_copy)
            return self._drawn(decoder, request, primed, n, limit.forbidden)

        return map(completion, numbers)

    def likeliest(self, prime: str, k: int) -> NextCharacters:
        """Return the k likeliest characters after a prime with their probabilities, likeliest first.

        Raises CharRNNError for a k below 1.
        """
        if k < 1:
            raise OptionError(f"k is {k}", "expected a whole number of 1 or more")
        decoder = self.decoders.chosen(len(prime) + k)
        primed = self._primed(decoder, prime)
        logits, state = decoder.step(np.array([primed.last]), primed.state)
        return NextCharacters(likeliest(logits[0], state, decoder, self.tokenizer, k))

    def picking(self, prime: str, characters: int) -> Picking:
        """Return a completion that somebody picks. characters: how many about, with those of the prime."""
        decoder = self.decoders.chosen(characters)
        return Picking(decoder, self.tokenizer, self._primed(decoder, prime), self.document)

    def _primed(self, decoder: Stepping, text: str) -> Primed:
        """Return the prime in the model's normal form, read from where its last document begins."""
        text = documents.current(self.clean(text), self.document)
        return read_prime(decoder, self.tokenizer, text)

    def _drawn(
        self,
        decoder: Stepping,
        request: Request,
        primed: Primed,
        n: int = 0,
        forbidden: Forbidden | None = None,
        *,
        ids: Ids | None = None,
        alternatives: Alternatives | None = None,
    ) -> CompletionStream:
        drawn = generate(decoder, self.tokenizer, primed, request.sampling, n, forbidden, ids, alternatives)
        return CompletionStream(
            drawn,
            request.chars,
            request.stop,
            prime=primed.text,
            document=self.document,
            alternatives=alternatives,
        )

    def _rows(self, decoder: Stepping, request: Request, primed: Primed, numbers: range) -> Iterator[Ids] | None:
        """Return the ids of each completion, drawn side by side; None where one after the other is as fast."""
        if isinstance(decoder, DrawingTogether):
            most = decoder.most_rows
            groups = (numbers[i : i + most] for i in range(0, len(numbers), most))
            return (
                ids
                for group in groups
                for ids in decoder.drawn_together(primed, self.tokenizer, request.sampling, group)
            )
        if not decoder.is_compiled or len(numbers) < ROWS_AT_LEAST:
            return None
        from charrnn.generate.compiled import CompiledDecoder
        from charrnn.generate.rows import for_rows

        assert isinstance(decoder, CompiledDecoder)
        together = for_rows(decoder)
        if together is None:
            return None
        groups = (numbers[i : i + ROWS] for i in range(0, len(numbers), ROWS))
        return (ids for group in groups for ids in together.drawn(primed, self.tokenizer, request.sampling, group))
