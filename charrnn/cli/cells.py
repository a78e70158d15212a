"""cells: what recurrent cells there are, and what each is."""

import inspect
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options

SHARED = tuple(f"charrnn.cells.{name}" for name in ("cell", "initialisation", "ops"))  # what all cells are made of


@click.command()
@click.argument("name", required=False, shell_complete=options.complete_cells)
@click.option("--inputs", "I", default=128, show_default=True, metavar="N", help="Size of the input.")
@click.option("--hidden", "H", default=512, show_default=True, metavar="N", help="Size of the hidden state.")
@click.option("--cell-option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the cell NAME.")
@options.as_json
def command(name: str | None, I: int, H: int, pairs: tuple[str, ...], as_json: bool) -> None:
    """List the recurrent cells, or show one: equations, shapes, source."""
    from charrnn import cells

    if I < 1 or H < 1:
        raise click.UsageError("--inputs and --hidden are whole numbers of 1 or more")
    if pairs and name is None:
        raise click.UsageError("--cell-option belongs to one cell: give its name too")
    if name is not None:
        row = _whole(cells.get(name), I, H, options.cell_options(pairs))
        options.print_json({"cells": [row]}) if as_json else _show(row, I, H)
        return
    rows = [_row(cells.get(each), I, H, {}) for each in cells.names()]
    options.say_broken_cells()
    if as_json:
        broken = [{"file": each.file, "reason": each.reason, "hint": each.hint} for each in cells.broken().values()]
        options.print_json({"cells": rows, "broken": broken})
        return
    width = max(len(row["cell"]) for row in rows)
    click.echo(f"{'cell':<{width}}  {'parameters':>10}  over time   source   (input {I}, hidden {H})")
    for row in rows:
        click.echo(f"{row['cell']:<{width}}  {row['parameters']:>10,}  {row['over_time']:<10}  {row['source']}")
        click.echo(f"    {row['summary']}")
    click.echo(
        f"\n`{cli.typed('cells', 'NAME')}` shows one: its equations as they are run, shapes, initialisation, options."
    )


def _row(cell: Any, I: int, H: int, given: dict[str, int]) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "summary": cell.summary,
        "source": cell.source,
        "parameters": cell.count(I, H, **given),
        "over_time": "scan" if cell.linear else "sequential",
        "linear": cell.linear,
        "state": dict(cell.state) | {n: str(v) for n, v in cell.state.items() if abs(v) == float("inf")},
        "options": {**cell.options, **given},
        "torch_layer": f"nn.{cell.twin.layer}" if cell.twin else None,
    }


def _whole(cell: Any, I: int, H: int, given: dict[str, int]) -> dict[str, Any]:
    """Return a row with the shapes, the initialisation and the equations beside it."""
    from charrnn.cells.cell import letters
    from charrnn.cells.initialisation import describe

    in_letters = letters(cell, **given)
    shapes = [
        {"name": name, "letters": list(in_letters[name]), "shape": list(shape), "starts": describe(init)}
        for name, (shape, init) in cell.shapes(I, H, **given).items()
    ]
    return {**_row(cell, I, H, given), "shapes": shapes, "equations": _equations(cell)}


def _equations(cell: Any) -> str | None:
    """Return the functions of a cell and the helpers they call, as they are written; None where no file holds them."""
    functions = [cell.inputs, *((cell.gates, cell.readout) if cell.linear else (cell.step,))]
    helpers = [_helpers(function) for function in functions]
    in_order = dict.fromkeys([*(h for group in helpers for h in group), *functions])
    try:
        return "\n\n".join(inspect.getsource(function).strip() for function in in_order)
    except (OSError, TypeError):
        return None


def _helpers(function: Any) -> list[Any]:
    """List the functions of the cell's own that a function calls; those that they call come first."""
    if not hasattr(function, "__code__"):  # a partial, or an object that can be called
        return []
    called = [function.__globals__.get(name) for name in function.__code__.co_names]
    own = [each for each in called if inspect.isfunction(each) and each.__module__ not in SHARED]
    return [each for helper in own for each in (*_helpers(helper), helper)]


def _show(row: dict[str, Any], I: int, H: int) -> None:
    click.echo(f"{row['cell']}: {row['summary']}\nsource: {row['source']}")
    click.echo(f"over time: {row['over_time']}" + (f", or as torch's {row['torch_layer']}" * bool(row["torch_layer"])))
    click.echo(f"state: {', '.join(f'{name} (starts at {value})' for name, value in row['state'].items())}")
    if row["options"]:
        click.echo(f"options: {', '.join(f'{name}={value}' for name, value in row['options'].items())}")
    click.echo(f"parameters at input {I}, hidden {H}: {row['parameters']:,}")
    for param in row["shapes"]:
        letters, shape = (" x ".join(map(str, param[key])) for key in ("letters", "shape"))
        click.echo(f"  {param['name']:<8} {letters:<14} {shape:<14} {param['starts']}")
    click.echo("\n" + (row["equations"] or "(its equations were defined where no file holds them)"))
    if row["linear"]:
        state = next(iter(row["state"]))
        click.echo(f"\n# and over time: {state} = a {state} + b, by the scan in training, step by step when decoding")
