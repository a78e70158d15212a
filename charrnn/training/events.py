"""The events of training while it runs, one after another: a command line prints them, a test looks at them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from charrnn.model.architecture import Architecture
from charrnn.text.corpus import Corpus
from charrnn.training.config import Config
from charrnn.training.forgetting import Before
from charrnn.training.run import Run
from charrnn.training.tensor_files import Tensors


@dataclass(frozen=True)
class Started:
    """Before the first step. expected_*: by a short measurement and by the sizes.

    before: of a run that learns on from another, the scores it begins with.
    """

    run: Run
    config: Config
    architecture: Architecture
    corpus: Corpus
    step: int
    expected_chars_per_s: float
    expected_bytes: int
    notes: tuple[str, ...]
    before: Before | None = None


@dataclass(frozen=True)
class Stepped:
    """After every step. steps: None until planned. loss: nats per id, on the device; reading it waits for the step."""

    step: int
    steps: int | None
    loss: Tensor
    seconds: float
    chars_per_s: float


@dataclass(frozen=True)
class Validated:
    """After a validation. nats are per character; val_nats is None without a validation part.

    finite: whether the losses and weights are; if not, the run ends here.
    """

    step: int
    characters: int
    train_nats: float
    val_nats: float | None
    best: bool
    finite: bool
    weights: Tensors


@dataclass(frozen=True)
class Saved:
    """A checkpoint was saved between validations, because it was time to."""

    run: Run
    step: int


@dataclass(frozen=True)
class Planned:
    """A budget became a number of steps, or a running one was corrected. epochs: as passes over the training part."""

    steps: int
    epochs: float
    first: bool


@dataclass(frozen=True)
class StoppedEarly:
    """Early stopping: validation is clearly past its best, so the run ends here with the best weights."""

    run: Run
    step: int


@dataclass(frozen=True)
class Diverged:
    """Something was not finite after a step, so that the run ends here, with its last finite checkpoint."""

    run: Run
    step: int


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop, and is saved."""

    run: Run
    step: int


@dataclass(frozen=True)
class Finished:
    """The run is complete. result: what `train --json` prints."""

    run: Run
    result: dict[str, Any]


Event = Started | Stepped | Validated | Saved | Planned | StoppedEarly | Diverged | Stopped | Finished

# What these were called before version 0.2.
Turned = StoppedEarly
Report = Event
