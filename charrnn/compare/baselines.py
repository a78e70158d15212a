"""The baselines of a comparison: guesses without learning, counts, compressors, and a model of the user's own.

All learn from the training part, choose by the validation part, and cost bits per character of the test part.
"""

import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import how_to_install
from charrnn.text import ngram
from charrnn.text.corpus import Corpus, Part

HIGHEST_ORDER = 9
PPMD_ORDERS = (3, 4, 5, 6, 8, 12)
PPMD_MEMORY = 1 << 28


@dataclass(frozen=True)
class Baseline:
    """Something that predicts the test part. bits_per_char: None where it could not be tried, and `note` says why."""

    name: str
    bits_per_char: float | None
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """An n-gram model of the training part. val, test: what the characters of these parts cost, nats (N,)."""

    order: int
    val: NDArray[np.float64]
    test: NDArray[np.float64]

    @property
    def name(self) -> str:
        return f"{self.order + 1}-gram"

    @property
    def bits_per_char(self) -> float:
        """Of the test part."""
        return float(self.test.mean()) / math.log(2)


def baselines(
    corpus: Corpus, split: tuple[float, ...], run: str | None = None, counts: tuple[Counts, Counts] | None = None
) -> Iterator[Baseline]:
    """Yield every baseline of a corpus, the simplest first.

    run: a trained run to add to them, by name or path. counts: as `counts_of` gives them, where they were made.
    """
    yield uniform(corpus)
    yield from counted(counts or counts_of(corpus))
    yield compressed_xz(corpus)
    yield compressed_ppmd(corpus)
    if run is not None:
        yield trained(corpus, split, run)


def uniform(corpus: Corpus) -> Baseline:
    """Score a guess: every character of the training part alike; an unknown one is an escape and then any bytes."""
    tokenizer, ids = corpus.tokenizer, corpus.ids("test")
    alphabet = len(tokenizer.characters) + 1 if tokenizer.kind == "char" else tokenizer.size
    escapes = 0 if tokenizer.kind == "byte" else tokenizer.spelled_in_bytes(ids)
    spelled = 0 if tokenizer.kind == "byte" else int(np.count_nonzero(ids < 256))
    drawn = len(ids) - spelled + escapes
    bits = drawn * math.log2(alphabet) + 8 * spelled
    return Baseline("uniform", bits / tokenizer.characters_in(ids), f"{alphabet} symbols")


def counted(counts: tuple[Counts, Counts]) -> Iterator[Baseline]:
    """Score counts: how often each character occurs, and an interpolated n-gram of the order validation chooses."""
    single, best = counts
    yield Baseline("unigram", single.bits_per_char)
    yield Baseline(best.name, best.bits_per_char, "modified Kneser-Ney, its order by validation")


def counts_of(corpus: Corpus) -> tuple[Counts, Counts]:
    """Return the n-gram model of single characters, and that of the order which validation chooses."""
    ids = {part: np.asarray(corpus.ids(part)) for part in ("train", "val", "test")}
    texts = [ids["val"], ids["test"]]
    by_order = ngram.costs_by_order(ids["train"], texts, corpus.tokenizer.size, HIGHEST_ORDER)
    models = (
        Counts(order, *(_per_char(corpus, text, cost) for text, cost in zip(texts, costs, strict=True)))
        for order, costs in enumerate(by_order)
    )
    single = next(models)
    return single, min(chain([single], models), key=lambda counts: float(counts.val.mean()))


def compressed_xz(corpus: Corpus) -> Baseline:
    """Count the bytes that xz needs more for the training and the test part than for the training part alone."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]

    def size(text: bytes) -> int:
        return len(lzma.compress(text, lzma.FORMAT_XZ, filters=filters))

    train, test = _bytes(corpus, "train"), _bytes(corpus, "test")
    bits = 8 * (size(train + test) - size(train))
    return Baseline("xz", bits / _characters(corpus), "goes on learning in the test part")


def compressed_ppmd(corpus: Corpus) -> Baseline:
    """Count them as for xz, by prediction by partial matching (PPMd, variant H); validation chooses its order."""
    try:
        import pyppmd  # an extra
    except ImportError:
        return Baseline("PPMd", None, f"not installed: {how_to_install('ppmd')}")

    def size(text: bytes, order: int) -> int:
        encoder = pyppmd.Ppmd7Encoder(max_order=order, mem_size=PPMD_MEMORY)
        return len(encoder.encode(text)) + len(encoder.flush())

    train, val, test = (_bytes(corpus, part) for part in ("train", "val", "test"))
    order = min(PPMD_ORDERS, key=lambda order: size(train + val, order))
    bits = 8 * (size(train + test, order) - size(train, order))
    return Baseline(f"PPMd {order}", bits / _characters(corpus), "goes on learning in the test part")


def trained(corpus: Corpus, split: tuple[float, ...], run: str) -> Baseline:
    """Score a trained run on the test part, read as one stream."""
    from charrnn.api import load  # it wakes torch

    model = load(run)
    note = "another run"
    if model.config.fingerprint == corpus.text.fingerprint and model.config.split != split:
        note = "a run that was trained on part of this test text"
    return Baseline(f"run {run}", model.score(_bytes(corpus, "test").decode()).bits_per_char, note)


def _per_char(corpus: Corpus, ids: NDArray[Any], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the costs of ids to those of characters."""
    sums: NDArray[Any] = np.bincount(corpus.tokenizer.character_index(ids), weights=costs)
    return sums


def _bytes(corpus: Corpus, part: Part) -> bytes:
    return corpus.tokenizer.decode(corpus.ids(part)).encode()


def _characters(corpus: Corpus) -> int:
    return corpus.tokenizer.characters_in(corpus.ids("test"))
