"""A comparison as a value: made from Python, or read from where it is kept; its table, its pictures."""

import contextlib
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrnn import cells as registry
from charrnn import frames
from charrnn.compare import asking, comparison, outcome, pictures, places, report, reporting
from charrnn.compare.events import Compared, Event, Scoring, Stopped, Working
from charrnn.compare.grid import Folder, read_json
from charrnn.compare.presets import NOTEBOOK
from charrnn.errors import CharRNNError, OptionError
from charrnn.interruption import Interruption, heard
from charrnn.pages import filling
from charrnn.training.settings import Settings

FIGURES = "comparison.json"


@dataclass(frozen=True)
class Comparison:
    """A complete comparison. path: its folder. result: its figures, as `compare --json` prints them.

    A notebook shows its verdict and its table.
    """

    path: Path
    result: Mapping[str, Any] = field(repr=False)

    @property
    def verdict(self) -> str:
        """What it shows, in a sentence or two."""
        return report.verdict(self.result)

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame, a row for each model, best first.

        Raises CharRNNError where pandas is missing.
        """
        return frames.of_rows(self.result["cells"])

    def plot(self, what: str = "learning") -> Any:
        """Draw the comparison. Returns a matplotlib Figure.

        what: 'learning' is validation by characters read and by seconds; 'costs' is bits per character, with
        their intervals, by parameters and by speed.
        Raises CharRNNError where matplotlib is missing, and where the runs of its folder are gone.
        """
        if what == "costs":
            return pictures.figure_of_costs(self.result["cells"])
        if what != "learning":
            raise OptionError(f"there is no picture {what!r}", "give 'learning' or 'costs'")
        folder = Folder(self.path)
        grid = folder.grid()
        entries = {grid.label(entry): entry for entry in grid.entries}
        labels = [row["label"] for row in self.result["cells"]]
        return pictures.figure_of_learning({label: outcome.curve(grid, folder, entries[label]) for label in labels})

    def _repr_html_(self) -> str:
        values = {"heads": report.HEADS.split(","), "rows": report.score_rows(self.result)}
        page = self.path / "report.html"
        return str(
            filling.fill(
                "comparison.html",
                verdict=self.verdict,
                baselines=report.baseline_rows(self.result),
                report=str(page) if page.is_file() else "",
                **values,
            )
        )


def load_comparison(path: str | Path) -> Comparison:
    """Read a complete comparison from its folder. Raises CharRNNError where there is none."""
    folder = Path(path)
    result = read_json(folder / FIGURES)
    try:
        report.verdict(result)
        report.score_rows(result)
        report.baseline_rows(result)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CharRNNError(
            f"{folder / FIGURES} holds no comparison ({error!r})", "give the folder of a comparison"
        ) from None
    return Comparison(folder, {name: value for name, value in result.items() if name != "grid"})


def compare_cells(
    *corpus: str | Path,
    cells: Sequence[str] = NOTEBOOK,
    seeds: int | None = None,
    match: str | None = None,
    parameters: int | None = None,
    budget: float | str | None = None,
    steps: int | None = None,
    lr_trials: int | None = None,
    prime: str = "",
    jobs: int = 1,
    look_inside: bool = False,
    adapt: bool = False,
    out: str | Path | None = None,
    progress: bool | None = None,
    on: places.On = places.LOCAL,
    insecure: bool = False,
    **settings: Any,
) -> Comparison:
    """Compare cells on a text, fairly, as the command `compare` does; the same call again goes on or grows.

    corpus, settings: as of `charrnn.train`. cells: their names. The other arguments are the command's options, with its
    defaults; look_inside: whether the report shows gradients and the copy task, which take a while. progress: as of
    `charrnn.train`. on: also an executor of `concurrent.futures`, whose workers see the folder.
    Raises CharRNNError for what cannot be compared. Ctrl-C raises KeyboardInterrupt after what was done is saved.
    """
    if isinstance(cells, str):
        raise OptionError(f"cells is {cells!r}", "give a list of names, for instance ['gru', 'lstm']")
    config = Settings.of({**settings, **({"corpus": tuple(map(str, corpus))} if corpus else {})})
    asked = asking.grid(
        config,
        match=match,
        seeds=seeds,
        lr_trials=lr_trials,
        budget=budget,
        steps=steps,
        prime=prime,
        parameters=parameters,
    )
    folder = Folder(Path(out) if out is not None else asking.folder(asked, asked.match))
    names = list(dict.fromkeys(registry.get(name).name for name in cells))
    interruption = Interruption(raised=lambda *_: KeyboardInterrupt(), hurried=signal.default_int_handler)
    events = comparison.compare(asked, names, folder, jobs, None, look_inside, interruption, adapt, on, insecure)
    return _carried_out(events, folder, interruption, progress)


def _carried_out(
    events: Generator[Event, None, None], folder: Folder, interruption: Interruption, progress: bool | None
) -> Comparison:
    listener = reporting.listener(progress)
    with heard(interruption, [signal.SIGINT]), contextlib.closing(events):
        for event in events:
            match event:
                case Working():
                    interruption.can_save()
                case Scoring():  # every run is complete
                    interruption.at_once()
            if listener is not None:
                listener.show(event)
            match event:
                case Stopped():
                    error = KeyboardInterrupt()
                    error.add_note(f"everything is saved in {folder.path}; the same call goes on")
                    raise error
                case Compared():
                    return Comparison(folder.path, event.result)
    raise AssertionError("a comparison ends complete or stopped")
