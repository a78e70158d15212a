"""From gradients to new weights: learning-rate schedules, clipping, torch's optimizers with their moments by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Return the rate of a step (0 is the first): a pure function of the configuration and its plan."""
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


def make_optimizer(config: Config, weights: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """Make the configuration's optimizer over weights by name. A group's rate is the schedule's times its `scale`."""
    return OPTIMIZERS[config.optimizer].make(config, weights)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


@dataclass(frozen=True)
class Kind:
    """An optimizer. make(config, weights by name): torch's, its groups with a `scale`. moments: kept of each weight."""

    make: Callable[[Config, Mapping[str, Tensor]], torch.optim.Optimizer]
    moments: tuple[str, ...]


def _adamw(config: Config, weights: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on matrices, not on biases or the embedding."""
    matrices, others = _matrices_first(weights)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": others, "weight_decay": 0.0, "scale": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)


def _rmsprop(config: Config, weights: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """RMSProp, without weight decay."""
    matrices, others = _matrices_first(weights)
    groups = [{"params": [*matrices, *others], "scale": 1.0}]
    return torch.optim.RMSprop(groups, lr=config.lr, alpha=config.beta2, eps=1e-8)


def _matrices_first(weights: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the matrices but the embedding's, and all others."""
    matrices = [w for name, w in weights.items() if w.ndim > 1 and name != "embedding"]
    return matrices, [w for name, w in weights.items() if not (w.ndim > 1 and name != "embedding")]


# By the name in settings. An optimizer is one function above and its row here.
OPTIMIZERS = {
    "adamw": Kind(_adamw, ("step", "exp_avg", "exp_avg_sq")),
    "rmsprop": Kind(_rmsprop, ("step", "square_avg")),
}


def clip_gradients(config: Config, weights: Mapping[str, Tensor]) -> None:
    """Bound the gradients in place, by the norm of all of them together or value by value."""
    if config.clip is None:
        return
    if config.clip_by == "norm":
        torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
    else:
        torch.nn.utils.clip_grad_value_(weights.values(), config.clip)


def moments(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the optimizer's memory of each weight, as 'moment/weight' tensors; empty before the first step."""
    return {f"{key}/{name}": value for name, w in weights.items() for key, value in optimizer.state.get(w, {}).items()}


def moment_shapes(config: Config, weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of everything `moments` gives after the first step, by its name."""
    kept = OPTIMIZERS[config.optimizer].moments
    return {f"{key}/{name}": () if key == "step" else tuple(w.shape) for name, w in weights.items() for key in kept}


def restore_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> None:
    """Put back what `moments` gave."""
    # A fused optimizer counts its steps where the weights are, another one on the CPU.
    fused = optimizer.defaults.get("fused")
    for full_name, value in saved.items():
        key, name = full_name.split("/", 1)
        weight = weights[name]
        if key == "step":
            value = value.to(torch.float32)
        optimizer.state[weight][key] = value if key == "step" and not fused else value.to(weight.device)
