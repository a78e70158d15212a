"""runs: what was trained."""

import math
import time
from typing import Any

import click

from charrnn.cli import options
from charrnn.errors import CharRNNError


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the runs, newest first."""
    from charrnn import checkpoint

    rows = []
    for run in checkpoint.runs():
        try:
            rows.append(summary(run))
        except CharRNNError as error:  # one that is damaged must not hide the others
            click.echo(f"note: {error.problem}", err=True)
    if as_json:
        options.print_json({"runs": rows})
        return
    if not rows:
        click.echo("there are no runs yet; train one: python cli.py train", err=True)
        return
    table = [("run", "cell", "size", "steps", "val nats", "test bits", "when")]
    for row in rows:
        size, steps = f"{row['hidden']} x {row['layers']}", f"{row['step']:,}" + ("" if row["complete"] else " so far")
        scores = _figure(row["val_nats"]), _figure(row["test_bits_per_char"])
        table.append((row["run"], row["cell"], size, steps, *scores, ago(row["saved"])))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


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
        "saved": round((run.path / "run.json").stat().st_mtime),
    }


def ago(saved: float) -> str:
    """How long ago a time in seconds since 1970 was."""
    seconds = max(0.0, time.time() - saved)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
