"""Choose the next character, and the next: filters, the draw, streaming.

The draw, which every decoder obeys, so that equal logits give equal text: the p-th id of completion n is drawn with
u = the p-th number (from 0) of numpy's Generator(Philox(key=(seed, n))).random(); probabilities are the float64
softmax of logits / temperature over the ids that the automaton allows, cut by top-k, top-p and min-p in that order,
renormalised, and inverted in id order. The automaton allows what goes on with the spelling that encoding gives. Every
sum runs from the first id to the last, one after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from charrnn.errors import CharRNNError, OptionError
from charrnn.generate.decoder import State, Stepping
from charrnn.generate.stopping import Drawn
from charrnn.generate.stopping import in_document as in_document
from charrnn.generate.stopping import until as until
from charrnn.text.text_stream import TextStream
from charrnn.text.tokenizer import Tokenizer

Forbidden = Callable[[str, bytes], list[int]]


class Noting(Protocol):
    """What notes the characters that may follow, where one begins."""

    def note(self, logits: NDArray[Any], state: State, decoder: Stepping) -> None:
        """Note them. logits: (V,) in nats. state: as `decoder.step` returned it with them; not modified."""


@dataclass(frozen=True)
class Sampling:
    """The way to choose a character. temperature: 0 is the likeliest. None is off. Raises CharRNNError out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        checks = [
            ("temperature", self.temperature, 0 <= self.temperature < float("inf"), "a number of 0 or more"),
            ("top-k", self.top_k, self.top_k is None or self.top_k >= 1, "a whole number of 1 or more"),
            ("top-p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "a number above 0, up to 1"),
            ("min-p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "a number from 0 to 1"),
            ("seed", self.seed, 0 <= self.seed < 2**64, "a whole number from 0 to 2^64 - 1"),
        ]
        for name, value, good, expected in checks:
            if not good:
                raise OptionError(f"{name} is {value}", f"expected {expected}")


def distribution(logits: NDArray[Any], allowed: NDArray[np.bool_], sampling: Sampling) -> NDArray[np.float64]:
    """Return the probabilities (V,) of the next id, filtered and renormalised. logits: (V,) in nats. allowed: (V,)."""
    masked = np.where(allowed, logits.astype(np.float64), -np.inf)
    if not np.isfinite(masked.max()):
        raise diverged()
    if sampling.temperature == 0:
        p = np.zeros(len(masked))
        p[masked.argmax()] = 1.0
        return p
    with np.errstate(over="ignore"):  # next to no temperature: -inf, whose exp is the right 0
        p = np.exp((masked - masked.max()) / sampling.temperature)
    p /= _sum(p)
    if sampling.top_k is not None or sampling.top_p is not None:
        order = np.argsort(-p, kind="stable")  # ties go to the lower id
        keep = np.ones(len(p), bool)
        if sampling.top_k is not None:
            keep[order[sampling.top_k :]] = False
            p = np.where(keep, p, 0.0)
            p /= _sum(p)
        if sampling.top_p is not None:
            before = np.cumsum(p[order]) - p[order]
            keep[order[before >= sampling.top_p]] = False
            p = np.where(keep, p, 0.0)
            p /= _sum(p)
    if sampling.min_p is not None:
        p = np.where(p >= sampling.min_p * p.max(), p, 0.0)
        p /= _sum(p)
    return p


def filters(sampling: Sampling, V: int) -> tuple[float, float, float, float]:
    """Return temperature, top-k, top-p and min-p as numbers. Off are k of V, p above 1, and min-p below 0."""
    return (
        float(sampling.temperature),
        float(V if sampling.top_k is None else min(sampling.top_k, V)),
        2.0 if sampling.top_p is None else float(sampling.top_p),
        -1.0 if sampling.min_p is None else float(sampling.min_p),
    )


def _sum(p: NDArray[np.float64]) -> float:
    return float(np.cumsum(p)[-1])


def diverged() -> CharRNNError:
    """Return the error of a model whose logits are not finite."""
    return CharRNNError("the model's logits are not finite", "its training diverged: train with a lower --lr")


def draw(p: NDArray[np.float64], u: float) -> int:
    """Return the first id at which the running sum of p (V,) exceeds u in [0, 1)."""
    cumulative = np.cumsum(p)
    # The last sum may round below 1: an id of probability 0 must not be drawn for it.
    return int(min(np.searchsorted(cumulative, u, side="right"), np.flatnonzero(p)[-1]))


def draws(seed: int, completion: int) -> np.random.Generator:
    """Return the source of u for one completion; its `random()` gives them in order of position."""
    return np.random.Generator(np.random.Philox(_Key(seed, completion)))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """A key as NumPy asks for it. Given as `key`, it would come with a seed of the machine's entropy, which is slow."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        """Return the words, which are as many as Philox asks for."""
        assert n_words == len(self._words)
        return self._words


def costs(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the nats (V,) of every id under logits (V,): no temperature, no filter, no automaton."""
    x = logits.astype(np.float64)
    top = x.max()
    nats: NDArray[np.float64] = np.log(np.exp(x - top).sum()) + top - x
    return nats


def cost(logits: NDArray[Any], id_: int) -> float:
    """Return the nats of one id under logits (V,), as `costs`."""
    return float(costs(logits)[id_])


@dataclass(frozen=True)
class Primed:
    """The point where completions begin: a prime's last id, not yet read, and the state before it, shared by all.

    text: what was read.
    """

    last: int
    state: State
    text: str


@runtime_checkable
class Drawing(Protocol):
    """A decoder that draws by itself."""

    def drawn(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Yield ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""


@runtime_checkable
class DrawingTogether(Protocol):
    """A decoder that draws many completions side by side by itself. most_rows: so many at once."""

    most_rows: int

    def drawn_together(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, completions: Sequence[int]
    ) -> list[Iterator[tuple[int, float]]]:
        """Return, for each completion by number, what `Drawing.drawn` yields."""


def read_prime(decoder: Stepping, tokenizer: Tokenizer, text: str) -> Primed:
    """Read the text that is to be completed, from the start token on; it may be empty."""
    ids = np.concatenate([[tokenizer.size], tokenizer.encode(text)])  # V is the start token
    return Primed(int(ids[-1]), decoder.read(ids[:-1], decoder.start()), text)


def generate(
    decoder: Stepping,
    tokenizer: Tokenizer,
    primed: Primed,
    sampling: Sampling,
    completion: int = 0,
    forbidden: Forbidden | None = None,
    ids: Iterator[tuple[int, float]] | None = None,
    alternatives: Noting | None = None,
) -> Iterator[Drawn]:
    """Yield characters after a prime, without end, each with its cost in nats.

    ids: what was drawn already, as `Drawing.drawn` gives it. alternatives: what notes those of every character.

    forbidden(drawn, pending): ids that may not follow the characters drawn and the bytes of an unfinished one; they are
    taken out before the filters, like what UTF-8 does not allow.
    """
    source, stream, nats = draws(sampling.seed, completion), TextStream(tokenizer), 0.0
    if ids is not None:
        pass
    elif isinstance(decoder, Drawing) and forbidden is None and alternatives is None:
        ids = decoder.drawn(primed, tokenizer, sampling, source)
    else:
        ids = drawn_step_by_step(decoder, primed, tokenizer, sampling, source, forbidden, alternatives)
    for id_, cost_ in ids:
        if id_ < 0:
            raise diverged()
        nats += cost_
        if character := stream.push(id_):
            yield Drawn(character, nats)
            nats = 0.0


def drawn_step_by_step(
    decoder: Stepping,
    primed: Primed,
    tokenizer: Tokenizer,
    sampling: Sampling,
    us: np.random.Generator,
    forbidden: Forbidden | None,
    alternatives: Noting | None,
) -> Iterator[tuple[int, float]]:
    """Yield ids as `Drawing.drawn` does, by any decoder. Raises CharRNNError where the logits are not finite."""
    id_, state, stream, text = primed.last, primed.state, TextStream(tokenizer), ""
    while True:
        logits, state = decoder.step(np.array([id_]), state)
        if alternatives is not None and not stream.pending:  # a character begins
            alternatives.note(logits[0], state, decoder)
        allowed = tokenizer.allowed[stream.state]
        if forbidden is not None and (ids := forbidden(text, stream.pending)):
            allowed = allowed.copy()
            allowed[ids] = False
        id_ = draw(distribution(logits[0], allowed, sampling), us.random())
        text += stream.push(id_)
        yield id_, cost(logits[0], id_)
