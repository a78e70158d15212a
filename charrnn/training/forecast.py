"""What training would come to, before it begins: how much is read in a budget, and what validation will cost then.

An n-gram model is counted in seconds, and says how predictable a text is. A network that has direct connections costs
less than it, by a share that grows with what is read, and with the length of the text:

    nats = counted (A + B / sqrt(read (1 + SHORT / characters)) - C ln(more) - D ln(counted characters))

in millions of characters. SHORT: a text of fewer needs less reading. more: how many times as many different characters
are read as were counted, 1 at the least. The numbers were fitted to runs of several texts and budgets:
docs/results/forecast.md has them, and how far they are off for texts that they were not fitted to.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np

from charrnn.model.architecture import Architecture
from charrnn.text.corpus import Corpus
from charrnn.text.ngram import costs_by_order
from charrnn.training import resolve, sizing
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine

BUDGETS = (60.0, 180.0, 600.0, 3600.0)  # seconds
A, B, C, D, SHORT = 0.9, 0.09, 0.058, 0.007, 0.3
MILLION = 1_000_000
# The n-gram model is counted on so many ids at the most, the last ones of the training part. It pays for so many of the
# validation part, in so many blocks spread evenly over it.
COUNTED_IDS, SCORED_IDS, BLOCKS = 1 << 20, 1 << 17, 16
HIGHEST_ORDER = 6
OF_FEWER_STREAMS = 0.75  # of the speed that the rule expects, is reached where it takes fewer streams than it may


@dataclass(frozen=True)
class Forecast:
    """What a budget of so many seconds is expected to come to. read: characters that are trained on.

    nats: a character of the validation part costs.
    """

    budget: float
    cell: str
    hidden: int
    layers: int
    read: int
    passes: float
    nats: float

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as JSON takes it."""
        return asdict(self)


def forecasts(settings: Settings, corpus: Corpus, budgets: Sequence[float] = BUDGETS) -> Iterator[Forecast]:
    """Say what each budget would come to with these settings.

    Raises CharRNNError where there is no validation part.
    """
    text, counted = resolve.extent(settings, corpus), counted_nats(corpus)
    drops_weights = sizing.may_drop_weights(settings)
    useful = sizing.most_epochs(drops_weights) * text.characters
    products_per_s = Machine(settings.replace(budget=max(budgets)), corpus).quiet_products_per_s
    for budget in budgets:
        asked = settings.replace(budget=budget)
        decided = sizing.decide(asked, text, repeat(products_per_s).__next__)
        network = Architecture.of(decided.replace(direct=0, direct_rows=0), text.vocabulary)
        speed = 1.0 if decided.batch == sizing.MOST_STREAMS else OF_FEWER_STREAMS
        read = speed * sizing.read_in(budget, network, text.learned, products_per_s)
        nats = expected_nats(counted, text.characters, min(useful, read))
        # A run of a short text has a least number of steps; what it reads beyond the useful passes gains it nothing.
        steps_per_epoch = resolve.steps_per_epoch(decided, corpus)
        passes = sizing.most_steps(steps_per_epoch, drops_weights) / steps_per_epoch
        read = min(read, passes * text.characters)
        yield Forecast(budget, decided.cell, network.hidden, network.layers, round(read), read / text.characters, nats)


def expected_nats(counted: float, characters: int, read: float) -> float:
    """Return what a character of the validation part is expected to cost.

    counted: what it costs by the best n-gram model. characters: of the training part. read: that are trained on.
    """
    more = max(1.0, min(characters, read) / COUNTED_IDS)
    reading = B / math.sqrt(read / MILLION * (1 + SHORT * MILLION / characters))
    return counted * (A + reading - C * math.log(more) - D * math.log(min(characters, COUNTED_IDS) / MILLION))


def counted_nats(corpus: Corpus) -> float:
    """Return what a character of the validation part costs by the best n-gram model of the training part.

    Raises CharRNNError where there is no validation part.
    """
    learned, new = corpus.ids("train")[-COUNTED_IDS:], corpus.ids("val")
    length, blocks = SCORED_IDS // BLOCKS, [new]
    if len(new) > SCORED_IDS:  # each block begins without context: of a short part they would be too short
        blocks = [new[begin : begin + length] for begin in np.linspace(0, len(new) - length, BLOCKS, dtype=np.int64)]
    models = costs_by_order(learned, blocks, corpus.tokenizer.size, HIGHEST_ORDER)
    ids_per_char = len(new) / max(1, corpus.characters("val"))
    return min(float(np.concatenate(costs).mean()) for costs in models) * ids_per_char
