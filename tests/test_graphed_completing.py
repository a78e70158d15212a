"""What is drawn on a GPU obeys the contract of a draw: in Triton's interpreter, where there is no GPU."""

import gc
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from charrnn import cells
from charrnn.engines import cuda
from charrnn.errors import NotRecordedWarning
from charrnn.generate import decoders, graphed, sampling
from charrnn.generate.completer import Completer
from charrnn.generate.decoder import Decoder
from charrnn.generate.graphed import GraphedDecoder, Place
from charrnn.generate.request import Request
from charrnn.generate.sampling import Sampling, distribution, draw, draws, read_prime
from charrnn.model.architecture import Architecture
from charrnn.text import contexts
from charrnn.text.tokenizer import Tokenizer

pytest.importorskip("triton", reason="torch for CUDA brings Triton")
if torch.cuda.is_available():
    pytest.skip("the interpreter is for machines without a GPU", allow_module_level=True)

# The interpreter computes with NumPy, which warns of what wraps and of what overflows behind a mask.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
TOKENIZER = Tokenizer.char("abcčšž de\n")
CHARS = 7
NATS = 2e-6  # of a character: float32 logits in another order


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for torch.cuda: recorded work is called again. Returns a list with an entry for each recording."""
    found: list[int] = []

    def recorded(work: Callable[[], None], warm_up: Callable[[], object], *_: Any) -> Callable[[], None]:
        warm_up()
        found.append(1)
        return work

    monkeypatch.setattr(cuda, "recorded", recorded)
    monkeypatch.setattr(graphed, "STEPS", 4)
    return found


def pair(cell: str, **changes: Any) -> tuple[GraphedDecoder, Decoder]:
    """The decoder, and the plain one, of the same weights."""
    sizes = {"hidden": 20, "layers": 2, "embedding": 20, **changes}
    architecture = Architecture(cell, TOKENIZER.size, **sizes)
    weights = architecture.initial(5)
    if architecture.direct:  # tables begin as zeros
        weights["direct"] = np.random.default_rng(6).standard_normal(weights["direct"].shape).astype(np.float32)
    return GraphedDecoder(architecture, weights, "cpu"), Decoder(architecture, weights, "torch")


class Only(NamedTuple):
    """One decoder, to be chosen."""

    decoder: Decoder

    def chosen(self, characters: int | None = None) -> Decoder:
        return self.decoder


def by_hand(decoder: Decoder, prime: str, how: Sampling, n: int) -> list[tuple[int, float]]:
    primed = read_prime(decoder, TOKENIZER, prime)
    drawn = sampling.drawn_step_by_step(decoder, primed, TOKENIZER, how, draws(how.seed, n), None, None)
    return list(islice(drawn, CHARS))


def assert_same(found: Any, expected: list[tuple[int, float]]) -> None:
    ids, costs = zip(*islice(found, CHARS), strict=True)
    assert list(ids) == [id_ for id_, _ in expected]
    assert costs == pytest.approx([cost for _, cost in expected], abs=NATS)


@pytest.mark.parametrize(
    "cell", ["lstm", "gru-after", "sru", "layernorm-lstm", pytest.param("mogrifier-lstm", marks=pytest.mark.slow)]
)
def test_what_is_drawn_on_a_gpu_is_what_the_contract_says(cell: str) -> None:
    fast, plain = pair(cell, residual=cell == "sru")
    how = Sampling(seed=2**63 + 5)
    drawn = fast.drawn(read_prime(fast, TOKENIZER, "abc"), TOKENIZER, how, draws(how.seed, 4))
    assert_same(drawn, by_hand(plain, "abc", how, 4))


@pytest.mark.parametrize("rows", [2, graphed.FEW_ROWS + 3])
@pytest.mark.parametrize("cell", cells.names())
def test_a_step_of_few_rows_or_more_is_what_the_equations_say(cell: str, rows: int) -> None:
    """Of layers whose input is as wide as they are, and of a first one."""
    fast, plain = pair(cell, hidden=20, layers=3, embedding=13)
    rng, ids = np.random.default_rng(3), np.array([2, *range(rows - 1)])
    state = list(plain.start(rows))
    state = [tuple(h + 0.1 * torch.tensor(rng.standard_normal(h.shape), dtype=h.dtype) for h in s) for s in state]
    logits, expected = plain.step(ids, state)
    given, moved = [tuple(h.clone() for h in s) for s in state], list(state)
    with torch.inference_mode():
        found = fast.advance(torch.tensor(ids), moved)
    assert torch.allclose(found, torch.tensor(logits), atol=1e-5)
    for a, b in zip(moved, expected, strict=True):
        assert all(torch.allclose(x, torch.as_tensor(y), atol=1e-5) for x, y in zip(a, b, strict=True))
    for a, b in zip(state, given, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=0),
        Sampling(temperature=0.6, top_k=9),
        Sampling(top_p=0.7, seed=1),
        Sampling(temperature=2, top_k=40, top_p=0.9, min_p=0.01),
    ],
)
def test_filters_are_those_of_the_contract(how: Sampling) -> None:
    fast, plain = pair("gru-after", layers=1)
    drawn = fast.drawn(read_prime(fast, TOKENIZER, ""), TOKENIZER, how, draws(how.seed, 0))
    assert_same(drawn, by_hand(plain, "", how, 0))


def test_the_draw_alone_is_the_contracts_for_equal_logits() -> None:
    from charrnn.generate.draw_kernel import draw as kernel

    rng, V, R, VP = np.random.default_rng(2), 45, 24, 64
    logits = (4 * rng.standard_normal((R, V))).astype(np.float32)
    logits[3, 7] = logits[3, 8]  # a tie
    allowed = rng.random((2, V)) < 0.8
    following = np.where(allowed, 1, -1).astype(np.int16)
    settings = [Sampling(top_k=k, top_p=p) for k, p in ((None, None), (5, None), (None, 0.6), (12, 0.8))] * (R // 4)
    places = [(int(rng.integers(2**63)), n, int(rng.integers(100))) for n in range(R)]
    state = np.arange(R) % 2
    tensors = {
        "logits": torch.tensor(logits),
        "allowed": torch.tensor(allowed).to(torch.uint8),
        "following": torch.tensor(following),
        "filters": torch.tensor([sampling.filters(how, V) for how in settings], dtype=torch.float64),
        "keys": torch.tensor([[seed, n] for seed, n, _ in places]),
        "automaton": torch.tensor(state),
        "position": torch.tensor([at for _, _, at in places]),
        "ids": torch.zeros(R, dtype=torch.int64),
        "drawn": torch.zeros(R, dtype=torch.int64),
        "costs": torch.zeros(R, dtype=torch.float64),
        "scratch": torch.zeros(R, 2, VP, dtype=torch.float64),
    }
    kernel[(R,)](*tensors.values(), V, VP=VP, ORDERED=True, CHUNK=32)
    for r, (seed, n, at) in enumerate(places):
        source = draws(seed, n)
        u = source.random(at + 1)[-1]
        expected = draw(distribution(logits[r], allowed[state[r]], settings[r]), u)
        assert int(tensors["drawn"][r]) == expected
        assert float(tensors["costs"][r]) == pytest.approx(sampling.cost(logits[r], expected), abs=1e-12)
        assert Place.of(source) == (seed, n, at + 1)
    assert tensors["position"].tolist() == [at + 1 for _, _, at in places]
    assert tensors["automaton"].tolist() == [1] * R


@pytest.mark.parametrize("orders", [1, 2, 6])
def test_the_rows_and_sums_of_tables_are_numpys_to_the_last_bit(orders: int) -> None:
    from charrnn.generate.direct_kernel import add_direct

    rng, B, V, first, R = np.random.default_rng(orders), 50, 280, 256, 5003
    tables = rng.standard_normal((orders * R, V - first)).astype(np.float32)
    ids, before = rng.integers(250, V + 1, B), rng.integers(250, V + 1, (B, orders - 1))
    ids[:3] = before[2:9] = V  # texts that begin
    rows = contexts.rows([ids, *(before[:, n] for n in reversed(range(orders - 1)))], V, R)
    said, after = torch.zeros(B, V), torch.zeros(B, orders - 1, dtype=torch.int64)
    given = said, torch.tensor(ids), torch.tensor(before), after, torch.tensor(tables)
    add_direct[(B,)](*given, V, V, first, R, V - first, N=orders, CP=32)
    assert (said[:, first:].numpy() == sum(tables[r] for r in rows)).all()
    assert not said[:, :first].any()
    assert after.tolist() == np.concatenate([before, ids[:, None]], axis=1)[:, 1:].tolist()
    assert torch.equal(given[2], torch.tensor(before))


@pytest.mark.parametrize("orders", [1, 4])
def test_rows_with_tables_are_drawn_as_the_contract_says_and_begin_anew(orders: int, recordings: list[int]) -> None:
    fast, plain = pair("indrnn", layers=1, direct=orders, direct_rows=40)
    how = Sampling(seed=9)
    for prime in ("ab", "š", ""):
        rows = fast.drawn_together(read_prime(fast, TOKENIZER, prime), TOKENIZER, how, range(2))
        for n, row in enumerate(rows):
            assert_same(row, by_hand(plain, prime, how, n))
        del rows, row
        gc.collect()
    assert len(recordings) == 1


def test_rows_side_by_side_are_those_of_one_row_and_recorded_once(recordings: list[int]) -> None:
    fast, plain = pair("lstm", layers=1)
    how = Sampling(seed=9)
    for _ in range(2):
        rows = fast.drawn_together(read_prime(fast, TOKENIZER, "a"), TOKENIZER, how, range(3, 6))
        for n, row in zip(range(3, 6), rows, strict=True):
            assert_same(row, by_hand(plain, "a", how, n))
        del rows, row
        gc.collect()
    assert len(recordings) == 1


def test_a_completer_draws_many_rows_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, plain = pair("indrnn", layers=1)
    monkeypatch.setattr(GraphedDecoder, "most_rows", 2)
    request = Request("ab", chars=3, sampling=Sampling(seed=2))
    texts = []
    for decoder in (fast, plain):
        completer = Completer(Only(decoder), TOKENIZER, str, "none")
        several = completer.several(request, 3, 0, lambda: pytest.fail("copies are not limited"))
        texts.append(["".join(each.character for each in stream) for stream in several])
    assert texts[0] == texts[1]


def test_logits_that_are_not_finite_end_a_row(recordings: list[int]) -> None:
    architecture = Architecture("indrnn", TOKENIZER.size, 8, 1, 8)
    weights = architecture.initial(5)
    weights["head.b"][:] = np.nan
    fast = GraphedDecoder(architecture, weights, "cpu")
    drawn = fast.drawn(read_prime(fast, TOKENIZER, ""), TOKENIZER, Sampling(), draws(7, 0))
    assert next(drawn)[0] == -1


def test_what_cannot_be_recorded_is_done_piece_by_piece_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(cuda, "recorded", refuse)
    fast, plain = pair("indrnn", layers=1)
    with pytest.warns(NotRecordedWarning, match="completing cannot be recorded"):
        drawn = fast.drawn(read_prime(fast, TOKENIZER, ""), TOKENIZER, Sampling(), draws(7, 0))
    assert_same(drawn, by_hand(plain, "", Sampling(), 0))


def test_on_a_gpu_completions_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(graphed, "GraphedDecoder", lambda *_: made.append("recorded") or Decoder(*_))
    architecture = Architecture("indrnn", TOKENIZER.size, 8, 1, 8)
    decoders.make(architecture, architecture.initial(5), "cuda")
    assert made == ["recorded"]


def test_a_trial_leaves_no_trace_in_completions(recordings: list[int]) -> None:
    fast, plain = pair("indrnn", layers=1)
    for _ in range(2):
        fast.trial(5)
    assert len(recordings) == 1
    drawn = fast.drawn(read_prime(fast, TOKENIZER, ""), TOKENIZER, Sampling(), draws(7, 0))
    assert_same(drawn, by_hand(plain, "", Sampling(), 0))
