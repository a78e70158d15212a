"""The decisions of a comparison before its runs: shared settings, sizes, engines, speeds, lengths, learning rates.

Every decision is made once and kept in the grid: a comparison that goes on, grows or repeats makes none of them again.
"""

import dataclasses
import math
import re
import time
from collections.abc import Sequence

import numpy as np

from charrnn import files
from charrnn.compare import outcome
from charrnn.compare.grid import Entry, Folder, Grid, matching_hidden, parameters
from charrnn.compare.jobs import Job
from charrnn.home import home
from charrnn.text.corpus import Corpus
from charrnn.training import events, loop, resolve, sizing
from charrnn.training.config import Config
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of

# Of a run's steps, in a learning-rate trial. Short runs like higher rates than long ones, and plain cells most of all:
# with a smaller share they are given rates that are too high (docs/results/rule.md).
TRIAL_SHARE = 1 / 3
# Their rates are still too high for long runs: the best one falls as a power of the length (Bjorck et al., Scaling
# optimal LR across token horizons, 2024, find 0.32 for large transformers). This power is the geometric mean of what
# the cells need: one for all of them (docs/results/rule.md).
RATE_EXPONENT = 0.41
RATE_FACTOR = 2  # between two learning rates that are tried, until the best one has a neighbour on either side
PILOT_SECONDS, PILOT_STEPS = 1.5, 40  # of timing each cell before anything is decided; whichever is reached first
PILOT = "pilot"

Models = Sequence[tuple[str, int, int] | str]  # a cell, or a cell with its hidden size and layers
Trials = tuple[tuple[float, float | None], ...]  # learning rate, nats of the validation part (None where it diverged)


def shared(grid: Grid, corpus: Corpus, threads: int) -> Settings:
    """Return the settings of all runs, with everything decided that does not depend on the cell.

    threads: of one run, if nobody asked for another number.
    What is left open follows the rule of training for the configured cell in the time of one run.
    """
    config = grid.config
    if config.threads is None:
        config = dataclasses.replace(config, threads=threads)
    length = {"budget": grid.budget} if grid.steps is None else {"steps": grid.steps}
    with threads_of(config):
        resolved = _resolved(config.replace(**length), corpus).as_settings()
    # Lengths and engines are decided cell by cell; a run that ends before the others would not be compared with them.
    return resolved.replace(
        steps=None, patience=0, validate_every=config.validate_every, engine=config.engine, threads=config.threads
    )


def _resolved(settings: Settings, corpus: Corpus) -> Config:
    return resolve.resolve(settings, corpus, Machine(settings, corpus))


def target(grid: Grid, corpus: Corpus) -> int | None:
    """Return the parameters of every model; without a number, those of the configured cell at its hidden size."""
    if grid.match == "hidden":
        return None
    return grid.target or parameters(grid.config, corpus.tokenizer, grid.base.hidden)


def sized(grid: Grid, models: Models, target: int | None, corpus: Corpus) -> list[Entry]:
    """Return the entries of models, sized for `target` parameters, or of the configured hidden size without one."""
    entries = []
    for model in models:
        cell, hidden, layers = (model, None, grid.base.layers) if isinstance(model, str) else model
        config = grid.config.replace(cell=cell, layers=layers)
        if hidden is None:
            hidden = grid.base.hidden if target is None else matching_hidden(config, corpus.tokenizer, target)
        entries.append(Entry(cell, hidden, layers, parameters(config, corpus.tokenizer, hidden), grid.config.engine))
    return entries


def timed(grid: Grid, i: int, corpus: Corpus) -> Grid:
    """Decide an entry's engine, and time its step by a run of a few steps that is thrown away; return the grid.

    The engine is what training would choose for the length of the runs: the fastest, where they are long enough.
    """
    whole = grid.trial_config(grid.entries[i], grid.base.lr)
    with threads_of(whole):
        length = {"budget": grid.budget} if grid.steps is None else {"steps": grid.steps}
        grid = grid.with_entry(i, engine=_resolved(whole.replace(**length), corpus).engine)
    files.sweep(home(), re.compile(PILOT))
    with files.unfinished_folder(home(), PILOT) as folder:
        steps = min(PILOT_STEPS, grid.steps or PILOT_STEPS)
        config = grid.trial_config(dataclasses.replace(grid.entries[i], trial_steps=steps), grid.base.lr)
        began, speed = 0.0, 0.0
        for event in loop.new_run(config, Run(folder.path / PILOT)):
            if isinstance(event, events.Stepped):
                began = began or time.monotonic()
                speed = event.chars_per_s
                if time.monotonic() - began > PILOT_SECONDS or event.step == steps:
                    break
    return grid.with_entry(i, step_seconds=grid.base.batch * grid.base.window / speed)


