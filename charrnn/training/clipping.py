"""Bounds on gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor

from charrnn.training.config import Config


def clip_gradients(config: Config, weights: Mapping[str, Tensor]) -> None:
    """Bound the gradients in place, by the norm of all of them together or value by value.

    Not those of direct connections: each row of them has a rate of its own, whatever the size of its gradients.
    """
    if config.clip is None:
        return
    weights = {name: weight for name, weight in weights.items() if name != "direct"}
    if config.clip_by == "norm":
        torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
    else:
        torch.nn.utils.clip_grad_value_(weights.values(), config.clip)
