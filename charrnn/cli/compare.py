"""compare: which recurrent cell models a text best."""

import sys
from pathlib import Path
from typing import Any

import click

from charrnn.cli import options
from charrnn.cli.comparison_table import table
from charrnn.cli.train import interruptible
from charrnn.compare.presets import NOTEBOOK, trends

DEFAULT_BUDGET = "60s"


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
    help="Width; where parameters are equal, the default cell's; with --preset, the widest.  [default: 256]",
)
@click.option("--parameters", type=int, metavar="N", help="Parameters of each model, instead of --hidden.")
@click.option(
    "--budget",
    metavar="TIME",
    help="Training of one run of the slowest cell, or with --match time of every run.  [default: 60s]",
)
@click.option("--steps", type=int, metavar="N", help="Updates of every run, instead of a budget.")
@click.option("--lr-trials", type=int, metavar="K", help="Learning rates tried for every cell.  [default: 5]")
@click.option("--preset", type=click.Choice(["karpathy2015"]), help="A grid from the literature, with its settings.")
@click.option("--fraction", type=float, metavar="F", help="With --preset: this share of its epochs.  [default: 1]")
@click.option("--prime", metavar="TEXT", help="What each cell is to complete; a line of the test part by default.")
@click.option("--inspect/--no-inspect", "look_inside", default=True, help="Let the report look inside the cells.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Runs side by side.")
@click.option("--baseline", metavar="RUN", help="A trained run to stand in the table too.")
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
    baseline: str | None,
    look_inside: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Compare recurrent cells on CORPUS, fairly: which models it best, at what size, speed and cost.

    Every cell gets the same number of learning-rate trials, judged by the validation part, and then its seeds, each
    scored once on the test part. An interrupted comparison goes on when the same command is given again.
    """
    from charrnn.compare import comparison
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
    folder = Folder(out or _folder(grid, kind))
    with interruptible() as stopped:
        show = _Show(as_json)
        for report in comparison.compare(grid, models, folder, jobs, baseline, look_inside, stopped):
            kind = type(report).__name__
            if kind == "Working":
                stopped.can_save()
            elif kind == "Scoring":  # every run is complete
                stopped.at_once(f"everything is saved in {folder.path}. The same command goes on.")
            show(report)
    return stopped.exit_code if show.stopped else 0


def _asked(corpus: tuple[str, ...], cells: str | None, given: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the grid and the cells that the options ask for."""
    from charrnn.compare.grid import Grid
    from charrnn.training.config import parse_seconds

    if given["fraction"] is not None:
        raise click.UsageError("--fraction is a share of a --preset's epochs: give both, or neither")
    if given["budget"] is not None and given["steps"] is not None:
        raise click.UsageError("--budget and --steps both set the length of the runs: give one of them")
    budget = None if given["steps"] is not None else parse_seconds(given["budget"] or DEFAULT_BUDGET)
    grid = Grid(
        config=_config(corpus, given),
        match=given["match"] or "parameters",
        seeds=3 if given["seeds"] is None else given["seeds"],
        lr_trials=5 if given["lr_trials"] is None else given["lr_trials"],
        budget=budget,
        steps=given["steps"],
        prime=given["prime"] or "",
        target=given["parameters"],
    )
    return grid, options.cells(cells or ",".join(NOTEBOOK))


def _preset(corpus: tuple[str, ...], cells: str | None, given: dict[str, Any]) -> tuple[Any, Any]:
    """Return a grid of the literature on a corpus."""
    from charrnn.compare import presets

    kept = ("preset", "fraction", "seeds", "hidden", "prime", "split", "seed", "device", "precision", "tokenizer")
    refused = [name.replace("_", "-") for name, value in given.items() if value not in (None, ()) and name not in kept]
    if refused or cells is not None:
        raise click.UsageError(f"the preset sets its own {', '.join(refused or ['cells'])}: leave it out")
    fraction = 1.0 if given["fraction"] is None else given["fraction"]
    seeds = 1 if given["seeds"] is None else given["seeds"]
    widest = presets.WIDTHS[-1] if given["hidden"] is None else given["hidden"]
    shared = _config(corpus, {name: value for name, value in given.items() if name != "hidden"})
    return presets.karpathy2015(shared, fraction, seeds, given["prime"] or "", widest)


