"""The cells to compare when nobody names any: the course notebook's, and a grid from the literature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrnn.errors import CharRNNError, OptionError
from charrnn.training.settings import Settings

if TYPE_CHECKING:
    from charrnn.compare.grid import Grid

NOTEBOOK = ("simple", "rnn", "lstm", "gru", "nn.RNN", "nn.LSTM", "nn.GRU")
PLAIN, GATED = "nn.RNN", ("nn.LSTM", "nn.GRU")
LAYERS = (1, 2, 3)
WIDTHS = (64, 128, 256, 512)
EPOCHS = 50

Models = list[tuple[str, int, int]]


def karpathy2015(
    config: Settings, fraction: float = 1.0, seeds: int = 1, prime: str = "", widest: int = WIDTHS[-1]
) -> "tuple[Grid, Models]":
    """Return the grid of Karpathy, Johnson and Fei-Fei, Visualizing and understanding recurrent networks, 2015, 4.1.

    config: its corpus, split, seed and device stay, all else is the paper's. fraction: share of its 50 epochs; the rate
    then falls as much in fewer epochs. widest: models of a larger hidden size, which take longest, are left out.
    Raises CharRNNError for a fraction outside 0 to 1, or where no hidden size is left.
    """
    from charrnn.compare.grid import Grid
    from charrnn.text.corpus import prepare
    from charrnn.training import resolve  # here: a command line that only lists its options needs neither

    if not 0 < fraction <= 1:
        raise OptionError(f"fraction is {fraction}", "expected a number above 0, up to 1")
    widths = [width for width in WIDTHS if width <= widest]
    if not widths:
        raise CharRNNError(
            f"no hidden size of the preset is {widest} or less", f"its hidden sizes are {', '.join(map(str, WIDTHS))}"
        )
    config = config.replace(
        layers=1,
        one_hot=True,
        embedding=None,
        tie=False,
        batch=100,
        window=100,
        optimizer="rmsprop",
        lr=2e-3,
        beta2=0.95,
        schedule="step",
        decay=0.95 ** (1 / fraction),
        decay_after=round(10 * fraction),
        warmup=0,
        dropout=0.0,
        weight_dropout=0.0,
        direct=0,
        clip=5.0,
        clip_by="value",
        uniform=0.08,
    )
    corpus = prepare(config)
    steps = max(1, round(EPOCHS * fraction * resolve.steps_per_epoch(config, corpus)))
    grid = Grid(config, "hidden", seeds, 1, None, steps, prime, preset="karpathy2015")
    return grid, [(cell, hidden, layers) for cell in (PLAIN, *GATED) for layers in LAYERS for hidden in widths]


@dataclass(frozen=True)
class Trend:
    """Of `pairs` of models that differ in one thing, in how many the first is ahead; by how many bits on average."""

    claim: str
    ahead: int
    pairs: int
    bits: float


def trends(rows: Sequence[Mapping[str, Any]]) -> list[Trend]:
    """Say what a grid shows, by the rows of its result: gates over none, two layers over one."""
    bits = {(row["cell"], row["layers"], row["hidden"]): row["bits_per_char"] for row in rows}
    claims = [(f"{cell} over {PLAIN}", [((cell, *size), (PLAIN, *size)) for size in _SIZES]) for cell in GATED]
    claims += [
        (f"{cell}: two layers over one", [((cell, 2, width), (cell, 1, width)) for width in WIDTHS])
        for cell in (PLAIN, *GATED)
    ]
    found = []
    for claim, pairs in claims:
        gaps = [bits[b] - bits[a] for a, b in pairs if a in bits and b in bits]
        if gaps:
            found.append(Trend(claim, sum(gap > 0 for gap in gaps), len(gaps), sum(gaps) / len(gaps)))
    return found


_SIZES = [(layers, width) for layers in LAYERS for width in WIDTHS]
