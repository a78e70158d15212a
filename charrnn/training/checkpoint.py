"""A run on disk: safetensors and JSON alone, whole or absent at every moment.

run.json                        names the files below with their SHA-256; renamed into place last
config.json, tokenizer.json     what was asked for and decided; the vocabulary
model-00001200.safetensors      weights after step 1200; never changed once written
training-00001200.safetensors   what resuming needs besides: moments, carried state, running sums
losses-00001200.safetensors     nats of every character of the test part, once the run is complete
metrics.jsonl, timings.jsonl    a line per validation: figures that repeat exactly, and seconds, which do not
"""

import hashlib
import math
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from charrnn import files, locks, strict_json
from charrnn.errors import CharRNNError, did_you_mean
from charrnn.files import write_atomically
from charrnn.home import home
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.config import Config

Tensors = dict[str, NDArray[Any]]

# What a file of tensors is called, by what it is in run.json. No other name is ever opened, or removed.
TENSOR_FILES = {"last": "model", "best": "model", "training": "training", "losses": "losses"}
OWN_FILES = re.compile(
    r"(run|config|tokenizer)\.json|(metrics|timings)\.jsonl|(model|training|losses)-\d{8,}\.safetensors"
    r"|\.(run|config|tokenizer|metrics|timings|model|training|losses|lock|holder)\b.*"
)
FORMAT = 1  # of run.json
RESTORE = "restore the run from a copy, or remove it with rm"


