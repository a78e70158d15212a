"""A budget of seconds as a number of steps: decided once steps were timed, corrected at validations."""

import time
from collections.abc import Callable

from charrnn.model import evaluation
from charrnn.training import final_scores
from charrnn.training.pacing import Pace
from charrnn.training.trainer import Trainer

# A budget is turned into steps after this share of it was spent in steps, or of the longest run that it becomes.
TIMED_SHARE = 0.02
TIMED_STEPS = 10
PROBE_IDS, PROBES = 1024, 3  # scored to time exact streams; the least counts


class Budget:
    """The seconds that a run may take, all included, and how many steps fill what is left of them.

    elapsed: tells how many were taken so far. most: the longest run that it becomes, in steps; None: there is none.
    """

    def __init__(
        self,
        seconds: float,
        trainer: Trainer,
        pace: Pace,
        elapsed: Callable[[], float],
        most: int | None = None,
    ) -> None:
        self.seconds, self._trainer, self._pace, self._elapsed, self._most = seconds, trainer, pace, elapsed, most
        self._stream_seconds_per_id: float | None = None

    def timed_enough(self) -> bool:
        """Tell whether enough steps were timed to decide by them."""
        timed = self._pace.training_seconds
        # Of a short text all steps that do any good may be fewer than fit into that share of the seconds.
        is_far = self._most is not None and self._trainer.step > TIMED_SHARE * self._most
        enough = self._pace.timed_steps >= TIMED_STEPS and (timed > TIMED_SHARE * self.seconds or is_far)
        return enough or timed > self.seconds / 4

    def steps(self) -> int:
        """Return how many steps in all fill the budget, with their validations and the scoring at the end."""
        config, done = self._trainer.config, self._trainer.step
        final = self._final_seconds()  # before the clock is read: it takes a while itself
        left = self.seconds - self._elapsed() - final
        every = config.plan[-1].validate_every if config.plan else config.validate_every
        steps = done + self._pace.steps_in(left, every)
        return steps if self._most is None else max(done, min(steps, self._most))

    def _final_seconds(self) -> float:
        trainer = self._trainer
        most = final_scores.most_ids(trainer.config.budget)
        if self._stream_seconds_per_id is None:
            with self._pace.aside():
                ids, starts = trainer.corpus.ids("train")[:PROBE_IDS], trainer.corpus.starts["train"]
                texts = [(ids, starts[starts < len(ids)])]
                streams = max(1, len(final_scores.exact_parts(trainer.corpus, most)))
                seconds = []
                for _ in range(PROBES):
                    began = time.monotonic()
                    evaluation.side_by_side_costs(trainer.model, texts * streams)
                    seconds.append(time.monotonic() - began)
                self._stream_seconds_per_id = min(seconds) / len(ids)
        trained = self._pace.step_seconds() / (trainer.streams.batch * trainer.config.window)
        return final_scores.expected_seconds(trainer.corpus, most, self._stream_seconds_per_id, trained)
