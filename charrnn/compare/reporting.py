"""A comparison while it runs, as lines and a bar on stderr, or as a picture in a notebook that changes."""

import time
from collections.abc import Callable
from typing import assert_never

from charrnn import perplexity
from charrnn.compare.events import Compared, Decided, Event, Ran, Scoring, Sized, Stopped, Timed, Tried, Working
from charrnn.pages import filling
from charrnn.reporting import notebook
from charrnn.reporting.bars import duration
from charrnn.reporting.lines import Lines


class ComparisonLines:
    """Says the events of a comparison as lines. again: how it is gone on with, in words."""

    def __init__(self, lines: Lines, again: str = "The same command goes on.") -> None:
        self._lines, self._again, self._left = lines, again, ""

    def show(self, event: Event) -> None:
        """Say one event. Of the last one, the files and the notes."""
        match event:
            case Sized():
                self._sized(event)
            case Timed():
                self._timed(event)
            case Working():
                self._working(event)
            case Tried():
                self._tried(event)
            case Decided():
                self._decided(event)
            case Ran():
                self._ran(event)
            case Scoring():
                self._scoring(event)
            case Stopped():
                self._lines.close()
                self._lines.say(f"stopped; everything is saved in {event.folder.path}. {self._again}")
            case Compared():
                self._lines.close()
                for path in event.files:
                    self._lines.say(f"written: {path}")
                for note in event.notes:
                    self._lines.say(f"note: {note}")
            case _:
                assert_never(event)

    def _sized(self, event: Sized) -> None:
        grid, config = event.grid, event.grid.config
        length = f"{grid.steps:,} steps" if grid.steps else f"{grid.budget:g} s"
        self._lines.say(
            f"comparing {len(grid.entries)} models on {', '.join(config.corpus)}: {grid.lr_trials} learning rates and "
            f"{grid.seeds} seeds each, {length} a run, equal {grid.match}; in {event.folder.path}"
        )
        self._lines.say(f"computing on {config.device}, {config.precision}, {config.threads} threads")
        for entry in event.added:
            line = f"  {grid.label(entry):<12} hidden {entry.hidden:>5} x {entry.layers}"
            line += f"  {entry.parameters:>11,} parameters"
            if event.target:
                line += f"  ({entry.parameters / event.target - 1:+.2%} of {event.target:,})"
            self._lines.say(line)

    def _timed(self, event: Timed) -> None:
        if event.chars_per_s:
            self._lines.say(f"timed {event.label}: {event.chars_per_s:,.0f} characters per second")

    def _working(self, event: Working) -> None:
        self._left = duration(event.seconds_left)
        bar = self._lines.bar(total=event.runs, bar_format="{percentage:3.0f}% |{bar}| {postfix}")
        if bar is None:
            return
        done = event.runs_done + (event.step / event.steps if event.step < event.steps else 0)
        bar.n = min(done, event.runs)
        bar.set_postfix_str(
            f"run {min(event.runs_done + 1, event.runs)} of {event.runs}: {event.label}, {event.kind}, "
            f"step {event.step:,} of {event.steps:,}; about {self._left} left",
            refresh=False,
        )
        bar.update(0)

    def _tried(self, event: Tried) -> None:
        if event.trials:
            tried = ", ".join(f"{lr:g}: {'diverged' if nats is None else f'{nats:.4f}'}" for lr, nats in event.trials)
            edge = event.best in (event.trials[0][0], event.trials[-1][0])
            self._lines.say(
                f"{event.label:<12} learning rate {event.lr:g}: {event.best:g} would be best in the trials"
                f"{' (an outermost one)' if edge else ''}; validation nats at {tried}"
            )

    def _decided(self, event: Decided) -> None:
        steps = {entry.steps for entry in event.grid.entries}
        if len(steps) == 1:
            self._lines.say(f"every run has {next(iter(steps)):,} steps")
        else:
            for entry in event.grid.entries:
                self._lines.say(f"{event.grid.label(entry):<12} {entry.steps:,} steps a run")

    def _ran(self, event: Ran) -> None:
        bits = event.bits_per_char
        score = (
            "diverged, and counts as a blank model"
            if bits is None
            else f"{bits:.4f} bits per character, perplexity {perplexity.of_bits(bits):.3f}"
        )
        self._lines.say(
            f"[{event.runs_done}/{event.runs}] {event.label}, seed {event.seed}: {score}; about {self._left} left"
        )

    def _scoring(self, event: Scoring) -> None:
        self._lines.close()
        self._lines.say(f"{event.what} ...")


class ComparisonPicture:
    """Shows a comparison in a notebook: how far it is, and the runs that are complete. update: replaces the HTML."""

    def __init__(self, update: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._update, self._clock = update, clock
        self._shown_at = -notebook.SECONDS
        self._title, self._state, self._share = "", "", 0.0
        self._runs: list[tuple[str, int, float | None]] = []

    def show(self, event: Event) -> None:
        """Show one event."""
        now = True
        match event:
            case Sized():
                self._title = f"{len(event.grid.entries)} models on {', '.join(event.grid.config.corpus)}"
            case Timed():
                self._state = f"timed {event.label}: {event.chars_per_s:,.0f} characters per second"
            case Working():
                now = False
                done = event.runs_done + (event.step / event.steps if event.step < event.steps else 0)
                self._share = min(1.0, done / event.runs)
                self._state = (
                    f"run {min(event.runs_done + 1, event.runs)} of {event.runs}: {event.label}, {event.kind}, step "
                    f"{event.step:,} of {event.steps:,}; about {duration(event.seconds_left)} left"
                )
            case Tried():
                self._state = f"{event.label}: learning rate {event.lr:g}"
            case Decided():
                pass
            case Ran():
                self._runs.append((event.label, event.seed, event.bits_per_char))
            case Scoring():
                self._state = f"{event.what} ..."
            case Stopped():
                self._state = f"interrupted; everything is saved in {event.folder.path}. The same call goes on."
            case Compared():
                self._share, self._state = 1.0, "complete"
            case _:
                assert_never(event)
        if now or self._clock() - self._shown_at >= notebook.SECONDS:
            values = {"title": self._title, "state": self._state, "share": self._share, "runs": self._runs}
            self._update(str(filling.fill("comparing.html", **values)))
            self._shown_at = self._clock()


def listener(progress: bool | None) -> ComparisonLines | ComparisonPicture | None:
    """Return who is told. progress: None is a notebook where the code runs in one, and nobody elsewhere."""
    if progress is False or (progress is None and not notebook.is_notebook()):
        return None
    update = notebook.display() if notebook.is_notebook() else None
    return ComparisonLines(Lines(), "The same call goes on.") if update is None else ComparisonPicture(update)
