"""The baselines of a comparison: guesses without learning, counts, compressors, and a model of the user's own.

All learn from the training part, choose by the validation part, and cost bits per character of the test part.
"""

import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from charrnn.compare import ngram
from charrnn.errors import how_to_install
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


def baselines(corpus: Corpus, split: tuple[float, ...], run: str | None = None) -> Iterator[Baseline]:
    """Yield every baseline of a corpus, the simplest first. run: a trained run to add to them, by name or path."""
    yield uniform(corpus)
    yield from counted(corpus)
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


def counted(corpus: Corpus) -> Iterator[Baseline]:
    """Score counts: how often each character occurs, and an interpolated n-gram of the order validation chooses."""
    parts = [np.asarray(corpus.ids(part)) for part in ("train", "val", "test")]
    bits = [
        [float(costs.sum()) / math.log(2) / corpus.tokenizer.characters_in(ids) for costs, ids in pairs]
        for pairs in (
            zip(costs, parts[1:], strict=True)
            for costs in ngram.costs_by_order(parts[0], parts[1:], corpus.tokenizer.size, HIGHEST_ORDER)
        )
    ]
    yield Baseline("unigram", bits[0][1])
    order = min(range(len(bits)), key=lambda k: bits[k][0])
    yield Baseline(f"{order + 1}-gram", bits[order][1], "modified Kneser-Ney, its order by validation")


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


def _bytes(corpus: Corpus, part: Part) -> bytes:
    return corpus.tokenizer.decode(corpus.ids(part)).encode()


def _characters(corpus: Corpus) -> int:
    return corpus.tokenizer.characters_in(corpus.ids("test"))
