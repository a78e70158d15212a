"""The learning rate of every step: a pure function of the configuration and its plan."""

import math

from charrnn.training.config import Config
from charrnn.training.settings import Plan


def steps_in_force(plan: tuple[Plan, ...], step: int) -> int | None:
    """Return the length of the run as planned when `step` was taken; None before there was a plan."""
    total = None
    for since, steps, _ in plan:
        if since <= step:
            total = steps
    return total


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the rate of a step, 0 the first."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "cosine":
        total = steps_in_force(config.plan, step)
        if total is None:  # the budget is still being timed
            return config.lr
        progress = min(1.0, (step - config.warmup) / max(1, total - config.warmup))
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "step":
        return config.lr * config.decay ** max(0, step // steps_per_epoch - config.decay_after)
    return config.lr
