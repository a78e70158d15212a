"""Bars on stderr, for work before there is anything to show and beside lines that tell what happens."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

PATIENCE_SECONDS = 0.5  # what is over sooner needs no bar


@contextmanager
def bars(unit: str = "char") -> Iterator[Callable[[str, int, int | None], None]]:
    """Return a callback (what, done, total) that shows a bar for each `what` in turn, on a terminal alone."""
    bar: Any = None

    def show(what: str, done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None or bar.desc != what:
            from tqdm import tqdm  # a command that shows none does without it

            if bar is not None:
                bar.close()
            measure = "B" if what in ("reading", "fetching") else unit
            bar = tqdm(
                desc=what, total=total, unit=measure, unit_scale=True, leave=False, disable=None, delay=PATIENCE_SECONDS
            )
            bar.desc = what
        bar.total = total
        bar.update(done - bar.n)
        if done == total:  # it must not stand there while something else is shown
            bar.close()
            bar = None

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


class Telling:
    """Lines on stderr, and on a terminal a bar below them."""

    def __init__(self) -> None:
        self._bar: Any = None  # tqdm's, which has no types

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def _bar_of(self, **options: Any) -> Any:
        """Return the bar, made with tqdm's options where there is none yet; None where stderr is no terminal."""
        if self._bar is None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(leave=False, dynamic_ncols=True, **options)
        return self._bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