@dataclass(frozen=True)
class Run:
    """A folder that holds a run, or will."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def typed(self) -> str:
        """The name by which a command line calls this run: in the home folder its name, elsewhere its path."""
        return self.name if self.path.parent == home() else str(self.path)

    def exists(self) -> bool:
        """Tell whether a checkpoint was ever saved here."""
        try:
            return (self.path / "run.json").is_file()
        except (OSError, ValueError):  # too long for a name, or with a character that none has
            return False

    def begun(self) -> bool:
        """Tell whether a run was begun here, saved or not."""
        try:
            return self.exists() or (self.path / "config.json").is_file()
        except (OSError, ValueError):
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process, its folder made if need be; raises CharRNNError where another one holds it."""
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
        with locks.held(self.path):
            yield

    def create(self, config: Config, tokenizer: Tokenizer) -> None:
        """Write the configuration into the run's folder; raises CharRNNError where something else is in it."""
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
        self.refuse_taken()
        try:
            self.write_config(config)
            write_atomically(self.path / "tokenizer.json", tokenizer.to_json().encode())
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Remove what this process, which holds it, began here and never saved, so that the name is free again."""
        for file in list(self.path.iterdir()):
            if OWN_FILES.fullmatch(file.name):
                files.remove(file)
        with suppress(OSError):  # something else is in it
            self.path.rmdir()

    def refuse_taken(self) -> None:
        """Raise CharRNNError where something is kept here already: before a long text is read for nothing."""
        with self._refusing():
            if self.path.exists() and any(file.name not in locks.FILES for file in self.path.iterdir()):
                if self.exists():
                    raise CharRNNError(f"{self.path} exists already", "choose another --name, or use --resume")
                if locks.is_held(self.path):
                    raise CharRNNError(
                        f"{self.path} is in use by {locks.holder(self.path)}", "choose another --name, or wait for that"
                    )
                raise CharRNNError(
                    f"{self.path} exists already and holds no checkpoint",
                    f"choose another --name, or delete that folder: rm {self.typed}",
                )

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Says in words what the system refuses."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CharRNNError(
                f"no run can be kept in {self.path}: {reason}", "choose another --name, --out or CHARRNN_HOME"
            ) from None

    def write_config(self, config: Config) -> None:
        """Write config.json; a plan is written here before any step follows it, so that resuming repeats it."""
        write_atomically(self.path / "config.json", config.to_json().encode())

    def config(self) -> Config:
        """Read config.json. Raises CharRNNError where it was damaged, or leaves something open."""
        path = self.path / "config.json"
        config = Config.from_json(self._text("config.json"), str(path))
        if not re.fullmatch("[0-9a-f]{64}", config.fingerprint):
            raise CharRNNError(f"{path} was changed or damaged: {_shown('fingerprint', config.fingerprint)}", RESTORE)
        return config

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json(self._text("tokenizer.json"), str(self.path / "tokenizer.json"))

    def architecture(self) -> Architecture:
        return Architecture.of(self.config(), self.tokenizer().size)

    def about(self) -> dict[str, Any]:
        """Read run.json: step, files, best, result. Raises CharRNNError where it is missing, damaged or newer."""
        path = self.path / "run.json"
        about = strict_json.loads_object(self._read("run.json"), str(path), RESTORE)
        if type(about.get("format")) is not int or about["format"] != FORMAT:
            raise CharRNNError(
                f"{self.path} has format {about.get('format')!r}, this version reads {FORMAT}", "upgrade"
            )
        problem = _wrong_in(about)
        if problem:
            raise CharRNNError(f"{path} was changed or damaged: {problem}", RESTORE)
        return about

    def damage(self) -> str | None:
        """Say what is wrong with the run's small files, or None; its tensors are not read."""
        try:
            self.about(), self.config(), self.tokenizer(), self.rows("metrics.jsonl"), self.rows("timings.jsonl")
        except CharRNNError as error:
            if not self.exists():
                return "it has no checkpoint" + (f": in use by {locks.holder(self.path)}" if self.in_use() else "")
            return error.problem
        return None

    def in_use(self) -> bool:
        """Tell whether some process trains into it at this moment."""
        return locks.is_held(self.path)

    def weights(self, which: str = "best") -> Tensors:
        """Read the weights that validated best, or the last ones; verified by their SHA-256."""
        weights = self._load(which)
        for name, value in weights.items():
            if value.dtype != np.float32:
                path = self.path / self.about()["files"][which]["name"]
                raise CharRNNError(f"{path}: weight {name} is {value.dtype}, where float32 is expected", RESTORE)
        return weights

    def training_state(self) -> Tensors:
        """Read what resuming needs besides the last weights."""
        return self._load("training")

    def save(self, step: int, weights: Tensors, training: Tensors, best: bool, facts: Mapping[str, Any]) -> None:
        """Add a checkpoint and make it the run's in one rename; then remove the files it replaced.

        best: whether these weights validated best so far. facts: what else run.json holds (result, scores ...).
        """
        old = self.about()["files"] if self.exists() else {}
        last = self._store(f"model-{step:08d}.safetensors", weights)
        new = {
            "last": last,
            "best": last if best or "best" not in old else old["best"],
            "training": self._store(f"training-{step:08d}.safetensors", training),
        }
        self.rewrite({"format": FORMAT, "step": step, "files": new, **facts})
        for name in {entry["name"] for entry in old.values()} - {entry["name"] for entry in new.values()}:
            files.remove(self.path / name)

    def rewrite(self, about: Mapping[str, Any]) -> None:
        """Replace run.json."""
        write_atomically(self.path / "run.json", (strict_json.dumps(about, indent=1) + "\n").encode())

    def finish(self, losses: Tensors, facts: Mapping[str, Any]) -> None:
        """Make a saved run complete: `facts` with its result, and the nats of every scored character by part."""
        about = self.about()
        entry = self._store(f"losses-{about['step']:08d}.safetensors", losses)
        self.rewrite({**about, "files": {**about["files"], "losses": entry}, **facts})

    def losses(self) -> Tensors:
        """Nats of every character (N,), float32, of the parts that were scored when the run was completed."""
        return self._load("losses")

    def append(self, file: str, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl or timings.jsonl."""
        files.append(self.path / file, strict_json.dumps(row) + "\n")

    def rows(self, file: str, checked: bool = True) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl or timings.jsonl; one that was cut off in the middle, at the end, is none.

        checked: whether every figure must be there, not only the step. Raises CharRNNError where the file is damaged.
        """
        if not (self.path / file).exists():
            return []
        whole, _, _ = self._read(file).rpartition(b"\n")
        rows = []
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            source = f"line {number} of {self.path / file}"
            row = strict_json.loads_object(line, source, RESTORE)
            problem = _wrong_row(row, _ROW_FIELDS[file] if checked else {"step": _count})
            if problem:
                raise CharRNNError(f"{source} was changed or damaged: {problem}", RESTORE)
            rows.append(row)
        return rows

    def truncate(self, step: int) -> None:
        """Forget lines past `step`, which a run that was cut off wrote after its last checkpoint."""
        for file in ("metrics.jsonl", "timings.jsonl"):
            kept = [row for row in self.rows(file, checked=False) if row["step"] <= step]
            write_atomically(self.path / file, "".join(strict_json.dumps(row) + "\n" for row in kept).encode())

    def strange_files(self) -> list[str]:
        """List what is in the folder that no run writes: while there is any, the folder is not deleted."""
        return sorted(
            path.name
            for path in self.path.iterdir()
            if path.is_symlink() or not path.is_file() or not OWN_FILES.fullmatch(path.name)
        )

    def remove(self) -> None:
        """Delete the run; raises CharRNNError as `refuse_removal` does."""
        self.refuse_removal()
        try:
            files.remove_folder(self.path)
        except OSError as error:
            problem = f"{error.filename or self.path} cannot be deleted: {error.strerror}"
            raise CharRNNError(problem, "check the rights of the folder") from None

    def refuse_removal(self) -> None:
        """Raise CharRNNError where the run is in use, or its folder holds what no run writes."""
        if strange := self.strange_files():
            raise CharRNNError(
                f"{self.path} holds what no run writes: {', '.join(strange[:5])}",
                "move that, or delete the folder yourself",
            )
        if self.in_use():
            raise CharRNNError(f"{self.path} is in use by {locks.holder(self.path)}", "stop that first")
        if self.path.is_symlink():
            raise CharRNNError(f"{self.path} is a link to {self.path.resolve()}", "name that folder instead")

    def saved_at(self) -> float:
        """Give the time of the last checkpoint, or of the beginning; 0 where the run has just been removed."""
        for name in ("run.json", "config.json"):
            try:
                return (self.path / name).stat().st_mtime
            except OSError:
                continue
        return 0.0

    def _store(self, name: str, tensors: Tensors) -> dict[str, str]:
        data = save_tensors({key: np.ascontiguousarray(value) for key, value in tensors.items()})
        write_atomically(self.path / name, data)
        return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}

    def _load(self, kind: str) -> Tensors:
        files = self.about()["files"]
        if kind not in files:
            raise CharRNNError(f"{self.path} has no file of {kind}", RESTORE)
        entry = files[kind]
        data = self._read(entry["name"])
        path = self.path / entry["name"]
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CharRNNError(f"{path} was changed or damaged", RESTORE)
        try:
            return dict(load_tensors(data))
        except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
            # The hash is right, so that somebody made it so: a dtype that NumPy lacks is one reason.
            raise CharRNNError(f"{path} is not safetensors that charrnn wrote ({error})", RESTORE) from None

    def _text(self, name: str) -> str:
        try:
            return self._read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"{self.path / name} was changed or damaged: byte {error.start} is not UTF-8"
            raise CharRNNError(problem, RESTORE) from None

    def _read(self, name: str) -> bytes:
        """Read one of the run's own files; what only leads elsewhere is none."""
        path = self.path / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise CharRNNError(f"{path} was changed or damaged: it is no file of its own", RESTORE)
            return path.read_bytes()
        except OSError as error:
            raise CharRNNError(
                f"{path} cannot be read: {error.strerror}", "train again, or restore the run from a copy"
            ) from None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_ABOUT_FIELDS: dict[str, Callable[[Any], bool]] = {
    "step": _count,
    "characters": _count,
    "seconds": _number,
    "best_val_nats": _or_null(_number),
    "parameters": _count,
}
_RESULT_TEXTS = ("run", "cell", "precision", "device")
_ROW_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "metrics.jsonl": {
        "step": _count,
        "characters": _count,
        "lr": _or_null(_number),
        "train_nats": _or_null(_number),
        "val_nats": _or_null(_number),
    },
    "timings.jsonl": {"step": _count, "seconds": _number},
}


