"""The figures of a comparison, from its finished runs: scores with intervals, differences, costs, curves, gains.

Letters: S seeds, M blocks, N characters of the test part.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import cells, files, perplexity, strict_json
from charrnn.compare import baselines, machines, mixing
from charrnn.compare.baselines import Counts
from charrnn.compare.grid import Entry, Folder, Grid
from charrnn.compare.statistics import holm, in_blocks, interval
from charrnn.errors import CharRNNError
from charrnn.text.corpus import Corpus
from charrnn.training.final_scores import EXACT_IDS
from charrnn.training.run import Run

SIGNIFICANT = 0.05
LN2 = math.log(2)
MIXING_IDS = 50_000  # of the validation part, for one weight
PASSAGE_CHARACTERS = 700
PRIME_CHARACTERS = 40


@dataclass(frozen=True)
class Scores:
    """The costs of the test part's characters to an entry. bits: (S, N). diverged: how many of its runs did."""

    bits: NDArray[np.float64]
    diverged: int


@dataclass(frozen=True)
class Curve:
    """Validation over an entry's training. bits: (S, P) at P points; characters, seconds: (P,), means over seeds."""

    characters: NDArray[np.float64]
    seconds: NDArray[np.float64]
    bits: NDArray[np.float64]


@dataclass(frozen=True)
class Gains:
    """Bits (n,) by which entry `better` predicts each character of `text` better than `worse` does, mean over seeds."""

    better: str
    worse: str
    text: str
    bits: NDArray[np.float64]


def result(
    grid: Grid, folder: Folder, corpus: Corpus, baseline: str | None = None, adapt: bool = False
) -> dict[str, Any]:
    """Return the figures of a complete grid, best first, as JSON holds them.

    baseline: a run to stand beside. adapt: whether every entry stands there too, going on learning in the test part.
    """
    counts = baselines.counts_of(corpus)
    references = list(baselines.baselines(corpus, grid.config.split, baseline, counts))
    scores = {grid.label(entry): scored(grid, folder, entry, corpus) for entry in grid.entries}
    blocks = {label: in_blocks(score.bits) for label, score in scores.items()}
    rows = [_row(grid, folder, entry, scores[grid.label(entry)], blocks[grid.label(entry)]) for entry in grid.entries]
    rows.sort(key=lambda row: row["bits_per_char"])
    best = next(entry for entry in grid.entries if grid.label(entry) == rows[0]["label"])
    references.append(with_counts(grid, folder, best, corpus, scores[rows[0]["label"]], counts[1]))
    if adapt:
        learning = [learning_on(grid, folder, entry, corpus) for entry in grid.entries]
        references += sorted(learning, key=lambda each: math.inf if each.bits_per_char is None else each.bits_per_char)
    return {
        "corpus": corpus.text.source,
        "split": list(grid.config.split),
        "match": grid.match,
        "budget": grid.budget,
        "steps": grid.steps,
        "cells": rows,
        "differences": differences([row["label"] for row in rows], scores, blocks),
        "baselines": [_reference(reference) for reference in references],
        "machines": machines.used(folder.run(grid, e, seed) for e in grid.entries for seed in range(grid.seeds)),
    }


