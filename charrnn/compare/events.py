"""The events of a comparison while it runs, one after another: a command line prints them, a test looks at them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.compare.decisions import Trials
from charrnn.compare.grid import Entry, Folder, Grid
from charrnn.text.corpus import Corpus


@dataclass(frozen=True)
class Sized:
    """The models are chosen. added: those new to the folder. target: the parameters they were sized for, if any."""

    grid: Grid
    folder: Folder
    added: tuple[Entry, ...]
    target: int | None


@dataclass(frozen=True)
class Timed:
    """The speed of an entry was measured, for a first idea."""

    label: str
    chars_per_s: float


@dataclass(frozen=True)
class Working:
    """A run of the grid went on. runs: finished ones of all. seconds_left: of the whole comparison."""

    label: str
    kind: str
    step: int
    steps: int
    runs_done: int
    runs: int
    seconds_left: float


@dataclass(frozen=True)
class Tried:
    """Every trial of an entry is done. trials: from the lowest rate to the highest.

    best: the best rate by these trials, in between where it has neighbours. lr: that of the entry's runs.
    """

    label: str
    trials: Trials
    best: float
    lr: float


@dataclass(frozen=True)
class Decided:
    """The lengths of the runs are decided."""

    grid: Grid


@dataclass(frozen=True)
class Ran:
    """A run of the grid is complete, the `runs_done`-th of all `runs`, trials included.

    bits_per_char: of the test part; None where the run diverged, and its score is no number.
    """

    label: str
    seed: int
    bits_per_char: float | None
    runs_done: int
    runs: int


@dataclass(frozen=True)
class Scoring:
    """All runs are complete; what is done now."""

    what: str


@dataclass(frozen=True)
class Stopped:
    """The comparison was asked to stop, and goes on from here when it is begun again."""

    folder: Folder


@dataclass(frozen=True)
class Compared:
    """The comparison is complete. result: what `compare --json` prints. files: what was written."""

    folder: Folder
    grid: Grid
    corpus: Corpus
    result: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


Event = Sized | Timed | Working | Tried | Decided | Ran | Scoring | Stopped | Compared
