"""What predicts the next character completes and scores texts: the methods that a model and an ensemble share."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from charrnn.generate.completer import Completer
from charrnn.generate.completion import Completion, CompletionStream
from charrnn.generate.copying import TrainingText
from charrnn.generate.likeliest import NextCharacters
from charrnn.generate.picking import Picking
from charrnn.generate.request import DEFAULT_CHARS, DEFAULT_SEED, DEFAULT_TEMPERATURE, Choices, Filters, Request
from charrnn.generate.sampling import Sampling
from charrnn.progress import Progress, silent
from charrnn.text import documents
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # scoring needs torch and reading texts, completing does not
    from charrnn.model.evaluation import Mode, Score


class LanguageModel(ABC):
    """What gives every next character a probability. tokenizer: its vocabulary."""

    tokenizer: Tokenizer
    _completer: Completer

    def stream(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = DEFAULT_SEED,
        *,
        stop: Sequence[str] = (),
        **filters: Unpack[Filters],
    ) -> Iterator[str]:
        """Yield the characters of a completion as they are drawn. Raises CharRNNError for settings out of range."""
        request = Request(prime, chars, Sampling(temperature, seed=seed, **filters), stop)
        return (character for character, _ in self._completer.one(request))

    def complete(self, prime: str = "", chars: int = DEFAULT_CHARS, **settings: Unpack[Choices]) -> str:
        """Return the text that continues `prime`, without it; settings as in `stream`.

        A model that learned lines or paragraphs as documents ends its completion with the document.
        """
        return "".join(self.stream(prime, chars, **settings))

    def completion(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = DEFAULT_SEED,
        *,
        stop: Sequence[str] = (),
        alternatives: int | None = None,
        **filters: Unpack[Filters],
    ) -> Completion:
        """Complete a text as `complete` does. Returns the text with what it cost and why it ended.

        alternatives: how many of the likeliest characters to give for every place, as `next` gives them; None is none.
        Raises CharRNNError for settings out of range.
        """
        request = Request(prime, chars, Sampling(temperature, seed=seed, **filters), stop, alternatives)
        return self._completer.one(request).completion()

    def completions(
        self,
        prime: str,
        chars: int,
        sampling: Sampling,
        count: int = 1,
        stop: Sequence[str] = (),
        *,
        first: int = 0,
        max_copy: int | None = None,
    ) -> Iterator[CompletionStream]:
        """Return `count` different completions, each an iterator of characters with their cost in nats.

        Once one of them has ended, its `ended` says why; its `completion()` draws it to the end and gives the value.
        first: the number of the first one. max_copy: none has so many characters in a row from the training text.
        """
        request = Request(prime, chars, sampling, stop, max_copy=max_copy)
        return self._completer.several(request, count, first, self.training_text)

    def next(self, prime: str = "", k: int = 5) -> NextCharacters:
        """Return the k likeliest characters after `prime` with their probabilities, likeliest first.

        A character's probability is the one that `score` gives it there: exp(-nats). What the list leaves out has the
        rest, up to 1. It is a list that a notebook shows as bars; `plot()` and `to_pandas()` are for more.
        """
        return self._completer.likeliest(prime, k)

    def picking(self, prime: str = "", chars: int = DEFAULT_CHARS) -> Picking:
        """Return a completion of `prime` that you pick: its `likeliest(k)` says what may follow, `take(c)` goes on.

        chars: how many characters about are to be picked; more may be.
        """
        return self._completer.picking(prime, len(prime) + chars)

    def score(self, text: str, *, adapt: bool = False) -> "Score":
        """Return what each character of a text costs the model, read as one stream from its first character.

        Documents in it, of the kind that the model learned, are each read from nothing. adapt: whether a copy of the
        model goes on learning from what it has read; each character is scored before it is learned.
        """
        from charrnn.text.corpus import encode_whole

        text = self.clean(text)
        ids, starts = encode_whole(text, self._completer.document, self.tokenizer)
        return dataclasses.replace(self.score_ids(ids, "adapt" if adapt else "stream", starts), text=text)

    def score_ids(
        self,
        ids: NDArray[Any],
        mode: "Mode" = "stream",
        starts: Starts = documents.NONE,
        progress: Progress = silent,
    ) -> "Score":
        """Do as `score`, for text that is encoded already.

        mode: 'cold' starts every window of a model's training from nothing, 'adapt' goes on learning. starts: the
        positions at which documents begin, each of which is read from nothing too. progress: called with how much of it
        was scored.
        """
        from charrnn.model import evaluation

        return evaluation.score(self._costs(ids, mode, starts, progress), ids, self.tokenizer)

    @abstractmethod
    def _costs(self, ids: NDArray[Any], mode: "Mode", starts: Starts, progress: Progress) -> NDArray[np.float64]:
        """Return the nats of every id of a text (N,); arguments as of `score_ids`."""

    @abstractmethod
    def adapted(self, text: str) -> Self:
        """Return a copy of the model that has learned from a text, while it read it once as `score` does."""

    @abstractmethod
    def training_text(self) -> TrainingText:
        """Return what was learned, to look for copies; raises CharRNNError where it is gone."""

    @abstractmethod
    def clean(self, text: str) -> str:
        """Return a text with the line ends and in the normal form that the corpus was given."""
