"""A run on disk: safetensors and JSON alone, whole or absent at every moment.

run.json                        names the files of the last two checkpoints with their SHA-256; renamed into place last
config.json, tokenizer.json     what was asked for and decided; the vocabulary
model-00001200.safetensors      weights after step 1200; never changed once written
training-00001200.safetensors   what resuming needs besides: moments, carried state, running sums
losses-00001200.safetensors     nats of every character of the test part, once the run is complete
metrics.jsonl, timings.jsonl    a line per validation: figures that repeat exactly, and seconds, which do not

Where the newest checkpoint is damaged, the one before it is used, and that is said. A run of weights alone
(`charrnn.training.export`) has run.json, config.json, tokenizer.json and one file of weights.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import files, frames, locks
from charrnn.errors import CharRNNError, command
from charrnn.home import home
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import bundled, learning_curve, metrics, run_json, tensor_files
from charrnn.training.config import Config
from charrnn.training.json_fields import shown
from charrnn.training.metrics import METRICS, TIMINGS
from charrnn.training.run_files import (
    MOST_TOKENIZER_BYTES,
    OWN_FILES,
    RESTORE,
    TENSORS,
    WRITTEN,
    DamageError,
    read_text,
)
from charrnn.training.run_json import Checkpoint
from charrnn.training.tensor_files import Tensors


@dataclass(frozen=True)
class Restored:
    """A checkpoint as it was read whole, to resume from. notes: what to know about it, where it is not the newest."""

    checkpoint: Checkpoint
    weights: Tensors
    training: Tensors
    notes: tuple[str, ...]


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
        return self.name if self.path.parent == home() or self.is_bundled() else str(self.path)

    def is_bundled(self) -> bool:
        """Tell whether the run comes with the package, so that nothing is written or removed there."""
        return bundled.is_bundled(self.path)

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
        files.sweep(self.path, WRITTEN, held=True)
        try:
            self.write_config(config)
            self.write_tokenizer(tokenizer)
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
            if self.path.exists() and any(not _is_left_over(file.name) for file in self.path.iterdir()):
                if self.exists():
                    raise CharRNNError(f"{self.path} exists already", "choose another --name, or use --resume")
                if locks.is_held(self.path):
                    raise CharRNNError(
                        f"{self.path} is in use by {locks.holder(self.path)}", "choose another --name, or wait for that"
                    )
                raise CharRNNError(
                    f"{self.path} exists already and holds no checkpoint",
                    f"choose another --name, or {self.unsaved_hint()}",
                )

    def unsaved_hint(self) -> str:
        """Say what can be done with a run that was begun and never saved."""
        resume, remove = command("train", "--resume", self.typed), command("rm", operands=(self.typed,))
        return f"begin it again: {resume}, or delete it: {remove}"

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
        files.write_atomically(self.path / "config.json", config.to_json().encode())

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write tokenizer.json."""
        files.write_atomically(self.path / "tokenizer.json", tokenizer.to_json().encode())

    def config(self) -> Config:
        """Read config.json. Raises CharRNNError where it was damaged, or leaves something open."""
        path = self.path / "config.json"
        config = Config.from_json(read_text(path), str(path))
        if not re.fullmatch("[0-9a-f]{64}", config.fingerprint):
            raise CharRNNError(f"{path} was changed or damaged: {shown('fingerprint', config.fingerprint)}", RESTORE)
        return config

    def tokenizer(self) -> Tokenizer:
        path = self.path / "tokenizer.json"
        return Tokenizer.from_json(read_text(path, MOST_TOKENIZER_BYTES), str(path))

    def architecture(self) -> Architecture:
        return Architecture.of(self.config(), self.tokenizer().size)

    def about(self) -> dict[str, Any]:
        """Read run.json: step, files, best, result. Raises CharRNNError where it is missing, damaged or newer."""
        return run_json.load(self.path)

    def is_weights_alone(self) -> bool:
        """Tell whether the run holds weights alone, from which no training goes on."""
        return run_json.is_weights_alone(self.about())

    def damage(self) -> str | None:
        """Say what is wrong with the run's small files, or None; its tensors are not read."""
        try:
            self.refuse_unsaved()
            self.about(), self.config(), self.tokenizer(), self.rows(METRICS), self.rows(TIMINGS)
        except CharRNNError as error:
            return error.problem
        return None

    def refuse_unsaved(self) -> None:
        """Raise CharRNNError where no checkpoint was ever saved here, or none can be found."""
        if self.exists():
            return
        self.refuse_lost()
        self.config()
        used = f": in use by {locks.holder(self.path)}" if self.in_use() else ""
        raise CharRNNError(f"{self.path} has no checkpoint yet{used}", "wait for it" if used else self.unsaved_hint())

    def refuse_lost(self) -> None:
        """Raise CharRNNError where run.json is missing though more was saved than one checkpoint.

        Up to one, the first was cut off while it was saved; beginning again loses nothing. What stands in place of
        run.json and is no file is refused as damage.
        """
        if os.path.lexists(self.path / run_json.NAME):
            self.about()
        if len([path for path in self.path.glob("training-*") if TENSORS.fullmatch(path.name)]) > 1:
            raise CharRNNError(f"{self.path} has lost its {run_json.NAME}, which names its checkpoints", RESTORE)

    def in_use(self) -> bool:
        """Tell whether some process trains into it at this moment."""
        return locks.is_held(self.path)

    def weights(self, which: str = "best") -> Tensors:
        """Read the weights that validated best, or the last ones; verified by their SHA-256."""
        return self._weights(self._entry(which))

    def whole_weights(self, architecture: Architecture, which: str = "best") -> tuple[Tensors, str | None]:
        """Read weights as `weights` does; where they are damaged, those of the checkpoint before, with a note of that.

        architecture: of the run; nothing that a file claims to hold is read where it is not that.
        Raises CharRNNError where those are damaged too, or there are none.
        """
        try:
            return self._weights(self._entry(which), architecture), None
        except DamageError as error:
            before = Checkpoint.before(self.about())
            if before is None:
                raise
            try:
                weights = self._weights(before.files[which], architecture)
            except CharRNNError:
                raise error from None
            return weights, _instead(error, before)

    def training_state(self) -> Tensors:
        """Read what resuming needs besides the last weights."""
        return self._load("training")

    def refuse_resuming(self) -> None:
        """Raise CharRNNError where the run has no training state: it holds weights alone."""
        if self.is_weights_alone():
            raise CharRNNError(
                f"{self.typed} holds weights alone, without a training state, and cannot be resumed",
                f"a new run learns on from them: {command('train', '--from', self.typed, operands=('CORPUS',))}",
            )

    def restore(self) -> Restored:
        """Read the newest checkpoint that is whole. Raises CharRNNError where there is none."""
        self.refuse_resuming()
        about = self.about()
        newest, before = Checkpoint.of(about), Checkpoint.before(about)
        try:
            return self._restored(newest)
        except DamageError as error:
            if before is None:
                raise
            try:
                return self._restored(before, _instead(error, before))
            except DamageError:
                raise error from None

    def _restored(self, checkpoint: Checkpoint, *notes: str) -> Restored:
        """Read all files of a checkpoint: one that lacks its best weights would fail at the end of the run."""
        weights = self._weights(checkpoint.files["last"])
        if checkpoint.files["best"] != checkpoint.files["last"]:
            self._weights(checkpoint.files["best"])
        training = tensor_files.load(self.path, checkpoint.files["training"])
        return Restored(checkpoint, weights, training, notes)

    def save(
        self,
        step: int,
        weights: Tensors,
        training: Tensors,
        best: bool,
        facts: Mapping[str, Any],
        earlier_best: tuple[int, Tensors] | None = None,
        follows: Checkpoint | None = None,
    ) -> Checkpoint:
        """Add a checkpoint and make it the run's in one rename; then remove the files that no checkpoint has any more.

        best: whether these weights validated best so far. facts: what else run.json holds (result, scores ...).
        earlier_best: the best weights and their step, where they are others and were not saved yet. follows: the one
        that training came from, where that is not the newest. Returns what was saved.
        """
        about = self.about() if self.exists() else None
        if follows is None and about:
            follows = Checkpoint.of(about)
        last = tensor_files.store(self.path, "last", step, weights)
        if earlier_best is not None:
            best_entry: Mapping[str, str] = tensor_files.store(self.path, "best", *earlier_best)
        else:
            best_entry = last if best or follows is None else follows.files["best"]
        training_entry = tensor_files.store(self.path, "training", step, training)
        if follows is not None and follows.step >= step and about:  # saved again where it is
            follows = Checkpoint.before(about)
        if (self.path / METRICS).exists():
            files.sync(self.path / METRICS)  # early stopping reads it
        new = {"last": last, "best": best_entry, "training": training_entry}
        before = follows.as_dict() if follows else None
        about_new = {"format": run_json.FORMAT, "step": step, "files": new, "before": before, **facts}
        self.rewrite(about_new)
        self._remove(_named(about) - _named(about_new))
        return Checkpoint.of(about_new)

    def sweep(self) -> None:
        """Remove what processes that died left here: unfinished files, and checkpoints that run.json does not name.

        This process holds the run.
        """
        files.sweep(self.path, WRITTEN, held=True)
        named = _named(self.about() if self.exists() else None)
        self._remove({path.name for path in self.path.iterdir() if TENSORS.fullmatch(path.name)} - named)

    def _remove(self, names: set[str]) -> None:
        """Remove files that nothing needs; one that the system will not remove now is swept away later."""
        for name in names:
            with suppress(OSError):
                files.remove(self.path / name)

    def rewrite(self, about: Mapping[str, Any]) -> None:
        """Replace run.json."""
        run_json.store(self.path, about)

    def finish(self, losses: Tensors, facts: Mapping[str, Any]) -> None:
        """Make a saved run complete: `facts` with its result, and the nats of every scored character by part."""
        about = self.about()
        entry = tensor_files.store(self.path, "losses", about["step"], losses)
        self.rewrite({**about, "files": {**about["files"], "losses": entry}, **facts})

    def losses(self) -> Tensors:
        """Return the nats of every character (N,), float32, of the parts that were scored at the end of the run."""
        return self._load("losses")

    def append(self, file: str, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl or timings.jsonl."""
        metrics.append(self.path / file, row)

    def rows(self, file: str, checked: bool = True) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl or timings.jsonl; one that was cut off in the middle, at the end, is none.

        checked: whether every figure must be there, not only the step. Raises CharRNNError where the file is damaged.
        """
        return metrics.rows(self.path / file, checked)

    def history(self) -> list[dict[str, Any]]:
        """Return the figures of every validation: step, characters, seconds, lr, train_nats, val_nats.

        What was not a number is None. A run of weights alone has none.
        """
        seconds = {row["step"]: row["seconds"] for row in self.rows(TIMINGS)}
        return [{**row, "seconds": seconds.get(row["step"])} for row in self.rows(METRICS)]

    def to_pandas(self) -> Any:
        """Return the history as a pandas DataFrame. Raises CharRNNError where pandas is missing."""
        names = ("step", "characters", "seconds", "lr", "train_nats", "val_nats")
        rows = self.history()
        return frames.of_columns({name: [row[name] for row in rows] for name in names})

    def plot(self) -> Any:
        """Draw the learning curve: training and validation, in bits per character, by characters read.

        Returns a matplotlib Figure. Raises CharRNNError where matplotlib is missing, and where nothing was validated.
        """
        return learning_curve.drawn(self.history(), self.name)

    def truncate(self, step: int) -> None:
        """Forget lines past `step`, which a run that was cut off wrote after its last checkpoint."""
        for file in (METRICS, TIMINGS):
            metrics.truncate(self.path / file, step)

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
        """Raise CharRNNError where the run is in use, comes with charrnn, or its folder holds what no run writes."""
        if self.is_bundled():
            raise CharRNNError(f"{self.name} comes with charrnn, and is never deleted", "name a run of your own")
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

    def replace_best(self, step: int, weights: Tensors, facts: Mapping[str, Any]) -> None:
        """Make weights of a step the best of the newest checkpoint. facts: what of run.json changes besides."""
        about = self.about()
        entry = tensor_files.store(self.path, "best", step, weights)
        new = {**about, "files": {**about["files"], "best": entry}, **facts}
        self.rewrite(new)
        self._remove(_named(about) - _named(new))

    def _load(self, kind: str) -> Tensors:
        return tensor_files.load(self.path, self._entry(kind))

    def _entry(self, kind: str) -> Mapping[str, str]:
        about = self.about()
        entries: dict[str, dict[str, str]] = about["files"]
        if kind == "last" and run_json.is_weights_alone(about):
            kind = "best"  # the one that there is
        if kind not in entries:
            raise CharRNNError(f"{self.path} has no file of {kind}", RESTORE)
        return entries[kind]

    def _weights(self, entry: Mapping[str, str], architecture: Architecture | None = None) -> Tensors:
        check = () if architecture is None else (architecture.check_shapes,)
        weights = tensor_files.load(self.path, entry, *check)
        for name, value in weights.items():
            if value.dtype != np.float32:
                path = self.path / entry["name"]
                raise CharRNNError(f"{path}: weight {name} is {value.dtype}, where float32 is expected", RESTORE)
        return weights


def _is_left_over(name: str) -> bool:
    """Tell whether a file is of a process that died before it began a run, or of one that holds the folder now."""
    return name in locks.FILES or files.is_unfinished(name, WRITTEN)


def _named(about: Mapping[str, Any] | None) -> set[str]:
    """List the files of tensors that a run.json names."""
    if about is None:
        return set()
    before = about.get("before")
    return {entry["name"] for side in (about, before) if side for entry in side["files"].values()}


def _instead(error: CharRNNError, before: Checkpoint) -> str:
    """Say which checkpoint is used for a damaged one."""
    return f"{error.problem}; the checkpoint of step {before.step:,}, the one before it, is used"