def _config(corpus: tuple[str, ...], given: dict[str, Any]) -> Any:
    from charrnn.training.config import Config

    own = {"match", "seeds", "parameters", "budget", "steps", "lr_trials", "preset", "fraction", "prime"}
    values = options.given({name: value for name, value in given.items() if name not in own})
    return Config.of({**values, **({"corpus": corpus} if corpus else {})})


def _folder(grid: Any, kind: str) -> Path:
    """Return where a comparison is kept unless --out says otherwise."""
    from charrnn.text import corpora
    from charrnn.text import corpus as data

    return data.home() / f"compare-{corpora.stem(grid.config.corpus[0])}-{kind}"


class _Show:
    """Prints the reports of a comparison: a bar on a terminal, a line per run elsewhere, the table on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Any = None
        self._left = ""
        self.stopped = False

    def __call__(self, report: Any) -> None:
        getattr(self, f"_{type(report).__name__.lower()}")(report)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def _sized(self, report: Any) -> None:
        grid, config = report.grid, report.grid.config
        length = f"{grid.steps:,} steps" if grid.steps else f"{grid.budget:g} s"
        self._say(
            f"comparing {len(grid.entries)} models on {', '.join(config.corpus)}: {grid.lr_trials} learning rates and "
            f"{grid.seeds} seeds each, {length} a run, equal {grid.match}; in {report.folder.path}"
        )
        self._say(f"computing on {config.device}, {config.precision}, {config.threads} threads")
        for entry in report.added:
            line = f"  {grid.label(entry):<12} hidden {entry.hidden:>5} x {entry.layers}"
            line += f"  {entry.parameters:>11,} parameters"
            if report.target:
                line += f"  ({entry.parameters / report.target - 1:+.2%} of {report.target:,})"
            self._say(line)

    def _timed(self, report: Any) -> None:
        if report.chars_per_s:
            self._say(f"timed {report.label}: {report.chars_per_s:,.0f} characters per second")

    def _working(self, report: Any) -> None:
        self._left = _duration(report.seconds_left)
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=report.runs,
                leave=False,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar}| {postfix}",
            )
        done = report.runs_done + (report.step / report.steps if report.step < report.steps else 0)
        self._bar.n = min(done, report.runs)
        self._bar.set_postfix_str(
            f"run {min(report.runs_done + 1, report.runs)} of {report.runs}: {report.label}, {report.kind}, "
            f"step {report.step:,} of {report.steps:,}; about {self._left} left",
            refresh=False,
        )
        self._bar.update(0)

    def _tried(self, report: Any) -> None:
        if report.trials:
            tried = ", ".join(f"{lr:g}: {'diverged' if nats is None else f'{nats:.4f}'}" for lr, nats in report.trials)
            edge = report.best in (report.trials[0][0], report.trials[-1][0])
            self._say(
                f"{report.label:<12} learning rate {report.lr:g}: {report.best:g} would be best in the trials"
                f"{' (an outermost one)' if edge else ''}; validation nats at {tried}"
            )

    def _decided(self, report: Any) -> None:
        steps = {entry.steps for entry in report.grid.entries}
        if len(steps) == 1:
            self._say(f"every run has {next(iter(steps)):,} steps")
        else:
            for entry in report.grid.entries:
                self._say(f"{report.grid.label(entry):<12} {entry.steps:,} steps a run")

    def _ran(self, report: Any) -> None:
        self._say(
            f"[{report.runs_done}/{report.runs}] {report.label}, seed {report.seed}: {report.bits_per_char:.4f} bits "
            f"per character; about {self._left} left"
        )

    def _scoring(self, report: Any) -> None:
        self._close()
        self._say(f"{report.what} ...")

    def _stopped(self, report: Any) -> None:
        self._close()
        self._say(f"stopped; everything is saved in {report.folder.path}. The same command goes on.")
        self.stopped = True

    def _compared(self, report: Any) -> None:
        self._close()
        if self._as_json:
            options.print_json(report.result)
        else:
            click.echo(table(report.result))
            if report.grid.preset is not None:
                for trend in trends(report.result["cells"]):
                    click.echo(
                        f"{trend.claim}: ahead in {trend.ahead} of {trend.pairs}, {trend.bits:+.4f} bits on average"
                    )
        for path in report.files:
            self._say(f"written: {path}")
        for note in report.notes:
            self._say(f"note: {note}")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
