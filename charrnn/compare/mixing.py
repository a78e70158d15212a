"""What a network adds to counting: its probabilities and those of an n-gram model, mixed by one weight.

    p(c) = w p_network(c) + (1 - w) p_counts(c)

The weight w is the one that costs least on the validation part; it is one number for the whole text.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]

HALVINGS = 40  # of the interval in which the weight is


def best_weight(network: Costs, counts: Costs) -> float:
    """Return the weight of the network, 0 to 1, at which the mixture costs least. network, counts: nats (N,)."""
    gains = np.exp(-network) - np.exp(-counts)  # what of the mixture's probability grows with the weight
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):  # the cost is convex in the weight, so its slope changes sign once
        middle = (low + high) / 2
        rising = np.sum(gains / np.maximum(np.exp(-counts) + middle * gains, np.finfo(float).tiny)) > 0
        low, high = (middle, high) if rising else (low, middle)
    return (low + high) / 2


def mixed(network: Costs, counts: Costs, weight: float) -> Costs:
    """Return the nats (N,) of a mixture in which the network has this weight."""
    with np.errstate(divide="ignore"):  # a weight of 0 leaves nothing of one side
        logs: Costs = np.logaddexp(np.log(weight) - network, np.log1p(-weight) - counts)
    return -logs


def over_seeds(networks: Sequence[tuple[Costs, Costs]], val_counts: Costs, test_counts: Costs) -> tuple[float, float]:
    """Mix the runs of a cell with counts. Returns nats of the test part, and the weight of the counts: means over runs.

    networks: of each run the nats of its validation part and of its test part.
    """
    weights = [best_weight(val, val_counts) for val, _ in networks]
    costs = [mixed(test, test_counts, weight).mean() for (_, test), weight in zip(networks, weights, strict=True)]
    return float(np.mean(costs)), 1 - float(np.mean(weights))
