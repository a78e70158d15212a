"""What a completion is asked for: the one place where its settings and their defaults stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from charrnn.errors import OptionError
from charrnn.generate.sampling import Sampling

MOST = 2**63 - 1  # of what is counted: characters, completions
DEFAULT_CHARS = 200
DEFAULT_TEMPERATURE = 0.8
DEFAULT_SEED = 7


class Filters(TypedDict, total=False):
    """Settings that narrow what is drawn from; what is left out, or None, is off.

    top_k: draw from the k likeliest ids alone. top_p: from the likeliest that together reach this probability. min_p:
    from those that are at least so many times as likely as the likeliest.
    """

    top_k: int | None
    top_p: float | None
    min_p: float | None


class Choices(Filters, total=False):
    """All settings of a completion beside its prime and its length: those of `Filters` too.

    temperature: 0 always takes the likeliest character. seed: the same seed gives the same text. stop: texts before
    which the completion ends.
    """

    temperature: float
    seed: int
    stop: Sequence[str]


@dataclass(frozen=True)
class Request:
    """What a completion is asked for, or several that differ in their number alone.

    chars: how many characters at the most. stop: texts before which it ends. alternatives: how many of the likeliest
    characters to note for every place; None is none. max_copy: so many characters in a row never come from the
    training text; None is no limit. Raises CharRNNError for chars below 0, an empty stop text, a max_copy below 2.
    """

    prime: str
    chars: int
    sampling: Sampling
    stop: Sequence[str] = ()
    alternatives: int | None = None
    max_copy: int | None = None

    @property
    def characters(self) -> int:
        """How many characters are read and drawn at the most."""
        return len(self.prime) + self.chars

    def __post_init__(self) -> None:
        if not 0 <= self.chars <= MOST:
            raise OptionError(f"chars is {self.chars}", "expected a whole number of 0 or more, below 2^63")
        if "" in self.stop:
            raise OptionError("a stop string is empty", "give at least one character, or leave it out")
        if self.max_copy is not None and self.max_copy < 2:
            raise OptionError(f"max-copy is {self.max_copy}", "expected a whole number of 2 or more")
