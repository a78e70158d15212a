"""Steps of training on a GPU, recorded once and repeated: Python tells the GPU of a step in one call.

A recorded step is forwards, backwards, clipping and the optimizer, on tensors that stay where they are: ids, targets,
the rate, the carried state, weights and moments. Before a repetition their numbers are replaced, and the seed of the
step's dropout. So a step is the same function of configuration and number as one that is not recorded, and a run that
is resumed repeats what it would have done. A window of another length is another recording.

A window in which documents begin is cut in another way each time. It is not recorded.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.engines import cuda
from charrnn.errors import NotRecordedWarning
from charrnn.model.rnn import CharRNN, State, detach
from charrnn.text.corpus import Streams
from charrnn.training.clipping import clip_gradients
from charrnn.training.config import Config
from charrnn.training.optimizers import Optimizer


class Trained(Protocol):
    """What is needed of a trainer."""

    config: Config
    device: torch.device
    model: CharRNN
    optimizer: Optimizer
    streams: Streams
    state: State

    def dropout_seed(self) -> int | None:
        """Return what this step's dropout masks begin with."""

    def loss(
        self, ids: Tensor, targets: Tensor, state: State, generator: torch.Generator | None, cuts: Sequence[int] = ()
    ) -> tuple[Tensor, State]:
        """Return the mean loss of a window in nats per id, under autograd, and the state after it."""


class Window(NamedTuple):
    """A recorded step of windows of one length. ids, targets: (T, B), what it reads."""

    ids: Tensor
    targets: Tensor
    repeat: Callable[[], None]


class GraphedSteps:
    """Takes the steps of a trainer on a GPU. Its state is the trainer's, in tensors that every step writes anew."""

    def __init__(self, trainer: Trained) -> None:
        self._trainer = trainer
        device = trainer.device
        self._rate, self._loss = torch.zeros((), device=device), torch.zeros((), device=device)
        self._generator = torch.Generator(device) if trainer.config.drops else None
        self._state: State = ()
        self._gradients: dict[str, Tensor] = {}  # where the optimizer's step is not recorded
        self._moments: list[Tensor] = []
        self._windows: dict[tuple[int, str], Window] = {}
        self._pool: object = None
        self.records_steps = True

    def advance(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], rate: float) -> Tensor:
        """Take a step of the trainer on a window (T, B). Returns the loss, nats per id, on the device."""
        trainer = self._trainer
        trainer.optimizer.begin()
        self._keep_in_place()
        self._rate.fill_(rate)
        cuts = trainer.streams.cuts(inputs)
        window = None if cuts or not self.records_steps else self._window(inputs, targets)
        seed = trainer.dropout_seed()
        if self._generator is not None and seed is not None:
            self._generator.manual_seed(seed)
        if window is None:
            ids, wanted = (torch.from_numpy(each).to(trainer.device) for each in (inputs, targets))
            self._work(ids, wanted, cuts)
        else:
            window.repeat()
        if not trainer.optimizer.is_on_device:
            for name, gradient in self._gradients.items():
                trainer.model.weights[name].grad = gradient
            trainer.optimizer.update(rate)
        trainer.state = self._state
        return self._loss.clone()

    def _keep_in_place(self) -> None:
        """Put what was replaced since the last step, as resuming does, where the recorded steps read it."""
        trainer = self._trainer
        moments = list(trainer.optimizer.moments.values())
        if len(moments) != len(self._moments) or any(a is not b for a, b in zip(moments, self._moments, strict=True)):
            self._windows.clear()
            self._moments = moments
        if not self._state:
            self._state = tuple(tuple(held.clone() for held in layer) for layer in trainer.state)
        elif trainer.state is not self._state:
            self._put(trainer.state)

    def _put(self, state: State) -> None:
        for into, layer in zip(self._state, state, strict=True):
            for held, new in zip(into, layer, strict=True):
                held.copy_(new)

    def _window(self, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> Window | None:
        """Return the recorded step for windows of this length, with these ids in place; None where there is none."""
        key = (len(inputs), self._trainer.config.precision)
        if key not in self._windows:
            ids, wanted = (torch.from_numpy(each).to(self._trainer.device) for each in (inputs, targets))
            try:
                self._windows[key] = Window(ids, wanted, self._recorded(ids, wanted))
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self.records_steps = False
                warnings.warn(
                    f"a step of training cannot be recorded on this GPU ({str(error).splitlines()[0]}): every "
                    "operation is started by itself, which is slower",
                    NotRecordedWarning,
                    stacklevel=2,
                )
                return None
        window = self._windows[key]
        cuda.sent(inputs, window.ids)
        cuda.sent(targets, window.targets)
        return window

    def _recorded(self, ids: Tensor, targets: Tensor) -> Callable[[], None]:
        if self._pool is None:
            self._pool = cuda.memory_pool()
        return cuda.recorded(
            lambda: self._work(ids, targets), lambda: self._differentiated(ids, targets), self._generator, self._pool
        )

    def _differentiated(self, ids: Tensor, targets: Tensor, cuts: Sequence[int] = ()) -> tuple[Tensor, State]:
        """Give the weights their gradients. Returns the loss and the state after the window."""
        trainer = self._trainer
        trainer.optimizer.forget_gradients()
        loss, state = trainer.loss(ids, targets, self._state, self._generator, cuts)
        torch.autograd.backward(loss)
        return loss.detach(), detach(state)  # truncate: gradients stop at the window

    def _work(self, ids: Tensor, targets: Tensor, cuts: Sequence[int] = ()) -> None:
        """Take a step, from the tensors that stay to those that stay."""
        trainer = self._trainer
        loss, state = self._differentiated(ids, targets, cuts)
        clip_gradients(trainer.config, trainer.model.weights)
        if trainer.optimizer.is_on_device:
            trainer.optimizer.update(self._rate)
        else:
            self._keep_gradients()
        self._put(state)
        self._loss.copy_(loss)

    def _keep_gradients(self) -> None:
        for name, weight in self._trainer.model.weights.items():
            if weight.grad is not None:
                if name not in self._gradients:
                    self._gradients[name] = torch.empty_like(weight)
                self._gradients[name].copy_(weight.grad)
