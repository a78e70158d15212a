"""How long the rest of a comparison takes, by the speeds that were measured before it."""

from collections.abc import Collection, Mapping
from pathlib import Path

from charrnn.compare import decisions
from charrnn.compare.grid import Folder, Grid


def seconds(grid: Grid, folder: Folder, finished: Collection[Path], at: Mapping[Path, int]) -> float:
    """Return the seconds of training that are left, one run after the other, scoring left out.

    finished: the runs that are complete, by path. at: the step at which the others are that were begun.
    """
    left = 0.0
    for entry in grid.entries:
        if entry.lr is None:
            trials = folder.trials(entry)
            done = sum(path.parent == trials for path in finished)
            begun = sum(step for path, step in at.items() if path.parent == trials and path not in finished)
            left += ((grid.trials - done) * (entry.trial_steps or 0) - begun) * entry.step_seconds
        for seed in range(grid.seeds):
            path = folder.run(grid, entry, seed).path
            if path not in finished:
                steps = entry.steps or (entry.trial_steps or 0) / decisions.TRIAL_SHARE
                left += (steps - at.get(path, 0)) * entry.step_seconds
    return left
