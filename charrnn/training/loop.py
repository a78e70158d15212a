"""The one training loop: stateful truncated back-propagation through time, as a generator of events.

The batch, the rate and the randomness of step k are pure functions of (configuration, its plan, k), and whatever was
decided by timing is written into the configuration before a step depends on it: a run can be repeated from its
config.json to the last byte, and one that was cut off goes on as if it had not been.
"""

import dataclasses
import hashlib
import math
import platform
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import charrnn
from charrnn.engines import cuda
from charrnn.errors import CharRNNError
from charrnn.model import evaluation
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN, State, detach
from charrnn.text import corpus as data
from charrnn.text.copies import Progress, silent
from charrnn.text.corpus import Corpus, Streams, prepare
from charrnn.training import optimizers, resolve, sizing
from charrnn.training.config import Config
from charrnn.training.events import (
    Diverged,
    Event,
    Finished,
    Planned,
    Started,
    Stepped,
    Stopped,
    StoppedEarly,
    Validated,
)
from charrnn.training.pacing import Pace
from charrnn.training.run import Run
from charrnn.training.runs import open_run as open_run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine, processor
from charrnn.training.tensor_files import Tensors

# A budget is turned into steps after this share of it was spent in steps, and corrected at validations.
TIMED_SHARE = 0.02
# A GPU is waited for once in so many steps, to know how long they take, when nothing depends on it.
WAIT_STEPS = 16
# How far above its best validation must be for early stopping: less is the noise of a high learning rate.
PAST_BEST_NATS = 0.02
DIVERGED_HINT = "train a new run with a lower --lr"
# A part longer than this is scored in parallel streams at the end of training; `eval` always reads it as one.
EXACT_IDS = 200_000
# And of one longer than this, so many ids spread evenly over it: a gigabyte would take longer to score than to learn.
SAMPLED_IDS = 1_000_000


def new_run(
    settings: Settings,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
) -> Generator[Event, None, None]:
    """Train from the beginning into an empty folder, yielding events.

    stop() is asked after every step: when it is true the run is saved, and `resume` continues it. began: a reading
    of time.monotonic() from which the budget counts, now when None. progress: called while the corpus is prepared.
    Where it ends before anything was saved, the folder is removed.
    Raises CharRNNError for a corpus that cannot be read or is too short, and a folder that is taken.
    """
    began = time.monotonic() if began is None else began
    run.refuse_taken()
    corpus = prepare(settings, progress=progress)
    settings = resolve.with_length(settings)
    machine = Machine(settings, corpus)
    config = resolve.resolve(settings, corpus, machine)
    trainer = Trainer(run, config, corpus, began, machine)
    with run.held():
        run.create(config, corpus.tokenizer)
        try:
            with threads_of(config):
                yield from trainer.train(stop)
        finally:
            if not run.exists():
                run.abandon()


def resume(
    run: Run,
    steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
    device: str | None = None,
) -> Generator[Event, None, None]:
    """Go on with a run exactly where its last checkpoint is; `steps` lengthens (or shortens) it to that many in all.

    device: 'cpu' or 'cuda'; that of the run, where it is here, when None. On another one the last bits differ.
    Raises CharRNNError where the run is complete, damaged, in use or diverged, its corpus is gone, or there is no
    such device.
    """
    began = time.monotonic() if began is None else began
    run.about()  # before anything is locked: it must be a run
    with run.held():
        yield from _resumed(run, steps, stop, began, progress, device)


def _resumed(
    run: Run,
    steps: int | None,
    stop: Callable[[], bool],
    began: float,
    progress: Progress,
    device: str | None,
) -> Iterator[Event]:
    about, config = run.about(), run.config()
    if about.get("diverged") is not None and (steps is not None or about["result"]):
        raise CharRNNError(f"{run.name} diverged at step {about['diverged']}, and would again", DIVERGED_HINT)
    step = about["step"]
    if steps is not None:
        if steps <= step:
            raise CharRNNError(f"{run.name} has {step} steps already", f"give --steps more than {step}")
        config = dataclasses.replace(config, steps=steps, epochs=None, budget=None)
    elif about.get("result"):
        raise CharRNNError(
            f"{run.name} is complete after {step} steps", "give --steps for how many it shall have in all"
        )
    config, moved = resolve.moved(config, device)
    corpus = prepare(config, run.tokenizer(), progress=progress)
    if steps is not None:
        config = resolve.planned(config, corpus, since=step, steps=steps)
    trainer = Trainer(run, config, corpus, began, Machine(config, corpus))
    trainer.notes = moved
    trainer.restore(about, run.weights("last"), run.training_state())
    if trainer.diverged is None:
        run.truncate(step)
    run.write_config(config)
    with threads_of(config):
        yield from trainer.train(stop)


