"""Which cells to compare when nobody says: the course notebook's, and a grid from the literature with its settings."""

from typing import TYPE_CHECKING

from charrnn.config import Config
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.grid import Grid

NOTEBOOK = ("simple", "rnn", "lstm", "gru", "nn.RNN", "nn.LSTM", "nn.GRU")
PLAIN, GATED = "nn.RNN", ("nn.LSTM", "nn.GRU")
LAYERS = (1, 2, 3)
WIDTHS = (64, 128, 256, 512)
EPOCHS = 50

Models = list[tuple[str, int, int]]


def karpathy2015(config: Config, fraction: float = 1.0, seeds: int = 1, prime: str = "") -> "tuple[Grid, Models]":
    """The grid of Karpathy, Johnson and Fei-Fei, Visualizing and understanding recurrent networks, 2015, section 4.1.

    config: its corpus, split, seed and device are kept, all else is the paper's. fraction: share of its 50 epochs; the
    rate then falls as much in fewer epochs. Raises CharRNNError for a fraction outside 0 to 1.
    """
    from charrnn import data, settings  # a command line that only lists its options needs neither
    from charrnn.grid import Grid

    if not 0 < fraction <= 1:
        raise CharRNNError(f"fraction is {fraction}", "expected a number above 0, up to 1")
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
        clip=5.0,
        clip_by="value",
        uniform=0.08,
    )
    text = data.open_text(config)
    corpus = data.encode(text, data.learn_tokenizer(text, config.tokenizer, config.split), config.split)
    steps = max(1, round(EPOCHS * fraction * settings.steps_per_epoch(config, corpus)))
    grid = Grid(config, "hidden", seeds, 1, None, steps, prime, preset="karpathy2015")
    return grid, [(cell, hidden, layers) for cell in (PLAIN, *GATED) for layers in LAYERS for hidden in WIDTHS]
