"""The optimizers, declared once, with what they remember by name. Settings take the names from here.

torch's own functions do the arithmetic. Its classes are not used: they import torch's compiler, which takes longer than
all else that happens before the first step. Reading the names imports no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from charrnn.compiler.training.row_gradient import RowGradient

Rate = Any  # a number, or a tensor () on the device
Moments = Mapping[str, "list[Tensor]"]  # by name, of each weight of a group
SMALL = 1e-8  # beside the root of a sum of squares, which may be zero


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
    @property
    def direct_rate(self) -> float: ...


@dataclass(frozen=True)
class Group:
    """Weights by name that share settings. scale: of the schedule's rate."""

    weights: "Mapping[str, Tensor]"
    weight_decay: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Kind:
    """An optimizer.

    groups(options, weights by name): the weights in groups. update(options, group, rate, weights, gradients, moments):
    changes weights and moments by one step. moments: the names of what it remembers, each like a weight, or a number
    for each of its rows; besides, it gets the moment 'step' of every weight: a tensor () that `update` counts up.
    steps_on_device: whether it counts steps where the weights are, or on the CPU. Then all it needs is there, its rate
    may be a tensor (), and a GPU can be told of its step once for all. by_row: whether it remembers a number for each
    row of a weight.
    """

    groups: "Callable[[Options, Mapping[str, Tensor]], list[Group]]"
    update: "Callable[[Options, Group, Rate, list[Tensor], list[Tensor], Moments], None]"
    moments: tuple[str, ...]
    steps_on_device: bool = False
    by_row: bool = False


def _matrices_decay(options: Options, weights: "Mapping[str, Tensor]") -> list[Group]:
    """Weight decay acts on matrices, not on biases or the embedding."""
    matrices, others = _matrices_first(weights)
    return [Group(matrices, options.weight_decay), Group(others)]


def _at_own_rate(options: Options, weights: "Mapping[str, Tensor]") -> list[Group]:
    return [Group(weights, scale=options.direct_rate)]


def _one_group(options: Options, weights: "Mapping[str, Tensor]") -> list[Group]:
    matrices, others = _matrices_first(weights)
    return [Group({**matrices, **others})]


