"""What a comparison is asked for, with what nobody asked filled in: for the command line and for Python."""

from pathlib import Path

from charrnn.compare.grid import Grid
from charrnn.home import home
from charrnn.knobs import parse_seconds
from charrnn.text import corpora
from charrnn.training.settings import Settings

DEFAULT_BUDGET = "60s"
DEFAULT_MATCH = "parameters"
DEFAULT_SEEDS, DEFAULT_LR_TRIALS = 3, 5


def grid(
    config: Settings,
    *,
    match: str | None = None,
    seeds: int | None = None,
    lr_trials: int | None = None,
    budget: float | str | None = None,
    steps: int | None = None,
    prime: str = "",
    parameters: int | None = None,
) -> Grid:
    """Return the grid of a comparison; what is None has its default.

    config: what all runs share; it has no direct connections, unless it asks for them: a comparison is about cells.
    budget: seconds, or a text such as '60s'; the other arguments are those of `Grid`.
    Raises CharRNNError for what cannot be.
    """
    seconds = None if steps is not None and budget is None else parse_seconds(budget or DEFAULT_BUDGET)
    return Grid(
        config=config if config.direct is not None or config.direct_rows else config.replace(direct=0),
        match=match or DEFAULT_MATCH,
        seeds=DEFAULT_SEEDS if seeds is None else seeds,
        lr_trials=DEFAULT_LR_TRIALS if lr_trials is None else lr_trials,
        budget=seconds,
        steps=steps,
        prime=prime,
        target=parameters,
    )


def folder(grid: Grid, kind: str) -> Path:
    """Return where a comparison is kept unless a folder is given."""
    return home() / f"compare-{corpora.stem(grid.config.corpus[0])}-{kind}"
