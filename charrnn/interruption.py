"""Signals that ask a process to end: at once while there is nothing to save, after saving where there is."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

# Ctrl-C; what `kill`, `timeout` and a system that shuts down send; a terminal that closes, where there is such a one.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
HANG_UP = getattr(signal, "SIGHUP", None)
# Signals that come so soon after the first are the same wish: `timeout` sends its signal twice.
DOUBLED_SECONDS = 0.2


class Ended(BaseException):
    """A signal came while there was nothing to save. hint: what to know, as at_once() was given it."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(f"ended by signal {number}")
        self.exit_code = 128 + number
        self.hint = hint


class Interruption:
    """A wish to end that a signal brings. Called, as `stop` in training, it tells whether one came.

    Until can_save() is called, a signal raises. number: of the signal that came, once one has. saving: called when a
    signal comes while there is something to save. raised: makes what is raised where there is nothing to save.
    """

    def __init__(
        self,
        saving: Callable[[], None] = lambda: None,
        raised: Callable[[int, str], BaseException] = Ended,
        hurried: Any = signal.SIG_DFL,
    ) -> None:
        self.number: int | None = None
        self._saving, self._raised, self._hurried = saving, raised, hurried
        self._raising, self._hint = True, ""

    def __call__(self) -> bool:
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """The exit code by which a shell knows the end by this signal; 0 where none came."""
        return 0 if self.number is None else 128 + self.number

    def can_save(self) -> None:
        """Let signals ask only, from now on: there is something to save."""
        self._raising = False

    def at_once(self, hint: str = "") -> None:
        """Let a signal end it at once, from now on: there is nothing to save. hint: what to tell then."""
        self._raising, self._hint = True, hint

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal, the first time; a second one, of those that are typed or sent on purpose, ends at once."""
        if self.number is not None:
            return
        self.number = number
        time.sleep(DOUBLED_SECONDS)  # a signal that comes meanwhile finds itself heard already
        for other in SIGNALS:
            if signal.getsignal(other) == self.handle:
                # A shell and the system both tell that the terminal is gone, one after the other: that is no hurry.
                signal.signal(other, signal.SIG_IGN if other == HANG_UP else self._hurried)
        if self._raising:
            raise self._raised(number, self._hint)
        self._saving()


@contextlib.contextmanager
def heard(interruption: Interruption, signals: Sequence[int] = SIGNALS) -> Iterator[Interruption]:
    """Let an interruption hear signals for a while, except those that were ignored when the process was started.

    Only the main thread can hear signals; in another one nothing is done.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # None: a handler that is not Python's own, and could not be put back.
        known = {number: signal.getsignal(number) for number in signals}
        before = {number: handler for number, handler in known.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, interruption.handle)
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held(signals: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Start processes in here: they will not hear the signals, not even before they can say so themselves."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
