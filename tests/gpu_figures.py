"""What the tests on a GPU measure, written down as they run: JSON for programs, Markdown beside it for people."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import charrnn

COLUMNS = {
    "cell": "cell",
    "engine": "engine",
    "loss_difference": "largest difference of a loss, CPU and GPU (nats)",
    "loss_bound": "its bound",
    "float32_error": "largest relative error against float64",
    "float32_bound": "its bound",
    "carried_difference": "one window or two",
    "documents_difference": "documents together or alone",
    "resumed_exactly": "resumed: equal to the last bit",
    "moved_difference": "begun on one, ended on the other (nats)",
    "score_difference": "score, CPU and GPU (nats)",
    "same_completion": "same completion",
    "seconds": "seconds",
}


class Figures:
    """Collects figures by (cell, engine), and others by name. Every addition is on disk when `add` returns."""

    def __init__(self, path: Path, arguments: Sequence[str], device: str) -> None:
        self._path, self._began = path, time.monotonic()
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._facts: dict[str, Any] = {
            "command": " ".join(["python -m pytest", *arguments]),
            "commit": os.environ.get("CHARRNN_COMMIT") or _commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": torch.cuda.get_device_name() if device == "cuda" else f"{device}, standing in for a GPU",
            "machine": f"{platform.platform()}, {os.cpu_count()} threads",
            "python": platform.python_version(),
            "charrnn": charrnn.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if device == "cuda" else None,
        }

    def add(self, cell: str, engine: str, seconds: float, **figures: Any) -> None:
        """Add to the row of a cell and engine; seconds add up."""
        row = self._rows.setdefault((cell, engine), {"cell": cell, "engine": engine, "seconds": 0.0})
        row |= {**figures, "seconds": round(row["seconds"] + seconds, 3)}
        self._write()

    def note(self, **facts: Any) -> None:
        """Add facts that belong to no cell."""
        self._facts |= facts
        self._write()

    def _write(self) -> None:
        self._facts["seconds"] = round(time.monotonic() - self._began, 1)
        rows = [{name: row[name] for name in COLUMNS if name in row} for row in self._rows.values()]
        self._path.write_text(json.dumps({**self._facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        lines = ["# On a GPU", "", *(f"- {name}: {value}" for name, value in self._facts.items()), ""]
        lines += [_line(list(COLUMNS.values())), _line(["---"] * len(COLUMNS))]
        lines += [_line([_cell(row.get(name)) for name in COLUMNS]) for row in rows]
        self._path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.2g}"
    return "" if value is None else str(value)


def _commit() -> str:
    """The commit of the code, with + where files differ from it; 'unknown' outside a repository."""
    root = Path(__file__).parent.parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, check=True, capture_output=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")
