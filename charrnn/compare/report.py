"""A comparison as one self-contained HTML page: its verdict, its table, its pictures, its texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charrnn import files
from charrnn.compare import copy_task, outcome, pictures
from charrnn.compare.decisions import run_rate
from charrnn.compare.grid import Folder, Grid
from charrnn.compare.inspection import Inspection
from charrnn.compare.outcome import Gains
from charrnn.pages import filling
from charrnn.text.corpus import Corpus

COMPLETION_CHARS = 240
MARKED_LOSS_BITS = 0.5
FULL_GAIN_BITS = 3.0  # a gain of so many bits has the full colour
GAIN, LOSS = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermilion
HEADS = "cell,hidden,parameters,bits/char,95 % interval,sd,perplexity,behind the best,p (Holm),char/s,seconds,diverged"
PERPLEXITY = "On the right: perplexity, 2 to the power of the bits."


def write(
    folder: Folder, grid: Grid, corpus: Corpus, result: Mapping[str, Any], inspections: Sequence[Inspection]
) -> Path:
    """Write report.html into the folder of a complete comparison; gives its path."""
    path = folder.path / "report.html"
    files.write_atomically(path, page(folder, grid, corpus, result, inspections).encode("utf-8", "backslashreplace"))
    return path


def page(
    folder: Folder, grid: Grid, corpus: Corpus, result: Mapping[str, Any], inspections: Sequence[Inspection]
) -> str:
    """Write the page. Raises CharRNNError without matplotlib."""
    order = [row["label"] for row in result["cells"]]
    entries = {grid.label(entry): entry for entry in grid.entries}
    curves = {label: outcome.curve(grid, folder, entries[label]) for label in order}
    prime = grid.prime or outcome.default_prime(corpus)
    completed = dict(outcome.completions(grid, folder, prime, COMPLETION_CHARS))
    gained = outcome.gains(grid, folder, corpus, result)
    return _filled(
        inspections,
        [inspection for inspection in inspections if inspection.copied],
        title=f"Recurrent cells on {Path(result['corpus']).name}",
        verdict=verdict(result),
        scores={"heads": HEADS.split(","), "rows": score_rows(result)},
        baselines=baseline_rows(result),
        perplexity=PERPLEXITY,
        curves=filling.markup(pictures.learning_curves(curves)),
        costs=filling.markup(pictures.costs(result["cells"])),
        prime=prime,
        completed=[(label, completed[label]) for label in order],
        passage=None if gained is None else _passage(gained),
        method=_method(grid, result),
    )


def write_inspection(path: Path, inspections: Sequence[Inspection]) -> None:
    """Write a page with the pictures of an inspection alone. Raises CharRNNError without matplotlib."""
    copied = inspections if any(inspection.copied for inspection in inspections) else ()
    page = _filled(inspections, copied, title="Why gates help", verdict="", scores=None, method=None)
    files.write_atomically(path, page.encode("utf-8", "backslashreplace"))


def _filled(inspections: Sequence[Inspection], copied: Sequence[Inspection], **values: Any) -> str:
    gradients = filling.markup(_gradients(inspections)) if inspections else None
    return str(filling.fill("report.html", gradients=gradients, copying=_copying(copied) if copied else None, **values))


def verdict(result: Mapping[str, Any]) -> str:
    """Say what a comparison shows, in a sentence or two."""
    best, *others = result["cells"]
    tied = outcome.ties(result)
    said = (
        f"{best['label']} predicts the test text best: {best['bits_per_char']:.3f} bits per character "
        f"(95 % interval {best['low']:.3f} to {best['high']:.3f}; seeds: {best['seeds']}), "
        f"a perplexity of {best['perplexity']:.3f}."
    )
    level = [row["label"] for row in others if row["label"] in tied]
    behind = [row["label"] for row in others if row["label"] not in tied]
    if level:
        said += f" It is not clearly ahead of {_listed(level)}: a tie."
    if behind:
        said += f" It is ahead of {_listed(behind)} by more than chance."
    if best["seeds"] == 1:
        said += " What another seed would give is not in these intervals: they know one."
    return said


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a row of words for every model of a comparison, best first, under HEADS."""
    behind = {d["b"]: d for d in result["differences"]}
    tied = outcome.ties(result)
    rows = []
    for row in result["cells"]:
        difference = behind.get(row["label"])
        gap = "the best" if difference is None else f"{difference['mean']:+.4f}"
        if row["label"] in tied:
            gap += " (tie)"
        chance = (
            "" if difference is None else "< 0.001" if difference["p_holm"] < 0.001 else f"{difference['p_holm']:.3f}"
        )
        rows.append(
            [
                row["label"],
                f"{row['hidden']:,}" + (f" x {row['layers']}" if row["layers"] > 1 else ""),
                f"{row['parameters']:,}",
                f"{row['bits_per_char']:.4f}",
                f"{row['low']:.4f}–{row['high']:.4f}",
                f"{row['sd']:.4f}",
                f"{row['perplexity']:.3f}",
                gap,
                chance,
                f"{row['chars_per_s']:,}",
                f"{row['seconds']:.1f}",
                f"{row['diverged']} of {row['seeds']}",
            ]
        )
    return rows


