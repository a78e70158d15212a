"""A completion as a value: its text, its cost, why it ended; and as a stream, which knows why when it has ended."""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from charrnn.generate.likeliest import Alternatives
from charrnn.generate.stopping import Drawn, Unit, in_document, until, up_to_end
from charrnn.text import documents

# length: as many characters as were asked for. stop: a stop string came. document: its document ended, as the model
# learned documents. end: the word, line or sentence that was asked for ended.
Ended = Literal["length", "stop", "document", "end"]


@dataclass(frozen=True)
class Completion:
    """A text that goes on from a prime, without it.

    nats: what it cost. ended: why it ended there. costs: nats of every character. alternatives: for every character,
    the likeliest at its place with their probabilities, likeliest first; None where they were not asked for. prime: as
    the model read it. A notebook shows the text with what each of its characters cost.
    """

    text: str
    nats: float
    ended: Ended
    costs: tuple[float, ...] = field(default=(), repr=False)
    alternatives: tuple[tuple[tuple[str, float], ...], ...] | None = field(default=None, repr=False)
    prime: str = field(default="", repr=False, compare=False)

    @property
    def nats_per_char(self) -> float:
        """Cost per character, by which completions are compared; an empty one counts as one character."""
        return self.nats / max(1, len(self.text))

    @property
    def finished(self) -> bool:
        """Whether it came to an end, rather than to as many characters as were asked for."""
        return self.ended != "length"

    def _repr_html_(self) -> str:
        from charrnn.pages import heat  # a notebook alone asks for it

        bits = [cost / math.log(2) for cost in self.costs]
        about = f"{len(self.text):,} characters, {self.nats_per_char / math.log(2):.3f} bits each; ended: {self.ended}"
        return str(heat.shown(self.text, bits, about, self.prime))


class CompletionStream(Iterator[Drawn]):
    """The characters of one completion with their costs, as they are drawn. ended: why, once it has; None before."""

    def __init__(
        self,
        characters: Iterator[Drawn],
        chars: int,
        stop: Sequence[str] = (),
        *,
        prime: str = "",
        document: str = "file",
        alternatives: Alternatives | None = None,
    ) -> None:
        """Take what is drawn after `prime`, with or without end, until it is to stop.

        chars: how many characters at the most. stop: texts before which it stops. document: the kind that the model
        learned, at whose end it stops. alternatives: what notes them.
        """
        self.ended: Ended | None = None
        self._alternatives, self._prime = alternatives, prime
        self._stopped = self._until(characters, chars, stop, prime, document)

    def __next__(self) -> Drawn:
        try:
            return next(self._stopped)
        except StopIteration as end:
            self.ended = self.ended or end.value  # an iterator that has ended may be asked again
            raise

    def up_to(self, unit: Unit) -> "CompletionStream":
        """Stop at the end of the first word, line or sentence too. Returns this stream."""
        self._stopped = self._up_to(self._stopped, unit)
        return self

    def completion(self) -> Completion:
        """Draw to the end. Returns the completion, of what nobody has taken before."""
        drawn = list(self)
        assert self.ended is not None
        costs, nats = tuple(d.nats for d in drawn), 0.0
        for cost in costs:  # in the order of the text, so that whoever adds them up gets the same
            nats += cost
        noted = None if self._alternatives is None else tuple(self._alternatives.of[: len(drawn)])
        return Completion("".join(d.character for d in drawn), nats, self.ended, costs, noted, self._prime)

    @staticmethod
    def _until(
        characters: Iterator[Drawn], chars: int, stop: Sequence[str], prime: str, document: str
    ) -> Generator[Drawn, None, Ended]:
        text, has_ends = prime, document in ("line", "blank")  # the end of a file is nothing that a model could draw
        stopped = until(in_document(characters, prime, document) if has_ends else characters, chars, stop)
        while True:
            try:
                drawn = next(stopped)
            except StopIteration as end:
                if end.value:
                    return "stop"
                at_end = has_ends and len(text) > len(prime) and text.endswith("\n") and documents.ends(text, document)
                return "document" if at_end else "length"
            if has_ends:
                text += drawn.character
            yield drawn

    @staticmethod
    def _up_to(characters: Generator[Drawn, None, Ended], unit: Unit) -> Generator[Drawn, None, Ended]:
        reason: list[Ended] = []

        def told() -> Iterator[Drawn]:
            reason.append((yield from characters))

        return "end" if (yield from up_to_end(told(), unit)) else reason[0]
