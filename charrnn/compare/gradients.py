"""The reach of gradients: how much of the loss gradient at step t arrives at the state k steps earlier.

Gradients through time are products of as many matrices as there are steps. They vanish or explode unless something
keeps them (Bengio, Simard and Frasconi 1994; Hochreiter and Schmidhuber 1997): gates are there for that.

Letters: T time steps, B rows (places of the text), K steps back.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.model.rnn import CharRNN

STEPS_BACK = 200
ROWS = 16
LEAD = 100  # characters read before, so that the states are those of reading, not of a start


def reach(model: CharRNN, ids: NDArray[Any], back: int = STEPS_BACK, rows: int = ROWS) -> NDArray[np.float64]:
    """Return the share (K + 1,) of a step's loss gradient that reaches the state 0, 1 ... K = `back` steps earlier.

    A share is a length divided by the length at the step itself. The length is that of the gradient of one character's
    cost by the network's whole state (every layer, every part), on average over `rows` places of the text `ids`.
    """
    span = LEAD + back + 2
    rows = max(1, min(rows, len(ids) - span + 1))
    begins = np.linspace(0, max(0, len(ids) - span), rows).astype(np.int64)
    places = (begins[None, :] + np.arange(span)[:, None]) % len(ids)  # a text that is too short begins again
    text = torch.from_numpy(ids[places].astype(np.int64))
    with torch.no_grad():
        _, state = model(text[:LEAD], model.start(rows))
    passed = []
    logits, layers = torch.empty(0), model.architecture.layers  # what is remembered beside them are ids
    for t in range(LEAD, LEAD + back + 1):
        passed.append([part.requires_grad_() for layer in state[:layers] for part in layer])
        logits, state = model(text[t : t + 1], state)
    passed.append([part for layer in state[:layers] for part in layer])
    loss = torch.nn.functional.cross_entropy(logits[0], text[LEAD + back + 1], reduction="sum")
    flat = [part for parts in passed[1:] for part in parts]  # the first is before the K-th step back
    gradients = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
    parts = len(passed[0])
    lengths = [
        sum(g.double().square().flatten(1).sum(dim=1) for g in gradients[i : i + parts]).sqrt().mean().item()  # type: ignore
        for i in range(0, len(gradients), parts)
    ]
    backwards = np.array(lengths[::-1])
    shares: NDArray[np.float64] = backwards / max(backwards[0], np.finfo(np.float64).tiny)
    return shares
