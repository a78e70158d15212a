"""What a run was trained with that nothing may change: resuming it with anything else would be another run."""

import hashlib
from collections.abc import Mapping
from typing import Any

import charrnn
from charrnn import cells, strict_json
from charrnn.compiler import trace
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.config import Config

CORPUS, VOCABULARY, EQUATIONS = "corpus", "vocabulary", "equations"
# Settings by which the text and the model differ.
SETTINGS = (
    *("split", "document", "cell", "cell_options", "hidden", "layers"),
    *("embedding", "one_hot", "tie", "residual"),
)
DIRECT = ("direct", "direct_rows")  # where there are any


def of(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """Say what a run is trained with, as JSON has it: cell, sizes; corpus, vocabulary, equations by their SHA-256."""
    vocabulary = hashlib.sha256(tokenizer.canonical_json().encode()).hexdigest()
    values = {name: getattr(config, name) for name in (*SETTINGS, *(DIRECT if config.direct else ()))}
    known = {CORPUS: config.fingerprint, VOCABULARY: vocabulary, EQUATIONS: equations(config), **values}
    same: dict[str, Any] = strict_json.loads(strict_json.dumps(known))
    return same


def equations(config: Config) -> str | None:
    """Return the SHA-256 of the equations of a run's cell, as they are now; None where they cannot be recorded."""
    return trace.fingerprint(cells.get(config.cell), dict(config.cell_options))


def differences(about: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List how a run's folder differs from what run.json says that it was trained with.

    about: run.json; a version that wrote nothing of that down differs in nothing. now: as from `of`. Another version of
    charrnn may write the same equations otherwise: that is no difference.
    """
    saved = dict(about.get("identity") or {})
    if not _of_this_version(about):
        saved.pop(EQUATIONS, None)
    return [
        f"{name} is {_shown(now.get(name))}, it was {_shown(value)}"
        for name, value in saved.items()
        if now.get(name) != value
    ]


def note_of_equations(about: Mapping[str, Any], config: Config) -> str | None:
    """Say that the equations of a run's cell are others than it was trained with, or None. about: run.json."""
    saved = (about.get("identity") or {}).get(EQUATIONS)
    if saved is None or saved == equations(config):
        return None
    why = "were changed" if _of_this_version(about) else "are written otherwise in this version"
    return f"the equations of the cell {config.cell} {why} since this run was trained"


def _of_this_version(about: Mapping[str, Any]) -> bool:
    return (about.get("made_with") or {}).get("charrnn") == charrnn.__version__


def _shown(value: Any) -> str:
    text = strict_json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
