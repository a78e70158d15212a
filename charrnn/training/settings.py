"""What may be asked of a training: every setting, declared once, grouped by what it is about.

The command line derives its options from these. What is left open is decided in `charrnn.training.resolve`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from charrnn import engines
from charrnn.errors import OptionError
from charrnn.knobs import Knobs, knob, parse_seconds, recorded, refuse_unknown
from charrnn.model.settings import ModelSettings
from charrnn.text.settings import DEFINING, TextSettings
from charrnn.training.optimizers import OPTIMIZERS

MOST_THREADS = 1024  # a system that cannot start as many as are asked for ends the process
LENGTHS = ("steps", "epochs", "budget")


class Plan(NamedTuple):
    """A decided length. since: the step after which it was decided. steps: in all. validate_every: steps."""

    since: int
    steps: int
    validate_every: int


@dataclass(frozen=True, eq=False, repr=False)  # Settings has both
class OptimizationSettings(Knobs):
    """The settings of optimization: streams, rate, optimizer, length."""

    batch: int | None = knob(None, "B, streams trained side by side; by rule", low=1)
    window: int | None = knob(
        None, "T, characters between two steps: gradients stop there, the state goes on; by rule", low=1
    )
    lr: float | None = knob(None, "peak learning rate; by rule", low=0)
    direct_rate: float | None = knob(
        None, "the learning rate of direct connections, as a multiple of the network's; by rule", low=0
    )
    optimizer: str = knob("adamw", "how gradients change the weights", choices=tuple(OPTIMIZERS))
    beta1: float = knob(0.9, "AdamW's smoothing of the gradient", low=0, high=0.9999)
    beta2: float = knob(0.99, "smoothing of the squared gradient, AdamW's and RMSProp's", low=0, high=0.9999)
    # No less: a little regularization helps every cell. No more: three times as much costs. docs/results/rule.md
    weight_decay: float = knob(0.1, "AdamW's weight decay, of matrices alone", low=0)
    schedule: str = knob(
        "cosine",
        "how the rate falls: to zero, by `decay` every epoch, or not at all",
        choices=("cosine", "step", "constant"),
    )
    warmup: int | None = knob(None, "steps over which the rate rises to its peak; by rule", low=0)
    decay: float = knob(0.97, "with --schedule step: the factor applied once an epoch", low=0, high=1)
    decay_after: int = knob(10, "with --schedule step: how many epochs end without a decay", low=0)
    clip: float | None = knob(1.0, "bound on the gradient's norm or values; 0 is off", low=0, off=0)
    clip_by: str = knob("norm", "clip the norm of the whole gradient, or each value", choices=("norm", "value"))
    steps: int | None = knob(None, "train for this many steps", low=1)
    epochs: float | None = knob(None, "train for this many passes over the training part", low=0)
    budget: float | None = knob(
        None,
        "train for about this long, all included: 90, 90s, 3m, 1h30m; the default is 3m",
        low=1,
        parse=parse_seconds,
    )
    validate_every: int | None = knob(None, "steps between validations; chosen for about 20 in a run", low=1)
    patience: int | None = knob(
        None,
        "early stopping: end a run whose validation was best so many validations ago; 0 is off; by rule 5 with a "
        "budget, else off",
        low=0,
    )
    plan: tuple[Plan, ...] = recorded((), "(since step, steps in all, steps between validations), as decided")

    def __post_init__(self) -> None:
        super().__post_init__()
        for plan in self.plan:
            if plan.since < 0 or plan.steps < 1 or plan.validate_every < 1:
                raise OptionError(f"plan is {tuple(plan)}", "expected a step of 0 or more, and steps of 1 or more")
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise OptionError(f"{' and '.join(lengths)} both set the length of the run", "give one of them")


@dataclass(frozen=True, eq=False, repr=False)  # Settings has both
class RunSettings(Knobs):
    """The settings of a run: its seed, and where and how it computes."""

    seed: int = knob(7, "everything random follows from it", low=0, high=2**63 - 1)
    device: str = knob("auto", "where to compute: CUDA when there is one", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = knob("auto", "precision of matrix products", choices=("auto", "float32", "tf32", "bf16"))
    engine: str = knob("auto", "how a cell is run along time", choices=("auto", *engines.NAMES))
    measured_us: Mapping[str, int] = recorded(
        {}, "microseconds of a step by 'engine precision threads', where compared"
    )
    pretrained: str | None = recorded(None, "SHA-256 of the weights it learned on from; without: it began anew")
    threads: int | None = recorded(
        None, "threads torch computed with: sums depend on it in the last bit", low=1, high=MOST_THREADS
    )


@dataclass(frozen=True)
class Settings(RunSettings, OptimizationSettings, ModelSettings, TextSettings):
    """Everything that may be asked of a training; what is None is off, or decided by rule.

    Raises CharRNNError for a value that is out of range or contradicts another.
    """

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "the settings") -> Self:
        """Make settings from values by name; unknown ones are refused with the nearest name as a hint."""
        refuse_unknown(cls, values, source)
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """Copy with some settings changed; a length or text given anew forgets what was decided for the old one.

        Without direct connections there are no rows of them, and another cell has other options.
        """
        if set(LENGTHS) & set(changes):
            changes = {**dict.fromkeys(LENGTHS), "plan": (), **changes}
        if set(DEFINING) & set(changes):
            changes = {"fingerprint": None, **changes}
        if changes.get("cell", self.cell) != self.cell:
            changes = {"cell_options": {}, **changes}
        if changes.get("direct") == 0:
            changes = {"direct_rows": 0, **changes}
        refuse_unknown(type(self), changes)
        return dataclasses.replace(self, **changes)
