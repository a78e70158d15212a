"""Speeds of training that were measured on this machine before, in the user's cache folder.

They say what to expect of a run in which everything is decided already, so that it need not be measured again before
the first step. Nothing is decided by them: other work may have slowed the machine while they were measured.
"""

import json
import math
from contextlib import suppress
from pathlib import Path

from charrnn import files
from charrnn.compiler import cache

MOST = 500  # figures; the oldest go first


def path() -> Path:
    """Return the file that holds them."""
    return cache.folder() / "speeds.json"


def known(what: str) -> float | None:
    """Return the figure for `what`, which names all that it depends on; None where there is none."""
    value = _all().get(what)
    return value if isinstance(value, float) and math.isfinite(value) and value > 0 else None


def keep(what: str, figure: float) -> None:
    """Keep a figure for other processes. One that cannot be written is measured again."""
    figures = _all()
    figures.pop(what, None)
    newest = [*figures.items(), (what, figure)][-MOST:]
    with suppress(OSError):
        path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(path(), (json.dumps(dict(newest), indent=1) + "\n").encode())


def _all() -> dict[str, object]:
    try:
        figures = json.loads(path().read_bytes())
    except (OSError, ValueError, RecursionError):  # nobody has kept any; or damaged: it is written anew
        return {}
    return figures if isinstance(figures, dict) else {}
