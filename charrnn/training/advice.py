"""What would help a run most: more time, more text or a larger model. docs/results/advice.md has the measurements."""

from collections.abc import Mapping, Sequence
from typing import Any

from charrnn.training.sizing import MOST_EPOCHS

# Passes over the text up to which more time helps most, and from which on more text does.
FEW_PASSES, MANY_PASSES = 4, 12
TOO_MANY_PASSES = 2 * MOST_EPOCHS
# A validation that ends so much above its best has passed it.
PAST_BEST_NATS = 0.005

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


def afterwards(rows: Rows, passes: float) -> str | None:
    """Say in one line what would help a complete run most, with the figure that says so; None without validations.

    rows: of its validations, as `Record.rows` gives them. passes: how often it read its text.
    """
    curve = [row["val_nats"] for row in rows if row["val_nats"] is not None and row["step"]]
    if len(curve) < 2:
        return None
    times = f"{passes:.2g} times" if passes >= 1.5 else f"{passes:.2g} of a time" if passes < 1 else "once"
    risen = curve[-1] - min(curve)
    if risen > PAST_BEST_NATS:
        return f"more text: validation was {risen:.3f} nats lower before the end, after which it learned by heart"
    halved = curve[len(curve) // 2 - 1] - curve[-1]
    if passes < FEW_PASSES:
        return f"more time: the text was read {times}, and the second half of the run brought {halved:.3f} nats"
    train = rows[-1]["train_nats"]
    gap = "" if train is None else f", and validation is {curve[-1] - train:.3f} nats above training"
    if passes < MANY_PASSES:
        return f"a larger model, with more time: the text was read {times}{gap}"
    return f"more text: it was read {times}{gap}"
