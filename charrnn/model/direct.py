"""Direct connections: what the last characters by themselves say of the next one, added to the network's logits.

For each n from 1 to N, a hash of the last n ids chooses a row of a table, and the N rows are added up (Mikolov, Deoras,
Povey, Burget and Cernocky 2011). `charrnn.text.contexts` says which rows.
"""

import torch
from torch import Tensor


def summed(table: Tensor, rows: Tensor, shares: Tensor | None, sparse: bool) -> Tensor:
    """Return the sum of the rows that were found, each multiplied by its share: (T, B, C).

    rows: (N, T, B). shares: (N, B), or None. sparse: whether the gradient holds the rows that were read alone.
    """
    _, T, B = rows.shape
    if sparse:
        weights = None if shares is None else shares[:, None].expand(-1, T, -1).flatten(1).t()
        bags = torch.nn.functional.embedding_bag(
            rows.flatten(1).t(), table, mode="sum", sparse=True, per_sample_weights=weights
        )
        return bags.view(T, B, -1)
    # A sparse gradient has another size at each step: no step with one could be recorded for a GPU. This one is dense.
    # `embedding` goes back by a sort of the rows and sums in its order: the same bits each time, and nothing that the
    # CPU waits for. Recorded steps rely on it for the first layer too. `embedding_bag` does the same on CUDA, but a
    # Mac's GPU has no such operation in some versions of torch.
    found = torch.nn.functional.embedding(rows, table)
    return (found if shares is None else found * shares[:, None, :, None]).sum(dim=0)
