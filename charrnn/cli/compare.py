"""compare: which recurrent cell models a text best."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli import options, priming
from charrnn.cli.comparison_table import table
from charrnn.cli.event_printer import EventPrinter, interruptible
from charrnn.compare.presets import NOTEBOOK, trends
from charrnn.interruption import Interruption

if TYPE_CHECKING:
    from charrnn.compare import events
    from charrnn.compare.grid import Folder, Grid


@click.command()
@click.argument("corpus", nargs=-1, shell_complete=options.complete_corpora)
@click.option("--cells", metavar="A,B,...|all", help=f"The cells to compare.  [default: {','.join(NOTEBOOK)}]")
@click.option("--seeds", type=int, metavar="N", help="Runs of each cell, which differ in the seed alone.  [default: 3]")
@click.option(
    "--match",
    type=click.Choice(["parameters", "hidden", "time"]),
    help="What is equal: parameters and steps, hidden size and steps, or parameters and time.  [default: parameters]",
)
@click.option(
    "--hidden",
    type=int,
    metavar="N",
    help="Hidden size; where parameters are equal, the default cell's; with --preset, the largest.  [default: 256]",
)
@click.option("--parameters", type=int, metavar="N", help="Parameters of each model, instead of --hidden.")
@click.option(
    "--budget",
    metavar="TIME",
    help="Training of one run of the slowest cell, or with --match time of every run.  [default: 60s]",
)
@click.option("--steps", type=int, metavar="N", help="Steps of every run, instead of a budget.")
@click.option("--lr-trials", type=int, metavar="K", help="Learning rates tried for every cell.  [default: 5]")
@click.option("--preset", type=click.Choice(["karpathy2015"]), help="A grid from the literature, with its settings.")
@click.option("--fraction", type=float, metavar="F", help="With --preset: this share of its epochs.  [default: 1]")
@click.option("--prime", metavar="TEXT", help="What each cell is to complete; a line of the test part by default.")
@click.option("--inspect/--no-inspect", "look_inside", default=True, help="Let the report look inside the cells.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Runs side by side.")
@click.option(
    "--on",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="Where runs are trained: local, dask://HOST:8786, tls://HOST:8786 or slurm[:partition=NAME,...].",
)
@click.option("--insecure", is_flag=True, help="Use Dask without TLS, in a network that you trust.")
@click.option("--baseline", metavar="RUN", help="A trained run to stand in the table too.")
@click.option("--adapt", is_flag=True, help="Score each cell again, while it learns on in the test part.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The comparison's folder; given again, it goes on or grows."
)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Repeat what a comparison.json holds."
)
@options.settings_but("cell", "cell_options", "hidden", "steps", "epochs", "budget")
@options.as_json
def command(
    corpus: tuple[str, ...],
    cells: str | None,
    source: Path | None,
    out: Path | None,
    jobs: int,
    on: str,
    insecure: bool,
    baseline: str | None,
    look_inside: bool,
    adapt: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Compare recurrent cells on CORPUS, fairly: which models it best, at what size, speed and cost.

    Every cell gets the same number of learning-rate trials, judged by the validation part, and then its seeds, each
    scored once on the test part. An interrupted comparison goes on when the same command is given again.
    """
    from charrnn.compare import asking, comparison
    from charrnn.compare.grid import Folder, Grid, read_json

    if source is not None:
        refused = [k for k, v in {"corpus": corpus, "cells": cells, **given}.items() if v not in (None, ())]
        if refused:
            raise click.UsageError(f"--from repeats a comparison as it was: leave out {', '.join(refused)}")
        grid = Grid.of(read_json(source).get("grid", {}), str(source)).forget_results()
        models: Any = []
        kind = "again"
    elif given["preset"] is not None:
        grid, models = _preset(corpus, cells, given)
        kind = given["preset"]
    else:
        grid, models = _asked(corpus, cells, given)
        kind = grid.match
    folder = Folder(out or asking.folder(grid, kind))
    with interruptible() as stopped:
        events = comparison.compare(grid, models, folder, jobs, baseline, look_inside, stopped, adapt, on, insecure)
        return _Printer(as_json, stopped, folder).follow(events)


