"""Training in a notebook: a picture that changes, of HTML and SVG alone.

It needs no widget and no script, so it is the same in Jupyter, VS Code and Colab. Where a front end cannot change what
it shows, there are lines instead.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, assert_never

from charrnn.errors import command
from charrnn.pages import curve, filling
from charrnn.reporting.sampling import sample
from charrnn.terminal import one_line
from charrnn.training.description import Y_AXIS, shape_of
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

SECONDS = 0.5  # between two pictures
MOST_POINTS = 200  # of a curve: more could not be told apart
SAMPLES = 3  # the newest


def is_notebook() -> bool:
    """Tell whether the code runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def display() -> Callable[[str], None] | None:
    """Show a place for HTML in the notebook. Return what replaces the HTML in it, or None where that cannot be done."""
    try:
        from IPython import display as module

        ipython: Any = module  # some versions have types, and others have none
        handle = ipython.display(ipython.HTML(""), display_id=True)
    except (ImportError, AttributeError, TypeError):  # there is none, or one of old that knows no display_id
        return None
    if handle is None:
        return None
    return lambda html: handle.update(ipython.HTML(html))


class Curve:
    """Points of a curve, never more than MOST_POINTS: then each two neighbours become their mean."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def add(self, x: float, y: float) -> None:
        """Add a point."""
        self.points.append((x, y))
        if len(self.points) > MOST_POINTS:
            whole = len(self.points) // 2 * 2
            pairs = zip(self.points[:whole:2], self.points[1:whole:2], strict=True)
            alone = self.points[whole:]  # the newest, where their number is odd
            self.points = [*(((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairs), *alone]


class TrainingPicture:
    """Shows the events of a run as a bar with loss and speed, a learning curve that grows, and samples.

    update: takes the HTML that replaces what is shown. clock: gives seconds.
    """

    _context: Started

    def __init__(self, update: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._update, self._clock = update, clock
        self._shown_at = -math.inf
        self._training, self._validation = Curve(), Curve()
        self._samples: list[tuple[int, str]] = []
        self._title, self._state = "", ""
        self._hints: list[tuple[str, str]] = []
        self._step = 0
        self._steps: int | None = None
        self._speed, self._began = 0.0, clock()
        self._first_step = 0

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Show how far the text is prepared."""
        self._state = what + (f" {done / total:.0%}" if total else f" {done:,}")
        self._draw()

    def close(self) -> None:
        """Leave what is shown as it is."""

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Started():
                self._context, self._step = event, event.step
                self._first_step, self._began = event.step, self._clock()
                self._title = f"{event.run.name}: {shape_of(event.config, event.architecture)}"
                self._steps, self._state = event.config.steps_in_all, ""
                self._draw(now=True)
            case Planned():
                self._steps = event.steps
            case Stepped():
                self._stepped(event)
            case Validated():
                self._validated(event)
            case Saved():
                pass  # it is no news: nothing is lost
            case StoppedEarly():
                self._end("early stopping: validation is past its best; the best weights are kept")
            case Diverged():
                self._end("diverged: a loss or a weight is not finite")
            case Stopped():
                self._stopped(event)
            case Finished():
                self._finished(event)
            case _:
                assert_never(event)

    def _stepped(self, event: Stepped) -> None:
        self._step, self._speed = event.step, event.chars_per_s
        self._steps = event.steps or self._steps
        if self._clock() - self._shown_at >= SECONDS:  # reading a loss waits for the device
            loss = float(event.loss) / math.log(2)
            self._training.add(event.step, loss)
            self._state = f"loss {loss:.2f} bits per character"
            self._draw()

    def _validated(self, event: Validated) -> None:
        if event.step == 0 or not event.finite:
            return
        if event.val_nats is not None:
            self._validation.add(event.step, event.val_nats / math.log(2))
        self._samples = [*self._samples, (event.step, one_line(sample(self._context, event.weights)))][-SAMPLES:]
        self._draw(now=True)

    def _stopped(self, event: Stopped) -> None:
        self._hints = [
            ("To resume in Python:", f"charrnn.resume({event.run.typed!r})"),
            ("In a terminal:", command("train", "--resume", event.run.typed)),
        ]
        self._end(f"interrupted after step {event.step:,}; everything is saved")

    def _finished(self, event: Finished) -> None:
        result = event.result
        scores = [
            f"{name} {result[f'{part}_bits_per_char']:.3f} bits per character"
            for part, name in (("val", "validation"), ("test", "test"))
            if result[f"{part}_bits_per_char"] is not None
        ]
        if result["diverged"] is None:
            self._end(f"complete in {result['seconds']:,.0f} s" + "".join(f"; {score}" for score in scores))

    def _end(self, state: str) -> None:
        self._state = state
        self._speed = 0.0
        self._draw(now=True)

    def _draw(self, now: bool = False) -> None:
        if not now and self._clock() - self._shown_at < SECONDS:
            return
        curves = {"training": self._training.points, "validation": self._validation.points}
        done = any(curves.values())
        self._update(
            str(
                filling.fill(
                    "training.html",
                    title=self._title,
                    state=self._state,
                    step=self._step,
                    steps=self._steps,
                    share=min(1.0, self._step / self._steps) if self._steps else 0.0,
                    speed=self._speed,
                    left=self._seconds_left(),
                    curve=curve.drawn(curves, float(self._steps or 0), "steps", Y_AXIS) if done else None,
                    samples=self._samples,
                    hints=self._hints,
                )
            )
        )
        self._shown_at = self._clock()

    def _seconds_left(self) -> float | None:
        done = self._step - self._first_step
        if not self._speed or not self._steps or not done:
            return None
        return (self._clock() - self._began) / done * (self._steps - self._step)


def picture() -> TrainingPicture | None:
    """Return what shows training in this notebook; None where its front end cannot change what it shows."""
    update = display()
    return None if update is None else TrainingPicture(update)
