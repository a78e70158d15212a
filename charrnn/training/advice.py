"""What would help a run most: more time, more text or a larger model. docs/results/advice.md has the measurements."""

from collections.abc import Mapping, Sequence
from typing import Any

from charrnn.training.sizing import CHARS_PER_PARAMETER, MOST_WITH_DROPPED_WEIGHTS, OFTEN

# From so many passes over its text on, more text helps most.
MANY_PASSES = 6
TOO_MANY_PASSES = MOST_WITH_DROPPED_WEIGHTS
# A validation that ends so much above its best has passed it.
PAST_BEST_NATS = 0.005
SOME_NATS = 0.0005  # what is told with three digits

Rows = Sequence[Mapping[str, Any]]


def beforehand(passes: float) -> str | None:
    """Say, before the first step, where a run will end: far from a plateau, or past it. None: neither.

    passes: how often it will read its text.
    """
    if passes < 1:
        return f"it will read {passes:.0%} of the text once, which ends far from a plateau: more time will help"
    if passes > TOO_MANY_PASSES:
        return f"it will read the text {passes:,.0f} times and learn it by heart: more text will help, or fewer steps"
    return None


def afterwards(rows: Rows, passes: float, chars_per_parameter: float, in_budget: bool = False) -> str | None:
    """Say in one line what would help a complete run most, with the figure that says so; None where nothing says it.

    rows: of its validations, as `Record.rows` gives them. passes: how often it read its text. chars_per_parameter: the
    characters that it read for each parameter. in_budget: whether its time was limited: then a larger model reads less.
    """
    curve = [row["val_nats"] for row in rows if row["val_nats"] is not None and row["step"]]
    if len(curve) < 2:
        return None
    times = f"{passes:.2g} times" if passes >= 1.05 else "once" if passes >= 0.995 else f"{passes:.0%} of once"
    risen = curve[-1] - min(curve)
    if risen > PAST_BEST_NATS:
        return f"more text: validation was {risen:.3f} nats lower before the end, then the text was learned by heart"
    if passes >= MANY_PASSES:
        train = rows[-1]["train_nats"]
        gap = "" if train is None else f", and validation is {_apart(curve[-1] - train)} training"
        return f"more text: it was read {times}{gap}"
    if chars_per_parameter < CHARS_PER_PARAMETER or (in_budget and passes < OFTEN):
        halved = curve[len(curve) // 2 - 1] - curve[-1]
        if halved < SOME_NATS:
            return None
        return f"more time: the text was read {times}, and the second half of the run brought {halved:.3f} nats"
    each = f"{chars_per_parameter:.2g} characters were read for each parameter"
    return f"a larger model: {each}, {CHARS_PER_PARAMETER} are enough, and the text was read {times}"


def _apart(nats: float) -> str:
    """Say how far a loss is above another one, or below it: in training some outputs and weights are dropped."""
    return f"{abs(nats):.3f} nats {'below' if nats < 0 else 'above'}"
