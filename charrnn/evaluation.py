"""How well a model predicts a text: nats and bits per character, perplexity.

All figures are per CHARACTER of text: one that is spelled in three bytes costs the sum of three ids and counts once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.model import CharRNN
from charrnn.tokenizer import Tokenizer

Mode = Literal["stream", "cold"]

# While training, validation reads this many ids at the most, in so many rows, each led in by so many ids.
ESTIMATE_IDS, ESTIMATE_ROWS, ESTIMATE_LEAD = 1 << 15, 64, 128


@dataclass(frozen=True)
class Score:
    """What a text cost a model. per_char: nats of each character (N,), float64. spelled_*: of characters in bytes."""

    per_char: NDArray[np.float64]
    spelled_characters: int
    spelled_nats: float

    @property
    def characters(self) -> int:
        return len(self.per_char)

    @property
    def nats(self) -> float:
        """Nats per character, the mean."""
        return float(self.per_char.mean()) if self.characters else math.nan

    @property
    def bits_per_char(self) -> float:
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """Per character: e to the nats."""
        return math.exp(min(self.nats, 700))


def score(costs: NDArray[np.float64], ids: NDArray[Any], tokenizer: Tokenizer) -> Score:
    """Sum costs of ids (N,), in nats, to costs of characters."""
    index = tokenizer.character_index(ids)
    per_char: NDArray[Any] = np.bincount(index, weights=costs) if len(ids) else np.empty(0)
    in_bytes = ids < 256
    return Score(per_char, tokenizer.spelled_in_bytes(ids), float(costs[in_bytes].sum()))


def stream_costs(model: CharRNN, ids: NDArray[Any], window: int = 1024) -> NDArray[np.float64]:
    """Nats of every id of a text (N,), read as one stream from its first character, nothing dropped.

    The state is carried from window to window, so that the window changes speed and memory alone.
    """
    costs: NDArray[np.float64] = np.concatenate([*_windows(model, ids[None, :], window), np.empty((1, 0))], axis=1)
    whole: NDArray[np.float64] = costs[0]
    return whole


def cold_costs(model: CharRNN, ids: NDArray[Any], window: int) -> NDArray[np.float64]:
    """Nats of every id when each window of `window` ids starts from nothing, for comparison with models that must."""
    pieces = [ids[i : i + window] for i in range(0, len(ids), window)]
    costs: list[NDArray[np.float64]] = []
    for group in range(0, len(pieces), 64):
        same = [p for p in pieces[group : group + 64] if len(p) == window]
        if same:
            costs.extend(np.concatenate(list(_windows(model, np.stack(same), window)), axis=1))
        costs.extend(stream_costs(model, p, window) for p in pieces[group : group + 64] if len(p) < window)
    return np.concatenate([*costs, np.empty(0)])


def parallel_costs(model: CharRNN, ids: NDArray[Any], streams: int, lead: int) -> NDArray[np.float64]:
    """Nats of every id, estimated fast: `streams` rows side by side, each led in by the `lead` ids before its own.

    What the model remembers from further back than the lead is lost; the first row alone is exact.
    """
    streams = max(1, min(streams, len(ids) // max(1, lead)))
    length = -(-len(ids) // streams)
    costs = _segment_costs(model, ids, [r * length for r in range(streams)], length, lead)
    return costs.reshape(-1)[: len(ids)]


def estimate(model: CharRNN, ids: NDArray[Any], tokenizer: Tokenizer) -> float:
    """Nats per character of a text, estimated from up to ESTIMATE_IDS ids in segments spread evenly over it."""
    rows, length, lead = ESTIMATE_ROWS, ESTIMATE_IDS // ESTIMATE_ROWS, ESTIMATE_LEAD
    if len(ids) <= ESTIMATE_IDS:
        return score(parallel_costs(model, ids, rows, lead), ids, tokenizer).nats
    begins = [r * (len(ids) - length) // (rows - 1) for r in range(rows)]
    costs = _segment_costs(model, ids, begins, length, lead)
    characters = sum(tokenizer.characters_in(ids[begin : begin + length]) for begin in begins)
    return float(costs.sum() / characters)


def _segment_costs(model: CharRNN, ids: NDArray[Any], begins: list[int], length: int, lead: int) -> NDArray[np.float64]:
    """Costs (R, length) of R segments of a text, each led in by the `lead` ids before it where there are as many."""
    leads = [min(lead, begin) for begin in begins]
    # Rows are as long as the longest; what stands past a row's own segment, or past the text, is not looked at.
    span = np.arange(max(leads) + length)
    rows = np.stack([ids[np.minimum(begin - n + span, len(ids) - 1)] for begin, n in zip(begins, leads, strict=True)])
    costs = np.concatenate(list(_windows(model, rows, 256)), axis=1)
    return np.stack([costs[r, n : n + length] for r, n in enumerate(leads)])


@torch.inference_mode()
def _windows(model: CharRNN, rows: NDArray[Any], window: int) -> Iterator[NDArray[np.float64]]:
    """Costs (B, t) of the ids of B rows (B, N), window by window, with the state carried along.

    A row is preceded by the start row.
    """
    device = model.weights["head.b"].device
    state = model.start(len(rows))
    previous = np.full((len(rows), 1), model.architecture.start)
    for i in range(0, rows.shape[1], window):
        piece = rows[:, i : i + window].astype(np.int64)
        inputs = np.concatenate([previous, piece[:, :-1]], axis=1)
        previous = piece[:, -1:]
        logits, state = model(torch.tensor(inputs.T, device=device).contiguous(), state)
        targets = torch.tensor(piece.T, device=device)
        costs = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
        ).view(targets.shape)
        yield costs.t().double().cpu().numpy()
