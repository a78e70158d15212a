"""Which engine, and which precision of products, trains a model fastest here: by a short measurement.

Every candidate runs a few characters of a window forwards and backwards, at the model's own sizes. Those that are not
far behind run a longer piece, in turns, and the fastest of each one's times counts.
"""

import time

import torch

from charrnn.engines import names_for
from charrnn.model.architecture import Architecture, Weights
from charrnn.model.rnn import CharRNN

GLANCE, PIECE = 4, 32  # characters of a window
BEHIND = 1.6  # so many times the fastest's time at first, and a candidate does not run the longer piece
TURNS, AT_LEAST_SECONDS = 2, 0.25  # of each length, together: a hiccup of a busy machine is not to decide
CLEARLY = 0.87  # fewer bits are worth it from this share of float32's time down

Candidate = tuple[str, str]  # engine, precision


def measure(
    architecture: Architecture, weights: Weights, batch: int, window: int, engine: str, precision: str
) -> dict[Candidate, float]:
    """Seconds of a window's forward and backward pass by (engine, precision), fastest first, on this CPU.

    engine, precision: which to try, all there are where 'auto'.
    """
    engines = names_for(architecture.definition) if engine == "auto" else [engine]
    precisions = ["float32", "bf16"] if precision == "auto" else [precision]
    models = {e: CharRNN(architecture, weights, e) for e in engines}
    ids = torch.arange(batch * window).view(window, batch) % architecture.vocabulary

    def seconds(candidate: Candidate, steps: int) -> float:
        steps = min(steps, window)
        began = time.perf_counter()
        _pass(models[candidate[0]], ids[:steps], candidate[1])
        return (time.perf_counter() - began) * window / steps

    candidates = [(e, p) for e in engines for p in precisions]
    for candidate in candidates:
        seconds(candidate, 1)  # the first time compiles, and wakes up memory and caches
    best = dict.fromkeys(candidates, float("inf"))
    for steps in (GLANCE, PIECE):
        left = [c for c in candidates if best[c] <= BEHIND * min(best.values())]
        best |= dict.fromkeys(left, float("inf"))
        began, turn = time.perf_counter(), 0
        while turn < TURNS or time.perf_counter() - began < AT_LEAST_SECONDS:
            turn += 1
            for candidate in left:
                best[candidate] = min(best[candidate], seconds(candidate, steps))
    return dict(sorted(best.items(), key=lambda item: item[1]))


def fastest(seconds: dict[Candidate, float]) -> Candidate:
    """The fastest in float32, unless bf16 products are clearly faster."""
    best = min(seconds, key=lambda c: seconds[c])
    exact = min((c for c in seconds if c[1] == "float32"), key=lambda c: seconds[c], default=best)
    return best if seconds[best] <= CLEARLY * seconds[exact] else exact


def _pass(model: CharRNN, ids: torch.Tensor, precision: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, _ = model(ids, model.start(ids.shape[1]))
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten()))
