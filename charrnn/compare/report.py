"""A comparison as one self-contained HTML page: its verdict, its table, its pictures, its texts."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charrnn import files
from charrnn.compare import copy_task, outcome, pictures
from charrnn.compare.decisions import run_rate
from charrnn.compare.grid import Folder, Grid
from charrnn.compare.inspection import Inspection
from charrnn.compare.outcome import Gains
from charrnn.text.corpus import Corpus

COMPLETION_CHARS = 240
MARKED_LOSS_BITS = 0.5
FULL_GAIN_BITS = 3.0  # a gain of so many bits has the full colour
GAIN, LOSS = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermilion
PERPLEXITY = "On the right: perplexity, 2 to the power of the bits."

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } p { max-width: 46rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .2rem .45rem; text-align: left; border-bottom: 1px solid #ddd }
th { border-bottom: 1px solid #111; font-weight: 600 } td, th { white-space: nowrap } .number { text-align: right }
.wide { overflow-x: auto }
svg { max-width: 100%; min-width: 40rem; height: auto }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13px/1.5 ui-monospace, monospace }
.passage { line-height: 1.9 } .passage, p { print-color-adjust: exact } .worse { text-decoration: underline dotted }
.completion td { vertical-align: top; white-space: normal }
.note { color: #555; font-size: 13px }
@media print {
  body { margin: 0; max-width: none } svg { min-width: 0 } svg, tr { break-inside: avoid } h2 { break-after: avoid }
  .wide { overflow: visible } .wide table { font-size: 8.5px } .wide th, .wide td { padding: .15rem .25rem }
}
"""


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
    sections = [
        ("Scores", _scores(result)),
        (
            "Learning",
            pictures.learning_curves(curves) + _note(f"The mean of the seeds; the band is their range. {PERPLEXITY}"),
        ),
        (
            "Size, speed and what they buy",
            pictures.costs(result["cells"]) + _note(f"Bars are 95 % intervals. Lower is better. {PERPLEXITY}"),
        ),
        (
            "The same beginning, completed by each cell",
            _completions(prime, [(label, completed[label]) for label in order]),
        ),
    ]
    if gained is not None:
        sections.append((f"Where {gained.better} gains over {gained.worse}", _passage(gained)))
    if inspections:
        sections.append(("How far back gradients reach", _gradients(inspections)))
    copied = [inspection for inspection in inspections if inspection.copied]
    if copied:
        sections.append(("How long a cell remembers", _copying(copied)))
    sections.append(("How it was done", _method(grid, result)))
    return _html(f"Recurrent cells on {Path(result['corpus']).name}", verdict(result), sections)


def write_inspection(path: Path, inspections: Sequence[Inspection]) -> None:
    """Write a page with the pictures of an inspection alone. Raises CharRNNError without matplotlib."""
    sections = [("How far back gradients reach", _gradients(inspections))]
    if any(inspection.copied for inspection in inspections):
        sections.append(("How long a cell remembers", _copying(inspections)))
    files.write_atomically(path, _html("Why gates help", "", sections).encode("utf-8", "backslashreplace"))


def _html(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    body = "\n".join(f"<h2>{_text(name)}</h2>\n{content}" for name, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{_text(title)}</h1>\n<p>{_text(lead)}</p>\n{body}\n</body></html>\n"
    )


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


def _scores(result: Mapping[str, Any]) -> str:
    behind = {d["b"]: d for d in result["differences"]}
    tied = outcome.ties(result)
    heads = (
        "cell,hidden,parameters,bits/char,95 % interval,sd,perplexity,behind the best,p (Holm),char/s,seconds,diverged"
    )
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
    references = [
        [
            reference["name"],
            "-" if reference["bits_per_char"] is None else f"{reference['bits_per_char']:.4f}",
            "-" if reference["perplexity"] is None else f"{reference['perplexity']:.3f}",
            reference["note"],
        ]
        for reference in result["baselines"]
    ]
    return _table(heads.split(","), rows) + (
        "<p>For comparison, on the same test text:</p>"
        + _table(["baseline", "bits/char", "perplexity", ""], references, words=(0, 3))
    )


def _completions(prime: str, completed: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{_text(label)}</td><td><pre><b>{_text(prime)}</b>{_text(text)}</pre></td></tr>"
        for label, text in completed
    )
    return f'<table class="completion">{rows}</table>'


def _passage(gained: Gains) -> str:
    spans = "".join(
        f'<span{_worse(bits)} style="background-color:{_colour(bits)}" title="{bits:+.2f} bits">'
        f"{_text(character)}</span>"
        for character, bits in zip(gained.text, gained.bits, strict=True)
    )
    scale = "".join(
        f'<span{_worse(bits)} style="background-color:{_colour(bits)}">&nbsp;{bits:+.0f}&nbsp;</span>'
        for bits in (-3, -2, -1, 0, 1, 2, 3)
    )
    return (
        f"<p>Bits gained on each character of a passage of the test text, {gained.bits.mean():.3f} on average: {scale} "
        f"(blue: {_text(gained.better)} predicts it better; orange, dotted below: worse).</p>"
        f'<pre class="passage">{spans}</pre>'
    )


def _worse(bits: float) -> str:
    """Return a mark that grey printing keeps."""
    return ' class="worse"' if bits <= -MARKED_LOSS_BITS else ""


def _colour(bits: float) -> str:
    """Return a colour from white to three quarters of blue or vermilion."""
    share = 0.75 * min(1, abs(bits) / FULL_GAIN_BITS)
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in (GAIN if bits >= 0 else LOSS))


def _gradients(inspections: Sequence[Inspection]) -> str:
    picture = pictures.gradient_reach(
        {inspection.label: inspection.at_start for inspection in inspections},
        {inspection.label: inspection.trained for inspection in inspections},
    )
    return picture + _note(
        "The length of the gradient of one character's cost by the state k steps earlier, relative to k = 0. What has "
        "vanished cannot be learned from: this is what gates are for."
    )


def _copying(inspections: Sequence[Inspection]) -> str:
    picture = pictures.copy_reach(
        {inspection.label: inspection.reach for inspection in inspections}, copy_task.GAPS[-1]
    )
    return picture + _note(
        f"{copy_task.REMEMBERED} of {copy_task.SYMBOLS} symbols to be said again after a gap. Every cell has the same "
        f"number of parameters and climbs from gap to gap until it fails to copy {copy_task.LEARNED:.0%} within "
        f"{copy_task.STEPS} steps."
    )


def _method(grid: Grid, result: Mapping[str, Any]) -> str:
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
    return f"<p>{_text(said)}</p>" + _table(["cell", "hidden", "parameters", "learning rate", "steps", "engine"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """Write a table. words: the columns that hold words, aligned to the left; the others hold figures."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if i in words else ' class="number"' for i in range(len(cells))]
        inside = "".join(f"<{tag}{kind}>{_text(c)}</{tag}>" for kind, c in zip(kinds, cells, strict=True))
        return f"<tr>{inside}</tr>"

    inside = f"<thead>{line('th', heads)}</thead><tbody>{''.join(line('td', row) for row in rows)}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _text(text: str) -> str:
    return html.escape(text)


def _listed(labels: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