def baseline_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a row of words for every baseline: name, bits, perplexity, what it is."""
    return [
        [
            reference["name"],
            "-" if reference["bits_per_char"] is None else f"{reference['bits_per_char']:.4f}",
            "-" if reference["perplexity"] is None else f"{reference['perplexity']:.3f}",
            reference["note"],
        ]
        for reference in result["baselines"]
    ]


def _passage(gained: Gains) -> dict[str, Any]:
    """Return a passage and its scale as pieces with their grounds."""
    marks = [
        {**_mark(bits), "text": character, "title": f"{bits:+.2f} bits"}
        for character, bits in zip(gained.text, gained.bits.tolist(), strict=True)
    ]
    scale = [{**_mark(bits), "text": f"\N{NO-BREAK SPACE}{bits:+.0f}\N{NO-BREAK SPACE}"} for bits in range(-3, 4)]
    return {
        "better": gained.better,
        "worse": gained.worse,
        "mean": gained.bits.mean(),
        "scale": scale,
        "marks": marks,
    }


def _mark(bits: float) -> dict[str, Any]:
    """Return the ground of a gain; what is worse has a mark that grey printing keeps too."""
    return {"worse": bits <= -MARKED_LOSS_BITS, "colour": _colour(bits), "title": ""}


def _colour(bits: float) -> str:
    """Return a colour from white to three quarters of blue or vermilion."""
    share = 0.75 * min(1, abs(bits) / FULL_GAIN_BITS)
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in (GAIN if bits >= 0 else LOSS))


def _gradients(inspections: Sequence[Inspection]) -> str:
    return pictures.gradient_reach(
        {inspection.label: inspection.at_start for inspection in inspections},
        {inspection.label: inspection.trained for inspection in inspections},
    )


def _copying(inspections: Sequence[Inspection]) -> dict[str, Any]:
    reach = {inspection.label: inspection.reach for inspection in inspections}
    note = (
        f"{copy_task.REMEMBERED} of {copy_task.SYMBOLS} symbols to be said again after a gap. Every cell has the same "
        f"number of parameters and climbs from gap to gap until it fails to copy {copy_task.LEARNED:.0%} within "
        f"{copy_task.STEPS} steps."
    )
    return {"picture": filling.markup(pictures.copy_reach(reach, copy_task.GAPS[-1])), "note": note}


def _method(grid: Grid, result: Mapping[str, Any]) -> dict[str, Any]:
    length = f"{grid.steps:,} steps" if grid.steps else f"a budget of {grid.budget:g} s"
    shares = "/".join(f"{share:g}" for share in grid.config.split)
    trials = (
        f"{grid.lr_trials} learning rates tried on the validation part in shorter runs (the best times "
        f"{run_rate(grid, 1.0):g}, since longer runs need less)"
        if grid.trials
        else "no rates tried"
    )
    said = (
        f"{result['corpus']}, split {shares}. Equal {grid.match}; {length} a run; {trials} for every cell, then "
        f"{grid.seeds} seeds, each scored once on the test part. Intervals: the variance between seeds plus that "
        f"between blocks of about 1000 characters, each with its own Student's t (Behrens and Fisher). Differences are "
        f"paired by seed and block and corrected after Holm; what is not clearly different at 5 % is called a tie. A "
        f"diverged run counts, and costs what a blank model costs."
    )
    rows = [
        [grid.label(e), f"{e.hidden} x {e.layers}", f"{e.parameters:,}", f"{e.lr:g}", f"{e.steps:,}", e.engine]
        for e in grid.entries
    ]
    return {"said": said, "rows": rows}


def _listed(labels: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
