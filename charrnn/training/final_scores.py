"""Scoring the parts a model was not trained on, at the end of training: exact where that is quick enough.

What is scored depends on the length of a part and the budget that was given, never on how fast a machine is.
"""

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
# A second of a budget is enough for so many ids of each part, or scoring would take the time of many steps.
SCORED_A_SECOND, LEAST_IDS = 2000, 20_000
STREAMS, LEAD = 64, 1024
SCORED_COST = 0.65  # of an id in parallel streams, in ids that are trained on
PARTS: tuple[Part, ...] = ("val", "test")


class AskedToStopError(Exception):
    """The run was asked to stop while it was scored; it was saved before."""


def most_ids(budget: float | None) -> int:
    """Return how many ids of a part are scored at the most, of a run with this budget of seconds or with none."""
    return SAMPLED_IDS if budget is None else int(min(SAMPLED_IDS, max(LEAST_IDS, SCORED_A_SECOND * budget)))


def scores(model: CharRNN, corpus: Corpus, most: int, stop: Callable[[], bool]) -> dict[Part, Score | None]:
    """Score the validation and test parts; None for one that is empty. most: ids of each, of `most_ids`.

    stop() is asked before every pass of the model, since scoring may take long.
    Raises AskedToStopError when it is true.
    """
    with _asking(model, stop):
        exact = exact_parts(corpus, most)
        costs = evaluation.side_by_side_costs(model, [(corpus.parts[part], corpus.starts[part]) for part in exact])
        of_exact = {
            part: evaluation.score(nats, corpus.parts[part], corpus.tokenizer)
            for part, nats in zip(exact, costs, strict=True)
        }
        return {part: of_exact[part] if part in exact else score(model, corpus, part, most) for part in PARTS}


def score(model: CharRNN, corpus: Corpus, part: Part, most: int) -> Score | None:
    """Score a part of a corpus, exactly where it is short enough; None for an empty one. most: ids, of `most_ids`."""
    ids, starts = corpus.parts[part], corpus.starts[part]
    if len(ids) == 0:
        return None
    if len(ids) > most:
        return evaluation.sampled(model, ids, corpus.tokenizer, most, lead=_lead(most), starts=starts)
    if _is_exact(len(ids), most):
        costs = evaluation.stream_costs(model, ids, starts=starts)
    else:
        costs = evaluation.parallel_costs(model, ids, streams=STREAMS, lead=LEAD, starts=starts)
    return evaluation.score(costs, ids, corpus.tokenizer)


def exact_parts(corpus: Corpus, most: int) -> list[Part]:
    """Return the parts that are read as one stream each, side by side. most: ids of each, of `most_ids`."""
    return [part for part in PARTS if _is_exact(len(corpus.parts[part]), most)]


def _is_exact(n: int, most: int) -> bool:
    """Tell whether a part of n ids is read as one stream. most: ids that are scored."""
    return 0 < n <= min(EXACT_IDS, most)


def _lead(most: int) -> int:
    """Return how many ids lead in each of the segments that a sample consists of."""
    return min(LEAD, most // STREAMS)


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


def expected_seconds(corpus: Corpus, most: int, stream_seconds_per_id: float, trained_seconds_per_id: float) -> float:
    """Return what `scores` will take: an id of an exact stream takes longer than one of many side by side.

    stream_seconds_per_id: of as many streams side by side as are exact. trained_seconds_per_id: of a training step, for
    each of its ids.
    """
    exact = exact_parts(corpus, most)
    seconds = 0.5 + stream_seconds_per_id * max((len(corpus.parts[part]) for part in exact), default=0)
    for n in (len(corpus.parts[part]) for part in PARTS if part not in exact):
        seconds += (min(n, most) + STREAMS * _lead(most)) * SCORED_COST * trained_seconds_per_id if n else 0
    return seconds


def notes(corpus: Corpus, most: int) -> list[str]:
    """Say where the scores will not be exact. most: as of `score`."""
    longest = max(len(corpus.parts[part]) for part in PARTS)
    if longest > most:
        return [f"at the end {most:,} characters of each long part are scored; `eval` reads all of it"]
    if longest > EXACT_IDS:
        return [f"long parts are scored in {STREAMS} parallel streams at the end; `eval` reads them as one"]
    return []
