"""The plan of a comparison: which models, how large, trained how long, and where their runs are.

A grid is kept as grid.json in the folder of its comparison, and grows there: what was decided (sizes, steps, rates,
engines) is written down before a run depends on it, so that a comparison goes on, grows and repeats.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from charrnn import files, locks, strict_json
from charrnn.errors import CharRNNError, OptionError
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.config import FORMAT as CONFIG_FORMAT
from charrnn.training.config import Config, settings_from_json, values_of
from charrnn.training.json_fields import is_count, is_number, or_null
from charrnn.training.run import Run
from charrnn.training.settings import Settings

FORMAT = 1  # of grid.json
MATCHES = ("parameters", "hidden", "time")
OWN_FILES = re.compile(r"(grid|comparison|inspection)\.json|comparison\.csv|report\.html|working-[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """A model of the grid. step_seconds: of one step, validations included. None: not decided yet."""

    cell: str
    hidden: int
    layers: int
    parameters: int
    engine: str
    step_seconds: float = 0.0
    trial_steps: int | None = None
    lr: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raise CharRNNError for values of a wrong kind: they name folders, which may be emptied."""
        whole = (self.hidden, self.layers, self.parameters, self.trial_steps, self.steps)
        right = isinstance(self.cell, str) and isinstance(self.engine, str) and not set(self.cell) & set("/\\\0")
        right = right and all(map(or_null(is_count), whole))
        right = right and is_number(self.step_seconds) and or_null(is_number)(self.lr)
        if not right:
            raise CharRNNError(f"{dataclasses.asdict(self)} is no model of a comparison", "restore its grid.json")

    @property
    def folder(self) -> str:
        """The name of the folder of its runs."""
        return f"{self.cell}-{self.hidden}x{self.layers}"


@dataclass(frozen=True)
class Grid:
    """A comparison's settings and decisions. config: what all runs share; until the comparison begins it may
    leave open what is then decided by rule. target: parameters of each model
    where they are matched; None: as many as the configured cell has at the configured width.

    Either `steps` is the length of every run, or `budget` is the seconds of each (match 'time') or of the slowest
    cell's, whose number of steps all the others get as well.
    """

    config: Settings
    match: str
    seeds: int
    lr_trials: int
    budget: float | None
    steps: int | None
    prime: str
    target: int | None = None
    preset: str | None = None
    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise OptionError(f"match is {self.match!r}", f"choose from: {', '.join(MATCHES)}")
        whole = {"seeds": self.seeds, "lr-trials": self.lr_trials, "steps": self.steps, "parameters": self.target}
        for name, value in whole.items():
            needed = name in ("seeds", "lr-trials")
            if (needed or value is not None) and (not is_count(value) or value < 1):  # type: ignore[operator]
                raise OptionError(f"{name} is {value}", "expected a whole number of 1 or more")
        if not isinstance(self.prime, str):
            raise OptionError(f"prime is {self.prime!r}", "expected a text")
        if self.budget is not None and not (is_number(self.budget) and self.budget > 0):
            raise OptionError(f"budget is {self.budget:g} seconds", "expected more than 0, for instance 60s or 5m")
        if (self.budget is None) == (self.steps is None):
            raise OptionError("a comparison needs a budget or a number of steps, and not both", "give one of them")
        if self.target is not None and self.match == "hidden":
            raise OptionError(f"{self.target} parameters for models of equal width", "leave out --parameters")
        if self.match == "time" and self.budget is None:
            raise OptionError("equal time without a budget", "give --budget, for instance --budget 60s")
        if min(self.config.split[1:]) == 0:
            raise OptionError(
                "a comparison chooses by the validation part and scores by the test part, and one of them is empty",
                "give all three shares, for instance --split 0.8,0.1,0.1",
            )

    @cached_property
    def base(self) -> Config:
        """What all runs share, once it is decided; the engine is each entry's own."""
        return Config.decided(self.config.replace(engine="loop"))

    @property
    def trials(self) -> int:
        """The number of learning rates tried for each cell; a single one would leave nothing to choose."""
        return self.lr_trials if self.lr_trials > 1 else 0

    def label(self, entry: Entry) -> str:
        """Return the name of an entry in tables: its cell, with the sizes where cells come in several."""
        alone = sum(other.cell == entry.cell for other in self.entries) == 1
        return entry.cell if alone else f"{entry.cell} {entry.hidden}x{entry.layers}"

    def trial_config(self, entry: Entry, lr: float) -> Settings:
        """Return the configuration of a learning-rate trial."""
        return self._config(entry).replace(lr=lr, steps=entry.trial_steps)

    def run_config(self, entry: Entry, seed: int) -> Settings:
        """Return the configuration of one run of an entry. seed: counted from 0."""
        return self._config(entry).replace(lr=entry.lr, steps=entry.steps, seed=self.config.seed + seed)

    def _config(self, entry: Entry) -> Settings:
        return self.config.replace(cell=entry.cell, hidden=entry.hidden, layers=entry.layers, engine=entry.engine)

    def with_entry(self, i: int, **changes: Any) -> "Grid":
        """Copy it with the i-th entry changed."""
        entries = list(self.entries)
        entries[i] = dataclasses.replace(entries[i], **changes)
        return dataclasses.replace(self, entries=tuple(entries))

    def forget_results(self) -> "Grid":
        """Copy it without what is found out by training: the rates. Sizes, steps and engines stay."""
        return dataclasses.replace(self, entries=tuple(dataclasses.replace(e, lr=None) for e in self.entries))

    def as_dict(self) -> dict[str, Any]:
        """Return the grid as JSON holds it."""
        return {
            "format": FORMAT,
            **dataclasses.asdict(self),
            "config": {"format": CONFIG_FORMAT, **values_of(self.config)},
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str) -> "Grid":
        """Read what `as_dict` gave; raises CharRNNError, naming `source`, for anything else."""
        try:
            if values["format"] != FORMAT:
                raise CharRNNError(f"{source} has a format this version does not know", "upgrade charrnn")
            rest = {key: value for key, value in values.items() if key not in ("format", "config", "entries")}
            config = settings_from_json(strict_json.dumps(values["config"]), source)
            grid = cls(config=config, entries=tuple(Entry(**entry) for entry in values["entries"]), **rest)
            for entry in grid.entries:
                entry.folder.encode()  # half a surrogate pair is in no name of a folder
            return grid
        except OptionError as error:  # a value of a file is no option
            raise CharRNNError(f"{source}: {error.problem}", error.hint) from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CharRNNError(f"{source} holds no comparison ({error})", "give a comparison.json") from None


