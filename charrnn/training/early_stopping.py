"""Early stopping: whether validation is clearly past its best."""

import math
from collections.abc import Sequence

# How far above its best validation must be: less is the noise of a high learning rate.
PAST_BEST_NATS = 0.02


def stops(val_nats: Sequence[float | None], patience: int) -> bool:
    """Tell whether a run ends now: the best validation is `patience` ago or more, and PAST_BEST_NATS below the last.

    A run that went on beyond such an end was given more steps, and is as patient again.
    val_nats: of every validation, nats per character; None where it was not finite.
    """
    since: list[float] = []  # the last end that was not the end
    for value in val_nats:
        if _is_past_best(since, patience):
            since.clear()
        since.append(math.inf if value is None else value)
    return _is_past_best(since, patience)


def _is_past_best(values: Sequence[float], patience: int) -> bool:
    if len(values) <= patience:
        return False
    best = min(values)
    return len(values) > values.index(best) + patience and values[-1] >= best + PAST_BEST_NATS
