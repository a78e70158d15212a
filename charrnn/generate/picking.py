"""A completion that somebody picks, one character after the other, knowing how likely each is."""

import math

import numpy as np
from numpy.typing import NDArray

from charrnn.generate.decoder import State, Stepping
from charrnn.generate.likeliest import Likeliest, likeliest
from charrnn.generate.sampling import Primed, cost, diverged
from charrnn.text import documents
from charrnn.text.tokenizer import Tokenizer


class Picking:
    """The place in a text at which the next character is picked.

    text: the prime and what was picked. ended: whether its document has ended, for a model that learned documents.
    """

    def __init__(self, decoder: Stepping, tokenizer: Tokenizer, primed: Primed, document: str) -> None:
        """Begin after a prime. document: the kind that the model learned."""
        self._decoder, self._tokenizer, self._document = decoder, tokenizer, document
        self.text, self.ended = primed.text, False
        self._logits: NDArray[np.float32]
        self._state: State
        self._read(primed.last, primed.state)

    def likeliest(self, k: int) -> Likeliest:
        """Return the k likeliest characters here with their probabilities, likeliest first."""
        return likeliest(self._logits, self._state, self._decoder, self._tokenizer, k)

    def take(self, character: str) -> float:
        """Go on with a character. Returns its probability, which `score` gives it here too."""
        nats = 0.0
        for id_ in self._tokenizer.encode(character).tolist():
            nats += cost(self._logits, id_)
            self._read(id_, self._state)
        self.text += character
        self.ended = documents.ends(self.text, self._document)
        return math.exp(-nats)

    def _read(self, id_: int, state: State) -> None:
        logits, self._state = self._decoder.step(np.array([id_]), state)
        if not np.isfinite(logits).all():
            raise diverged()
        self._logits = logits[0]
