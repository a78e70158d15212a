"""The score of a model on a text: nats and bits per character, perplexity.

All figures are per CHARACTER of text: one that is spelled in three bytes costs the sum of three ids and counts once.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn import figures, frames, perplexity
from charrnn.engines import cuda
from charrnn.model.rnn import CharRNN, detach
from charrnn.progress import SCORING, Progress, silent
from charrnn.terminal import visible
from charrnn.text import documents
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

Mode = Literal["stream", "cold", "adapt"]

# While training, validation reads this many ids at the most, in so many rows, each led in by so many ids.
ESTIMATE_IDS, ESTIMATE_ROWS, ESTIMATE_LEAD = 1 << 15, 64, 128
LETTERS = 100  # under the bars of a picture: of a longer text they would not be read


@dataclass(frozen=True)
class Score:
    """The cost of a text to a model. per_char: nats of each character (N,), float64. spelled_*: of those in bytes.

    text: what was scored, where it is known. A notebook shows it as a heat map.
    """

    per_char: NDArray[np.float64]
    spelled_characters: int
    spelled_nats: float
    text: str | None = field(default=None, repr=False)

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
        return perplexity.of_nats(self.nats)

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, a row for each character: character, where the text is known, nats and bits.

        Raises CharRNNError where pandas is missing.
        """
        characters = {} if self.text is None else {"character": list(self.text)}
        return frames.of_columns({**characters, "nats": self.per_char, "bits": self.per_char / math.log(2)})

    def plot(self) -> Any:
        """Draw the bits of every character along the text, with their mean.

        Returns a matplotlib Figure. Raises CharRNNError where matplotlib is missing.
        """

        def draw(figure: Any) -> None:
            axes, bits = figure.subplots(), self.per_char / math.log(2)
            axes.bar(np.arange(len(bits)), bits, width=0.9 if len(bits) <= LETTERS else 1.0, color=figures.COLOURS[0])
            label = f"mean: {self.bits_per_char:.3f} bits per character"
            axes.axhline(self.bits_per_char, color=figures.COLOURS[1], linewidth=1, label=label)
            axes.set(xlabel="characters of the text", ylabel="bits", xlim=(-0.5, max(1, len(bits)) - 0.5))
            if self.text is not None and len(bits) <= LETTERS:
                axes.set_xticks(range(len(bits)), list(map(visible, self.text)))
            axes.grid(visible=False, axis="x")
            axes.legend(loc="upper right")

        return figures.drawn(draw, (9.0, 3.0))

    def _repr_html_(self) -> str:
        from charrnn.pages import heat  # a notebook alone asks for it

        about = f"{self.characters:,} characters, {self.bits_per_char:.3f} bits each, perplexity {self.perplexity:.2f}"
        return str(heat.shown(self.text or "", (self.per_char / math.log(2)).tolist() if self.text else [], about))


def score(costs: NDArray[np.float64], ids: NDArray[Any], tokenizer: Tokenizer) -> Score:
    """Sum costs of ids (N,), in nats, to costs of characters."""
    index = tokenizer.character_index(ids)
    per_char: NDArray[Any] = np.bincount(index, weights=costs) if len(ids) else np.empty(0)
    in_bytes = ids < 256
    return Score(per_char, tokenizer.spelled_in_bytes(ids), float(costs[in_bytes].sum()))


