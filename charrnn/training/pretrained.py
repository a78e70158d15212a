"""Learning on from the weights of another run: what must agree, and where characters are that it did not know.

The vocabulary of the new run is that of the other one and the characters of the new text. Weights of characters that
both have are taken over; those of new characters start as docs/results/fine-tuning.md found best.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError, OptionError
from charrnn.text.corpus import Corpus
from charrnn.text.tokenizer import BYTES, Tokenizer
from charrnn.training import tensor_files
from charrnn.training.config import Config
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.start import initial_weights

# Settings that are those of the weights: with others, they would be weights of another model.
OF_THE_WEIGHTS = (
    *("tokenizer", "normalize", "cell", "cell_options", "hidden", "layers"),
    *("embedding", "one_hot", "tie", "residual", "direct", "direct_rows"),
)
TAKEN_OVER = (*OF_THE_WEIGHTS, "newline")  # where nothing else is asked for

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to learn on from, with what belongs to them. name: of their run. sha256: of their file."""

    name: str
    config: Config
    tokenizer: Tokenizer
    weights: Weights
    sha256: str
    note: str | None = None

    @classmethod
    def of(cls, run: Run) -> "Pretrained":
        """Read the best weights of a run, whole or of weights alone. Raises CharRNNError where they are damaged."""
        weights, note = run.whole_weights(run.architecture())
        return cls(run.name, run.config(), run.tokenizer(), weights, tensor_files.digest(weights), note)

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """Return what is asked of a run that learns on from here.

        given: settings by name, those that were given alone. Raises OptionError, with all differences, where these
        weights cannot have them.
        """
        asked = Settings.of(given)
        if "corpus" not in given:
            raise OptionError("no text is named to learn on with", "give a CORPUS")
        own = {name: getattr(self.config, name) for name in TAKEN_OVER}
        fitting = {**own, "embedding": (self.config.embedding, self.config.embedding_size)}
        differences = []
        for name in OF_THE_WEIGHTS:
            value = getattr(asked, name)
            good = value in fitting[name] if name == "embedding" else value == fitting[name]
            if name in given and not good:
                differences.append(f"{name} is {value}, that of {self.name} is {self._shown(name)}")
        if asked.uniform not in (None, self.config.uniform):
            differences.append(f"uniform is {asked.uniform}, and weights start as those of {self.name}")
        if differences:
            raise OptionError("; ".join(differences), "leave that out, or train a new model without --from")
        taken = {name: value for name, value in own.items() if name not in given or name in OF_THE_WEIGHTS}
        return Settings.of({**given, **taken, "uniform": None, "pretrained": self.sha256})

    def _shown(self, name: str) -> Any:
        return self.config.embedding_size if name == "embedding" else getattr(self.config, name)

    def new_characters(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """List the characters of a vocabulary that these weights do not know."""
        known = frozenset(self.tokenizer.characters)
        return tuple(character for character in tokenizer.characters if character not in known)

    def start(self, config: Config, corpus: Corpus) -> dict[str, NDArray[np.float32]]:
        """Return the weights that the new run starts from: these, with places for new characters."""
        fresh, places = initial_weights(config, corpus), self._places(corpus.tokenizer)
        kept = {name: value for name, value in self.weights.items() if name != "direct" or self._keeps_ids(places)}
        own = {
            name: aligned(value, fresh[name], places, BYTES if name == "direct" else 0) for name, value in kept.items()
        }
        return {name: own.get(name, value) for name, value in fresh.items()}

    def keeps_tables(self, tokenizer: Tokenizer) -> bool:
        """Tell whether a run of this vocabulary begins with all that these weights hold, tables included."""
        return "direct" not in self.weights or self._keeps_ids(self._places(tokenizer))

    def notes(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Say what the user should know before such weights learn a text of a vocabulary."""
        notes = () if self.note is None else (self.note,)
        if self.keeps_tables(tokenizer):
            return notes
        told = "the tables of direct connections begin anew: with the new characters, those known before have other ids"
        return (*notes, told)

    @staticmethod
    def _keeps_ids(places: NDArray[np.int64]) -> bool:
        """Tell whether ids stay what they are, by which rows are found; that of the start token may be another."""
        return bool((places[:-1] == np.arange(len(places) - 1)).all())

    def _places(self, tokenizer: Tokenizer) -> NDArray[np.int64]:
        """Return the new id of every id of these weights and of their start token: (V + 1,)."""
        id_of = {character: i for i, character in enumerate(tokenizer.characters, BYTES)}
        known = [id_of[character] for character in self.tokenizer.characters]
        return np.array([*range(BYTES), *known, tokenizer.size])


def aligned(
    old: NDArray[np.float32], fresh: NDArray[np.float32], places: NDArray[np.int64], first: int = 0
) -> NDArray[np.float32]:
    """Put weights where their characters are in a larger vocabulary; what is new there stays as in `fresh`.

    An axis that has grown is one of ids from `first` on, with or without the start token.
    """
    axes = [
        np.arange(n) if n == fresh.shape[axis] else places[first : first + n] - first  # the start token is the last
        for axis, n in enumerate(old.shape)
    ]
    result = fresh.copy()
    result[np.ix_(*axes)] = old
    return result


def refuse_without(settings: Settings, pretrained: Pretrained | None) -> None:
    """Raise CharRNNError where settings are those of a run that learned on from weights which are not given."""
    given = pretrained and pretrained.sha256
    if settings.pretrained != given:
        raise CharRNNError(
            f"this configuration learned on from weights whose SHA-256 is {settings.pretrained}",
            "begin a new run with --from and the run of those weights",
        )