def write(folder: Folder, grid: Grid, result: dict[str, Any]) -> tuple[Path, ...]:
    """Write comparison.json, with the grid that `--from` repeats, and comparison.csv; gives their paths."""
    whole = {**result, "grid": grid.as_dict()}
    text = strict_json.dumps(whole, indent=1) + "\n"
    files.write_atomically(folder.path / "comparison.json", text.encode())
    table = io.StringIO()
    writer = csv.DictWriter(table, list(result["cells"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["cells"])
    files.write_atomically(folder.path / "comparison.csv", table.getvalue().encode())
    return folder.path / "comparison.json", folder.path / "comparison.csv"


def ties(result: Mapping[str, Any]) -> set[str]:
    """List the labels of the entries that the best one is not clearly better than."""
    return {d["b"] for d in result["differences"] if d["p_holm"] >= SIGNIFICANT}


def scored(grid: Grid, folder: Folder, entry: Entry, corpus: Corpus) -> Scores:
    """Read an entry's scores; a run with none, or with worse than a blank model's, gets those of a blank model.

    A blank model finds all V ids alike, as before training: log2 V bits for every id.
    """
    ids = corpus.ids("test")
    guess = math.log2(corpus.tokenizer.size) * len(ids) / corpus.tokenizer.characters_in(ids)
    rows, diverged = [], 0
    for seed in range(grid.seeds):
        run = folder.run(grid, entry, seed)
        bits = run.losses()["test"].astype(np.float64) / math.log(2)
        useful = bool(np.isfinite(bits).all()) and float(bits.mean()) < guess
        rows.append(bits if useful else np.full(len(bits), guess))
        last = run.rows("metrics.jsonl")[-1]  # older runs do not say so themselves
        diverged += not useful or last["train_nats"] is None or last["val_nats"] is None
    return Scores(np.stack(rows), diverged)


def with_counts(
    grid: Grid, folder: Folder, entry: Entry, corpus: Corpus, scores: Scores, counts: Counts
) -> baselines.Baseline:
    """Score an entry's networks mixed with counts, by a weight that the validation part chooses: what each adds."""
    from charrnn.api import load  # it wakes torch

    name = f"{counts.name} and {grid.label(entry)}"
    if scores.bits.shape[1] != len(counts.test):
        return baselines.Baseline(name, None, "the test part was so long that a sample of it was scored")
    if scores.diverged:
        return baselines.Baseline(name, None, f"{scores.diverged} of {grid.seeds} runs diverged")
    ids, starts = corpus.ids("val")[:MIXING_IDS], corpus.starts["val"]
    networks = []
    for seed in range(grid.seeds):
        model = load(folder.run(grid, entry, seed), device="cpu")
        networks.append((model.score_ids(ids, starts=starts[starts < len(ids)]).per_char, scores.bits[seed] * LN2))
    few = min(len(val) for val, _ in networks)  # a last character that was cut is left out
    nats, weight = mixing.over_seeds([(val[:few], test) for val, test in networks], counts.val[:few], counts.test)
    return baselines.Baseline(name, nats / LN2, f"mixed; validation gives the counts a weight of {weight:.2f}")


def learning_on(grid: Grid, folder: Folder, entry: Entry, corpus: Corpus) -> baselines.Baseline:
    """Score an entry while copies of its networks go on learning from the test part, as compressors do."""
    from charrnn.api import load  # it wakes torch

    name, ids = f"{grid.label(entry)}, adapting", corpus.ids("test")
    if len(ids) > EXACT_IDS:
        return baselines.Baseline(name, None, "the test part is too long to be read as one stream here: eval --adapt")
    models = (load(folder.run(grid, entry, seed), device="cpu") for seed in range(grid.seeds))
    bits = [model.score_ids(ids, "adapt", corpus.starts["test"]).bits_per_char for model in models]
    mean = sum(bits) / len(bits)
    if not math.isfinite(mean):
        return baselines.Baseline(name, None, "it diverged")
    return baselines.Baseline(name, mean, "goes on learning in the test part")


def training_seconds(run: Run) -> float:
    """Return how long a run took from its first step to its last, validations included."""
    rows = run.rows("timings.jsonl")
    return max(1e-9, float(rows[-1]["seconds"] - rows[0]["seconds"]))


def step_seconds(run: Run) -> float:
    """Return how long a step of a run took, validations included."""
    return training_seconds(run) / max(1, int(run.rows("timings.jsonl")[-1]["step"]))


def curve(grid: Grid, folder: Folder, entry: Entry) -> Curve:
    """Return how an entry learned, from the validations after the first step. A diverged one costs NaN."""
    runs = [folder.run(grid, entry, seed) for seed in range(grid.seeds)]
    metrics = [run.rows("metrics.jsonl")[1:] for run in runs]
    timings = [run.rows("timings.jsonl") for run in runs]
    points = max(map(len, metrics))  # a run that diverged, or was stopped early, has fewer
    nats, seconds = np.full((2, len(runs), points), math.nan)
    for s, (rows, times) in enumerate(zip(metrics, timings, strict=True)):
        nats[s, : len(rows)] = [math.nan if row["val_nats"] is None else row["val_nats"] for row in rows]
        seconds[s, : len(rows)] = [row["seconds"] - times[0]["seconds"] for row in times[1:]]
    longest = max(metrics, key=len)
    return Curve(
        np.array([row["characters"] for row in longest], np.float64), np.nanmean(seconds, axis=0), nats / math.log(2)
    )


def gains(grid: Grid, folder: Folder, corpus: Corpus, result: Mapping[str, Any]) -> Gains | None:
    """Return what the best cell gains over the simplest on a passage with a typical gain.

    None where they are the same, or where the test part was so long that a sample of it was scored.
    """
    best = result["cells"][0]["label"]
    simplest = min(grid.entries, key=lambda e: (e.layers, cells.get(e.cell).count(128, 128), e.hidden))
    worse = grid.label(simplest)
    if worse == best:
        return None
    text = corpus.tokenizer.decode(corpus.ids("test"))
    entry = next(e for e in grid.entries if grid.label(e) == best)
    difference = scored(grid, folder, simplest, corpus).bits.mean(axis=0)
    difference = difference - scored(grid, folder, entry, corpus).bits.mean(axis=0)
    if len(difference) != len(text):
        return None  # a long part was scored by a sample
    length = min(PASSAGE_CHARACTERS, len(difference))
    starts = np.arange(0, len(difference) - length + 1, length)
    means = np.array([difference[start : start + length].mean() for start in starts])
    start = int(starts[np.argsort(means)[len(means) // 2]])
    return Gains(best, worse, text[start : start + length], difference[start : start + length])


def completions(grid: Grid, folder: Folder, prime: str, chars: int) -> Iterator[tuple[str, str]]:
    """Complete the same prime by the first seed of every entry: (label, text without the prime).

    A diverged run has no text; its problem stands there instead.
    """
    from charrnn.api import load

    for entry in grid.entries:
        model = load(folder.run(grid, entry, 0), device="cpu")
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a diverged run computes with anything
                text = model.completion(prime, chars).text
        except CharRNNError as error:
            text = f" [{error.problem}]"
        yield grid.label(entry), text


def default_prime(corpus: Corpus) -> str:
    """Return the beginning of the test part's first line of some length."""
    text = corpus.tokenizer.decode(corpus.ids("test")[:2000])
    lines = [line.strip() for line in text.splitlines()[1:] if len(line.strip()) >= PRIME_CHARACTERS // 2]
    return (lines[0] if lines else text.strip())[:PRIME_CHARACTERS]


def _row(grid: Grid, folder: Folder, entry: Entry, score: Scores, blocks: NDArray[np.float64]) -> dict[str, Any]:
    runs = [folder.run(grid, entry, seed) for seed in range(grid.seeds)]
    found = interval(blocks, float(score.bits.mean()))
    seconds = [training_seconds(run) for run in runs]
    characters = [run.about()["characters"] for run in runs]
    return {
        "label": grid.label(entry),
        "cell": entry.cell,
        "hidden": entry.hidden,
        "layers": entry.layers,
        "parameters": entry.parameters,
        "lr": entry.lr,
        "seeds": grid.seeds,
        "bits_per_char": found.mean,
        "sd": found.sd,
        "low": found.low,
        "high": found.high,
        "perplexity": perplexity.of_bits(found.mean),
        "chars_per_s": round(sum(characters) / sum(seconds)),
        "seconds": round(sum(seconds) / len(seconds), 2),
        "diverged": score.diverged,
    }


def _reference(reference: baselines.Baseline) -> dict[str, Any]:
    bits = reference.bits_per_char
    return {
        "name": reference.name,
        "bits_per_char": bits,
        "perplexity": None if bits is None else perplexity.of_bits(bits),
        "note": reference.note,
    }


def differences(
    labels: list[str], scores: dict[str, Scores], blocks: dict[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Compare every other entry with the best: bits it costs more, paired by seed and by block."""
    found = []
    for label in labels[1:]:
        mean = float((scores[label].bits - scores[labels[0]].bits).mean())
        found.append(interval(blocks[label] - blocks[labels[0]], mean))
    adjusted = holm([difference.p for difference in found])
    return [
        {
            "a": labels[0],
            "b": label,
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p_holm": p,
        }
        for label, difference, p in zip(labels[1:], found, adjusted, strict=True)
    ]