def _asked(corpus: tuple[str, ...], cells: str | None, given: dict[str, Any]) -> tuple["Grid", list[str]]:
    """Return the grid and the cells that the options ask for."""
    from charrnn.compare import asking

    if given["fraction"] is not None:
        raise click.UsageError("--fraction is a share of a --preset's epochs: give both, or neither")
    if given["budget"] is not None and given["steps"] is not None:
        raise click.UsageError("--budget and --steps both set the length of the runs: give one of them")
    grid = asking.grid(
        _config(corpus, given),
        match=given["match"],
        seeds=given["seeds"],
        lr_trials=given["lr_trials"],
        budget=given["budget"],
        steps=given["steps"],
        prime=priming.typed_in(given["prime"] or "", "the prime"),
        parameters=given["parameters"],
    )
    return grid, options.cells(",".join(NOTEBOOK) if cells is None else cells)


def _preset(corpus: tuple[str, ...], cells: str | None, given: dict[str, Any]) -> tuple[Any, Any]:
    """Return a grid of the literature on a corpus."""
    from charrnn.compare import presets

    allowed = {"preset", "fraction", "seeds", "hidden", "prime", "split", "seed", "device", "precision"}
    allowed |= {"tokenizer", "encoding"}
    refused = [
        name.replace("_", "-") for name, value in given.items() if value not in (None, ()) and name not in allowed
    ]
    if refused or cells is not None:
        raise click.UsageError(f"the preset sets its own {', '.join(refused or ['cells'])}: leave it out")
    fraction = 1.0 if given["fraction"] is None else given["fraction"]
    seeds = 1 if given["seeds"] is None else given["seeds"]
    widest = presets.WIDTHS[-1] if given["hidden"] is None else given["hidden"]
    shared = _config(corpus, {name: value for name, value in given.items() if name != "hidden"})
    prime = priming.typed_in(given["prime"] or "", "the prime")
    return presets.karpathy2015(shared, fraction, seeds, prime, widest)


def _config(corpus: tuple[str, ...], given: dict[str, Any]) -> Any:
    from charrnn.training.settings import Settings

    own = {"match", "seeds", "parameters", "budget", "steps", "lr_trials", "preset", "fraction", "prime"}
    values = options.given({name: value for name, value in given.items() if name not in own})
    return Settings.of({**values, **({"corpus": corpus} if corpus else {})})


class _Printer(EventPrinter["events.Event"]):
    """Prints the events of a comparison."""

    def __init__(self, as_json: bool, interruption: Interruption, folder: "Folder") -> None:
        super().__init__(as_json, interruption)
        from charrnn.compare.reporting import ComparisonLines

        self._folder = folder
        self._comparison = ComparisonLines(self.lines)

    def show(self, event: "events.Event") -> None:
        from charrnn.compare import events

        match event:
            case events.Sized():  # runs may begin before it is told
                self._interruption.at_once("nothing is lost. The same command goes on.")
            case events.Working():
                self._interruption.can_save()
            case events.Scoring():  # every run is complete
                self._interruption.at_once(f"everything is saved in {self._folder.path}. The same command goes on.")
            case events.Stopped():
                self._was_stopped = True
            case events.Compared():
                self._compared(event)
        self._comparison.show(event)

    def _compared(self, event: "events.Compared") -> None:
        self.lines.close()
        if self._as_json:
            options.print_json(event.result)
            return
        click.echo(table(event.result))
        if event.grid.preset is not None:
            for trend in trends(event.result["cells"]):
                click.echo(f"{trend.claim}: ahead in {trend.ahead} of {trend.pairs}, {trend.bits:+.4f} bits on average")
