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


def summed(table: Tensor, rows: Tensor, shares: Tensor | None, sparse: bool) -> Tensor:
    """Return the sum of the rows that were found, each multiplied by its share: (T, B, C).

    rows, shares: as in `Read`. sparse: whether the gradient of the table holds the rows that were read alone.
    """
    _, T, B = rows.shape
    if sparse:
        weights = None if shares is None else shares.flatten(1).t()
        bags = torch.nn.functional.embedding_bag(
            rows.flatten(1).t(), table, mode="sum", sparse=True, per_sample_weights=weights
        )
        return bags.view(T, B, -1)
    # A sparse gradient has another size at each step: no step with one could be recorded for a GPU. This one is dense.
    # `embedding` goes back by a sort of the rows and sums in its order: the same bits each time, and nothing that the
    # CPU waits for. Recorded steps rely on it for the first layer too. `embedding_bag` does the same on CUDA, but a
    # Mac's GPU has no such operation in some versions of torch.
    found = torch.nn.functional.embedding(rows, table)
    return (found if shares is None else found * shares[..., None]).sum(dim=0)


def gradient(rows: Tensor, shares: Tensor | None, of_sum: Tensor, R: int) -> Tensor:
    """Return the gradient of the weight, sparse, by that of what was added to the logits, (T, B, C).

    rows, shares: as in `Read`. R: the rows of the whole weight.
    """
    values = of_sum.expand(len(rows), *of_sum.shape)
    values = values if shares is None else values * shares[..., None]
    flat = values.reshape(-1, of_sum.shape[-1])
    return torch.sparse_coo_tensor(rows.reshape(1, -1), flat, (R, flat.shape[1]), check_invariants=False)
