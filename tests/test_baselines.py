"""Baselines: probabilities that sum to one, counts written out a second time, compressors that know what they read."""

import builtins
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.compare import baselines
from charrnn.text import ngram
from charrnn.text.corpus import Corpus, encode, learn_tokenizer, open_text
from charrnn.training.run import Run
from charrnn.training.settings import Settings

TrainedRun = Callable[..., Run]


def encoded(corpus: str) -> Corpus:
    config = Settings(corpus=(corpus,))
    text = open_text(config)
    return encode(text, learn_tokenizer(text, config.tokenizer, config.split), config.split)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.lists(st.integers(0, 4), max_size=6), st.integers(5, 9))
def test_the_probabilities_of_all_ids_sum_to_one_at_every_order(train: list[int], context: list[int], V: int) -> None:
    texts = [np.array([*context, i]) for i in range(V)]
    for by_text in ngram.costs_by_order(np.array(train), texts, V, 5):
        assert sum(math.exp(-costs[-1]) for costs in by_text) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_costs_are_those_of_modified_kneser_ney_written_out(order: int) -> None:
    text = CORPUS.read_text(encoding="utf-8")
    alphabet = sorted(set(text[:3400]))
    train, test = ([alphabet.index(c) for c in part] for part in (text[:3000], text[3000:3400]))
    V = len(alphabet)
    expected = [-math.log(kneser_ney(train, V, order, test[max(0, i - order) : i], test[i])) for i in range(order, 400)]
    costs = list(ngram.costs_by_order(np.array(train), [np.array(test)], V, order))[order][0]
    assert costs[order:] == pytest.approx(expected, rel=1e-9)


def kneser_ney(train: list[int], V: int, order: int, context: list[int], c: int) -> float:
    """P(c | context), the textbook's way: recursion over dictionaries."""

    def probability(k: int) -> float:
        if k < 0:
            return 1 / V
        n, d = counts(k)
        here = tuple(context[len(context) - k :])
        following = n[here]
        if not following:
            return probability(k - 1)
        total = sum(following.values())
        left = sum(d[min(count, 3)] for count in following.values()) / total
        seen = following.get(c, 0)
        return max(seen - d[min(seen, 3)], 0) / total + left * probability(k - 1)

    def counts(k: int) -> Any:
        if k not in tables:
            tables[k] = _counts(train, k, k == order)
        return tables[k]

    return probability(order)


tables: dict[int, Any] = {}


def _counts(train: list[int], k: int, top: bool) -> Any:
    """How often each id follows each context of k ids, or after how many ids it does; and the three discounts."""
    padded = [-1] * (k + 1) + train
    n: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    longer = [tuple(padded[i : i + k + 2]) for i in range(len(train))]
    for gram in longer if top else set(longer):
        n[gram[1:-1]][gram[-1]] += 1
    of = Counter(count for following in n.values() for count in following.values())
    y = of[1] / (of[1] + 2 * of[2])
    d = [1 - 2 * y * of[2] / of[1], 2 - 3 * y * of[3] / of[2], 3 - 4 * y * of[4] / of[3]]
    return n, [0, *(min(max(x, 0.1), 0.95 * (i + 1)) for i, x in enumerate(d))]


@pytest.fixture(autouse=True)
def _forget() -> None:
    tables.clear()


def test_every_baseline_is_better_than_the_one_that_knows_less(corpus: str) -> None:
    found = {baseline.name.split()[0]: baseline for baseline in baselines.baselines(encoded(corpus), (0.8, 0.1, 0.1))}
    gram = next(name for name in found if name.endswith("-gram"))
    assert list(found) == ["uniform", "unigram", gram, "xz", "PPMd"]
    bits = [found[name].bits_per_char for name in ("uniform", "unigram", gram)]
    assert bits[0] is not None
    assert bits == sorted(bits, reverse=True)  # type: ignore[type-var]
    assert 1 < bits[2] < 4  # type: ignore[operator]


def test_the_order_is_chosen_by_the_validation_part_alone(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    val, test = (len(encoded(corpus).ids(part)) for part in ("val", "test"))
    made = [[np.full(val, order + 1.0), np.full(test, 9.0 - order)] for order in range(4)]
    monkeypatch.setattr(ngram, "costs_by_order", lambda *_: iter(made))
    unigram, chosen = baselines.counted(baselines.counts_of(encoded(corpus)))
    assert chosen.name == "1-gram"  # the best on validation, the worst on the test part
    assert chosen.bits_per_char == unigram.bits_per_char


def test_the_uniform_guess_spells_what_it_does_not_know() -> None:
    class Stub:
        kind, characters = "char", tuple("abc")

        def spelled_in_bytes(self, ids: Any) -> int:
            return 1

        def characters_in(self, ids: Any) -> int:
            return 3

    class Part:
        tokenizer = Stub()

        def ids(self, part: str) -> Any:
            return np.array([256, 257, 0xC5, 0xA1])  # a, b, and one character of two bytes

    found = baselines.uniform(Part())  # type: ignore[arg-type]
    assert found.bits_per_char == pytest.approx((3 * 2 + 2 * 8) / 3)


def test_compressors_find_a_test_part_that_repeats_the_training_part(tmp_path: Any) -> None:
    random = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 4000))
    (tmp_path / "twice.txt").write_text(random + random[:1000])
    found = encoded(str(tmp_path / "twice.txt"))
    assert baselines.compressed_xz(found).bits_per_char < 2  # type: ignore[operator]
    pytest.importorskip("pyppmd")
    assert baselines.compressed_ppmd(found).bits_per_char < 2  # type: ignore[operator]


def test_without_pyppmd_the_table_says_so(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pyppmd":
            raise ImportError
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    found = baselines.compressed_ppmd(encoded(corpus))
    assert found.bits_per_char is None
    assert "pip install 'charrnn[ppmd]'" in found.note


def test_a_run_in_the_table_costs_what_eval_says(corpus: str, trained: TrainedRun) -> None:
    run = trained()
    found = baselines.trained(encoded(corpus), (0.8, 0.1, 0.1), "run")
    assert found.bits_per_char == pytest.approx(run.about()["result"]["test_bits_per_char"], rel=1e-6)
    assert "part of this test text" in baselines.trained(encoded(corpus), (0.7, 0.1, 0.2), "run").note
