"""The one training loop: the order of steps, validations, plans and checkpoints, as a generator of events.

Whatever is decided by timing is written into the configuration before a step depends on it.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

from charrnn.engines import cuda
from charrnn.model import evaluation
from charrnn.training import early_stopping, final_scores, resolve, sizing
from charrnn.training.budget import TIMED_STEPS, Budget
from charrnn.training.events import (
    Diverged,
    Event,
    Finished,
    Planned,
    Saved,
    Started,
    Stepped,
    Stopped,
    StoppedEarly,
    Validated,
)
from charrnn.training.forgetting import Before
from charrnn.training.notes import notes_of
from charrnn.training.pacing import Pace, SavingClock
from charrnn.training.recording import Record
from charrnn.training.run import Run
from charrnn.training.speed import Machine
from charrnn.training.trainer import Trainer
from charrnn.training.waiting import Waiting

# A GPU is waited for once in so many steps, to know how long they take, when nothing depends on it.
WAIT_STEPS = 16
# A plan is replaced by one that differs by more than this share.
PLAN_SHARE = 0.01


class TrainingLoop:
    """The order of what happens in a run: steps, validations, plans, checkpoints, and how it ends.

    began: a reading of time.monotonic() from which its seconds count. earlier_seconds: it took before it was resumed.
    notes: what the user should know about how it came here. before: of a run that learns on from another.
    """

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        machine: Machine,
        began: float,
        earlier_seconds: float = 0.0,
        notes: tuple[str, ...] = (),
        before: Before | None = None,
    ) -> None:
        self.run, self.trainer, self._machine, self._notes, self._before = run, trainer, machine, notes, before
        device = trainer.config.device
        self.pace = Pace(began, partial(cuda.wait, device) if device != "cpu" else None)
        self._saving = SavingClock()
        self._earlier_seconds = earlier_seconds
        self.record = Record(run, trainer, self.seconds, before)
        # What was planned once is not timed again.
        budget = None if trainer.config.plan else trainer.config.budget
        most = sizing.most_steps(trainer.streams.steps_per_epoch, trainer.config.weight_dropout > 0)
        self._budget = Budget(budget, trainer, self.pace, self.seconds, most) if budget else None

    def seconds(self) -> float:
        """Return the time that the run has taken, over all its resumptions."""
        return self._earlier_seconds + self.pace.seconds()

    def extend(self, seconds: float, put_back: Callable[[], None]) -> None:
        """Plan so many steps more as fill the seconds from now on: some are timed, and taken back.

        put_back: lets the trainer become what it is now.
        """
        trainer, since = self.trainer, self.trainer.step
        self._budget = Budget(seconds, trainer, self.pace, self.pace.seconds)
        while self.pace.timed_steps < TIMED_STEPS and self.pace.training_seconds < seconds / 4:
            trainer.update()
            self.pace.stepped()
        with self.pace.validating():
            self._estimate()
        more = self._budget.steps() - trainer.step
        put_back()
        trainer.config = resolve.planned(trainer.config, trainer.corpus, since, since + max(1, more))

    def events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Train to the end of the plan, validating and saving on the way. stop() is asked after every step."""
        with Waiting() as waiting:
            yield from self._events(stop, waiting)

    def _events(self, stop: Callable[[], bool], waiting: Waiting) -> Iterator[Event]:
        trainer, budget = self.trainer, self._budget
        with self.pace.aside():
            yield self._started()
        if trainer.step == 0:
            with self.pace.aside():
                yield self._validate()
        stopped_early = self._had_stopped_early()
        while not stopped_early and self.record.diverged is None and self._goes_on():
            loss = trainer.update()
            self.pace.stepped(1 if trainer.steps is None else WAIT_STEPS)
            waiting.look()
            yield Stepped(trainer.step, trainer.steps, loss, self.seconds(), self._chars_per_s())
            if budget and trainer.steps is None and budget.timed_enough():
                yield self._plan(budget)
            if self._validation_is_due():
                with self.pace.aside():  # what is made of it, as a passage that is written, is no step
                    yield self._validate()
                if self.record.diverged is not None:
                    break
                if stopped_early := self._stops_early():
                    yield StoppedEarly(self.run, trainer.step)
                    break
                if budget and not self._at_end():
                    yield self._plan(budget)
            elif self._saving.is_due(self.pace.last_step_seconds):
                if not trainer.is_finite():
                    self.record.mark_diverged()
                    break
                self._save()
                yield Saved(self.run, trainer.step)
            if stop() and not self._at_end():
                if not trainer.is_finite():
                    self.record.mark_diverged()
                    break
                if self.record.is_behind:
                    self._save()
                yield Stopped(self.run, trainer.step)
                return
        if self.record.diverged is not None:
            yield Diverged(self.run, self.record.diverged)
        elif self.record.is_behind:
            self._save()
        yield self._finish(stop)

    def _goes_on(self) -> bool:
        return self.trainer.steps is None or self.trainer.step < self.trainer.steps

    def _at_end(self) -> bool:
        return self.trainer.step == self.trainer.steps

    def _started(self) -> Started:
        trainer, config, architecture = self.trainer, self.trainer.config, self.trainer.architecture
        learned = architecture.vocabulary if trainer.seen is None else len(trainer.seen.ids)
        return Started(
            self.run,
            config,
            architecture,
            trainer.corpus,
            trainer.step,
            sizing.chars_per_s(architecture, learned, self._machine.expected_products_per_s),
            sizing.memory_bytes(config, architecture),
            (*self._notes, *notes_of(trainer)),
            self._before,
        )

    def _chars_per_s(self) -> float:
        return self.trainer.streams.batch * self.trainer.config.window / max(1e-9, self.pace.step_seconds())

    def _plan(self, budget: Budget) -> Planned:
        """Decide how many steps fill the budget, and write it down before a step depends on it."""
        trainer = self.trainer
        first, steps = trainer.steps is None, budget.steps()
        if trainer.steps is None or abs(steps - trainer.steps) > PLAN_SHARE * steps:
            trainer.config = resolve.planned(trainer.config, trainer.corpus, trainer.step, steps)
            self.record.plan(trainer.config)
        assert trainer.steps is not None
        return Planned(trainer.steps, trainer.steps / trainer.streams.steps_per_epoch, first)

    def _validation_is_due(self) -> bool:
        """At the end, and every so many steps after the length was decided: the same when it is repeated."""
        plan, step = self.trainer.config.plan, self.trainer.step
        spaced = bool(plan) and step > plan[0].since and step % plan[-1].validate_every == 0
        return self._at_end() or spaced

    def _save(self) -> None:
        with self.pace.aside(), self._saving.saving():
            self.record.save()

    def _validate(self) -> Validated:
        """Validate, write the figures down, and save, where that keeps within its share of the time."""
        trainer, record = self.trainer, self.record
        with self.pace.validating():
            val_nats = self._estimate()
            # Without a validation part the last weights are the best.
            finite = trainer.is_finite() and (val_nats is None or math.isfinite(val_nats))
            best = finite and (val_nats is None or val_nats < record.best_val)
            # What was before the first step is not kept: nothing has to be better than that.
            if best and val_nats is not None and trainer.step:
                record.best_val = val_nats
            train_nats = trainer.train_nats()
            record.figures(train_nats, val_nats)
            weights = trainer.weights()
            if finite:
                trainer.forget_sums()
            else:
                record.mark_diverged()
            if finite and trainer.step:
                record.validated(weights, best)
            if finite and trainer.step and (self._at_end() or self._saving.has_room()):
                with self._saving.saving():
                    record.save()
            return Validated(trainer.step, trainer.characters, train_nats, val_nats, best, finite, weights)

    def _estimate(self) -> float | None:
        """Return the loss of the validation part, nats per character; None where there is none.

        Products are of bf16 where those of training are, which is quicker and changes the fifth digit.
        """
        ids, starts = self.trainer.corpus.parts["val"], self.trainer.corpus.starts["val"]
        if len(ids) == 0:
            return None
        with self.trainer.rounding():
            return evaluation.estimate(self.trainer.model, ids, self.trainer.corpus.tokenizer, starts)

    def _stops_early(self) -> bool:
        config = self.trainer.config
        if not config.patience or self._at_end() or len(self.trainer.corpus.parts["val"]) == 0:
            return False
        after_steps = [row["val_nats"] for row in self.record.rows() if row["step"]]
        return early_stopping.stops(after_steps, config.patience)

    def _had_stopped_early(self) -> bool:
        """Tell whether the run had stopped early when it was saved, and was cut off while it was scored."""
        step, plan, rows = self.trainer.step, self.trainer.config.plan, self.record.rows()
        lengthened = bool(plan) and plan[-1].since == step
        return bool(step and rows) and rows[-1]["step"] == step and not lengthened and self._stops_early()

    def _finish(self, stop: Callable[[], bool]) -> Finished | Stopped:
        """Score the best weights and complete the run, or leave that to resuming when stop() is true."""
        trainer = self.trainer
        trainer.take(self.run.weights("best"))
        most = final_scores.most_ids(trainer.config.budget)
        try:
            scores = final_scores.scores(trainer.model, trainer.corpus, most, stop)
        except final_scores.AskedToStopError:
            return Stopped(self.run, trainer.step)
        after = {} if self._before is None else self._before.after(trainer.model, trainer.corpus.tokenizer, most)
        return Finished(self.run, self.record.finish(scores["val"], scores["test"], after))
