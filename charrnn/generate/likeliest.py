"""The likeliest next characters, however many bytes spell them, with the probabilities that scoring gives them.

The probability of a character is the product of the softmaxes along its spelling: of its own id, or of its bytes, the
first here and each of the others after those before it. There is one spelling, the one that encoding gives.
"""

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn import figures, frames
from charrnn.errors import OptionError
from charrnn.generate.decoder import State, Stepping
from charrnn.generate.sampling import costs as costs_of_ids
from charrnn.generate.sampling import diverged
from charrnn.terminal import visible
from charrnn.text.tokenizer import BYTES, Tokenizer

Likeliest = tuple[tuple[str, float], ...]


class NextCharacters(list[tuple[str, float]]):
    """The likeliest next characters with their probabilities, likeliest first; a notebook shows them as bars."""

    @property
    def others(self) -> float:
        """The probability of all other characters together."""
        return max(0.0, 1 - math.fsum(probability for _, probability in self))

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame: character, probability, bits. Raises CharRNNError where pandas is missing."""
        bits = [-math.log2(p) if p > 0 else math.inf for _, p in self]
        return frames.of_columns({"character": [c for c, _ in self], "probability": [p for _, p in self], "bits": bits})

    def plot(self) -> Any:
        """Draw a bar for each character.

        Returns a matplotlib Figure. Raises CharRNNError where matplotlib is missing.
        """

        def draw(figure: Any) -> None:
            axes = figure.subplots()
            names = [*(visible(c) for c, _ in self), "others"]
            shares = [*(p for _, p in self), self.others]
            axes.barh(range(len(names)), shares, color=figures.COLOURS[0])
            axes.set(xlabel="probability of the next character", xlim=(0, 1))
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")

        return figures.drawn(draw, (5.0, 1.0 + 0.25 * len(self)))

    def _repr_html_(self) -> str:
        from charrnn.pages import filling

        rows = [(visible(c), p) for c, p in self]
        return str(filling.fill("next.html", rows=[*rows, ("others", self.others)]))


class _Spelled(NamedTuple):
    """The beginning of a character. nats: its cost; before: the state before its last byte was read."""

    nats: float
    number: int  # of two that cost the same, the one that was found first comes first
    spelled: bytes
    position: int  # in the automaton, after the bytes; 0 is a whole character
    before: State | None


def likeliest(logits: NDArray[Any], state: State, decoder: Stepping, tokenizer: Tokenizer, k: int) -> Likeliest:
    """Return the k likeliest characters with their probabilities, likeliest first.

    logits: (V,) in nats, between characters. state: as `decoder.step` returned it with them; not modified.
    Fewer than k where there are no more characters.
    """
    numbers, found = itertools.count(), list[tuple[str, float]]()
    begun: list[_Spelled] = []

    def note(logits: NDArray[Any], spelled: bytes, nats: float, position: int, state: State) -> None:
        """Put on the heap what may follow: all beginnings, and of whole characters as many as may be asked for."""
        if not np.isfinite(logits).all():
            raise diverged()
        costs = nats + costs_of_ids(logits)
        after = tokenizer.next_state[position]
        whole = np.flatnonzero(after == 0)
        whole = whole[np.argsort(costs[whole], kind="stable")[:k]]
        for id_ in [*whole.tolist(), *np.flatnonzero(after > 0).tolist()]:
            bytes_ = spelled + (bytes([id_]) if id_ < BYTES else tokenizer.characters[id_ - BYTES].encode("utf-8"))
            heapq.heappush(begun, _Spelled(float(costs[id_]), next(numbers), bytes_, int(after[id_]), state))

    note(logits, b"", 0.0, 0, state)
    while begun and len(found) < k:
        best = heapq.heappop(begun)
        if best.position == 0:
            found.append((best.spelled.decode("utf-8"), float(np.exp(-best.nats))))
        else:
            assert best.before is not None
            following, state = decoder.step(np.array([best.spelled[-1]]), best.before)
            note(following[0], best.spelled, best.nats, best.position, state)
    return tuple(found)


@dataclass
class Alternatives:
    """Notes the k likeliest characters at every place of a completion. of: those of each character drawn so far.

    Raises CharRNNError for a k below 1.
    """

    tokenizer: Tokenizer
    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise OptionError(f"alternatives is {self.k}", "expected a whole number of 1 or more")
        self.of: list[Likeliest] = []

    def note(self, logits: NDArray[Any], state: State, decoder: Stepping) -> None:
        """Note what may follow here; as `likeliest`."""
        self.of.append(likeliest(logits, state, decoder, self.tokenizer, self.k))
