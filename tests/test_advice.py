"""What would help a run most, in one line, from its own figures."""

from typing import Any

import pytest

from charrnn.training import advice, sizing


def rows(*val: float | None, train: float = 1.5) -> list[dict[str, Any]]:
    return [{"step": 10 * i, "val_nats": nats, "train_nats": train} for i, nats in enumerate(val)]


@pytest.mark.parametrize(
    ("val", "passes", "chars_per_parameter", "words"),
    [
        (
            (5.0, 2.0, 1.8, 1.7, 1.6),
            0.4,
            1.0,
            ("more time", "40% of once", "second half of the run brought 0.200 nats"),
        ),
        ((5.0, 2.0, 1.8, 1.7, 1.6), 2.6, 1.0, ("more time", "2.6 times")),
        ((5.0, 2.0, 1.8, 1.7, 1.6), 1.01, 1.0, ("more time", "the text was read once, and")),
        ((5.0, 2.0, 1.8, 1.7, 1.6), 2.6, 7.0, ("a larger model", "7 characters", "2.6 times")),
        ((5.0, 2.0, 1.8, 1.7, 1.6), 30.0, 7.0, ("more text", "30 times", "0.100 nats above training")),
        ((5.0, 2.0, 1.8, 1.5, 1.4), 30.0, 7.0, ("more text", "30 times", "validation is 0.100 nats below training")),
        ((5.0, 2.0, 1.6, 1.7, 1.8), 30.0, 1.0, ("more text", "0.200 nats lower")),
        ((5.0, 2.0, 1.6, 1.7, 1.8), 3.0, 1.0, ("more text", "0.200 nats lower")),
    ],
)
def test_the_figure_says_what_helps(
    val: tuple[float, ...], passes: float, chars_per_parameter: float, words: tuple[str, ...]
) -> None:
    said = advice.afterwards(rows(*val), passes, chars_per_parameter)
    assert said is not None
    for word in words:
        assert word in said


def test_in_a_budget_that_was_short_for_the_text_a_larger_model_would_read_less() -> None:
    said = [advice.afterwards(rows(5.0, 2.0, 1.8, 1.7, 1.6), passes, 42.0, in_budget=True) for passes in (0.7, 3.0)]
    assert "more time" in str(said[0])
    assert "a larger model" in str(said[1])
    assert "a larger model" in str(advice.afterwards(rows(5.0, 2.0, 1.8, 1.7, 1.6), 1.0, 4.4))


def test_nothing_is_said_without_validations() -> None:
    assert advice.afterwards([], 3.0, 1.0) is None
    assert advice.afterwards(rows(5.0, 2.0), 3.0, 1.0) is None
    assert advice.afterwards(rows(None, None, None, None), 3.0, 1.0) is None


def test_more_time_is_not_advised_where_it_brought_nothing() -> None:
    assert advice.afterwards(rows(5.0, 2.0, 0.0, 0.0, 0.0), 3.0, 1.0) is None


def test_before_the_first_step_an_end_that_is_far_off_is_said() -> None:
    assert "far from a plateau" in str(advice.beforehand(0.3))
    assert "by heart" in str(advice.beforehand(5.0 * sizing.MOST_EPOCHS))
    assert advice.beforehand(8.0) is None
    assert advice.beforehand(float(sizing.MOST_EPOCHS)) is None
