"""Early stopping: whether validation is clearly past its best."""

import math
from collections.abc import Sequence

# How far above its best validation must be: less is the noise of a high learning rate.
PAST_BEST_NATS = 0.02


def stops(val_nats: Sequence[float | None], patience: int) -> bool:
    """Tell whether a run ends now: the best validation is `patience` ago or more, and PAST_BEST_NATS below the last.

    A run that went on beyond such an end was given more steps, and is as patient again.
    val_nats: of every validation, nats per character; None where it was not finite. patience: 1 or more.
    """
    best, after, ended = math.inf, 0, True  # after: validations since the best
    for value in val_nats:
        nats = math.inf if value is None else value
        if ended or nats < best:
            best, after = nats, 0
        else:
            after += 1
        ended = after >= patience and nats >= best + PAST_BEST_NATS
    return ended and bool(val_nats)
