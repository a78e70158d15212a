"""Train what a person could run instead of this toolkit, in plain torch, and score it after so many minutes.

    python tests/other_recipes.py torch-rnn FILE --minutes 1,3,10 [--split 0.9] [--threads N] [--seed S]
    python tests/other_recipes.py gru FILE --minutes 1,3,10
    python tests/other_recipes.py lstm FILE --minutes 1,3,10

torch-rnn has the settings that Justin Johnson's program of that name, written for another library, has by default: two
layers of nn.LSTM 128, embedding 64, 50 rows of 50 characters, Adam at 2e-3, halved every 5 passes, norms clipped at 5,
the state carried, 50 passes. gru and lstm are a script as tutorials have it: one layer of 512, embedding 128, 32 x 64,
Adam at 1e-3, norms clipped at 1, the state carried. All in float32, as torch computes by default.

FILE's first share --split is learned, in rows that follow one another; the rest is scored as one stream, in float32.
Prints nats per character at each of the minutes of training, scoring not counted, and the best of them so far: a person
would keep that one.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How a plain script is set. halved_every: passes after which the rate is halved; 0: never."""

    layer: type[nn.LSTM] | type[nn.GRU]
    hidden: int
    layers: int
    embedding: int
    rows: int
    window: int
    rate: float
    clip: float
    halved_every: int = 0
    passes: int = 10**9


RECIPES = {
    "torch-rnn": Recipe(nn.LSTM, 128, 2, 64, 50, 50, 2e-3, 5.0, halved_every=5, passes=50),
    "gru": Recipe(nn.GRU, 512, 1, 128, 32, 64, 1e-3, 1.0),
    "lstm": Recipe(nn.LSTM, 512, 1, 128, 32, 64, 1e-3, 1.0),
}
SCORED_AT_ONCE = 1000  # characters


class Network(nn.Module):
    """An embedding, layers and a head, as every tutorial has them."""

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, recipe.embedding)
        self.layers = recipe.layer(recipe.embedding, recipe.hidden, recipe.layers)
        self.head = nn.Linear(recipe.hidden, vocabulary)

    def forward(self, ids: Tensor, state: object) -> tuple[Tensor, object]:
        hidden, state = self.layers(self.embedding(ids), state)
        return self.head(hidden), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", default="1,3,10")
    parser.add_argument("--split", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)
    text = asked.file.read_text(encoding="utf-8")
    alphabet = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([alphabet[c] for c in text])
    learned = int(asked.split * len(ids))
    marks = [60 * float(minutes) for minutes in asked.minutes.split(",")]
    run(RECIPES[asked.recipe], ids[:learned], ids[learned:], len(alphabet), marks)


def run(recipe: Recipe, learned: Tensor, scored: Tensor, vocabulary: int, marks: list[float]) -> None:
    """Train until the last of the marks, in seconds; print a line at each."""
    network = Network(recipe, vocabulary)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    rows = learned[: len(learned) // recipe.rows * recipe.rows].view(recipe.rows, -1).t()  # (characters, rows)
    spent, steps, passes, best = 0.0, 0, 0, float("inf")
    left = list(marks)
    while left:
        state: object = None
        for i in range(0, len(rows) - recipe.window, recipe.window):
            began = time.perf_counter()
            if passes < recipe.passes:
                logits, state = network(rows[i : i + recipe.window], state)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[i + 1 : i + recipe.window + 1].flatten())
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
                optimizer.step()
                state = detached(state)
                steps += 1
            spent += time.perf_counter() - began
            if spent >= left[0] or passes >= recipe.passes:
                nats = score(network, scored)
                best = min(best, nats)
                read = steps * recipe.rows * recipe.window / len(learned)
                print(
                    f"{left.pop(0):6.0f} s  {steps} steps, {read:.1f} passes  {nats:.4f} nats, best {best:.4f}",
                    flush=True,
                )
                if not left or passes >= recipe.passes:
                    return
        passes += 1
        if recipe.halved_every and passes % recipe.halved_every == 0:
            for group in optimizer.param_groups:
                group["lr"] /= 2


def detached(state: object) -> object:
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()  # type: ignore[attr-defined]


@torch.no_grad()
def score(network: Network, ids: Tensor) -> float:
    """Return nats per character of ids as one stream, from an empty state; the first id is not scored."""
    total, state = 0.0, None
    for i in range(0, len(ids) - 1, SCORED_AT_ONCE):
        given = ids[i : min(i + SCORED_AT_ONCE, len(ids) - 1)]
        logits, state = network(given[:, None], state)
        total += nn.functional.cross_entropy(logits[:, 0], ids[i + 1 : i + 1 + len(given)], reduction="sum").item()
    return total / (len(ids) - 1)


if __name__ == "__main__":
    main()
