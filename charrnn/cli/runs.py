"""runs: what was trained."""

import math
import time
import unicodedata
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.errors import CharRNNError


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the runs, newest first; where there are none, those that come with charrnn."""
    from charrnn.training import runs

    rows, bundled = ([_row(run) for run in some] for some in (runs.folders(), runs.bundled_runs()))
    if as_json:
        options.print_json({"runs": rows, "bundled": bundled})
        return
    if not rows:
        click.echo(f"there are no runs yet; train one: {cli.typed('train')}", err=True)
    rows = rows or bundled
    if not rows:
        return
    table = [("run", "cell", "size", "steps", "val nats", "test bits", "when")]
    for row in rows:
        if row["damaged"] is not None:
            table.append((_shown(row["run"]), "damaged", "", "", "", "", _when(row, bundled)))
            continue
        size, steps = f"{row['hidden']} x {row['layers']}", f"{row['step']:,}" + ("" if row["complete"] else " so far")
        scores = _figure(row["val_nats"]), _figure(row["test_bits_per_char"])
        table.append((_shown(row["run"]), row["cell"], size, steps, *scores, _when(row, bundled)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    for row in rows:
        if row["damaged"] is not None:
            cli.note(f"{_shown(row['run'])}: {row['damaged']}")


def summary(run: Any) -> dict[str, Any]:
    """Sum up a run in a line: what it is, how far it is, how good it is. Raises CharRNNError where it is damaged."""
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
        "weights_alone": run.is_weights_alone(),
        "diverged": about.get("diverged"),
        "damaged": None,
        "saved": round(run.saved_at()),
    }


def _row(run: Any) -> dict[str, Any]:
    """Sum up a run, or say why that cannot be done: one that is damaged must not hide the others."""
    reason = run.damage()
    if reason is None:
        try:
            return summary(run)
        except CharRNNError as error:  # it has just been removed or changed
            reason = error.problem
    nothing = dict.fromkeys(("cell", "hidden", "layers", "parameters", "step", "val_nats", "test_bits_per_char"))
    about = {
        "complete": False,
        "weights_alone": False,
        "diverged": None,
        "damaged": reason,
        "saved": round(run.saved_at()),
    }
    return {"run": run.name, "path": str(run.path), **nothing, **about}


def _when(row: dict[str, Any], bundled: list[dict[str, Any]]) -> str:
    return "comes with charrnn" if row in bundled else ago(row["saved"])


def ago(saved: float) -> str:
    """Say how long ago a time in seconds since 1970 was."""
    seconds = max(0.0, time.time() - saved)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _shown(name: str) -> str:
    """Write the name of a run on one line, whoever named its folder."""
    return "".join(options.visible(c) if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in name)
