"""runs: what was trained."""

import math
from typing import Any

import click

from charrnn.cli import options


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the runs, newest first."""
    from charrnn import checkpoint

    rows = [summary(run) for run in checkpoint.runs()]
    if as_json:
        options.print_json({"runs": rows})
        return
    if not rows:
        click.echo("there are no runs yet; train one: python cli.py train", err=True)
        return
    width = max(len(row["run"]) for row in rows)
    click.echo(f"{'run':<{width}}  {'step':>7}  {'parameters':>10}  {'val nats':>8}  {'test bits':>9}  state")
    for row in rows:
        val, test = row["val_nats"], row["test_bits_per_char"]
        click.echo(
            f"{row['run']:<{width}}  {row['step']:>7,}  {row['parameters']:>10,}  {_figure(val):>8}  "
            f"{_figure(test):>9}  {'complete' if row['complete'] else 'unfinished'}"
        )


def summary(run: Any) -> dict[str, Any]:
    """A run in a line: what it is, how far it is, how good it is."""
    about, config = run.about(), run.config()
    result = about["result"] or {}
    return {
        "run": run.name,
        "path": str(run.path),
        "cell": config.cell,
        "hidden": config.hidden,
        "layers": config.layers,
        "parameters": about["parameters"],
        "step": about["step"],
        "val_nats": result.get("val_nats", about["best_val_nats"]),
        "test_bits_per_char": result.get("test_bits_per_char"),
        "complete": about["result"] is not None,
    }


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
