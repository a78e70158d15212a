"""What a run was trained with that nothing may change: resuming it with anything else would be another run."""

import hashlib
from collections.abc import Mapping
from typing import Any

from charrnn import strict_json
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.config import Config

CORPUS, VOCABULARY = "corpus", "vocabulary"
# Settings by which the text and the model differ.
SETTINGS = (
    *("split", "document", "cell", "cell_options", "hidden", "layers"),
    *("embedding", "one_hot", "tie", "residual"),
)


def of(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """Say what a run is trained with, as JSON has it: corpus and vocabulary by their SHA-256, cell and sizes."""
    vocabulary = hashlib.sha256(tokenizer.canonical_json().encode()).hexdigest()
    values = {name: getattr(config, name) for name in SETTINGS}
    known = {CORPUS: config.fingerprint, VOCABULARY: vocabulary, **values}
    same: dict[str, Any] = strict_json.loads(strict_json.dumps(known))
    return same


def differences(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """List how a run's folder differs from what run.json says that it was trained with.

    saved: None in a run of a version that did not write it down. now: as from `of`.
    """
    return [
        f"{name} is {_shown(now.get(name))}, it was {_shown(value)}"
        for name, value in (saved or {}).items()
        if now.get(name) != value
    ]


def _shown(value: Any) -> str:
    text = strict_json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