def _wrong_row(row: Mapping[str, Any], fields: Mapping[str, Callable[[Any], bool]]) -> str | None:
    """Name the first field that is missing or of a wrong kind, or None."""
    return next((_shown(name, row.get(name)) for name, good in fields.items() if not good(row.get(name))), None)


def _shown(name: str, value: Any) -> str:
    return f"{name} is {repr(value)[:60]}"


def _wrong_in(about: Mapping[str, Any]) -> str | None:
    """Name what is wrong in the values of run.json, or None.

    The names of files decide what is opened and what is removed: only those that saving gives are right.
    """
    if wrong := _wrong_row(about, _ABOUT_FIELDS):
        return wrong
    files = about.get("files")
    if not isinstance(files, dict) or not {"last", "best", "training"} <= set(files) <= set(TENSOR_FILES):
        return _shown("files", files)
    for kind, entry in files.items():
        if not isinstance(entry, dict) or set(entry) != {"name", "sha256"}:
            return _shown(f"files.{kind}", entry)
        for field, pattern in (("name", rf"{TENSOR_FILES[kind]}-\d{{8,18}}\.safetensors"), ("sha256", "[0-9a-f]{64}")):
            if not isinstance(entry[field], str) or not re.fullmatch(pattern, entry[field], re.ASCII):
                return _shown(f"files.{kind}.{field}", entry[field])
    if not _or_null(_count)(about.get("diverged")):
        return _shown("diverged", about["diverged"])
    result = about.get("result")
    if result is not None and not isinstance(result, dict):
        return _shown("result", result)
    for name, value in (result or {}).items():
        good = isinstance(value, str) if name in _RESULT_TEXTS else value is None or isinstance(value, bool)
        if not good and not (name not in _RESULT_TEXTS and _number(value)):
            return _shown(f"result.{name}", value)
    return None


