"""How threads wait for each other while a model is trained: they spin on a quiet machine, and sleep on a busy one.

Spinning is fastest where every thread has a core of its own. Where other processes want the cores too, a thread that
spins keeps one from the thread that it waits for. So how long threads had to wait for a core is looked at between
steps. The numbers that are computed do not depend on it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from charrnn.compiler.training.openmp import Spinning

LOOK_SECONDS = 0.05  # apart; shorter steps are looked at together
BUSY = 0.3  # seconds of waiting for a core, of all threads, in a second: from here on they sleep
QUIET = 0.1  # up to here they spin again
QUIET_LOOKS = 5  # in a row, before they do: other work comes and goes
# Where the system does not tell a thread that sleeps from one that waits for a core, looks are rough, and spinning is
# tried again after a while.
ROUGH_LOOK_SECONDS, ROUGH_QUIET_LOOKS = 0.5, 20


class HowToWait(Protocol):
    """What can make waiting threads spin, or not."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Waiting:
    """Watches how long threads wait for a core, and lets them spin or sleep accordingly.

    It is a context: at its end threads spin again. spinning: what makes them. delayed: as `delayed_seconds`.
    """

    def __init__(
        self,
        spinning: HowToWait | None = None,
        delayed: "Callable[[], tuple[float, bool]] | None" = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._spinning, self._delayed, self._clock = spinning or Spinning(), delayed or delayed_seconds, clock
        self.busy = False
        self._quiet_looks = 0  # in a row, while busy
        self._mark = self._first = (self._clock(), self._delayed()[0])

    def look(self) -> None:
        """Look at what happened since the last look. To be called between steps."""
        (then, before), now = self._mark, self._clock()
        if now - then < LOOK_SECONDS:
            return
        delayed, exact = self._delayed()
        if not exact and now - then < ROUGH_LOOK_SECONDS:
            return
        self._mark = now, delayed
        share = (delayed - before) / (now - then)
        if not self.busy:
            if share >= BUSY:
                self._become(True)
        elif exact and share > QUIET:
            self._quiet_looks = 0
        else:
            self._quiet_looks += 1
            if self._quiet_looks == (QUIET_LOOKS if exact else ROUGH_QUIET_LOOKS):
                self._become(False)

    def delayed_share(self) -> float:
        """Return the seconds that threads have waited for a core, in a second, since this watch began."""
        then, before = self._first
        return (self._delayed()[0] - before) / max(1e-9, self._clock() - then)

    def _become(self, busy: bool) -> None:
        self.busy, self._quiet_looks = busy, 0
        if busy:
            self._spinning.stop()
        else:
            self._spinning.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.busy:
            self._become(False)


def delayed_seconds() -> tuple[float, bool]:
    """Return how long this process's threads have wanted a core and waited for one, and whether that is exact.

    Where the system does not say, it is the time that the calling thread did not compute: sleeping counts too.
    """
    try:
        threads = list(Path("/proc/self/task").iterdir())
    except OSError:  # not Linux
        return time.perf_counter() - time.thread_time(), False
    waited = 0
    for thread in threads:
        try:
            waited += int((thread / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):  # the thread has ended, or this system does not count
            continue
    return waited / 1e9, True