def most_steps(grid: Grid, corpus: Corpus) -> int | None:
    """Return the most steps that the budget becomes, as in training: so many passes teach a short text by heart.

    None where the same seconds, or so many steps, were asked for.
    """
    if grid.match == "time" or grid.budget is None:
        return None
    return sizing.most_steps(resolve.steps_per_epoch(grid.config, corpus))


def with_trial_steps(grid: Grid, most: int | None = None) -> Grid:
    """Decide the length of every trial, a share of what the runs will have; return the grid."""
    for i, (entry, steps) in enumerate(zip(grid.entries, lengths(grid, most), strict=True)):
        if entry.trial_steps is None:
            grid = grid.with_entry(i, trial_steps=max(1, round(TRIAL_SHARE * (entry.steps or steps))))
    return grid


def with_steps(grid: Grid, folder: Folder, most: int | None = None) -> Grid:
    """Decide the length of every run, at the speed of its trials; return the grid."""
    for i, entry in enumerate(grid.entries):
        if entry.steps is None and grid.budget is not None and grid.trials:
            runs = [folder.trial(entry, lr) for lr, _ in tried(grid, folder, entry)]
            seconds = sorted(outcome.step_seconds(run) for run in runs)
            grid = grid.with_entry(i, step_seconds=seconds[len(seconds) // 2])
    for i, (entry, steps) in enumerate(zip(grid.entries, lengths(grid, most), strict=True)):
        if entry.steps is None:
            grid = grid.with_entry(i, steps=steps)
    return grid


def lengths(grid: Grid, most: int | None = None) -> list[int]:
    """Return the steps of each entry's runs: as given, as fill its time, or as many as fill the slowest's.

    most: no more than these where the slowest's time decides.
    """
    if grid.budget is None:
        assert grid.steps is not None
        return [grid.steps] * len(grid.entries)
    fitting = [max(1, int(grid.budget / max(1e-9, entry.step_seconds))) for entry in grid.entries]
    if grid.match == "time":
        return fitting
    decided = [entry.steps for entry in grid.entries if entry.steps is not None]
    if most is not None:
        fitting.append(most)
    return [decided[0] if decided else min(fitting)] * len(grid.entries)


def next_rate(usual: float, trials: Trials) -> float:
    """Return the learning rate to try after `trials`.

    The usual one first, then twice the highest or half the lowest for as long as that is the best one; once rates on
    both sides of the best are known, the middle between it and the better of its neighbours.
    """
    if not trials:
        return usual
    nats = _costs(trials)
    best = min(nats, key=nats.__getitem__)
    higher, lower = [lr for lr in nats if lr > best], [lr for lr in nats if lr < best]
    if not higher and nats[best] < math.inf:
        rate = best * RATE_FACTOR
    elif not lower:
        rate = best / RATE_FACTOR
    else:
        rate = math.sqrt(best * min(max(lower), min(higher), key=lambda lr: nats[lr]))
    return float(f"{rate:.3g}")


def trial(grid: Grid, folder: Folder, entry: Entry, lr: float) -> Job:
    """Return a learning-rate trial of an entry, not scored."""
    return Job(folder.trial(entry, lr), grid.trial_config(entry, lr), scored=False)


def tried(grid: Grid, folder: Folder, entry: Entry) -> Trials:
    """List an entry's finished trials, in the order of the search, which follows from their results alone."""
    trials: Trials = ()
    while len(trials) < grid.trials:
        lr = next_rate(grid.base.lr, trials)
        job = trial(grid, folder, entry, lr)
        if not job.done():
            break
        about = job.run.about()
        trials = (*trials, (lr, about["best_val_nats"] if about.get("diverged") is None else None))
    return trials


def best_rate(grid: Grid, trials: Trials) -> float:
    """Return the rate where a parabola through the best trial and its neighbours, over log rate, is lowest.

    An outermost rate that is the best one is taken as it is, and so is one beside a trial that diverged; the smallest
    where all diverged, the usual one where none was tried.
    """
    if not trials:
        return grid.base.lr
    rates, costs = list(_costs(trials)), list(_costs(trials).values())
    i = costs.index(min(costs))
    beside = slice(max(0, i - 1), i + 2)
    if len(rates[beside]) < 3 or math.inf in costs[beside]:
        return rates[i]
    curvature, slope, _ = np.polyfit(np.log(rates[beside]), costs[beside], 2)
    return float(f"{math.exp(-slope / (2 * curvature)):.3g}") if curvature > 0 else rates[i]


def run_rate(grid: Grid, tried: float) -> float:
    """Return the rate of a run in whose trials `tried` was best: lower for a longer run; the same without trials."""
    return float(f"{tried * TRIAL_SHARE**RATE_EXPONENT:.3g}") if grid.trials else tried


def _costs(trials: Trials) -> dict[float, float]:
    """Nats by rate, from the lowest rate to the highest; infinite where it diverged. A rate tried twice comes once."""
    return {lr: math.inf if nats is None else nats for lr, nats in sorted(trials, key=lambda trial: trial[0])}
