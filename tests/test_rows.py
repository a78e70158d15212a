"""Rows that come and go: each is what its decoder draws alone, whoever reads and draws beside it."""

import os
from functools import cache

import numpy as np
import pytest

from charrnn.generate import rows as rows_module
from charrnn.generate.compiled import CompiledDecoder
from charrnn.generate.decoder import Decoder
from charrnn.generate.rows import AHEAD, STEPS, OneAfterTheOther, Row, Rows, RowsDecoder, SideBySide
from charrnn.generate.sampling import Sampling, cost, draws, generate, read_prime
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.char("abcdefghijklmnopqrstuvwxyz .,")
ARCHITECTURE = Architecture("lstm", TOKENIZER.size, 25, 2, 13, residual=True)
FILTERS = [{}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.1}, {"temperature": 0.0}, {"temperature": 2.0, "top_k": 9}]
PRIMES = ["", "a", "hello", "a longer prime, with more than sixteen characters in it.", "žšč", "abc" * 16]


def weights(scale: float = 1.0) -> dict[str, np.ndarray]:
    initial = ARCHITECTURE.initial(seed=5, bound=0.4)
    return {name: (value * scale).astype(np.float32) for name, value in initial.items()}


@cache
def decoder(kind: str) -> Decoder:
    return CompiledDecoder(ARCHITECTURE, weights()) if kind == "compiled" else Decoder(ARCHITECTURE, weights(), "numpy")


def ids_of(prime: str) -> np.ndarray:
    return np.concatenate([[ARCHITECTURE.start], TOKENIZER.encode(prime)])


def side_by_side(kind: str, most: int) -> SideBySide:
    made = decoder(kind)
    if isinstance(made, CompiledDecoder):
        return Rows(RowsDecoder(made), TOKENIZER, most)
    return OneAfterTheOther(made, TOKENIZER)


def joined(rows: SideBySide, kind: str, n: int, noting: bool = False) -> Row:
    """The n-th of many texts, all of which differ."""
    sampling = Sampling(**{"seed": n // 3, **FILTERS[n % len(FILTERS)]})
    return rows.join(decoder(kind).start(), ids_of(PRIMES[n // 2 % len(PRIMES)]), sampling, n % 5, noting)


def alone(kind: str, n: int, chars: int) -> str:
    """The same text, drawn by itself."""
    primed = read_prime(decoder(kind), TOKENIZER, PRIMES[n // 2 % len(PRIMES)])
    sampling = Sampling(**{"seed": n // 3, **FILTERS[n % len(FILTERS)]})
    drawn = generate(decoder(kind), TOKENIZER, primed, sampling, n % 5)
    return "".join(next(drawn).character for _ in range(chars))


@pytest.mark.parametrize("kind", ["compiled", "numpy"])
@pytest.mark.parametrize("cores", [1, 2, 5])
def test_rows_that_come_and_go_are_each_what_it_is_alone(
    kind: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(rows_module, "AHEAD", 2 * STEPS)  # so that rows use up their numbers
    rows, waiting = side_by_side(kind, 7), list(range(18))
    here: dict[int, Row] = {}
    drawn: dict[int, list[int]] = {n: [] for n in waiting}
    moves = 0
    while waiting or here:
        while waiting and len(here) < 1 + moves % 7:  # now few, now many
            n = waiting.pop(0)
            here[n] = joined(rows, kind, n, noting=n % 4 == 0)
        rows.move_on()
        moves += 1
        for n, row in list(here.items()):
            drawn[n] += row.ids
            assert len(row.costs) == len(row.ids)
            if n % 4 == 0:
                assert [cost(x, i) for x, i in zip(row.logits, row.ids, strict=True)] == pytest.approx(row.costs)
            if len(drawn[n]) >= 20 + 7 * (n % 6):
                rows.leave(here.pop(n))
    for n, ids in drawn.items():
        text = TOKENIZER.decode(ids).rstrip("\ufffd")  # the last character may be half drawn
        assert text == alone(kind, n, len(text)), n
        assert len(ids) >= 20


@pytest.mark.parametrize("kind", ["compiled", "numpy"])
def test_a_row_without_finite_logits_ends_alone(kind: str) -> None:
    rows = side_by_side(kind, 3)
    good = joined(rows, kind, 0)
    broken = tuple(tuple(np.full_like(s, np.nan) for s in layer) for layer in decoder(kind).start())
    bad = rows.join(broken, ids_of(""), Sampling(), 0)
    rows.move_on()
    assert bad.ids[0] == -1
    first = list(good.ids)
    rows.move_on()
    text = TOKENIZER.decode(first + good.ids).rstrip("\ufffd")
    assert text == alone(kind, 0, len(text))


def test_a_prime_is_read_in_moves_and_takes_no_draw() -> None:
    rows = side_by_side("compiled", 1)
    prime = "x" * (2 * AHEAD)  # one id more with the start token
    row = rows.join(decoder("compiled").start(), ids_of(prime), Sampling(seed=3), 4)
    lengths = []
    for _ in range(2 * AHEAD // STEPS + 2):
        rows.move_on()
        lengths.append(len(row.ids))
    assert lengths == [0] * (2 * AHEAD // STEPS) + [STEPS - 1, STEPS]
    expected = draws(3, 4)
    expected.random(AHEAD)  # more are made only when these are used
    assert row.source.random() == expected.random()
