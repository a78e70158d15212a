"""Dynamic evaluation: a model that goes on learning from a text while it reads it (Krause et al. 2018).

A piece of the text is scored first and learned then, so no character is predicted by weights that have seen it. A
weight moves against its gradient, divided by the root of the mean of the gradient's squares since the text began, and
goes a share of the way back to where training left it:

    w <- w - rate g / (sqrt(mean of g^2) + 1e-6)        w <- w + decay (trained w - w)

A row of direct connections learns as in training, by one sum of squares. It begins at a number instead of zero, since
training has seen most contexts; g is that of the sum of a piece's costs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.compiler.training import tables
from charrnn.model.evaluation import windows
from charrnn.model.rnn import CharRNN
from charrnn.progress import ADAPTING, Progress, silent
from charrnn.text import documents
from charrnn.text.documents import Starts

SMALL = 1e-6


@dataclass(frozen=True)
class Adaptation:
    """How a model learns from what it reads. window: ids between two steps. rate, decay: of a step.

    table_rate, table_squares: of direct connections, the rate and what sums of squares begin at.

    The numbers are those that docs/results/adapting.md found on validation parts.
    """

    window: int = 32
    rate: float = 2e-4
    decay: float = 1e-3
    table_rate: float = 0.03
    table_squares: float = 0.1


class Adapting:
    """A model in memory that learns from every text that it reads. Its weights change: give it a copy."""

    def __init__(self, model: CharRNN, how: Adaptation | None = None) -> None:
        """Begin with the weights of `model`; how: the usual way when None."""
        self._model, self._how = model, how or Adaptation()
        network = {name: weight for name, weight in model.weights.items() if name != "direct"}
        self._trained = {name: weight.detach().clone() for name, weight in network.items()}
        self._squares = {name: torch.zeros_like(weight) for name, weight in self._trained.items()}
        if (held := model.weights.get("direct")) is not None:
            self._squares["direct"] = held.new_full(held.shape[:1], self._how.table_squares)
        self._steps = 0

    def costs(
        self, ids: NDArray[Any], starts: Starts = documents.NONE, progress: Progress = silent
    ) -> NDArray[np.float64]:
        """Read a text (N,) as one stream and learn from it. Returns the nats of every id, scored before it was learned.

        starts: the positions of documents, each of which is read from nothing; what was learned stays.
        """
        read, done = np.empty(len(ids)), 0
        for costs in windows(self._model, ids[None, :], self._how.window, starts, [0]):
            done += len(costs)
            read[done - len(costs) : done] = costs.detach()[:, 0].double().cpu().numpy()
            self._learn(costs.mean(), len(costs))
            progress(ADAPTING, done, len(ids))
        return read

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copy the weights as they are now to the CPU."""
        return {name: weight.detach().cpu().numpy().copy() for name, weight in self._model.weights.items()}

    def _learn(self, loss: torch.Tensor, ids: int) -> None:
        weights = self._model.weights
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        self._steps += 1
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is None:
                    continue
                if name == "direct":
                    tables.step(weight, gradient * ids, self._squares[name], self._how.table_rate, SMALL)
                    continue
                squares = self._squares[name].lerp_(gradient.square(), 1 / self._steps)
                weight.addcdiv_(gradient, squares.sqrt().add_(SMALL), value=-self._how.rate)
                if self._how.decay:
                    weight.lerp_(self._trained[name], self._how.decay)