class _AskedError(Exception):
    """The run was asked to stop while it was scored; it was saved before."""


class Trainer:
    """The state of a run in memory: weights, moments, carried state, running sums, and how far it is.

    notes: what the user should know about how it came here.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, run: Run, config: Config, corpus: Corpus, began: float, machine: Machine) -> None:
        self.run, self.config, self.corpus, self.machine = run, config, corpus, machine
        self.architecture = Architecture.of(config, corpus.tokenizer.size)
        self.device = torch.device(config.device)
        weights = self.architecture.initial(config.seed, config.uniform)
        self.model = CharRNN(self.architecture, weights, config.engine, config.dropout).to(self.device)
        self.optimizer = optimizers.make_optimizer(config, self.model.weights)
        ids, starts = corpus.ids("train"), corpus.starts["train"]
        self.streams = Streams(ids, config.batch, config.window, self.architecture.start, starts)
        self.step = 0
        self.characters = 0
        self._earlier_seconds = 0.0
        self.best_val = math.inf
        self.diverged: int | None = None  # the step after which something was not finite
        self.pace = Pace(began, partial(cuda.wait, config.device) if config.device == "cuda" else None)
        self.state: State = self.model.start(self.streams.batch)
        self._stream_seconds_per_id: float | None = None
        self._forget_sums()

    @property
    def steps(self) -> int | None:
        """The length of the run as planned now."""
        return self.config.steps_in_all

    def train(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Train to the end of the plan, validating and saving on the way."""
        with self.pace.aside():
            yield self._started()
        budget = None if self.config.plan else self.config.budget  # what was planned once is not timed again
        if self.step == 0:
            yield self._validate()
        stopped_early = self._had_stopped_early()
        while not stopped_early and self.diverged is None and (self.steps is None or self.step < self.steps):
            loss = self.update()
            self.pace.stepped(1 if self.steps is None else WAIT_STEPS)
            yield Stepped(self.step, self.steps, loss, self.seconds, self._chars_per_s())
            if budget and self.steps is None and self._timed_enough(budget):
                yield self._plan(budget)
            if self._validation_is_due():
                yield self._validate()
                if self.diverged is not None:
                    break
                if stopped_early := self._stops_early():
                    yield StoppedEarly(self.step)
                    break
                if budget and self.step != self.steps:
                    yield self._plan(budget)
            if stop() and self.step != self.steps:
                if not self._is_finite():
                    self._mark_diverged()
                    break
                self._save(best=False)
                yield Stopped(self.run, self.step)
                return
        if self.diverged is not None:
            yield Diverged(self.run, self.diverged)
        try:
            with self._asking(stop):
                finished = self._finish()
        except _AskedError:
            yield Stopped(self.run, self.step)
            return
        yield finished

    def _started(self) -> Started:
        return Started(
            self.run,
            self.config,
            self.architecture,
            self.corpus,
            self.step,
            sizing.chars_per_s(self.architecture, self.machine.products_per_s),
            sizing.memory_bytes(self.config, self.architecture),
            self._notes(),
        )

    @property
    def seconds(self) -> float:
        """The time that the run has taken, over all its resumptions."""
        return self._earlier_seconds + self.pace.seconds()

    def update(self) -> Tensor:
        """One step of truncated back-propagation through time. Returns the loss, nats per id, on the device."""
        inputs, targets, begins = self.streams.at(self.step)
        if begins:
            self.state = self.model.start(self.streams.batch)
        characters = self.corpus.tokenizer.characters_in(targets.ravel())
        optimizers.set_rate(self.optimizer, self._rate(self.step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            ids = torch.from_numpy(inputs).to(self.device)
            logits, state = self.model(ids, self.state, self._dropout(), self.streams.cuts(inputs))
        self.state = detach(state)  # truncate: gradients stop at the window
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), torch.from_numpy(targets).to(self.device).flatten()
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizers.clip_gradients(self.config, self.model.weights)
        self.optimizer.step()
        self.step += 1
        self.characters += characters
        self._nats += loss.detach().double() * targets.size
        self._characters += characters
        return loss.detach()

    def restore(self, about: dict[str, Any], weights: Tensors, training: Tensors) -> None:
        """Become what was saved. Raises CharRNNError where that is not of this configuration."""
        self.architecture.check(weights)
        self._check(training)
        tensors = {name: torch.from_numpy(value) for name, value in training.items()}
        with torch.no_grad():
            for name, weight in self.model.weights.items():
                weight.copy_(torch.from_numpy(weights[name]))
        optimizers.restore_moments(
            self.optimizer,
            self.model.weights,
            {name.removeprefix("moments/"): t for name, t in tensors.items() if name.startswith("moments/")},
        )
        names = list(self.architecture.definition.state)
        self.state = tuple(
            tuple(tensors[f"state/{i}/{name}"].to(self.device) for name in names)
            for i in range(self.architecture.layers)
        )
        self._nats = tensors["sums/nats"].to(self.device)
        self._characters = int(tensors["sums/characters"])
        self.step, self.characters, self._earlier_seconds = about["step"], about["characters"], about["seconds"]
        self.best_val = math.inf if about["best_val_nats"] is None else about["best_val_nats"]
        self.diverged = about.get("diverged")

    def _check(self, training: Tensors) -> None:
        """Raise CharRNNError unless a training state has exactly the names, shapes and dtypes it must have."""
        one = (1,)  # a single number is stored as a row of one
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            "sums/nats": (one, "float64"),
            "sums/characters": (one, "int64"),
        }
        for i in range(self.architecture.layers):
            for name in self.architecture.definition.state:
                expected[f"state/{i}/{name}"] = ((self.streams.batch, self.architecture.hidden), "float32")
        for name, shape in optimizers.moment_shapes(self.config, self.model.weights).items():
            expected[f"moments/{name}"] = (shape or one, "float32")
        given = {name: (tuple(value.shape), str(value.dtype)) for name, value in training.items()}
        for name in [*expected, *given]:
            if expected.get(name) != given.get(name):
                shown = [" ".join(map(str, side[name])) if name in side else "none" for side in (given, expected)]
                raise CharRNNError(
                    f"the training state of {self.run.name} has {name}: {shown[0]}; its config.json wants {shown[1]}",
                    "they are of different runs, or one was changed: restore both from a copy, or train a new run",
                )

    def weights(self) -> Tensors:
        """Copy the weights to the CPU."""
        return {name: w.detach().cpu().numpy().copy() for name, w in self.model.weights.items()}

    def _validation_is_due(self) -> bool:
        """At the end, and every so many steps after the length was decided: the same when it is repeated."""
        plan = self.config.plan
        spaced = bool(plan) and self.step > plan[0].since and self.step % plan[-1].validate_every == 0
        return self.step == self.steps or spaced

    def _stops_early(self) -> bool:
        """Tell whether validation is clearly past its best: `patience` ago, and PAST_BEST_NATS lower than now."""
        patience = self.config.patience
        if not patience or self.step == self.steps or len(self.corpus.parts["val"]) == 0:
            return False
        values = [row["val_nats"] for row in self.run.rows("metrics.jsonl")]
        values = [math.inf if value is None else value for value in values]  # null: the run has diverged
        best = min(values)
        return len(values) > values.index(best) + patience and values[-1] >= best + PAST_BEST_NATS

    def _had_stopped_early(self) -> bool:
        """Tell whether the run had stopped early when it was saved, and was cut off while it was scored."""
        rows = self.run.rows("metrics.jsonl")
        lengthened = bool(self.config.plan) and self.config.plan[-1].since == self.step
        return bool(self.step and rows) and rows[-1]["step"] == self.step and not lengthened and self._stops_early()

    @contextmanager
    def _asking(self, stop: Callable[[], bool]) -> Iterator[None]:
        """Ask stop() before every pass of the model, and raise _AskedError when it is true: scoring may take long."""

        def ask(*_: Any) -> None:
            if stop():
                raise _AskedError

        hook = self.model.register_forward_pre_hook(ask)
        try:
            yield
        finally:
            hook.remove()

    def _timed_enough(self, budget: float) -> bool:
        timed = self.pace.training_seconds
        return (self.pace.timed_steps >= 10 and timed > TIMED_SHARE * budget) or timed > budget / 4

    def _plan(self, budget: float) -> Planned:
        """Decide how many steps fill the budget, and write it down before a step depends on it."""
        first = self.steps is None
        left = budget - self.seconds - self._final_seconds()
        every = self.config.plan[-1].validate_every if self.config.plan else self.config.validate_every
        steps = self.step + self.pace.steps_in(left, every)
        steps = max(self.step, min(steps, sizing.most_steps(self.streams.steps_per_epoch)))
        if self.steps is None or abs(steps - self.steps) > 0.01 * steps:
            self.config = resolve.planned(self.config, self.corpus, self.step, steps)
            self.run.write_config(self.config)
        assert self.steps is not None
        return Planned(self.steps, self.steps / self.streams.steps_per_epoch, first)

    def _final_seconds(self) -> float:
        """Return what scoring at the end will take: one exact stream is far slower than many side by side."""
        if self._stream_seconds_per_id is None:
            with self.pace.aside():
                ids = self.corpus.ids("train")[:300]
                began = time.monotonic()
                evaluation.stream_costs(self.model, ids)
                self._stream_seconds_per_id = (time.monotonic() - began) / len(ids)
        lengths = [len(self.corpus.parts["val"]), len(self.corpus.parts["test"])]
        exact = sum(n for n in lengths if n <= EXACT_IDS) * self._stream_seconds_per_id
        per_trained_id = self.pace.step_seconds() / (self.streams.batch * self.config.window)
        return exact + sum(min(n, SAMPLED_IDS) for n in lengths if n > EXACT_IDS) * per_trained_id / 2 + 0.5

    def _chars_per_s(self) -> float:
        return self.streams.batch * self.config.window / max(1e-9, self.pace.step_seconds())

    def _validate(self) -> Validated:
        with self.pace.validating():
            return self._validated()

    def _validated(self) -> Validated:
        ids, starts = self.corpus.parts["val"], self.corpus.starts["val"]
        val_nats = None
        if len(ids):
            val_nats = evaluation.estimate(self.model, ids, self.corpus.tokenizer, starts)
        # Without a validation part the last weights are the best.
        finite = self._is_finite() and (val_nats is None or math.isfinite(val_nats))
        best = finite and (val_nats is None or val_nats < self.best_val)
        if best and val_nats is not None:
            self.best_val = val_nats
        train_nats = float(self._nats) / self._characters if self._characters else math.nan
        self.run.append(
            "metrics.jsonl",
            {
                "step": self.step,
                "characters": self.characters,
                "lr": self._rate(max(0, self.step - 1)),
                "train_nats": _or_null(train_nats),
                "val_nats": _or_null(val_nats),
            },
        )
        self.run.append("timings.jsonl", {"step": self.step, "seconds": round(self.seconds, 3)})
        if not finite:
            self._mark_diverged()
        elif self.step:
            self._forget_sums()
            self._save(best)
        else:
            self._forget_sums()
        return Validated(self.step, self.characters, train_nats, val_nats, best, finite, self.weights())

    def _save(self, best: bool, result: dict[str, Any] | None = None) -> None:
        training = {f"moments/{k}": v for k, v in optimizers.moments(self.optimizer, self.model.weights).items()}
        names = list(self.architecture.definition.state)
        for i, layer in enumerate(self.state):
            training |= {f"state/{i}/{name}": value for name, value in zip(names, layer, strict=True)}
        training |= {"sums/nats": self._nats, "sums/characters": torch.tensor(self._characters)}
        self.run.save(
            self.step,
            self.weights(),
            {name: tensor.detach().cpu().numpy() for name, tensor in training.items()},
            best,
            self._facts(result),
        )

    def _is_finite(self) -> bool:
        """Tell whether the losses since the last validation and all weights are finite."""
        return math.isfinite(float(self._nats)) and all(bool(w.isfinite().all()) for w in self.model.weights.values())

    def _mark_diverged(self) -> None:
        """Write down that the run ends here; the last finite checkpoint stays, where there is one."""
        self.diverged = self.step
        if not self.run.exists():
            self._save(best=False)
        self.run.rewrite({**self.run.about(), "diverged": self.step})

    def _made_with(self) -> dict[str, Any]:
        """Say what the bits of a run depend on besides its configuration: versions, processor, threads."""
        return {
            "charrnn": charrnn.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": processor(),
            "threads": self.config.threads,
        }

    def _facts(self, result: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "characters": self.characters,
            "seconds": round(self.seconds, 3),
            "best_val_nats": _or_null(self.best_val),
            "parameters": self.architecture.count(),
            "diverged": self.diverged,
            "made_with": self._made_with(),
            "result": result,
        }

    def _finish(self) -> Finished:
        train_nats = next((r["train_nats"] for r in reversed(self.run.rows("metrics.jsonl"))), None)
        best = self.run.weights("best")
        with torch.no_grad():
            for name, weight in self.model.weights.items():
                weight.copy_(torch.from_numpy(best[name]))
        scores = {part: self._final_score(part) for part in ("val", "test")}
        val, test = scores["val"], scores["test"]
        result = {
            "run": str(self.run.path),
            "cell": self.config.cell,
            "hidden": self.config.hidden,
            "layers": self.config.layers,
            "parameters": self.architecture.count(),
            "steps": self.step,
            "characters": self.characters,
            "seconds": round(self.seconds, 3),
            "chars_per_s": round(self.characters / max(1e-9, self.seconds)),
            "precision": self.config.precision,
            "device": self.config.device,
            "train_nats": train_nats,
            "val_nats": val and _or_null(val.nats),
            "val_bits_per_char": val and _or_null(val.bits_per_char),
            "test_nats": test and _or_null(test.nats),
            "test_bits_per_char": test and _or_null(test.bits_per_char),
            "test_perplexity": test and _or_null(test.perplexity),
            "diverged": self.diverged,
        }
        # Kept, so that nobody who compares runs has a reason to look at the test part again.
        losses = {"test": test.per_char.astype(np.float32)} if test else {}
        self.run.finish(losses, self._facts(result))
        return Finished(self.run, result)

    def _final_score(self, part: data.Part) -> evaluation.Score | None:
        ids, starts = self.corpus.parts[part], self.corpus.starts[part]
        if len(ids) == 0:
            return None
        if len(ids) > SAMPLED_IDS:
            return evaluation.sampled(self.model, ids, self.corpus.tokenizer, SAMPLED_IDS, lead=1024, starts=starts)
        if len(ids) <= EXACT_IDS:
            costs = evaluation.stream_costs(self.model, ids, starts=starts)
        else:
            costs = evaluation.parallel_costs(self.model, ids, streams=64, lead=1024, starts=starts)
        return evaluation.score(costs, ids, self.corpus.tokenizer)

    def _rate(self, step: int) -> float:
        return optimizers.learning_rate(self.config, step, self.streams.steps_per_epoch)

    def _dropout(self) -> torch.Generator | None:
        """Return the source of this step's dropout masks: a pure function of the seed and the step."""
        if self.config.dropout == 0:
            return None
        digest = hashlib.sha256(f"dropout {self.config.seed} {self.step}".encode()).digest()
        return torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))

    def _forget_sums(self) -> None:
        """Begin the running sums behind train_nats anew."""
        self._nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self._characters = 0

    def _notes(self) -> tuple[str, ...]:
        notes = [*self.notes]
        if self.config.measured_us:
            figures = ", ".join(f"{name} {us / 1000:.3g}" for name, us in self.config.measured_us.items())
            notes.append(f"engines compared, milliseconds a window: {figures}")
        notes += sizing.warnings(self.architecture, len(self.corpus.parts["train"]))
        if self.streams.batch < self.config.batch:
            notes.append(f"the text fills only {self.streams.batch} of {self.config.batch} streams")
        if note := self.model.engine.note(self.model.cell, self.config.device, self.config.precision):
            notes.append(note)
        if len(self.corpus.parts["val"]) == 0:
            notes.append("no validation part: the last weights are kept, not the best")
        longest = max(len(self.corpus.parts["val"]), len(self.corpus.parts["test"]))
        if longest > SAMPLED_IDS:
            notes.append(f"at the end {SAMPLED_IDS:,} characters of each long part are scored; `eval` reads all of it")
        elif longest > EXACT_IDS:
            notes.append("long parts are scored in 64 parallel streams at the end; `eval` reads them as one")
        return tuple(notes)


def diverged(run: Run, step: int) -> CharRNNError:
    """Make the error for a run that diverged at a step."""
    return CharRNNError(f"training diverged at step {step:,} of {run.path}", DIVERGED_HINT)


@contextmanager
def threads_of(config: Settings) -> Iterator[None]:
    """Compute with the threads of the configuration, for sums that repeat to the last bit; then as before.

    On a GPU they repeat too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or before)
    try:
        with cuda.repeatable(config.device, tf32=config.precision == "bf16"):
            yield
    finally:
        torch.set_num_threads(before)


def _or_null(value: float | None) -> float | None:
    """JSON has no NaN: a figure that is none becomes null."""
    return value if value is not None and math.isfinite(value) else None
