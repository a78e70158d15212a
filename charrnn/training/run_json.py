"""run.json: what it must hold. It names the files of a run's last two checkpoints and is renamed into place last.

That of a run of weights alone names one file, and has format 3.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from charrnn import files, strict_json
from charrnn.errors import CharRNNError
from charrnn.training.json_fields import Check, first_wrong, is_count, is_number, or_null, shown
from charrnn.training.run_files import RESTORE, TENSOR_FILES, read

NAME = "run.json"
FORMAT = 2  # of a run that is trained
WEIGHTS_FORMAT = 3  # of weights alone
NEEDED_FILES = {"last", "best", "training"}
FIELDS: dict[str, Check] = {
    "step": is_count,
    "characters": is_count,
    "seconds": is_number,
    "best_val_nats": or_null(is_number),
}
RESULT_TEXTS = ("run", "cell", "precision", "device", "from", "old_text")


@dataclass(frozen=True)
class Checkpoint:
    """A state of a run that was saved: its fields in run.json. files: an entry each for last, best and training."""

    step: int
    characters: int
    seconds: float
    best_val_nats: float | None
    files: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Checkpoint":
        """Give the newest one that run.json names."""
        files = {kind: about["files"][kind] for kind in sorted(NEEDED_FILES)}
        return cls(**{field: about[field] for field in FIELDS}, files=files)

    @classmethod
    def before(cls, about: Mapping[str, Any]) -> "Checkpoint | None":
        """Give the one before it, or None."""
        return cls.of(about["before"]) if about.get("before") else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as run.json has it."""
        return asdict(self)


def load(folder: Path) -> dict[str, Any]:
    """Read the run.json of a run's folder. Raises CharRNNError where it is missing, damaged or newer."""
    return of_bytes(read(folder / NAME), folder)


def of_bytes(data: bytes, folder: Path) -> dict[str, Any]:
    """Read the content of the run.json of a folder, which errors name, as `load` does."""
    path = folder / NAME
    about = strict_json.loads_object(data, str(path), RESTORE)
    format_ = about.get("format")
    if type(format_) is not int or not 1 <= format_ <= WEIGHTS_FORMAT:
        raise CharRNNError(f"{folder} has format {format_!r}, this version reads 1 to {WEIGHTS_FORMAT}", "upgrade")
    if format_ < 2:  # it named one checkpoint
        about |= {"format": FORMAT, "before": None}
    problem = wrong_in(about)
    if problem:
        raise CharRNNError(f"{path} was changed or damaged: {problem}", RESTORE)
    return {"result": None, **about}


def is_weights_alone(about: Mapping[str, Any]) -> bool:
    """Tell whether run.json is that of weights alone, from which no training goes on."""
    return bool(about["format"] == WEIGHTS_FORMAT)


def store(folder: Path, about: Mapping[str, Any]) -> None:
    """Replace the run.json of a run's folder."""
    files.write_atomically(folder / NAME, (strict_json.dumps(about, indent=1) + "\n").encode())


def wrong_in(about: Mapping[str, Any]) -> str | None:
    """Name what is wrong in the values of run.json, or None.

    The names of files decide what is opened and what is removed: only those that saving gives are right.
    """
    alone = about.get("format") == WEIGHTS_FORMAT
    fields = {name: check for name, check in FIELDS.items() if name != "seconds" or not alone}
    if wrong := first_wrong(about, {**fields, "parameters": is_count}):
        return wrong
    if wrong := _wrong_in_files(about.get("files"), {"best"} if alone else None):
        return wrong
    if wrong := _wrong_in_before(about.get("before")):
        return f"before: {wrong}"
    for name in ("identity", "made_with"):
        if not isinstance(about.get(name), dict | None):
            return shown(name, about[name])
    if not or_null(is_count)(about.get("diverged")):
        return shown("diverged", about["diverged"])
    return _wrong_in_result(about.get("result"))


def _wrong_in_before(before: Any) -> str | None:
    if before is None:
        return None
    if not isinstance(before, dict):
        return shown("it", before)
    return first_wrong(before, FIELDS) or _wrong_in_files(before.get("files"))


def _wrong_in_files(entries: Any, exactly: set[str] | None = None) -> str | None:
    """Name what is wrong in entries of files, or None. exactly: their kinds, where no others may be there."""
    needed, possible = (exactly, exactly) if exactly else (NEEDED_FILES, set(TENSOR_FILES))
    if not isinstance(entries, dict) or not needed <= set(entries) <= possible:
        return shown("files", entries)
    for kind, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"name", "sha256"}:
            return shown(f"files.{kind}", entry)
        for field, pattern in (("name", rf"{TENSOR_FILES[kind]}-\d{{8,18}}\.safetensors"), ("sha256", "[0-9a-f]{64}")):
            if not isinstance(entry[field], str) or not re.fullmatch(pattern, entry[field], re.ASCII):
                return shown(f"files.{kind}.{field}", entry[field])
    return None


def _wrong_in_result(result: Any) -> str | None:
    if result is not None and not isinstance(result, dict):
        return shown("result", result)
    for name, value in (result or {}).items():
        good = isinstance(value, str) if name in RESULT_TEXTS else value is None or isinstance(value, bool)
        good = good or (name == "advice" and isinstance(value, str))
        if not good and not (name not in RESULT_TEXTS and is_number(value)):
            return shown(f"result.{name}", value)
    return None
