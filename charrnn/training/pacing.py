"""The time a run takes: how many steps fit into a budget of seconds, and when it is time to save."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

RECENT_STEPS = 200
# A run is saved at least so often, while that takes no more than this share of its time.
SAVE_EVERY_SECONDS = 60.0
SAVING_SHARE = 0.02
# Saving after a validation may take so much more: short runs are saved then too.
SPARE_SECONDS = 1.0


class Pace:
    """Times the steps and validations of a run. Seconds are counted from `began`, a reading of time.monotonic().

    wait: waits until the device has done what it was given; None where a step is done when its function returns.
    """

    def __init__(self, began: float, wait: Callable[[], None] | None = None) -> None:
        self._began, self._wait = began, wait
        self._mark = time.monotonic()
        self._given = 0  # steps that the device was given since the mark
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._validation_seconds = 0.0
        self.training_seconds = 0.0

    def seconds(self) -> float:
        """Return the seconds since the run began, everything included."""
        return time.monotonic() - self._began

    def stepped(self, every: int = 1) -> None:
        """Count a step that is done, or given to the device; after the first `every`, wait once in so many."""
        self._given += 1
        if self._wait is None or self._given >= every or len(self._recent) < every:
            self._settle()

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Around a validation with its saving: it is not a step."""
        self._settle()
        began = time.monotonic()
        yield
        self._mark = self._now()
        self._validation_seconds = self._mark - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is neither a step nor a validation."""
        self._settle()
        yield
        self._mark = self._now()

    def _settle(self) -> None:
        """Wait for the steps that the device was given; each took an equal share of the time since the mark."""
        if self._given:
            now = self._now()
            self._recent.extend([(now - self._mark) / self._given] * self._given)
            self.training_seconds += now - self._mark
            self._mark, self._given = now, 0

    def _now(self) -> float:
        if self._wait is not None:
            self._wait()
        return time.monotonic()

    @property
    def timed_steps(self) -> int:
        """The number of steps that the figures rest on."""
        return len(self._recent)

    @property
    def last_step_seconds(self) -> float:
        """The last step that was timed."""
        return self._recent[-1] if self._recent else 0.0

    def step_seconds(self) -> float:
        """Return a step's seconds, lately: the median, since first steps are slow and a busy machine has outliers."""
        return median(self._recent) if self._recent else 0.0

    def steps_in(self, seconds: float, validate_every: int | None) -> int:
        """Return how many steps fit into so many seconds, with their validations and one at the end; at least one."""
        # The mean is what adds up, without a first step in which a GPU's work is recorded; the median keeps slow steps
        # from deciding when there are only a few.
        mean = (sum(self._recent) - max(self._recent)) / max(1, len(self._recent) - 1)
        per_step = mean if len(self._recent) >= 50 else median(self._recent)
        if validate_every:
            per_step += self._validation_seconds / validate_every
        return max(1, int((seconds - self._validation_seconds) / max(1e-9, per_step)))


class SavingClock:
    """Tells when a run is saved: often enough that little is lost, and so seldom that little time goes into it."""

    def __init__(self) -> None:
        self._began = self._saved = time.monotonic()
        self._last_seconds = self._spent_seconds = 0.0

    def is_due(self, step_seconds: float) -> bool:
        """Tell whether to save before another step, which takes so long."""
        interval = max(SAVE_EVERY_SECONDS, self._last_seconds / SAVING_SHARE)
        return time.monotonic() - self._saved + step_seconds >= interval

    def has_room(self) -> bool:
        """Tell whether saving once more keeps within its share of the time."""
        spent = self._spent_seconds + self._last_seconds
        return spent <= SPARE_SECONDS + SAVING_SHARE * (time.monotonic() - self._began)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around saving: measure it."""
        began = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._last_seconds = self._saved - began
        self._spent_seconds += self._last_seconds
