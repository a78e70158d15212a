"""The optimizers, declared once: torch's, with their moments by name. Settings take the names from here.

Reading the names imports no torch: a function that makes an optimizer does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class Options(Protocol):
    """What an optimizer reads of a configuration. Settings take the names of optimizers from here, not the reverse."""

    @property
    def optimizer(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


@dataclass(frozen=True)
class Kind:
    """An optimizer. make(options, weights by name): torch's; its groups have a `scale`. moments: of each weight."""

    make: "Callable[[Options, Mapping[str, Tensor]], Optimizer]"
    moments: tuple[str, ...]


def _adamw(options: Options, weights: "Mapping[str, Tensor]") -> "Optimizer":
    """AdamW; weight decay acts on matrices, not on biases or the embedding."""
    import torch

    matrices, others = _matrices_first(weights)
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay, "scale": 1.0},
        {"params": others, "weight_decay": 0.0, "scale": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(options.beta1, options.beta2), eps=1e-8, fused=True)


def _rmsprop(options: Options, weights: "Mapping[str, Tensor]") -> "Optimizer":
    """RMSProp, without weight decay."""
    import torch

    matrices, others = _matrices_first(weights)
    groups = [{"params": [*matrices, *others], "scale": 1.0}]
    return torch.optim.RMSprop(groups, lr=options.lr, alpha=options.beta2, eps=1e-8)


def _matrices_first(weights: "Mapping[str, Tensor]") -> "tuple[list[Tensor], list[Tensor]]":
    """Return the matrices but the embedding's, and all others."""
    matrices = [w for name, w in weights.items() if w.ndim > 1 and name != "embedding"]
    return matrices, [w for name, w in weights.items() if not (w.ndim > 1 and name != "embedding")]


# By the name in settings. An optimizer is one function above and its row here.
OPTIMIZERS = {
    "adamw": Kind(_adamw, ("step", "exp_avg", "exp_avg_sq")),
    "rmsprop": Kind(_rmsprop, ("step", "square_avg")),
}


def make_optimizer(options: Options, weights: "Mapping[str, Tensor]") -> "Optimizer":
    """Make the configuration's optimizer over weights by name. A group's rate is the schedule's times its `scale`."""
    return OPTIMIZERS[options.optimizer].make(options, weights)


def set_rate(optimizer: "Optimizer", rate: float) -> None:
    """Give every group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: "Optimizer", weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the optimizer's memory of each weight, as 'moment/weight' tensors; empty before the first step."""
    return {f"{key}/{name}": value for name, w in weights.items() for key, value in optimizer.state.get(w, {}).items()}


def moment_shapes(options: Options, weights: "Mapping[str, Tensor]") -> dict[str, tuple[int, ...]]:
    """Return the shape of everything `moments` gives after the first step, by its name."""
    kept = OPTIMIZERS[options.optimizer].moments
    return {f"{key}/{name}": () if key == "step" else tuple(w.shape) for name, w in weights.items() for key in kept}


def restore_moments(optimizer: "Optimizer", weights: "Mapping[str, Tensor]", saved: "Mapping[str, Tensor]") -> None:
    """Put back what `moments` gave."""
    # A fused optimizer counts its steps where the weights are, another one on the CPU.
    fused = optimizer.defaults.get("fused")
    for full_name, value in saved.items():
        key, name = full_name.split("/", 1)
        weight = weights[name]
        if key == "step":
            value = value.float()
        optimizer.state[weight][key] = value if key == "step" and not fused else value.to(weight.device)
