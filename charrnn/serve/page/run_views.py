"""Runs and comparisons of the home folder as the page shows them: what their own files say."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import api
from charrnn.compare import grid as grids
from charrnn.compare import outcome
from charrnn.errors import CharRNNError
from charrnn.home import home
from charrnn.locks import HOLDER
from charrnn.serve.errors import RequestError
from charrnn.text.copies import private_copy
from charrnn.training import runs
from charrnn.training.metrics import METRICS, TIMINGS
from charrnn.training.run import Run

RUNS_SHOWN = 60  # the newest
PRIME_CHARS, SAMPLE_CHARS = 40, 160
COMPARISON = "comparison.json"


def own_runs() -> dict[str, Run]:
    """Return the runs of the home folder that are shown, by name, the newest first; then those of the package."""
    own = {run.name: run for run in runs.folders()[:RUNS_SHOWN]}
    return own | {run.name: run for run in runs.bundled_runs() if run.name not in own}


def run_named(name: str) -> Run:
    """Return a run of the list by its whole name. Raises RequestError where there is none."""
    found = own_runs().get(name)
    if found is None:
        raise RequestError(404, "there is no run of this name", "run", "run_not_found")
    return found


def is_training(run: Run) -> bool:
    """Tell whether some process trains into a run.

    Its lock is tried only where somebody has left a note of holding it: trying it could get in the way of who begins.
    """
    return (run.path / HOLDER).exists() and run.in_use()


def summary(run: Run) -> dict[str, Any]:
    """Sum up a run: what it is, how far it is, how good it is; one that is damaged says so."""
    about: dict[str, Any] = {"run": run.name, "bundled": run.is_bundled(), "saved": round(run.saved_at())}
    about |= dict.fromkeys(("cell", "hidden", "layers", "parameters", "step", "steps", "val_bits", "test_bits"))
    about |= {"state": "stopped", "problem": None}
    try:
        config = run.config()
        about |= {"cell": config.cell, "hidden": config.hidden, "layers": config.layers, "steps": config.steps_in_all}
        training = is_training(run)
        if run.exists():
            said = run.about()
            result = said["result"] or {}
            val = result.get("val_nats", said["best_val_nats"])
            test = result.get("test_nats")
            about |= {"parameters": said["parameters"], "step": said["step"]}
            about |= {"val_bits": _bits(val), "test_bits": _bits(test)}
            if said.get("diverged") is not None:
                about["state"] = "diverged"
            elif said["result"] is not None:
                about["state"] = "complete"
            elif run.is_weights_alone():
                about["state"] = "weights"
        if training:
            about["state"] = "training"
    except CharRNNError as error:
        about |= {"state": "damaged", "problem": error.problem}
    return about


def progress(run: Run) -> dict[str, Any]:
    """Return a run's figures, a row for each validation. Raises CharRNNError where its files are damaged."""
    seconds = {row["step"]: row["seconds"] for row in run.rows(TIMINGS)}
    rows = [
        {
            "step": row["step"],
            "characters": row["characters"],
            "seconds": seconds.get(row["step"]),
            "train_bits": _bits(row["train_nats"]),
            "val_bits": _bits(row["val_nats"]),
        }
        for row in run.rows(METRICS)
    ]
    return {**summary(run), "rows": rows, "budget": run.config().budget, "chars_per_s": _speed(rows)}


class Samples:
    """What the newest checkpoint of a run makes of the first characters of its text, drawn once a checkpoint."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int], dict[str, Any] | None] = {}

    def of(self, run: Run) -> dict[str, Any] | None:
        """Return the sample with its step; None where there is no checkpoint that can be read."""
        if not run.exists():
            return None
        try:
            key = run.name, int(run.about()["step"])
            if key not in self._drawn:
                if len(self._drawn) > RUNS_SHOWN:
                    self._drawn.clear()
                self._drawn[key] = _sample(run, key[1])
            return self._drawn[key]
        except CharRNNError:  # it is written at this moment, or damaged, which its summary says
            return None


def comparisons() -> dict[str, Path]:
    """Return the folders of finished comparisons of the home folder, by name, the newest first."""
    try:
        found = [path for path in home().iterdir() if (path / COMPARISON).is_file()]
    except OSError:
        return {}
    found.sort(key=lambda path: (path / COMPARISON).stat().st_mtime, reverse=True)
    return {path.name: path for path in found[:RUNS_SHOWN]}


def comparison(name: str) -> dict[str, Any]:
    """Return a finished comparison: its table, and how each of its models learned.

    Raises RequestError where there is none of this name, CharRNNError where it is damaged.
    """
    path = comparisons().get(name)
    if path is None:
        raise RequestError(404, "there is no finished comparison of this name", "name", "comparison_not_found")
    result = grids.read_json(path / COMPARISON)
    folder, cells = grids.Folder(path), result.get("cells")
    if not isinstance(cells, list) or not all(isinstance(row, Mapping) for row in cells):
        raise CharRNNError(f"{path / COMPARISON} holds no comparison", "make it again: the same command goes on")
    grid = folder.grid()
    entries = {grid.label(entry): entry for entry in grid.entries}
    curves = []
    for row in cells:
        entry = entries.get(row.get("label"))
        if entry is not None:
            try:
                curve = outcome.curve(grid, folder, entry)
            except (CharRNNError, ValueError):  # its runs were removed: the table remains
                continue
            with np.errstate(all="ignore"):
                mean = curve.bits.mean(axis=0)
            points = zip(curve.characters.tolist(), mean.tolist(), strict=True)
            points_told = [[x, y] for x, y in points if math.isfinite(y)]
            curves.append({"label": row["label"], "points": points_told})
    kept = ("corpus", "match", "budget", "steps", "cells", "differences", "baselines")
    return {"name": name, **{field: result.get(field) for field in kept}, "curves": curves}


def _sample(run: Run, step: int) -> dict[str, Any] | None:
    model = api.load(run, "cpu", "last")
    try:
        prime = next(private_copy(model.config).chunks(), "")[:PRIME_CHARS]
    except CharRNNError:
        prime = ""
    return {"step": step, "prime": prime, "text": model.complete(prime, SAMPLE_CHARS)}


def _bits(nats: float | None) -> float | None:
    return None if nats is None else nats / math.log(2)


def _speed(rows: list[dict[str, Any]]) -> float | None:
    """Return characters a second, lately: between the last two validations."""
    timed = [row for row in rows if row["seconds"] is not None]
    if len(timed) < 2:
        return None
    before, last = timed[-2:]
    seconds = last["seconds"] - before["seconds"]
    return round((last["characters"] - before["characters"]) / seconds) if seconds > 0 else None
