"""One model, many threads: each gets what it would get alone, however many there are and whoever comes first."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn import api, cells
from charrnn.api import COMPILE_IDS, ROWS, Kept, TextModel
from charrnn.compiler import objects
from charrnn.generate import completer, decoders
from charrnn.generate.compiled import NativeDecoder
from charrnn.generate.copying import CopyLimit, TrainingText
from charrnn.generate.decoder import Decoder
from charrnn.generate.rows import RowsDecoder
from charrnn.generate.sampling import Sampling, draws, generate, read_prime
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import BYTES, Tokenizer
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent
THREADS = 8
KEPT: tuple[Kept, ...] = ("float32", "bf16", "int8")
# Each is compiled for itself: one stands for all where threads are what matters, and rows of all are held below.
# Compiling for one cell takes up to a minute: one of them stands for all, but by hand.
EVERY_CELL = [
    pytest.param(name, marks=pytest.mark.slow if name == "lstm" else pytest.mark.long) for name in cells.names()
]
ONE_KEPT = [pytest.param(kept, marks=[] if kept == "float32" else pytest.mark.slow) for kept in KEPT]
TOKENIZER = Tokenizer.char("abcdefghijklmnopqrstuvwxyz .,")
TrainedRun = Callable[..., Run]


def at_once(works: Iterable[Callable[[], Any]], threads: int = THREADS) -> list[Any]:
    """What each piece of work gives, done by threads that begin together."""
    together = threading.Barrier(threads)
    with ThreadPoolExecutor(threads, initializer=together.wait) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]


def next_of(iterator: Iterator[Any], n: int) -> list[Any]:
    return [next(iterator) for _ in range(n)]


def ids_of(decoder: NativeDecoder, prime: str, completion: int, chars: int) -> list[tuple[int, float]]:
    """Ids of one completion with their costs, drawn alone."""
    primed = read_prime(decoder, TOKENIZER, prime)
    drawn = decoder.drawn(primed, TOKENIZER, Sampling(), draws(7, completion))
    return next_of(drawn, chars)


def native(cell: str, kept: str, hidden: int = 25) -> NativeDecoder:
    architecture = Architecture(cell, TOKENIZER.size, hidden, 2, 13, residual=True)
    return NativeDecoder(architecture, architecture.initial(seed=5, bound=0.4), kept)


def same_from_threads(cell: str, kept: str) -> None:
    decoder = native(cell, kept)
    numbers = range(16)

    def stepped(n: int) -> list[float]:
        logits, state = [], decoder.start()
        for id_ in np.random.default_rng(n).integers(0, TOKENIZER.size, 40):
            row, state = decoder.step(np.array([id_]), state)
            logits += row[0].tolist()
        return logits

    def costs(n: int) -> list[float]:
        return decoder.stream_costs(np.random.default_rng(n).integers(0, TOKENIZER.size, 800)).tolist()

    for work in (lambda n: ids_of(decoder, "ab" * (n % 5), n, 150), stepped, costs):
        alone = [work(n) for n in numbers]
        assert at_once([partial(work, n) for n in numbers]) == alone


@pytest.mark.parametrize("kept", ONE_KEPT)
def test_threads_that_share_a_decoder_get_what_each_gets_alone(kept: Kept) -> None:
    same_from_threads("lstm", kept)


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_threads_get_what_each_gets_alone_with_every_cell(cell: str) -> None:
    same_from_threads(cell, "float32")


@pytest.mark.parametrize("kept", ONE_KEPT)
def test_threads_that_share_a_model_get_what_each_gets_alone(trained: TrainedRun, kept: Kept) -> None:
    run = trained(steps=30)
    api.load(run, kept=kept).decoder()  # else NumPy would draw what comes before anything was compiled
    long = (ROOT / "corpora" / "rekurentne.txt").read_text(encoding="utf-8")[:COMPILE_IDS]

    def works(model: TextModel) -> list[Callable[[], Any]]:
        def completions(count: int, max_copy: int | None = None) -> list[list[tuple[str, float]]]:
            each = model.completions("Re", 60, Sampling(), count, max_copy=max_copy)
            return [list(characters) for characters in each]

        return [
            lambda: model.complete("Rekurentne", 200, seed=3),
            lambda: list(model.stream("", 200, top_k=9, stop=("kv",))),
            lambda: model.next("Rekurentn"),
            lambda: model.score(long).per_char.tolist(),
            lambda: model.score(long[:300]).per_char.tolist(),
            lambda: completions(completer.ROWS_AT_LEAST + 1),
            lambda: completions(3, max_copy=4),
            lambda: model.complete(long[:2000], 100),
        ] * 2

    alone = [work() for work in works(api.load(run, kept=kept))]
    assert at_once(works(api.load(run, kept=kept))) == alone


@pytest.mark.parametrize("engine", ["loop", "fused", "native"])
def test_threads_that_share_a_model_score_the_same_with_every_engine(trained: TrainedRun, engine: str) -> None:
    run = trained(cell="nn.GRU", engine="loop", hidden=27)
    run.write_config(dataclasses.replace(run.config(), engine=engine))  # which has compiled nothing of this size yet
    model = api.load(run)
    ids = np.random.default_rng(0).integers(BYTES, model.tokenizer.size, (8, 300))

    def costs(row: int, mode: Any) -> list[float]:
        return model.score_ids(ids[row], mode).per_char.tolist()

    works = [partial(costs, row, mode) for row in range(8) for mode in ("stream", "cold")]
    together = at_once(works)  # and they compile it, all at once
    assert together == [work() for work in works]


def test_threads_that_share_a_torch_decoder_get_what_each_gets_alone() -> None:
    architecture = Architecture("lstm", TOKENIZER.size, 24, 2, 12)
    decoder = Decoder(architecture, architecture.initial(seed=3, bound=0.4))

    def text(n: int) -> list[tuple[str, float]]:
        primed = read_prime(decoder, TOKENIZER, "ab" * n)
        drawn = generate(decoder, TOKENIZER, primed, Sampling(), n)
        return next_of(drawn, 60)

    alone = [text(n) for n in range(16)]
    assert at_once([partial(text, n) for n in range(16)]) == alone


def test_threads_that_read_completions_of_one_call_get_what_each_is_alone() -> None:
    decoder = native("lstm", "float32")
    primed = read_prime(decoder, TOKENIZER, "ab")
    rows = RowsDecoder(decoder).drawn(primed, TOKENIZER, Sampling(), range(20))
    works = [partial(next_of, row, 150) for row in rows]
    assert at_once(works, 20) == [ids_of(decoder, "ab", n, 150) for n in range(20)]


def test_threads_that_share_a_training_text_forbid_what_each_forbids_alone(trained: TrainedRun) -> None:
    model = api.load(trained())
    source, text = model.training_text(), model.complete("Re", 300)

    def forbidden(source: TrainingText) -> list[list[int]]:
        limit = CopyLimit(source, model.tokenizer, 3)
        return [sorted(limit.forbidden(text[:n], b"")) for n in range(len(text))]

    alone = forbidden(model.training_text())
    assert at_once([lambda: forbidden(source)] * THREADS) == [alone] * THREADS


@pytest.mark.slow
def test_threads_that_come_first_together_compile_once(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(hidden=23)  # a shape that no other test has
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    compiled, made = [], []
    real_compile, real_make = objects.object_code, NativeDecoder.__init__

    def object_code(source: str) -> bytes:
        compiled.append(source)
        return real_compile(source)

    def make(self: NativeDecoder, *arguments: Any) -> None:
        made.append(self)
        real_make(self, *arguments)

    monkeypatch.setattr(objects, "object_code", object_code)
    monkeypatch.setattr(NativeDecoder, "__init__", make)
    monkeypatch.setattr(decoders, "QUICK_PRODUCTS", 0)  # else NumPy draws so short a text while nothing is compiled
    model = api.load(run)
    works = [partial(model.complete, "Re", 50), partial(NativeDecoder, model.architecture, model.weights)] * 4
    assert len(set(at_once(works)[::2])) == 1
    assert len(compiled) == len(set(compiled))
    assert len(made) == 1 + 4  # one of the model's, and four that were asked for


def test_threads_that_ask_first_together_see_every_cell() -> None:
    code = (
        "import threading; from concurrent.futures import ThreadPoolExecutor; from charrnn import cells\n"
        "together = threading.Barrier(8)\n"
        "with ThreadPoolExecutor(8, initializer=together.wait) as pool:\n"
        "    print(len({tuple(done.result()) for done in [pool.submit(cells.names) for _ in range(8)]}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "1"


# The same text for any count


def same_in_rows(cell: str, kept: str, **sizes: Any) -> None:
    sizes = {"hidden": 25, "layers": 2, "embedding": 13, "residual": True, **sizes}
    architecture = Architecture(cell, TOKENIZER.size, **sizes)
    decoder = NativeDecoder(architecture, architecture.initial(seed=5, bound=0.4), kept)
    primed = read_prime(decoder, TOKENIZER, "hello")
    together = RowsDecoder(decoder)
    alone = [ids_of(decoder, "hello", n, 40) for n in range(ROWS + 6)]
    for count in (1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 64, 65, 70):
        rows = together.drawn(primed, TOKENIZER, Sampling(), range(count))
        assert [next_of(row, 40) for row in rows] == alone[:count], count


@pytest.mark.parametrize("kept", ONE_KEPT)
def test_rows_side_by_side_are_to_the_last_bit_as_one_alone(kept: Kept) -> None:
    same_in_rows("lstm", kept)


@pytest.mark.parametrize("cell", EVERY_CELL)
@pytest.mark.parametrize("sizes", [{}, {"embedding": 25, "tie": True}, {"embedding": None, "layers": 1, "hidden": 38}])
def test_rows_side_by_side_are_as_one_alone_with_every_cell(cell: str, sizes: dict[str, Any]) -> None:
    same_in_rows(cell, "float32", **sizes)


@pytest.mark.parametrize("cell", EVERY_CELL)
@pytest.mark.parametrize("kept", ["bf16", "int8"])
def test_rows_of_fewer_bytes_are_as_one_alone_with_every_cell(cell: str, kept: Kept) -> None:
    same_in_rows(cell, kept)


@pytest.mark.parametrize("kept", [k if k == "float32" else pytest.param(k, marks=pytest.mark.slow) for k in KEPT])
def test_no_count_changes_a_completion(trained: TrainedRun, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    model = api.load(trained(steps=30), kept=kept)

    def drawn(count: int, first: int = 0) -> list[list[tuple[str, float]]]:
        return [list(c) for c in model.completions("Re", 50, Sampling(seed=5), count, first=first)]

    alone = [drawn(1, n)[0] for n in range(65)]
    assert "".join(c for c, _ in alone[0]) == model.complete("Re", 50, temperature=1.0, seed=5)
    for count in (1, 2, 7, 8, 9, 65):
        for cores in (1, 2, 5):
            monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
            assert drawn(count) == alone[:count], (count, cores)
    assert drawn(9, first=30) == alone[30:39]