@dataclass(frozen=True)
class Folder:
    """The folder of a comparison."""

    path: Path

    def exists(self) -> bool:
        return (self.path / "grid.json").is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process, made if need be; raises CharRNNError where another comparison holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CharRNNError(f"{self.path} cannot be made: {error.strerror}", "choose another --out") from None
        with locks.held(self.path):
            files.sweep(self.path, OWN_FILES, held=True)
            yield

    def grid(self) -> Grid:
        """Read the grid kept here."""
        return Grid.of(read_json(self.path / "grid.json"), str(self.path / "grid.json"))

    def write(self, grid: Grid) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_atomically(self.path / "grid.json", (strict_json.dumps(grid.as_dict(), indent=1) + "\n").encode())

    def trials(self, entry: Entry) -> Path:
        """Return the folder of an entry's learning-rate trials."""
        return self.path / "trials" / entry.folder

    def trial(self, entry: Entry, lr: float) -> Run:
        """Return the run of a learning-rate trial."""
        return Run(self.trials(entry) / f"lr-{lr:g}")

    def run(self, grid: Grid, entry: Entry, seed: int) -> Run:
        """Return the run of an entry's seed, counted from 0."""
        return Run(self.path / "runs" / entry.folder / f"seed-{grid.config.seed + seed}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; raises CharRNNError where there is none."""
    try:
        values = strict_json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CharRNNError(
            f"{path} cannot be read: {error.strerror}", "give the comparison.json of a comparison"
        ) from None
    except ValueError as error:
        raise CharRNNError(f"{path} is not JSON ({error})", "give the comparison.json of a comparison") from None
    if not isinstance(values, dict):
        raise CharRNNError(f"{path} holds no comparison", "give a comparison.json")
    return values


def parameters(config: Settings, tokenizer: Tokenizer, hidden: int) -> int:
    """Count the parameters of the configured cell's model at a hidden size, embedding and head included.

    Not those of direct connections, of which all cells have the same ones.
    """
    return Architecture.of(config.replace(hidden=hidden, direct=0, direct_rows=0), tokenizer.size).count()


def matching_hidden(config: Settings, tokenizer: Tokenizer, target: int) -> int:
    """Return the hidden size at which the configured cell's model is nearest to `target` parameters.

    Raises CharRNNError where even a width of 1 has more than twice as many.
    """
    if parameters(config, tokenizer, 1) > 2 * target:
        raise CharRNNError(
            f"{target:,} parameters are fewer than {config.cell!r} needs at a width of 1",
            "give more --parameters or a smaller --embedding",
        )
    return nearest_width(lambda width: parameters(config, tokenizer, width), target)


def nearest_width(count: Callable[[int], int], target: int) -> int:
    """Return the size of 1 or more whose count of parameters, which grows with it, is nearest to `target`."""
    low, high = 1, 2
    while count(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min(low, high, key=lambda width: abs(count(width) - target))


def different(old: Grid, new: Grid) -> str | None:
    """Return the first setting that forbids to resume a grid as another, or None; cells and seeds may be added.

    What the new one leaves open is as in the old one.
    """
    for name in ("match", "lr_trials", "budget", "steps", "target", "preset"):
        if getattr(old, name) != getattr(new, name):
            return name
    a, b = (dataclasses.asdict(grid.config) for grid in (old, new))
    decided = {field.name for field in dataclasses.fields(Settings) if field.metadata.get("recorded")}
    decided |= {"device", "precision", "engine"}
    return next((name for name in a if name not in decided and b[name] not in (None, a[name])), None)


def unrepeated(old: Grid, new: Grid) -> str | None:
    """Return what keeps a folder's grid from repeating another, all of whose decisions are made, or None.

    The repetition may still lack cells, never have others.
    """
    if old.config != new.config:
        return "other settings"
    if old.seeds > new.seeds:
        return "more seeds"
    known = {entry.folder: entry for entry in new.entries}
    for entry in old.entries:
        if entry.folder not in known:
            return f"the cell {entry.cell!r} too"
        if (entry.engine, entry.trial_steps, entry.steps) != (
            known[entry.folder].engine,
            known[entry.folder].trial_steps,
            known[entry.folder].steps,
        ):
            return f"another length or engine of {entry.cell!r}"
    return None


def merged_cells(old: Grid, new: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries of a grid, then those that are new to it."""
    known = {(entry.cell, entry.hidden, entry.layers) for entry in old.entries}
    return (*old.entries, *(e for e in new if (e.cell, e.hidden, e.layers) not in known))
