"""Scoring the parts a model was not trained on, at the end of training: exact where that is quick enough."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from charrnn.model import evaluation
from charrnn.model.evaluation import Score
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Corpus, Part

# A part longer than this is scored in parallel streams at the end of training; `eval` always reads it as one.
EXACT_IDS = 200_000
# And of one longer than this, so many ids spread evenly over it: a gigabyte would take longer to score than to learn.
SAMPLED_IDS = 1_000_000
STREAMS, LEAD = 64, 1024
PARTS: tuple[Part, ...] = ("val", "test")


class AskedToStopError(Exception):
    """The run was asked to stop while it was scored; it was saved before."""


def scores(model: CharRNN, corpus: Corpus, stop: Callable[[], bool]) -> dict[Part, Score | None]:
    """Score the validation and test parts; None for one that is empty.

    stop() is asked before every pass of the model, since scoring may take long.
    Raises AskedToStopError when it is true.
    """
    with _asking(model, stop):
        return {part: score(model, corpus, part) for part in PARTS}


def score(model: CharRNN, corpus: Corpus, part: Part) -> Score | None:
    """Score a part of a corpus, exactly where it is short enough; None for an empty one."""
    ids, starts = corpus.parts[part], corpus.starts[part]
    if len(ids) == 0:
        return None
    if len(ids) > SAMPLED_IDS:
        return evaluation.sampled(model, ids, corpus.tokenizer, SAMPLED_IDS, lead=LEAD, starts=starts)
    if len(ids) <= EXACT_IDS:
        costs = evaluation.stream_costs(model, ids, starts=starts)
    else:
        costs = evaluation.parallel_costs(model, ids, streams=STREAMS, lead=LEAD, starts=starts)
    return evaluation.score(costs, ids, corpus.tokenizer)


@contextmanager
def _asking(model: CharRNN, stop: Callable[[], bool]) -> Iterator[None]:
    def ask(*_: Any) -> None:
        if stop():
            raise AskedToStopError

    hook = model.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        hook.remove()


def expected_seconds(corpus: Corpus, stream_seconds_per_id: float, trained_seconds_per_id: float) -> float:
    """Return what `scores` will take: one exact stream is far slower than many side by side.

    stream_seconds_per_id: of one stream. trained_seconds_per_id: of a training step, for each of its ids.
    """
    lengths = [len(corpus.parts[part]) for part in PARTS]
    exact = sum(n for n in lengths if n <= EXACT_IDS) * stream_seconds_per_id
    return exact + sum(min(n, SAMPLED_IDS) for n in lengths if n > EXACT_IDS) * trained_seconds_per_id / 2 + 0.5


def notes(corpus: Corpus) -> list[str]:
    """Say where the scores will not be exact."""
    longest = max(len(corpus.parts[part]) for part in PARTS)
    if longest > SAMPLED_IDS:
        return [f"at the end {SAMPLED_IDS:,} characters of each long part are scored; `eval` reads all of it"]
    if longest > EXACT_IDS:
        return [f"long parts are scored in {STREAMS} parallel streams at the end; `eval` reads them as one"]
    return []
