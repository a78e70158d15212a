"""A run on disk: safetensors and JSON alone, whole or absent at every moment.

run.json                        names the files below with their SHA-256; renamed into place last
config.json, tokenizer.json     what was asked for and decided; the vocabulary
model-00001200.safetensors      weights after step 1200; never changed once written
training-00001200.safetensors   what resuming needs besides: moments, carried state, running sums
losses-00001200.safetensors     nats of every character of the test part, once the run is complete
metrics.jsonl, timings.jsonl    a line per validation: figures that repeat exactly, and seconds, which do not
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from charrnn.architecture import Architecture
from charrnn.config import FORMAT, Config
from charrnn.errors import CharRNNError, did_you_mean
from charrnn.home import home
from charrnn.tokenizer import Tokenizer

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """A folder that holds a run, or will."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def typed(self) -> str:
        """What a command line calls this run: its name in the home folder, its path elsewhere."""
        return self.name if self.path.parent == home() else str(self.path)

    def exists(self) -> bool:
        """Whether a checkpoint was ever saved here."""
        try:
            return (self.path / "run.json").is_file()
        except (OSError, ValueError):  # too long for a name, or with a character that none has
            return False

    def create(self, config: Config, tokenizer: Tokenizer) -> None:
        """Make the folder with its configuration; raises CharRNNError where something else is in it."""
        with self._refusing():
            self.refuse_taken()
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)
        write_atomically(self.path / "tokenizer.json", tokenizer.to_json().encode())

    def refuse_taken(self) -> None:
        """Raise CharRNNError where something is kept here already: before a long text is read for nothing."""
        with self._refusing():
            if self.path.exists() and any(self.path.iterdir()):
                if self.exists():
                    raise CharRNNError(f"{self.path} exists already", "choose another --name, or go on with --resume")
                raise CharRNNError(
                    f"{self.path} exists already and holds no checkpoint",
                    "choose another --name, or delete that folder unless something is training into it",
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
        return Config.from_json(self._read("config.json").decode(), str(self.path / "config.json"))

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json(self._read("tokenizer.json").decode(), str(self.path / "tokenizer.json"))

    def architecture(self) -> Architecture:
        return architecture(self.config(), self.tokenizer())

    def about(self) -> dict[str, Any]:
        """run.json: step, files, best, result, version. Raises CharRNNError where there is no whole checkpoint."""
        try:
            about = json.loads(self._read("run.json"))
        except ValueError:
            about = None
        if not isinstance(about, dict):
            raise CharRNNError(f"{self.path / 'run.json'} was changed or damaged", "restore the run from a copy")
        if about.get("format") != FORMAT:
            raise CharRNNError(f"{self.path} has format {about.get('format')}, this version reads {FORMAT}", "upgrade")
        return about

    def weights(self, which: str = "best") -> Tensors:
        """The weights that validated best, or the last ones; verified by their SHA-256."""
        return self._load(self.about()["files"][which])

    def training_state(self) -> Tensors:
        """What resuming needs besides the last weights."""
        return self._load(self.about()["files"]["training"])

    def save(self, step: int, weights: Tensors, training: Tensors, best: bool, facts: Mapping[str, Any]) -> None:
        """Add a checkpoint and make it the run's in one rename; then remove the files it replaced.

        best: whether these weights validated best so far. facts: what else run.json holds (result, scores ...).
        """
        old = self.about()["files"] if self.exists() else {}
        last = self._store(f"model-{step:08d}.safetensors", weights)
        files = {
            "last": last,
            "best": last if best or "best" not in old else old["best"],
            "training": self._store(f"training-{step:08d}.safetensors", training),
        }
        self.rewrite({"format": FORMAT, "step": step, "files": files, **facts})
        for name in {entry["name"] for entry in old.values()} - {entry["name"] for entry in files.values()}:
            (self.path / name).unlink(missing_ok=True)

    def rewrite(self, about: Mapping[str, Any]) -> None:
        """Replace run.json."""
        write_atomically(self.path / "run.json", (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())

    def finish(self, losses: Tensors, facts: Mapping[str, Any]) -> None:
        """Make a saved run complete: `facts` with its result, and the nats of every scored character by part."""
        about = self.about()
        entry = self._store(f"losses-{about['step']:08d}.safetensors", losses)
        self.rewrite({**about, "files": {**about["files"], "losses": entry}, **facts})

    def losses(self) -> Tensors:
        """Nats of every character (N,), float32, of the parts that were scored when the run was completed."""
        return self._load(self.about()["files"]["losses"])

    def append(self, file: str, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl or timings.jsonl."""
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def rows(self, file: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl or timings.jsonl."""
        path = self.path / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def truncate(self, step: int) -> None:
        """Forget lines past `step`, which a run that was cut off wrote after its last checkpoint."""
        for file in ("metrics.jsonl", "timings.jsonl"):
            kept = [row for row in self.rows(file) if row["step"] <= step]
            write_atomically(self.path / file, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def remove(self) -> None:
        """Delete the run."""
        shutil.rmtree(self.path)

    def _store(self, name: str, tensors: Tensors) -> dict[str, str]:
        data = save_tensors({key: np.ascontiguousarray(value) for key, value in tensors.items()})
        write_atomically(self.path / name, data)
        return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}

    def _load(self, entry: Mapping[str, str]) -> Tensors:
        data = self._read(entry["name"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CharRNNError(f"{self.path / entry['name']} was changed or damaged", "restore the run from a copy")
        try:
            return dict(load_tensors(data))
        except SafetensorError as error:
            raise CharRNNError(f"{self.path / entry['name']} is not safetensors ({error})", "restore it") from None

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise CharRNNError(
                f"{self.path / name} cannot be read: {error.strerror}", "train again, or restore the run from a copy"
            ) from None


def architecture(config: Config, tokenizer: Tokenizer) -> Architecture:
    """The architecture that a configuration and a vocabulary determine."""
    return Architecture(
        cell=config.cell,
        vocabulary=tokenizer.size,
        hidden=config.hidden,
        layers=config.layers,
        embedding=config.embedding_size,
        tie=config.tie,
        residual=config.residual,
        cell_options=config.cell_options,
    )


def runs() -> list[Run]:
    """The runs of the home folder that have a checkpoint, newest first."""
    found = [Run(path) for path in home().iterdir()] if home().is_dir() else []
    found = [run for run in found if run.exists()]
    return sorted(found, key=lambda run: (run.path / "run.json").stat().st_mtime, reverse=True)


def find_run(name: str = "latest") -> Run:
    """The run of that name in the home folder, at that path, or the newest for 'latest'.

    Raises CharRNNError where there is none, with the nearest name as a hint.
    """
    known = runs()
    if name == "latest":
        if not known:
            raise CharRNNError(f"there is no run in {home()} yet", "train one: python cli.py train")
        return known[0]
    for path in (home() / name, Path(name)):
        if Run(path).exists():
            return Run(path)
    hint = did_you_mean(name, [run.name for run in known]) if known else "train one: python cli.py train"
    raise CharRNNError(f"there is no run {name!r}", hint)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there, whole, even after a power cut."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, path)
