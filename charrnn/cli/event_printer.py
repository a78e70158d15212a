"""What train and compare share: events told while they come, and signals that stop the work once it is saved."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, suppress
from typing import Any, Generic, TypeVar

from charrnn.interruption import Interruption, heard
from charrnn.reporting.lines import Lines

E = TypeVar("E")


class EventPrinter(ABC, Generic[E]):
    """Prints events: lines on stderr, on a terminal a bar below them, the result on stdout."""

    def __init__(self, as_json: bool, interruption: Interruption) -> None:
        self._as_json, self._interruption = as_json, interruption
        self.lines = Lines()
        self._was_stopped = False

    def follow(self, events: Generator[E, None, None]) -> int:
        """Print events to the last. Returns the exit code of the command."""
        # Closed, so that it tidies up before a signal's exception is handled.
        with closing(events) as told:
            for event in told:
                self.show(event)
        return self._interruption.exit_code if self._was_stopped else 0

    @abstractmethod
    def show(self, event: E) -> None:
        """Print one event."""

    def _end_stopped(self, *lines: str) -> None:
        """Say that the work was stopped, as it was asked to, and how to go on."""
        self._close()
        for line in lines:
            self._say(line)
        self._was_stopped = True

    def _say(self, text: str) -> None:
        self.lines.say(text)

    def _bar_of(self, **options: Any) -> Any:
        """Return the bar, made with tqdm's options where there is none yet; None where stderr is no terminal."""
        return self.lines.bar(**options)

    def _close(self) -> None:
        self.lines.close()


def interruptible() -> AbstractContextManager[Interruption]:
    """Let Ctrl-C, `kill` and a terminal that closes end a command at once, or where it can save after its step."""
    return heard(Interruption(saving=lambda: say_saving("; press Ctrl-C again to stop at once")))


def say_saving(more: str = "") -> None:
    """Say, when a signal came, that the work ends as soon as it is saved."""
    # Not through the stream: the signal may have come in the middle of writing to it.
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"\nfinishing this step and saving{more}\n".encode())
