"""The copy task (Hochreiter and Schmidhuber 1997): remember some symbols over a gap, then say them.

    in   3 1 4 - - - - - - ? ? ?
    out              3 1 4        what is scored

A cell's reach is the longest gap it learns to copy over. It is trained on one gap after another, each beginning with
what was learned on the last, with the same number of steps of training for every cell. It stops at the first gap that
it does not learn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN

SYMBOLS = 8  # a guess is right once in so many times
REMEMBERED = 4
GAPS = (1, 2, 5, 10, 20, 50, 100, 200)
BATCH = 64
STEPS = 400  # at most, for one gap
CHECK_EVERY = 20
LEARNED = 0.95  # share of symbols right, on fresh sequences, that counts as copying


@dataclass(frozen=True)
class Copied:
    """A cell that copies over a gap. accuracy: share of symbols right. steps: of training that it took."""

    gap: int
    accuracy: float
    steps: int

    @property
    def learned(self) -> bool:
        return self.accuracy >= LEARNED


def sequences(rng: np.random.Generator, gap: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw inputs (T, B) and the symbols to say at the last steps (REMEMBERED, B); T = gap + 2 REMEMBERED."""
    said = rng.integers(0, SYMBOLS, (REMEMBERED, rows))
    blank, ask = np.full((gap, rows), SYMBOLS), np.full((REMEMBERED, rows), SYMBOLS + 1)
    return np.concatenate([said, blank, ask]), said


def architecture(cell: str, hidden: int) -> Architecture:
    """Return the architecture of a model of the task's symbols, fed one-hot."""
    return Architecture(cell, SYMBOLS + 2, hidden)


def climb(
    cell: str,
    hidden: int,
    gaps: Sequence[int] = GAPS,
    steps: int = STEPS,
    lr: float = 3e-3,
    seed: int = 7,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Copied]:
    """Train on one gap after another, up to and with the first that is not learned, or until stop() is true."""
    model = CharRNN(architecture(cell, hidden), architecture(cell, hidden).initial(seed))
    optimizer = torch.optim.AdamW(model.weights.values(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    rng = np.random.default_rng(seed)
    for gap in gaps:
        for step in range(1, steps + 1):
            if stop():
                return
            logits, said = _answers(model, rng, gap)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), said.flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.weights.values(), 1.0)
            optimizer.step()
            if step % CHECK_EVERY == 0 or step == steps:
                accuracy = _accuracy(model, rng, gap)
                if accuracy >= LEARNED:
                    break
        copied = Copied(gap, accuracy, step)
        yield copied
        if not copied.learned:
            return


def _answers(model: CharRNN, rng: np.random.Generator, gap: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, said = sequences(rng, gap, BATCH)
    logits, _ = model(torch.from_numpy(inputs), model.start(BATCH))
    return logits[-REMEMBERED:], torch.from_numpy(said)


@torch.no_grad()
def _accuracy(model: CharRNN, rng: np.random.Generator, gap: int) -> float:
    logits, said = _answers(model, rng, gap)
    return float((logits.argmax(dim=-1) == said).float().mean())
