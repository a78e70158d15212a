"""cells: what recurrent cells there are, and what each is."""

import inspect
from typing import Any

import click

from charrnn.cli import options


@click.command()
@click.argument("name", required=False, shell_complete=options.complete_cells)
@click.option("--inputs", "I", default=128, show_default=True, metavar="N", help="Size of the input.")
@click.option("--hidden", "H", default=512, show_default=True, metavar="N", help="Size of the hidden state.")
@options.as_json
def command(name: str | None, I: int, H: int, as_json: bool) -> None:
    """List the recurrent cells, or show one: equations, shapes, source."""
    from charrnn import cells

    if I < 1 or H < 1:
        raise click.UsageError("--inputs and --hidden are whole numbers of 1 or more")
    rows = [_summary(cells.get(n), I, H) for n in ([name] if name else cells.names())]
    if as_json:
        options.print_json({"cells": rows})
    elif name:
        _show(cells.get(name), I, H)
    else:
        width = max(len(row["cell"]) for row in rows)
        click.echo(f"{'cell':<{width}}  {'parameters':>10}  over time   equations   (input {I}, hidden {H})")
        for row in rows:
            kind = "scan" if row["linear"] else "sequential"
            click.echo(f"{row['cell']:<{width}}  {row['parameters']:>10,}  {kind:<10}  {row['summary']}")


def _summary(cell: Any, I: int, H: int) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "summary": cell.summary,
        "source": cell.source,
        "parameters": cell.count(I, H),
        "linear": cell.linear,
        "state": list(cell.state),
        "options": dict(cell.options),
    }


def _show(cell: Any, I: int, H: int) -> None:
    click.echo(f"{cell.name}: {cell.summary}\nsource: {cell.source}")
    click.echo(f"state: {', '.join(f'{name} (starts at {value:g})' for name, value in cell.state.items())}")
    if cell.options:
        click.echo(f"options: {', '.join(f'{name}={value}' for name, value in cell.options.items())}")
    click.echo(f"parameters at input {I}, hidden {H}: {cell.count(I, H):,}")
    for name, (shape, _) in cell.shapes(I, H).items():
        click.echo(f"  {name:<6} {' x '.join(map(str, shape))}")
    module = inspect.getmodule(cell.parameters)
    try:
        click.echo("\n" + inspect.getsource(module or cell.parameters).strip())
    except (OSError, TypeError):
        click.echo("\n(its equations were defined where no file holds them)")
