"""Bars on stderr for work before there is anything to show, and times in words."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from charrnn.reporting.lines import Controls

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
                desc=what,
                total=total,
                unit=measure,
                unit_scale=True,
                leave=False,
                disable=None,
                delay=PATIENCE_SECONDS,
                file=Controls(sys.stderr),
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


def duration(seconds: float) -> str:
    """Write a time in words, as roughly as a guess deserves."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
