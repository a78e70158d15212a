"""What was measured of training on this machine before, in the user's cache folder.

Speeds say what to expect of a run in which everything is decided already, so that it need not be measured again before
the first step. Choices say how fast each engine, precision and number of threads was for a model, and what speed its
sizes followed from, so that the next training of the same shape measures nothing and decides the same. They are kept
only where nothing was in the way. A name says all that a figure depends on: sizes, versions, processor. To measure
anew, remove the files.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from charrnn import files
from charrnn.compiler import cache

MOST = 500  # of a file; the oldest go first


def path() -> Path:
    """Return the file that holds speeds."""
    return cache.folder() / "speeds.json"


def choices_path() -> Path:
    """Return the file that holds choices."""
    return cache.folder() / "choices.json"


def known(what: str) -> float | None:
    """Return the figure for `what`, which names all that it depends on; None where there is none."""
    value = _all(path()).get(what)
    return value if _is_figure(value) else None  # type: ignore[return-value]


def keep(what: str, figure: float) -> None:
    """Keep a figure for other processes. One that cannot be written is measured again."""
    _keep(path(), what, figure)


def known_choice(what: str) -> dict[str, float] | None:
    """Return the figures by name that were measured to decide `what`; None where there are none."""
    value = _all(choices_path()).get(what)
    if not isinstance(value, dict) or not value or not all(map(_is_figure, value.values())):
        return None
    return value


def keep_choice(what: str, figures: Mapping[str, float]) -> None:
    """Keep the figures by name that decide `what`, for other processes."""
    _keep(choices_path(), what, dict(figures))


def _is_figure(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _keep(file: Path, what: str, value: object) -> None:
    values = _all(file)
    values.pop(what, None)
    newest = [*values.items(), (what, value)][-MOST:]
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(file, (json.dumps(dict(newest), indent=1) + "\n").encode())


def _all(file: Path) -> dict[str, object]:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):  # nobody has kept any; or damaged: it is written anew
        return {}
    return values if isinstance(values, dict) else {}