def _matrices_first(weights: "Mapping[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """Return the matrices but the embedding's, and all others."""
    matrices = {name: w for name, w in weights.items() if w.ndim > 1 and name != "embedding"}
    return matrices, {name: w for name, w in weights.items() if name not in matrices}


def _adamw(
    options: Options, group: Group, rate: Rate, weights: "list[Tensor]", gradients: "list[Tensor]", moments: Moments
) -> None:
    """AdamW (Loshchilov and Hutter 2019)."""
    from torch.optim.adamw import adamw

    adamw(
        weights,
        gradients,
        moments["exp_avg"],
        moments["exp_avg_sq"],
        [],
        moments["step"],
        fused=True,
        amsgrad=False,
        beta1=options.beta1,
        beta2=options.beta2,
        lr=rate,
        weight_decay=group.weight_decay,
        eps=1e-8,
        maximize=False,
    )


def _rmsprop(
    options: Options, group: Group, rate: Rate, weights: "list[Tensor]", gradients: "list[Tensor]", moments: Moments
) -> None:
    """RMSProp (Tieleman and Hinton 2012), without weight decay."""
    from torch.optim.rmsprop import rmsprop

    rmsprop(
        weights,
        gradients,
        moments["square_avg"],
        [],
        [],
        moments["step"],
        lr=rate,
        alpha=options.beta2,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
    )


def _row_adagrad(
    options: Options, group: Group, rate: Rate, weights: "list[Tensor]", gradients: "list[Tensor]", moments: Moments
) -> None:
    """AdaGrad (Duchi et al. 2011) with one sum for each row, of the mean squares of its gradients."""
    from charrnn.compiler.training import tables

    del options, group
    for weight, gradient, sums, step in zip(weights, gradients, moments["row_squares"], moments["step"], strict=True):
        step.add_(1)
        tables.step(weight, gradient, sums, rate, SMALL)


# By the name in settings. An optimizer is one function above and its row here.
OPTIMIZERS = {
    "adamw": Kind(_matrices_decay, _adamw, ("exp_avg", "exp_avg_sq"), steps_on_device=True),
    "rmsprop": Kind(_one_group, _rmsprop, ("square_avg",)),
}
OF_DIRECT = Kind(_at_own_rate, _row_adagrad, ("row_squares",), steps_on_device=True, by_row=True)


def kind_of(options: Options, weight: str) -> Kind:
    """Return the optimizer of a weight, by its name."""
    return OF_DIRECT if weight == "direct" else OPTIMIZERS[options.optimizer]


def moment_shapes(options: Options, weights: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of everything that is remembered of weights, by name, after the first step."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weights.items():
        kind = kind_of(options, name)
        shapes[f"step/{name}"] = ()
        shapes |= {f"{key}/{name}": shape[:1] if kind.by_row else shape for key in kind.moments}
    return shapes


class Optimizer:
    """An optimizer at work on weights. moments: what it remembers of each weight, as 'moment/weight'."""

    def __init__(self, options: Options, weights: "Mapping[str, Tensor]") -> None:
        """Prepare the configuration's optimizer for weights by name, which it will change in place."""
        self._options, self._weights = options, weights
        kinds = {name: kind_of(options, name) for name in weights}
        self._kinds = kinds
        self._groups = [
            (kind, group)
            for kind in dict.fromkeys(kinds.values())
            for group in kind.groups(options, {name: w for name, w in weights.items() if kinds[name] is kind})
        ]
        self.moments: dict[str, Tensor] = {}

    @property
    def is_on_device(self) -> bool:
        """Whether a step needs nothing but what is where the weights are."""
        return all(kind.steps_on_device for kind in self._kinds.values())

    def forget_gradients(self) -> None:
        """Let go of the gradients of a step."""
        for weight in self._weights.values():
            weight.grad = None

    def update(self, rate: Rate, tables: "RowGradient | None" = None) -> None:
        """Change the weights by their gradients.

        rate: the schedule's; a group gets it times its scale. tables: the gradient of direct connections, where it is
        not that of the weight.
        """
        import torch

        self.begin()
        with torch.no_grad():
            for kind, group in self._groups:
                given: dict[str, Any] = {name: w.grad for name, w in group.weights.items()}
                if "direct" in given and tables is not None:
                    given["direct"] = tables
                found = {name: gradient for name, gradient in given.items() if gradient is not None}
                names = ("step", *kind.moments)
                moments = {key: [self.moments[f"{key}/{name}"] for name in found] for key in names}
                weights = [group.weights[name] for name in found]
                kind.update(self._options, group, rate * group.scale, weights, list(found.values()), moments)

    def restore(self, saved: "Mapping[str, Tensor]") -> None:
        """Put back what `moments` held."""
        for full_name, value in saved.items():
            key, name = full_name.split("/", 1)
            weight = self._weights[name]
            # It is changed in place, so it is a copy; a number was stored as a row of one.
            value = value.to(weight.device if key != "step" or self._kinds[name].steps_on_device else "cpu", copy=True)
            self.moments[full_name] = value.float().reshape(()) if key == "step" else value

    def begin(self) -> None:
        """Begin with moments of zero, where there are none yet."""
        import torch

        if self.moments:
            return
        for name, weight in self._weights.items():
            kind = self._kinds[name]
            device = weight.device if kind.steps_on_device else "cpu"
            self.moments[f"step/{name}"] = torch.zeros((), dtype=torch.float32, device=device)
            for key in kind.moments:
                like = weight[:, 0] if kind.by_row else weight
                zeros = torch.zeros_like(like, memory_format=torch.preserve_format)
                self.moments[f"{key}/{name}"] = zeros.detach()
