"""Several models as one: the probabilities of the next id averaged, with equal weights.

The logits of the whole are the logs of the averages, so a softmax of them gives the averages back, and all that is made
of logits is made of these as it is of one model's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.generate.decoder import State, Stepping
from charrnn.generate.decoders import Decoders


def averaged(logits: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the logs of averaged probabilities, (..., V). logits: of each model, (..., V) in nats."""
    return _log_mean(np.stack([_log_softmax(each) for each in logits]))


def averaged_costs(costs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the nats of ids under averaged probabilities, (N,). costs: their nats to each model, (N,)."""
    return -_log_mean(-np.stack(costs))


class AveragingDecoder:
    """Steps several models of one vocabulary side by side. Its state is the tuple of theirs. Threads may share it."""

    is_compiled = False  # each of them may be, but the draw from their average is not

    def __init__(self, decoders: Sequence[Stepping]) -> None:
        """Hold the decoders. decoders: of one vocabulary, one at least."""
        self._decoders = tuple(decoders)
        self.notes = tuple(dict.fromkeys(note for decoder in decoders for note in decoder.notes))

    def start(self, B: int = 1) -> State:
        """As `Decoder.start`."""
        return tuple(decoder.start(B) for decoder in self._decoders)

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float64], State]:
        """As `Decoder.step`; the logits are the logs of the averaged probabilities."""
        steps = [decoder.step(ids, own) for decoder, own in zip(self._decoders, state, strict=True)]
        return averaged([logits for logits, _ in steps]), tuple(after for _, after in steps)

    def read(self, ids: NDArray[Any], state: State) -> State:
        """As `Decoder.read`."""
        return tuple(decoder.read(ids, own) for decoder, own in zip(self._decoders, state, strict=True))


class AveragingDecoders:
    """The decoders of several models as one."""

    def __init__(self, decoders: Sequence[Decoders]) -> None:
        """Hold what decoders are made of: those of each model, of one vocabulary."""
        self._decoders = tuple(decoders)

    def chosen(self, characters: int | None = None) -> AveragingDecoder:
        """As `Decoders.chosen`, for each model."""
        return AveragingDecoder([decoders.chosen(characters) for decoders in self._decoders])


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # what is not finite is found where a character is drawn
        x = logits.astype(np.float64)
        x = x - x.max(axis=-1, keepdims=True)
        logs: NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return logs


def _log_mean(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of the mean over the first axis of what has these logs."""
    with np.errstate(invalid="ignore"):
        top = logs.max(axis=0)
        mean: NDArray[np.float64] = top + np.log(np.exp(logs - top).mean(axis=0))
    return mean
