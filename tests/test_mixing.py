"""A network and counts as one: the weight that validation gives each, and what the mixture costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.compare import mixing

COSTS = st.lists(st.floats(0.001, 30), min_size=1, max_size=40)


@given(COSTS)
def test_no_other_weight_costs_less(network: list[float]) -> None:
    counts = np.random.default_rng(len(network)).permutation(network)
    best = mixing.best_weight(np.array(network), counts)
    cost = mixing.mixed(np.array(network), counts, best).mean()
    others = [mixing.mixed(np.array(network), counts, w).mean() for w in np.linspace(0, 1, 101)]
    assert cost <= min(others) + 1e-9


def test_the_mixture_has_the_probability_that_it_says() -> None:
    network, counts = -np.log([0.5, 0.1]), -np.log([0.2, 0.4])
    assert np.exp(-mixing.mixed(network, counts, 0.25)) == pytest.approx([0.25 * 0.5 + 0.75 * 0.2, 0.325])


@pytest.mark.parametrize(("network", "counts", "weight"), [(0.1, 5.0, 1.0), (5.0, 0.1, 0.0)])
def test_what_is_always_better_has_all_the_weight(network: float, counts: float, weight: float) -> None:
    found = mixing.best_weight(np.full(9, network), np.full(9, counts))
    assert found == pytest.approx(weight)
    assert mixing.mixed(np.full(9, network), np.full(9, counts), found).mean() == pytest.approx(0.1)


def test_what_cannot_be_predicted_has_no_weight() -> None:
    assert mixing.best_weight(np.array([2000.0, 2000.0]), np.array([1.0, 1.0])) == pytest.approx(0)


def test_every_run_of_a_cell_has_a_weight_of_its_own() -> None:
    good, bad = np.full(4, 0.5), np.full(4, 3.0)
    nats, weight = mixing.over_seeds([(good, good), (bad, bad)], np.full(4, 1.0), np.full(4, 1.0))
    assert weight == pytest.approx(0.5)  # of the counts: nothing beside the first run, all beside the second
    assert nats == pytest.approx((0.5 + 1.0) / 2)
