"""What a model that learned on from another makes of both texts: scores before and after, and so what it forgot."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from charrnn.errors import CharRNNError
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import PARTS, Corpus, Part, prepare
from charrnn.text.settings import TextSettings
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import final_scores
from charrnn.training.json_fields import Check, first_wrong, is_count, is_number, or_null
from charrnn.training.pretrained import Pretrained
from charrnn.training.run_files import RESTORE

# Of the text that the other run learned: what finds its private copy, and reads it as that run did.
TEXT_SETTINGS = ("corpus", "split", "document", "fingerprint")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


FIELDS: dict[str, Check] = {
    "base": _is_text,
    "new_characters": is_count,
    "val_nats": or_null(is_number),
    "test_nats": or_null(is_number),
    "old_text": or_null(_is_text),
    "old_part": or_null(lambda value: value in PARTS),
    "old_nats": or_null(is_number),
    "old_settings": or_null(lambda value: isinstance(value, dict) and set(value) == set(TEXT_SETTINGS)),
}


@dataclass(frozen=True)
class Before:
    """Scores before the first step, nats per character. base: the run whose weights these were.

    val_nats, test_nats: of the new text. old_text: that of the base, in words, None where its copy is gone. old_part:
    the part of it that is scored. old_settings: what finds it again.
    """

    base: str
    new_characters: int
    val_nats: float | None
    test_nats: float | None
    old_text: str | None = None
    old_part: Part | None = None
    old_nats: float | None = None
    old_settings: dict[str, Any] | None = None

    @classmethod
    def of(cls, model: CharRNN, corpus: Corpus, pretrained: Pretrained, most: int) -> "Before":
        """Score a model that has learned nothing of `corpus` yet. most: ids of a part, of `final_scores.most_ids`."""
        new = {part: _nats(model, corpus, part, most) for part in final_scores.PARTS}
        characters = len(pretrained.new_characters(corpus.tokenizer))
        before = cls(pretrained.name, characters, new["val"], new["test"])
        settings = {name: getattr(pretrained.config, name) for name in TEXT_SETTINGS}
        # Tables that begin anew are forgotten too: then that text is scored by the model that learned it.
        knew = model if pretrained.keeps_tables(corpus.tokenizer) else _as_it_was(pretrained, model)
        old = _old(settings, corpus.tokenizer if knew is model else pretrained.tokenizer)
        if old is None:
            return before
        part: Part = "test" if len(old.parts["test"]) else "val" if len(old.parts["val"]) else "train"
        values = {"old_text": old.text.source, "old_part": part, "old_nats": _nats(knew, old, part, most)}
        return cls(**{**asdict(before), **values, "old_settings": settings})

    @classmethod
    def read(cls, values: Any, source: str) -> "Before | None":
        """Read what run.json has of it; None where the run learned on from no other."""
        if values is None:
            return None
        wrong = first_wrong(values, FIELDS) if isinstance(values, dict) else f"it is {repr(values)[:60]}"
        if wrong or set(values) != set(FIELDS):
            raise CharRNNError(f"{source} was changed or damaged: before_training: {wrong or sorted(values)}", RESTORE)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return it as run.json has it."""
        return asdict(self)

    def after(self, model: CharRNN, tokenizer: Tokenizer, most: int) -> dict[str, Any]:
        """Return what the result of a run says of it, now that training is over. most: as of `of`."""
        old = None if self.old_settings is None else _old(self.old_settings, tokenizer)
        after = None if old is None or self.old_part is None else _nats(model, old, self.old_part, most)
        return {
            "from": self.base,
            "new_characters": self.new_characters,
            "val_nats_before": self.val_nats,
            "test_nats_before": self.test_nats,
            "old_text": self.old_text or "",
            "old_nats_before": self.old_nats,
            "old_nats": after,
        }


def _as_it_was(pretrained: Pretrained, like: CharRNN) -> CharRNN:
    """Return the model of weights to learn on from as they are. like: one whose engine and device it gets."""
    architecture = Architecture.of(pretrained.config, pretrained.tokenizer.size)
    return CharRNN(architecture, pretrained.weights, like.engine).to(like.weights["head.b"].device)


def _old(settings: Mapping[str, Any], tokenizer: Tokenizer) -> Corpus | None:
    """Return the text that the other run learned, in the new run's ids; None where its private copy is gone."""
    try:
        return prepare(TextSettings(**settings), tokenizer, private=True)
    except CharRNNError:
        return None


def _nats(model: CharRNN, corpus: Corpus, part: Part, most: int) -> float | None:
    score = final_scores.score(model, corpus, part, most)
    return score.nats if score is not None and math.isfinite(score.nats) else None