def stream_costs(
    model: CharRNN,
    ids: NDArray[Any],
    window: int = 1024,
    starts: Starts = documents.NONE,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return the nats of every id of a text (N,), read as one stream from its first character; nothing is dropped.

    The state is carried from window to window, so the window changes speed and memory alone. starts: the positions of
    documents. Each of them is read from nothing: the costs are those of the documents one by one.
    """
    costs = np.empty(len(ids))
    for n, piece in enumerate(_windows(model, ids[None, :], window, starts, [0])):
        costs[n * window : (n + 1) * window] = piece[0]
        progress(SCORING, min(len(ids), (n + 1) * window), len(ids))
    return costs


def side_by_side_costs(model: CharRNN, texts: Sequence[tuple[NDArray[Any], Starts]]) -> list[NDArray[np.float64]]:
    """Return the `stream_costs` of the ids of several texts (N,), with the starts in each, read at the same time.

    One thread of a CPU reads them one after the other: the shorter ones would wait for the longest.
    """
    if len(texts) < 2 or (model.weights["head.b"].device.type == "cpu" and torch.get_num_threads() == 1):
        return [stream_costs(model, ids, starts=starts) for ids, starts in texts]
    ids = np.concatenate([each for each, _ in texts])
    ends = list(itertools.accumulate(len(each) for each, _ in texts))
    begins = [0, *ends[:-1]]
    starts = np.concatenate([each + begin for (_, each), begin in zip(texts, begins, strict=True)])
    lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
    costs = _segment_costs(model, ids, begins, max(lengths), 0, starts, window=1024)
    return [row[:length] for row, length in zip(costs, lengths, strict=True)]


def cold_costs(
    model: CharRNN, ids: NDArray[Any], window: int, starts: Starts = documents.NONE, progress: Progress = silent
) -> NDArray[np.float64]:
    """Return the nats of every id where each `window` ids start from nothing, to compare with models that must."""
    whole = len(ids) // window * window
    costs: list[NDArray[np.float64]] = []
    for group in range(0, whole, 64 * window):
        begins = range(group, min(group + 64 * window, whole), window)
        rows = np.stack([ids[begin : begin + window] for begin in begins])
        costs.extend(np.concatenate(list(_windows(model, rows, window, starts, begins)), axis=1))
        progress(SCORING, begins[-1] + window, len(ids))
    if whole < len(ids):
        costs.extend(np.concatenate(list(_windows(model, ids[None, whole:], window, starts, [whole])), axis=1))
        progress(SCORING, len(ids), len(ids))
    return np.concatenate([*costs, np.empty(0)])


def parallel_costs(
    model: CharRNN, ids: NDArray[Any], streams: int, lead: int, starts: Starts = documents.NONE
) -> NDArray[np.float64]:
    """Estimate the nats of every id fast: `streams` rows side by side, each led in by the `lead` ids before its own.

    What the model remembers from further back than the lead is lost; the first row alone is exact.
    """
    streams = max(1, min(streams, len(ids) // max(1, lead)))
    length = -(-len(ids) // streams)
    costs = _segment_costs(model, ids, [r * length for r in range(streams)], length, lead, starts)
    return costs.reshape(-1)[: len(ids)]


def estimate(model: CharRNN, ids: NDArray[Any], tokenizer: Tokenizer, starts: Starts = documents.NONE) -> float:
    """Estimate the nats per character of a text from up to ESTIMATE_IDS ids in segments spread evenly over it."""
    if len(ids) <= ESTIMATE_IDS:
        return score(parallel_costs(model, ids, ESTIMATE_ROWS, ESTIMATE_LEAD, starts), ids, tokenizer).nats
    return sampled(model, ids, tokenizer, ESTIMATE_IDS, ESTIMATE_LEAD, starts).nats


def sampled(
    model: CharRNN, ids: NDArray[Any], tokenizer: Tokenizer, most: int, lead: int, starts: Starts = documents.NONE
) -> Score:
    """Score about `most` ids of a longer text, in ESTIMATE_ROWS segments spread evenly over it."""
    length = most // ESTIMATE_ROWS
    begins = [r * (len(ids) - length) // (ESTIMATE_ROWS - 1) for r in range(ESTIMATE_ROWS)]
    costs = _segment_costs(model, ids, begins, length, lead, starts)
    read = np.concatenate([ids[begin : begin + length] for begin in begins])
    return score(costs.reshape(-1), read, tokenizer)


def _segment_costs(
    model: CharRNN, ids: NDArray[Any], begins: list[int], length: int, lead: int, starts: Starts, window: int = 256
) -> NDArray[np.float64]:
    """Return costs (R, length) of R segments of a text, each led in by up to `lead` ids before it."""
    leads = [min(lead, begin) for begin in begins]
    # Rows are as long as the longest; what stands past a row's own segment, or past the text, is not looked at.
    span = np.arange(max(leads) + length)
    rows = np.stack([ids[np.minimum(begin - n + span, len(ids) - 1)] for begin, n in zip(begins, leads, strict=True)])
    firsts = [begin - n for begin, n in zip(begins, leads, strict=True)]
    costs = np.concatenate(list(_windows(model, rows, window, starts, firsts)), axis=1)
    return np.stack([costs[r, n : n + length] for r, n in enumerate(leads)])


@torch.inference_mode()
def _windows(
    model: CharRNN, rows: NDArray[Any], window: int, starts: Starts, begins: Sequence[int]
) -> Iterator[NDArray[np.float64]]:
    """Yield the costs (B, t) of `windows` without gradients, as NumPy has them."""
    for costs in windows(model, rows, window, starts, begins):
        yield costs.t().cpu().double().numpy()


def windows(model: CharRNN, rows: NDArray[Any], window: int, starts: Starts, begins: Sequence[int]) -> Iterator[Tensor]:
    """Yield costs (t, B) of the ids of B rows (B, N), in nats, window by window, with the state carried along.

    A row is preceded by the start token, and so is a document inside it. Row b begins at begins[b] of the text that
    `starts` is of. Gradients end where a window begins.
    """
    device = model.weights["head.b"].device
    state = model.start(len(rows))
    previous = np.full((len(rows), 1), model.architecture.start)
    for i in range(0, rows.shape[1], window):
        piece = rows[:, i : i + window].astype(np.int64)
        inputs = np.concatenate([previous, piece[:, :-1]], axis=1).T
        documents.mark(inputs, starts, [begin + i for begin in begins], model.architecture.start)
        cuts = documents.cuts(inputs, model.architecture.start) if len(starts) else []
        previous = piece[:, -1:]
        with cuda.repeatable(device.type):
            logits, state = model(torch.tensor(inputs, device=device).contiguous(), state, cuts=cuts)
        state = detach(state)
        targets = torch.tensor(piece.T, device=device)
        exact = logits.float() if device.type == "mps" else logits.double()  # a Mac's GPU has no float64
        nats = torch.nn.functional.cross_entropy(exact.flatten(0, 1), targets.flatten(), reduction="none")
        yield nats.view(targets.shape)
