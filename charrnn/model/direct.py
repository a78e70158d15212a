"""Direct connections: what the last characters by themselves say of the next one, added to the network's logits.

For each n from 1 to N, a hash of the last n ids chooses a row of a table, and the N rows are added up (Mikolov, Deoras,
Povey, Burget and Cernocky 2011). `charrnn.text.contexts` says which rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Read(NamedTuple):
    """What a window read of the tables. rows: (N, T, B). shares: (N, T, B), what each was multiplied by, or None.

    summed: (T, B, C), what was added to the logits; its gradient is kept.
    """

    rows: Tensor
    shares: Tensor | None
    summed: Tensor


def gradient(rows: Tensor, shares: Tensor | None, of_sum: Tensor, R: int) -> Tensor:
    """Return the gradient of the weight, sparse, by that of what was added to the logits, (T, B, C).

    rows, shares: as in `Read`. R: the rows of the whole weight.
    """
    values = of_sum.expand(len(rows), *of_sum.shape)
    values = values if shares is None else values * shares[..., None]
    flat = values.reshape(-1, of_sum.shape[-1])
    return torch.sparse_coo_tensor(rows.reshape(1, -1), flat, (R, flat.shape[1]), check_invariants=False)