def runs() -> list[Run]:
    """List the runs of the home folder that have a checkpoint, damaged ones too, newest first."""
    return [run for run in folders() if run.exists()]


def folders() -> list[Run]:
    """List the folders of the home folder in which a run was ever begun, newest first."""
    try:
        found = [Run(path) for path in home().iterdir()]
    except OSError:  # it is not there, or may not be looked into
        return []
    return sorted((run for run in found if run.begun()), key=Run.saved_at, reverse=True)


def find_run(name: str = "latest") -> Run:
    """Find the run of that name in the home folder, at that path, or the newest for 'latest'.

    Raises CharRNNError where there is none, with the nearest name as a hint, and where it has no checkpoint.
    """
    if name == "latest":
        known = runs()
        if not known:
            raise CharRNNError(f"there is no run in {home()} yet", "train one: python cli.py train")
        return known[0]
    found = find_folder(name)
    if not found.exists():
        raise CharRNNError(f"{found.path}: {found.damage()}", f"train it anew after: rm {found.typed}")
    return found


def find_folder(name: str) -> Run:
    """Find the folder of a run, which may be damaged or have no checkpoint; raises CharRNNError where there is none."""
    for path in (home() / name, Path(name)):
        if Run(path).begun():
            return Run(path)
    known = [run.name for run in folders()]
    raise CharRNNError(
        f"there is no run {name!r}", did_you_mean(name, known) if known else "train one: python cli.py train"
    )
