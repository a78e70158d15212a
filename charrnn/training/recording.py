"""What a run in training writes of itself: figures, checkpoints, that it diverged, its result.

All that training writes goes through here, so that this alone has to know when it must not.
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import charrnn
from charrnn.errors import CharRNNError, command
from charrnn.hardware import processor
from charrnn.model.evaluation import Score
from charrnn.training import advice, identity, training_state
from charrnn.training.config import Config
from charrnn.training.forgetting import Before
from charrnn.training.metrics import METRICS, TIMINGS
from charrnn.training.run import Run
from charrnn.training.run_json import Checkpoint
from charrnn.training.tensor_files import Tensors
from charrnn.training.trainer import Trainer


class Record:
    """Writes what happens to a trainer into its run.

    elapsed: tells how many seconds the run has taken. best_val: nats per character of the best validation. diverged:
    the step after which something was not finite. before: scores of a run that learns on from another.
    Raises CharRNNError where a file cannot be written.
    """

    def __init__(self, run: Run, trainer: Trainer, elapsed: Callable[[], float], before: Before | None = None) -> None:
        self.run, self._trainer, self._elapsed, self._before = run, trainer, elapsed, before
        self.best_val = math.inf
        self.diverged: int | None = None
        self._identity = identity.of(trainer.config, trainer.corpus.tokenizer)
        self._saved: Checkpoint | None = None
        self._best: tuple[int, Tensors] | None = None  # not saved yet
        self._has_best = False

    def resume(self, checkpoint: Checkpoint, diverged: int | None) -> None:
        """Go on from a checkpoint, past which the figures have no line. diverged: as run.json says."""
        self.diverged, self._saved = diverged, checkpoint
        self._has_best = any(row["step"] for row in self.run.rows(METRICS, checked=False))
        if self._has_best and checkpoint.best_val_nats is not None:
            self.best_val = checkpoint.best_val_nats

    def plan(self, config: Config) -> None:
        """Write a plan down, before a step depends on it."""
        with self._keeping():
            self.run.write_config(config)

    def figures(self, train_nats: float, val_nats: float | None) -> None:
        """Add the figures of a validation."""
        trainer = self._trainer
        row = {
            "step": trainer.step,
            "characters": trainer.characters,
            "lr": trainer.rate(max(0, trainer.step - 1)),
            "train_nats": _or_null(train_nats),
            "val_nats": _or_null(val_nats),
        }
        with self._keeping():
            self.run.append(METRICS, row)
            self.run.append(TIMINGS, {"step": trainer.step, "seconds": round(self._elapsed(), 3)})

    def rows(self) -> list[dict[str, Any]]:
        """Read the figures of all validations so far."""
        return self.run.rows(METRICS)

    def validated(self, weights: Tensors, best: bool) -> None:
        """Hold weights of a validation after a step, where they are the best so far, until the run is saved.

        They are not copied.
        """
        if best:
            self._best = self._trainer.step, weights
        self._has_best = True

    @property
    def is_behind(self) -> bool:
        """Tell whether something is not saved yet."""
        return self._best is not None or self._saved is None or self._saved.step < self._trainer.step

    def save(self) -> None:
        """Save a checkpoint."""
        trainer, best = self._trainer, self._best
        is_best = best[0] == trainer.step if best else not self._has_best
        weights = best[1] if best and is_best else trainer.weights()
        with self._keeping():
            self._saved = self.run.save(
                trainer.step,
                weights,
                training_state.tensors_of(trainer),
                is_best,
                self._facts(None),
                None if is_best else best,
                self._saved,
            )
        self._best = None
        trainer.hand_out()  # so that ranks on unlike processors are alike again, as they are after resuming

    def mark_diverged(self) -> None:
        """Write down that the run ends here; the last finite checkpoint stays, where there is one."""
        self.diverged = self._trainer.step
        if not self.run.exists():
            self.save()
        diverged = {"diverged": self._trainer.step}
        with self._keeping():
            if self._best is None:
                self.run.rewrite({**self.run.about(), **diverged})
            else:
                self.run.replace_best(*self._best, {**diverged, "best_val_nats": _or_null(self.best_val)})
        self._best = None

    def finish(self, val: Score | None, test: Score | None, more: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the run with its scores; return its result. more: what else the result says."""
        result = {**self._result(val, test), **more}
        # Kept, so that nobody who compares runs has a reason to look at the test part again.
        losses = {"test": test.per_char.astype(np.float32)} if test else {}
        with self._keeping():
            self.run.finish(losses, self._facts(result))
        return result

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Says what cannot be written, and what is kept all the same."""
        try:
            yield
        except OSError as error:
            kept = f"its checkpoint is that of step {self._saved.step:,}" if self._saved else "without a checkpoint"
            resume = f", then {command('train', '--resume', self.run.typed)}" if self._saved else ""
            raise CharRNNError(
                f"{error.filename or self.run.path} cannot be written: {error.strerror or error}; the run ends, {kept}",
                f"make room, or check the disk{resume}",
            ) from error

    def _result(self, val: Score | None, test: Score | None) -> dict[str, Any]:
        trainer, config, seconds = self._trainer, self._trainer.config, self._elapsed()
        return {
            "run": str(self.run.path),
            "cell": config.cell,
            "hidden": config.hidden,
            "layers": config.layers,
            "parameters": trainer.architecture.count(),
            "steps": trainer.step,
            "characters": trainer.characters,
            "seconds": round(seconds, 3),
            "chars_per_s": round(trainer.characters / max(1e-9, seconds)),
            "precision": config.precision,
            "device": config.device,
            "train_nats": next((row["train_nats"] for row in reversed(self.rows())), None),
            "val_nats": val and _or_null(val.nats),
            "val_bits_per_char": val and _or_null(val.bits_per_char),
            "test_nats": test and _or_null(test.nats),
            "test_bits_per_char": test and _or_null(test.bits_per_char),
            "test_perplexity": test and _or_null(test.perplexity),
            "diverged": self.diverged,
            "advice": advice.afterwards(
                self.rows(),
                trainer.step / trainer.streams.steps_per_epoch,
                trainer.characters / trainer.architecture.count_network(),
                config.budget is not None,
            ),
        }

    def _facts(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """Say what run.json holds besides step and files."""
        return {
            "characters": self._trainer.characters,
            "seconds": round(self._elapsed(), 3),
            "best_val_nats": _or_null(self.best_val),
            "parameters": self._trainer.architecture.count(),
            "diverged": self.diverged,
            "made_with": self._made_with(),
            "identity": self._identity,
            **({} if self._before is None else {"before_training": self._before.as_dict()}),
            "result": result,
        }

    def _made_with(self) -> dict[str, Any]:
        """Say what bits and seconds of a run depend on besides its configuration: versions, machine, threads."""
        return {
            "charrnn": charrnn.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "host": platform.node(),
            "processor": processor(),
            "threads": self._trainer.config.threads,
            **({} if self._trainer.ranks is None else {"ranks": self._trainer.ranks.world}),
        }


def _or_null(value: float | None) -> float | None:
    """JSON has no NaN: a figure that is none becomes null."""
    return value if value is not None and math.isfinite(value) else None
