"""inspect: look inside models and cells."""

from pathlib import Path
from typing import Any

import click

from charrnn.cli import options
from charrnn.cli.event_printer import interruptible
from charrnn.compare.presets import NOTEBOOK

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)  # steps back in the table


@click.group(cls=options.Subcommands)
def command() -> None:
    """Look inside: how far back in time gradients reach, and how long a cell remembers."""


@command.command()
@click.argument("corpus", nargs=-1, shell_complete=options.complete_corpora)
@click.option(
    "--cells", default=",".join(NOTEBOOK), show_default=True, metavar="A,B,...|all", help="The cells to look at."
)
@click.option(
    "--hidden", default=128, show_default=True, metavar="N", help="Hidden size of the models that are trained."
)
@click.option("--steps", default=300, show_default=True, metavar="N", help="Training steps before the second look.")
@click.option("--copy/--no-copy", default=True, help="Let the cells climb the copy task too.")
@click.option("--encoding", metavar="NAME", help="How the files are encoded, as Python names it.  [default: utf-8]")
@click.option("--out", type=click.Path(path_type=Path), help="Draw both pictures onto this HTML page.")
@options.as_json
def gradients(
    corpus: tuple[str, ...],
    cells: str,
    hidden: int,
    steps: int,
    copy: bool,
    encoding: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Measure how much of the loss gradient at a step reaches the state k steps earlier, before and after training.

    Measure each cell's reach too: the longest gap over which it learns to remember, in the copy task.
    """
    from charrnn.compare import inspection, pictures
    from charrnn.training.settings import Settings

    if out is not None:
        pictures.require()
    found = []
    with interruptible() as stopped:
        looking = inspection.inspect_cells(
            corpus, options.cells(cells), hidden, steps, copy, stopped, encoding or Settings.encoding
        )
        for step in looking:
            if isinstance(step, str):
                if step.startswith("training"):
                    stopped.can_save()
                else:
                    stopped.at_once("the models are saved; the same command resumes")
                click.echo(f"{step} ...", err=True)
            else:
                found.append(step)
        if stopped():
            click.echo("stopped; the same command resumes", err=True)
            return stopped.exit_code
    if out is not None:  # before the table, whose reader may go
        from charrnn.compare import report

        report.write_inspection(out, found)
        click.echo(f"written: {out}", err=True)
    if as_json:
        options.print_json({"cells": [entry.as_dict() for entry in found]})
    else:
        click.echo(_table(found))
    return 0


def _table(found: list[Any]) -> str:
    width = max(len(entry.label) for entry in found)
    heads = "".join(f"{f'k={k}':>9}" for k in SHOWN)
    lines = [f"{'cell':<{width}}  {'':<8}{heads}  copies over"]
    for entry in found:
        reach = ("-" if not entry.copied else str(entry.reach)).rjust(11)
        for when, shares, last in (("at first", entry.at_start, ""), ("trained", entry.trained, reach)):
            figures = "".join(f"{shares[k]:>9.1e}" for k in SHOWN)
            lines.append(f"{entry.label if not last else '':<{width}}  {when:<8}{figures}  {last}".rstrip())
    return "\n".join(lines)
