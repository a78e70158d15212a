"""Early stopping: whether validation is clearly past its best."""

import math
from collections.abc import Sequence

# How far above its best validation must be: less is the noise of a high learning rate.
PAST_BEST_NATS = 0.02


def is_past_best(val_nats: Sequence[float | None], patience: int) -> bool:
    """Tell whether the best validation is `patience` ago or more, and PAST_BEST_NATS lower than the last.

    val_nats: of every validation, nats per character; None where it was not finite.
    """
    values = [math.inf if value is None else value for value in val_nats]
    best = min(values)
    return len(values) > values.index(best) + patience and values[-1] >= best + PAST_BEST_NATS
