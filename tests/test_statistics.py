"""Intervals hold what they promise, adjusted p-values are Holm's, blocks are the whole text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from charrnn.compare.statistics import MIN_BLOCKS, holm, in_blocks, interval


def table(rng: np.random.Generator, S: int, M: int, seeds: float, blocks: float, both: float) -> np.ndarray:
    """Losses with a true mean of zero, from effects of the given standard deviations."""
    noise = both * rng.standard_normal((S, M))
    return seeds * rng.standard_normal((S, 1)) + blocks * rng.standard_normal((1, M)) + noise


# The seeds' part in the error of the mean, against the blocks': none, less, as much, more, nothing else.
@pytest.mark.parametrize(("ratio", "both"), [(0.0, 0.1), (0.5, 0.1), (1.0, 0.1), (3.0, 0.1), (100.0, 0.1), (1.0, 0.5)])
def test_an_interval_of_three_seeds_covers_the_truth_93_to_97_times_in_100(ratio: float, both: float) -> None:
    S, M, tables = 3, 60, 1500
    rng = np.random.default_rng([int(10 * ratio), int(100 * both)])
    seeds = ratio * (S / M) ** 0.5
    found = [interval(table(rng, S, M, seeds, 1.0, both)) for _ in range(tables)]
    coverage = np.mean([i.low <= 0 <= i.high for i in found])
    chance = 2 * (0.95 * 0.05 / tables) ** 0.5  # of the simulation itself
    assert 0.93 - chance < coverage < 0.97 + chance
    assert 0.03 - chance < np.mean([i.p < 0.05 for i in found]) < 0.07 + chance


def test_with_blocks_alike_the_interval_is_students_over_seeds() -> None:
    by_seed = np.array([1.9, 2.0, 2.3])
    found = interval(np.repeat(by_seed[:, None], 50, axis=1))
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.sd == pytest.approx(by_seed.std(ddof=1))
    assert found.p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)


def test_with_one_seed_the_interval_is_students_over_blocks() -> None:
    blocks = np.random.default_rng(0).normal(2, 0.3, 40)
    found = interval(blocks[None, :])
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 39, blocks.mean(), stats.sem(blocks)))


def test_equal_losses_differ_by_nothing() -> None:
    found = interval(np.zeros((3, 20)))
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_one_test_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= q and a <= min(1, len(p) * q) + 1e-12 for a, q in zip(adjusted, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


@given(st.integers(1, 5000))
def test_blocks_are_the_whole_text_in_order(N: int) -> None:
    losses = np.arange(N, dtype=np.float64)
    blocks = in_blocks(losses)
    assert (np.diff(blocks) > 0).all()
    assert len(blocks) == max(round(N / 1000), min(MIN_BLOCKS, N))
    lengths = [len(part) for part in np.array_split(losses, len(blocks))]
    assert np.dot(blocks, lengths) == pytest.approx(losses.sum())
