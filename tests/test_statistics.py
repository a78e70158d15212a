"""Intervals hold what they promise, adjusted p-values are Holm's, blocks are the whole text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import coverage, table
from scipy import integrate, stats

from charrnn.compare.statistics import MIN_BLOCKS, BehrensFisher, holm, in_blocks, interval


# The seeds' part in the error of the mean against the blocks', and what is of both: a cell's losses are like the first
# ones, the difference of two cells like those where `both` is 3.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("S", "ratio", "both"),
    [(2, 0.0, 0.1), (2, 1.0, 0.1), (2, 3.0, 1.0), (2, 10.0, 3.0), (3, 1.0, 0.5), (3, 3.0, 3.0), (5, 3.0, 3.0)],
)
def test_an_interval_covers_the_truth_95_times_in_100_or_a_few_more(S: int, ratio: float, both: float) -> None:
    covered, chance = coverage(S, ratio, both, tables=400)
    assert 0.95 - 3 * chance < covered < 0.99 + 3 * chance


def test_p_is_5_percent_where_an_interval_ends_at_zero() -> None:
    rng = np.random.default_rng(1)
    for S in (1, 2, 3, 5):
        losses, _ = table(rng, S, 40, 1.0, 0.5)
        found = interval(losses)
        assert interval(losses, (found.high - found.low) / 2).p == pytest.approx(0.05)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.7, 0.98, 1.0])
@pytest.mark.parametrize("freedom", [1, 2, 4])
def test_p_is_that_of_two_students_added(share: float, freedom: int) -> None:
    ratio = 3.0

    def beyond(t: float) -> float:  # by integration over what the blocks may be
        return stats.t.pdf(t, 59) * stats.t.cdf(((1 - share) ** 0.5 * t - ratio) / share**0.5, freedom)

    expected = integrate.quad(beyond, -30, 30, epsabs=1e-12, limit=500, points=[0, ratio])[0] if share else None
    expected = stats.t.cdf(-ratio, 59) if expected is None else expected
    assert BehrensFisher(share, freedom, 59).p(ratio) == pytest.approx(2 * expected, rel=1e-4)


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
