"""Who is told of a training from Python: nobody, lines on stderr, or a notebook."""

from contextlib import ExitStack
from typing import Protocol

from charrnn.errors import command
from charrnn.reporting import notebook
from charrnn.reporting.bars import bars
from charrnn.reporting.lines import Lines
from charrnn.reporting.training import TrainingLines, result
from charrnn.training.events import Event, Finished


class Listener(Protocol):
    """What is told of a training."""

    def show(self, event: Event) -> None:
        """Take one event."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Take how far the text is prepared, before there are events."""

    def close(self) -> None:
        """End: nothing else comes."""


class Silence:
    """Nobody is told."""

    def show(self, event: Event) -> None:
        """Do nothing."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _AsLines:
    """Says on stderr what the command line says."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._training = TrainingLines(self._lines, command)
        self._stack = ExitStack()
        self._prepared = self._stack.enter_context(bars())

    def show(self, event: Event) -> None:
        self._training.show(event)
        if isinstance(event, Finished) and event.result["diverged"] is None:
            for line in result(event.result):
                self._lines.say(line)

    def preparing(self, what: str, done: int, total: int | None) -> None:
        self._prepared(what, done, total)

    def close(self) -> None:
        self._stack.close()
        self._lines.close()


def listener(progress: bool | None) -> Listener:
    """Return who is told. progress: None is a notebook where the code runs in one, and nobody elsewhere."""
    if progress is False or (progress is None and not notebook.is_notebook()):
        return Silence()
    return (notebook.picture() if notebook.is_notebook() else None) or _AsLines()
