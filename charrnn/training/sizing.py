"""The rule behind every setting left open: how big a model a text and a budget deserve, and how it is trained.

hidden     the largest of WIDTHS whose model (a) would read enough in the time there is: CHARS_PER_PARAMETER characters
           for each of its parameters, and in a budget that it would read the text less than OFTEN times in
           UNREAD_PER_PARAMETER, since a smaller model reads more of it; and (b) has at most PARAMETERS_PER_CHAR for
           each character of the text.
           The time is what was asked for (steps, epochs or a budget); a budget becomes characters by the measured
           speed of this machine: a model of P parameters costs 3 P multiply-adds a character, forward and backward.
           Those of ids that do not learn cost nothing.
layers     1: in runs of minutes a second layer costs more than it gives.
window     64 characters.
batch      32 streams, halved while an epoch would have fewer than EPOCH_STEPS steps, and once where the whole run
           would have fewer than FEW_STEPS: with few steps, twice as many of half the batch learn more.
warmup     50 steps, or a tenth of the run where that is shorter.
lr         4.5e-3 at hidden sizes of 384 to 512, otherwise that of the nearer end times the square root of (its hidden
           size / hidden size): a small model learns more at a higher rate. A run of more than RATE_STEPS steps has a
           lower one, by (RATE_STEPS / steps) to the power of RATE_POWER.
dropout    of outputs, and of the weights between states where the cell has such, by how often the text is read: see
           DROPOUT.
direct     tables of the last 1 to N characters, N by how many different ones are common: see DIRECT. Alphabets of more
           than MOST_COLUMNS have none. A table has a row for every CHARS_PER_ROW characters that are read once or more.
           All together have at most FEW_NUMBERS numbers, or NUMBERS_PER_CHAR for each of these characters where that is
           more, and never more than MOST_NUMBERS. Their rate, and the share that is left out, depend on how often the
           text is read: see OF_DIRECT.
length     what fills the budget, but no more than MOST_EPOCHS passes over the text, MOST_WITH_DROPPED_WEIGHTS where
           weights are dropped (or LEAST_STEPS steps): after so many a model learns the text by heart, and a rate that
           falls to zero by then scores better than one that would take longer.

Everything the rule decides is printed, can be set, and is written into config.json. Evidence: docs/results/rule.md.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from charrnn import cells
from charrnn.compiler.trace import state_matrices
from charrnn.model.architecture import Architecture
from charrnn.text.utf8 import BYTES
from charrnn.training.config import NO_DIRECT, Config
from charrnn.training.settings import Settings

WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
CHARS_PER_PARAMETER, UNREAD_PER_PARAMETER, OFTEN = 3, 40, 2.5
PARAMETERS_PER_CHAR = 9
MOST_STREAMS, EPOCH_STEPS = 32, 16
FEW_STEPS = 2000
RATE, RATE_STEPS, RATE_POWER = 4.5e-3, 2300, 0.4
PRETRAINED_SHARE = 1 / 3  # of the rate, for weights that learned another text before: docs/results/fine-tuning.md
# From so many epochs on, these shares of outputs and of the weights between states.
DROPOUT = ((0, 0.0, 0.0), (5, 0.1, 0.0), (8, 0.2, 0.1), (12, 0.3, 0.2), (20, 0.4, 0.3))
OF_OUTPUTS_ALONE = ((0, 0.0, 0.0), (5, 0.1, 0.0), (8, 0.3, 0.0), (12, 0.5, 0.0))  # where no weights are dropped
# Direct connections. From such a variety of characters on, so many tables.
DIRECT = ((0, 6), (80, 4), (350, 2))
CHARS_PER_ROW, NUMBERS_PER_CHAR = 4, 4
FEW_NUMBERS, MOST_NUMBERS = 20_000_000, 64_000_000
# From so many epochs on: their rate, in rates of the network, and the share of them left out.
OF_DIRECT = ((0, 10.0, 0.0), (8, 10.0, 0.2), (12, 5.0, 0.4), (20, 3.0, 0.5))
MOST_COLUMNS = 5000
MOST_EPOCHS, MOST_WITH_DROPPED_WEIGHTS, LEAST_STEPS = 15, 30, 1000

TABLES_HELD = 3
TOO_FEW_CHARS, TOO_MANY_PER_CHAR = 10_000, 100  # characters, and parameters for each: a person is told
USABLE_SHARE = 0.95  # of a budget: the rest goes to validating and saving
START_SECONDS = 8  # before the first step: importing torch, compiling, comparing engines


class Extent(NamedTuple):
    """What the rule has to know of a text. characters: of the training part. vocabulary: V. learned: the ids of it that
    training works with. variety: e to the entropy of a single id, so many there would be if all were as common.
    """

    characters: int
    vocabulary: int
    learned: int
    variety: float


def decide(config: Settings, text: Extent, products_per_s: Callable[[], float]) -> Settings:
    """Fill in every setting that the rule is about; those that were given stay as they are.

    products_per_s: gives the multiply-adds a second of this machine in training; it is asked only where something
    depends on it.
    """
    characters = text.characters
    drops_weights = may_drop_weights(config)
    window = config.window or 64
    batch = config.batch or _batch(characters, window)
    layers = config.layers or 1
    budget = config.budget or 0

    def read(hidden: int) -> float:
        """Return the characters that a model of this width would be trained on."""
        if config.steps is not None:
            return config.steps * batch * window
        if config.epochs is not None:
            return config.epochs * characters
        return read_in(budget, sized(hidden), text.learned, products_per_s())

    def useful(hidden: int) -> float:
        """Return the same, but no more passes in a budget than do any good."""
        return min(read(hidden), most_epochs(drops_weights) * characters) if config.budget else read(hidden)

    def sized(hidden: int) -> Architecture:
        network = config.replace(hidden=hidden, layers=layers, direct=0, direct_rows=0)
        return Architecture.of(network, text.vocabulary)

    def deserved(hidden: int) -> bool:
        parameters = sized(hidden).count_network()
        # A smaller model reads more in a budget, but not in so many steps.
        is_short = config.budget and read(hidden) < OFTEN * characters
        enough = UNREAD_PER_PARAMETER if is_short else CHARS_PER_PARAMETER
        enough_time = read(hidden) >= enough * parameters
        return enough_time and parameters <= PARAMETERS_PER_CHAR * characters

    given = config.hidden or (config.embedding if config.tie else None)
    hidden = given or max(filter(deserved, WIDTHS), default=WIDTHS[0])
    may_halve = config.batch is None and config.steps is None and batch == MOST_STREAMS
    if may_halve and useful(hidden) < FEW_STEPS * batch * window:
        batch //= 2
    lr, warmup = config.lr, config.warmup
    if lr is None:
        longer = max(1.0, useful(hidden) / (batch * window) / RATE_STEPS)
        rate = RATE * (min(max(hidden, 384), 512) / hidden) ** 0.5 / longer**RATE_POWER
        lr = float(f"{rate if config.pretrained is None else PRETRAINED_SHARE * rate:.2g}")
    if warmup is None:
        warmup = int(min(50, read(hidden) / (batch * window) / 10))
    epochs = useful(hidden) / max(1, characters)
    config = with_direct(config, text, epochs)
    shares = DROPOUT if drops_weights else OF_OUTPUTS_ALONE
    _, outputs, weights = max(row for row in shares if epochs >= row[0])
    return config.replace(
        hidden=hidden,
        layers=layers,
        window=window,
        batch=batch,
        lr=lr,
        warmup=warmup,
        dropout=outputs if config.dropout is None else config.dropout,
        weight_dropout=weights if config.weight_dropout is None else config.weight_dropout,
    )


def with_direct(config: Settings, text: Extent, epochs: float) -> Settings:
    """Decide about direct connections. epochs: how often the text will be read.

    A configuration without any has no rows, and then nothing else that it says of them was meant.
    """
    columns, orders = (text.vocabulary - BYTES if text.vocabulary > BYTES else text.vocabulary), config.direct
    if orders is None:
        is_wished = bool(config.direct_rows) or columns <= MOST_COLUMNS
        orders = max(row for row in DIRECT if text.variety >= row[0])[1] if is_wished else 0
    if not orders:
        return config.replace(**NO_DIRECT)
    different = round(min(1, epochs) * text.characters)  # that will be read
    numbers = min(MOST_NUMBERS, max(FEW_NUMBERS, NUMBERS_PER_CHAR * different))
    rows = max(1, min(different // CHARS_PER_ROW, numbers // (orders * columns)))
    _, rate, left_out = max(row for row in OF_DIRECT if epochs >= row[0])
    decided = {"direct": orders, "direct_rows": rows, "direct_rate": rate, "direct_dropout": left_out}
    given = {} if config.direct_rows == 0 else {name: getattr(config, name) for name in decided}
    return config.replace(
        **{name: value if given.get(name) is None else given[name] for name, value in decided.items()}
    )


def may_drop_weights(config: Settings) -> bool:
    """Tell whether weights between states are dropped, where the text is read often enough."""
    if config.weight_dropout is not None:
        return config.weight_dropout > 0
    return bool(state_matrices(cells.get(config.cell), config.cell_options))


def most_epochs(drops_weights: bool) -> int:
    """Return the passes over a text that do any good. drops_weights: whether weights between states are dropped."""
    return MOST_WITH_DROPPED_WEIGHTS if drops_weights else MOST_EPOCHS


def most_steps(steps_per_epoch: int, drops_weights: bool = False) -> int:
    """Return the longest run that a budget becomes. drops_weights: whether weights between states are dropped."""
    return max(LEAST_STEPS, most_epochs(drops_weights) * steps_per_epoch)


def read_in(seconds: float, architecture: Architecture, learned: int, products_per_s: float) -> float:
    """Return how many characters a budget of so many seconds is expected to be enough to be trained on."""
    left = max(USABLE_SHARE * seconds - START_SECONDS, 0.2 * seconds)
    return left * chars_per_s(architecture, learned, products_per_s)


def chars_per_s(architecture: Architecture, learned: int, products_per_s: float) -> float:
    """Return the characters a second that training is expected to read.

    Each costs one multiply-add per parameter forward, two backward.
    learned: how many ids have parameters that count.
    """
    return products_per_s / (3 * dataclasses.replace(architecture, vocabulary=learned).count_network())


def memory_bytes(config: Config, architecture: Architecture) -> int:
    """Estimate what training holds: weights with gradients and moments, and the activations of one window.

    Of direct connections it holds the last and the best ones, and a copy that is being saved.

    A layer keeps about 16 values per character and feature for going backward, the head 4 per character and id.
    """
    H, L, V = architecture.hidden, architecture.layers, architecture.vocabulary
    activations = config.batch * config.window * (16 * H * L + 4 * V)
    network, tables = architecture.count_network(), architecture.count() - architecture.count_network()
    return 4 * (4 * network + TABLES_HELD * tables + activations)


def smaller(config: Config, architecture: Architecture, otherwise: str) -> str:
    """Say what needs less memory: fewer rows of tables, where these are most of it, or else what is given."""
    tables = 4 * TABLES_HELD * (architecture.count() - architecture.count_network())
    is_most = tables > memory_bytes(config, architecture) / 2
    return "choose fewer --direct-rows, or --direct 0" if is_most else otherwise


def warnings(architecture: Architecture, characters: int) -> list[str]:
    """Say what is out of proportion between a text of so many training characters and a model."""
    if characters < TOO_FEW_CHARS:
        return [
            f"{characters:,} characters are very few: the model will recite them rather than write; "
            f"from about {TOO_FEW_CHARS:,} on it begins to generalise"
        ]
    share = architecture.count_network() / characters
    if share > TOO_MANY_PER_CHAR:
        return [f"the model has {share:,.0f} parameters for each character of the text: a smaller --hidden will do"]
    return []


def _batch(characters: int, window: int) -> int:
    batch = MOST_STREAMS
    while batch > 4 and characters < EPOCH_STEPS * batch * window:
        batch //= 2
    return batch
