"""Direct connections: rows found by hashes, what training makes of them, and every form of a model that reads them."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config as small
from conftest import decided
from numpy.typing import NDArray

from charrnn.compare import asking, grid
from charrnn.compiler.training import tables
from charrnn.compiler.training.row_gradient import RowGradient
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate.compiled import CompiledDecoder
from charrnn.generate.decoder import Decoder
from charrnn.generate.rows import for_rows
from charrnn.generate.sampling import Primed, Sampling, cost, draws
from charrnn.model import evaluation
from charrnn.model.adaptation import Adaptation, Adapting
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN, Dropout, Seen
from charrnn.text import contexts
from charrnn.text.corpus import Corpus, prepare
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import loop, sizing
from charrnn.training.config import settings_from_json
from charrnn.training.events import Started
from charrnn.training.pretrained import Pretrained
from charrnn.training.resolve import resolve
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.trainer import Trainer

V, R, N = 260, 97, 4
SHAPE = Architecture("gru", V, 6, embedding=5, direct=N, direct_rows=R)
rng = np.random.default_rng(3)


def weights(architecture: Architecture = SHAPE) -> dict[str, NDArray[np.float32]]:
    """Draw weights whose tables say something, as trained ones do."""
    drawn = architecture.initial(1)
    drawn["direct"] = np.random.default_rng(4).normal(size=drawn["direct"].shape).astype(np.float32)
    return drawn


def by_hand(ids: list[int]) -> list[int]:
    """Return the rows for the last of some ids, as the module's docstring says, in Python's whole numbers."""
    found, h = [], 0
    for n in range(N):
        past = ids[: len(ids) - n]
        begun = V in ids[len(ids) - n :] if n else False
        c = V if begun or not past else past[-1]
        h = (contexts.P * h + contexts.Q * (c + 1)) % 2**31
        found.append(n * R + h * R // 2**31)
    return found


def test_rows_are_those_of_the_definition_in_both_libraries() -> None:
    text = [V, *rng.integers(250, V, 9).tolist(), V, *rng.integers(250, V, 5).tolist()]
    ids, before = np.array(text)[:, None], np.full((1, N - 1), V)
    expected = np.array([by_hand(text[: t + 1]) for t in range(len(text))]).T
    rows, after = contexts.rows_of_window(ids, before, V, R, np), contexts.after_window(ids, before, np)
    assert (rows[:, :, 0] == expected).all()
    assert after[0].tolist() == text[-N + 1 :]
    tensors = torch.tensor(ids), torch.tensor(before)
    of_torch = contexts.rows_of_window(*tensors, V, R, torch)
    after_torch = contexts.after_window(*tensors, torch)
    assert (of_torch.numpy() == rows).all()
    assert (after_torch.numpy() == after).all()


def test_a_window_shorter_than_what_is_remembered_goes_on_from_the_one_before() -> None:
    ids = rng.integers(250, V, (7, 2))
    start = np.full((2, N - 1), V)
    whole, last = contexts.rows_of_window(ids, start, V, R, np), contexts.after_window(ids, start, np)
    before, pieces = np.full((2, N - 1), V), []
    for id_ in ids:
        pieces.append(contexts.rows_of_window(id_[None], before, V, R, np))
        before = contexts.after_window(id_[None], before, np)
    assert (np.concatenate(pieces, axis=1) == whole).all()
    assert (before == last).all()


def test_rows_are_spread_as_those_of_chance() -> None:
    different = np.unique(rng.integers(256, 320, (40_000, 4)), axis=0)
    rows = contexts.rows(list(different.T), V, 1 << 15)[-1]
    by_chance = (1 << 15) * (1 - np.exp(-len(different) / (1 << 15)))
    assert len(np.unique(rows)) == pytest.approx(by_chance, rel=0.02)


def test_logits_are_the_network_s_and_the_rows_of_the_tables() -> None:
    own = weights()
    without = Architecture("gru", V, 6, embedding=5)
    network = CharRNN(without, {name: own[name] for name in without.shapes()}, "loop")
    model = CharRNN(SHAPE, own, "loop")
    ids = torch.tensor(rng.integers(250, V, (9, 3)))
    logits, after = model(ids, model.start(3))
    plain, _ = network(ids, network.start(3))
    rows = contexts.rows_of_window(ids, model.start(3)[-1][0], V, R, torch)
    said = torch.tensor(own["direct"])[rows].sum(dim=0)
    assert torch.allclose(logits[..., 256:], plain[..., 256:] + said, atol=1e-5)
    assert torch.equal(logits[..., :256], plain[..., :256])
    assert after[-1][0].tolist() == ids[-N + 1 :].T.tolist()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_decoder_gives_the_logits_of_the_model(library: Any) -> None:
    own, ids = weights(), np.array([V, *rng.integers(250, V, 12)])
    decoder, model = Decoder(SHAPE, own, library), CharRNN(SHAPE, own, "loop")
    logits, _ = decoder.logits(ids, decoder.start())
    with torch.no_grad():
        expected, _ = model(torch.tensor(ids)[:, None], model.start(1))
    assert np.allclose(logits, expected[:, 0].numpy(), atol=1e-5)


def test_a_document_knows_nothing_of_the_one_before_it() -> None:
    model = CharRNN(SHAPE, weights(), "loop")
    first, second = rng.integers(256, V, 8), rng.integers(256, V, 8)
    together = evaluation.stream_costs(model, np.concatenate([first, second]), starts=np.array([8]))
    alone = [evaluation.stream_costs(model, each) for each in (first, second)]
    assert np.allclose(together, np.concatenate(alone), atol=1e-6)


def test_ids_that_are_seen_get_the_columns_that_are_theirs() -> None:
    own = weights()
    model = CharRNN(SHAPE, own, "loop")
    for known in ([3, 256, 257, 258, 259], [256, 258], [1, 2]):
        is_seen = torch.zeros(V, dtype=torch.bool)
        is_seen[known] = True
        ids = torch.tensor(known)[rng.integers(0, len(known), (7, 2))]
        with torch.no_grad():
            whole, _ = model(ids, model.start(2))
            few, _ = model(ids, model.start(2), seen=Seen.among(is_seen, SHAPE.columns))
        assert torch.allclose(few[..., :-1], whole[..., known], atol=1e-5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("direct") / "text.txt"
    path.write_text("the cat sat on the mat and the dog ran to the cat. " * 60)
    return prepare(small(str(path)))


def trainer(corpus: Corpus, **changes: Any) -> Trainer:
    own = {"dropout": 0.0, "weight_dropout": 0.0, "direct": 3, "direct_rows": 512, **changes}
    asked = small(corpus.text.source, cell="gru", hidden=8, batch=4, window=16, steps=40, engine="loop", **own)
    return Trainer(resolve(asked, corpus, Machine(asked, corpus)), corpus)


def test_training_changes_the_rows_that_were_read_and_no_others(corpus: Corpus) -> None:
    one = trainer(corpus)
    one.update()
    ids, _, _ = one.streams.at(0)
    start = np.full((4, 2), one.architecture.start)
    rows = contexts.rows_of_window(ids, start, one.architecture.start, 512, np)
    changed = np.flatnonzero(np.abs(one.weights()["direct"]).sum(axis=1))
    assert set(changed.tolist()) == set(rows.ravel().tolist())
    sums = one.optimizer.moments["row_squares/direct"].numpy()
    assert set(np.flatnonzero(sums).tolist()) == set(changed.tolist())


def test_a_step_is_adagrad_s_with_a_sum_for_each_row_whether_gradients_are_sparse_or_not(corpus: Corpus) -> None:
    from charrnn.training.optimizers import Optimizer

    options = decided(direct=2, direct_rows=3, direct_rate=10.0)
    start, gradients = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(3, 6, 4)).astype(np.float32)
    gradients[:, 2] = 0
    expected, sums = start.astype(np.float64), np.zeros(6)
    for g in gradients:
        sums += (g.astype(np.float64) ** 2).mean(axis=1)
        expected -= 10 * 0.01 * g / (np.sqrt(sums) + 1e-8)[:, None]
    for sparse in (False, True):
        weight = torch.nn.Parameter(torch.tensor(start))
        optimizer = Optimizer(options, {"direct": weight})
        for g in gradients:
            dense = torch.tensor(g)
            weight.grad = dense.to_sparse(1) if sparse else dense
            optimizer.update(0.01)
        assert np.allclose(weight.detach().numpy(), expected, atol=1e-5)
        assert torch.equal(weight[2].detach(), torch.tensor(start[2]))


def test_tables_learn_what_a_small_network_cannot(corpus: Corpus) -> None:
    nats = []
    for orders in (0, 3):
        one = trainer(corpus, direct=orders, direct_rows=512 if orders else 0)
        for _ in range(40):
            one.update()
        nats.append(evaluation.estimate(one.model, corpus.parts["val"], corpus.tokenizer))
    assert nats[1] < nats[0] - 0.3


def test_tables_are_left_out_as_a_whole_for_a_row_of_a_window() -> None:
    own = weights()
    model = CharRNN(SHAPE, own, "loop", Dropout(tables=0.5))
    ids = torch.tensor(rng.integers(256, V, (6, 3)))
    start = model.start(3)
    said, _ = model(ids, start, torch.Generator().manual_seed(1))
    plain = CharRNN(SHAPE, {**own, "direct": np.zeros_like(own["direct"])}, "loop")(ids, start)[0]
    rows = contexts.rows_of_window(ids, start[-1][0], V, R, torch)
    each = torch.tensor(own["direct"])[rows] * 2  # (N, T, B, C)
    left = (said - plain)[..., 256:]
    for b in range(3):
        kept = [
            subset
            for subset in range(1 << N)
            if torch.allclose(
                left[:, b], sum((each[n, :, b] for n in range(N) if subset >> n & 1), torch.zeros(6, 4)), atol=1e-4
            )
        ]
        assert len(kept) == 1


def test_direct_connections_are_by_rule_and_none_are_where_none_were() -> None:
    asked = Settings(corpus=("t",), steps=500, hidden=64)

    def by_rule(characters: int = 10**6, vocabulary: int = 320, **changes: Any) -> Settings:
        return sizing.decide(asked.replace(**changes), sizing.Extent(characters, vocabulary, 64, 20.0), lambda: 1e9)

    assert by_rule().direct
    assert not by_rule(vocabulary=20_000).direct
    assert by_rule(direct=0).direct_rows == 0
    assert by_rule(vocabulary=20_000, direct=2).direct == 2
    once, often = by_rule(steps=None, epochs=1.0), by_rule(steps=None, epochs=30.0)
    assert once.direct_dropout == 0 < often.direct_dropout  # type: ignore[operator]
    values = decided().to_json().replace('"format": 7', '"format": 6')
    for name in ("direct", "direct_rows", "direct_rate", "direct_dropout"):
        values = values.replace(f' "{name}":', f' "gone_{name}":')
    import json

    older = {name: value for name, value in json.loads(values).items() if not name.startswith("gone_")}
    assert settings_from_json(json.dumps(older), "old").direct == 0


def test_tables_without_a_row_are_refused() -> None:
    with pytest.raises(CharRNNError, match="3 tables of direct connections, of 0 rows"):
        Architecture("gru", V, 6, direct=3)
    with pytest.raises(OptionError, match="no direct connections, and 5 rows"):
        Settings(corpus=("t",), direct=0, direct_rows=5)


def test_tables_are_left_out_of_a_configuration_that_has_them_by_one_word(corpus: Corpus) -> None:
    asked = decided(direct=3, direct_rows=50).as_settings().replace(direct=0, corpus=(corpus.text.source,))
    config = resolve(asked, corpus, Machine(asked, corpus))
    assert (config.direct, config.direct_rows) == (0, 0)
    with pytest.raises(OptionError, match="no direct connections, and 5 rows"):
        asked.replace(direct=0, direct_rows=5)


def test_tables_asked_for_beside_a_configuration_without_any_learn(corpus: Corpus) -> None:
    old = settings_from_json(trainer(corpus, direct=0, direct_rows=0).config.to_json(), "old")
    for asked in (old.replace(direct=3), old.replace(direct=3, steps=9)):
        one = Trainer(resolve(asked, corpus, Machine(asked, corpus)), corpus)
        assert one.config.direct_rows > 0
        one.update()
        assert one.weights()["direct"].any()


def test_a_width_is_decided_beside_tables_that_were_asked_for(corpus: Corpus) -> None:
    asked = small(corpus.text.source, hidden=None, budget=5, direct=4)
    config = resolve(asked, corpus, Machine(asked, corpus))
    assert config.hidden == resolve(asked.replace(direct=0), corpus, Machine(asked, corpus)).hidden
    assert config.direct == 4


def test_rows_that_were_asked_for_are_of_tables(corpus: Corpus) -> None:
    asked = small(corpus.text.source, direct_rows=50)
    config = resolve(asked, corpus, Machine(asked, corpus))
    assert (config.direct > 0, config.direct_rows) == (True, 50)
    assert asking.grid(asked).config.direct is None
    assert asking.grid(small(corpus.text.source)).config.direct == 0


def test_a_comparison_counts_the_parameters_of_networks(corpus: Corpus) -> None:
    with_tables = small(corpus.text.source, cell="gru", layers=1, direct=3, direct_rows=50)
    without = small(corpus.text.source, cell="gru", layers=1, direct=0)
    assert grid.parameters(with_tables, corpus.tokenizer, 9) == grid.parameters(without, corpus.tokenizer, 9)


def test_bytes_alone_have_columns_where_there_are_no_characters(corpus: Corpus) -> None:
    asked = small(corpus.text.source, tokenizer="byte", steps=9, direct=2, direct_rows=60, direct_rate=5.0)
    text = prepare(asked)
    one = Trainer(resolve(asked, text, Machine(asked, text)), text)
    losses = [float(one.update()) for _ in range(9)]
    assert one.weights()["direct"].shape == (120, 256)
    assert losses[-1] < losses[0] - 1


def test_memory_that_tables_fill_is_said_to_be_theirs() -> None:
    config, shape = decided(direct=6, direct_rows=10**6), Architecture("gru", V, 8, direct=6, direct_rows=10**6)
    assert "--direct-rows" in sizing.smaller(config, shape, "other")
    assert sizing.smaller(decided(), Architecture("gru", V, 8), "other") == "other"


def test_weights_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(CharRNNError, match="direct"):
        Architecture("gru", V, 6, embedding=5, direct=N, direct_rows=R + 1).check(weights())


@pytest.mark.parametrize("orders", [1, 2, 6])
def test_compiled_code_gives_the_logits_of_the_equations(orders: int) -> None:
    shape = Architecture("gru", V, 40, embedding=5, direct=orders, direct_rows=R)
    own, ids = weights(shape), np.array([V, *rng.integers(250, V, 6), V, *rng.integers(250, V, 5)])
    exact, compiled = Decoder(shape, own, "numpy"), CompiledDecoder(shape, own)
    expected, state = exact.logits(ids, exact.start())
    at_once, after = compiled.logits(ids, compiled.start())
    assert np.allclose(at_once, expected, atol=1e-5)
    one_by_one, state_now = [], compiled.start()
    for id_ in ids:
        logits, state_now = compiled.step(np.array([id_]), state_now)
        one_by_one.append(logits[0])
    assert np.allclose(one_by_one, expected, atol=1e-5)
    if orders > 1:
        assert after[-1][0].tolist() == state_now[-1][0].tolist() == state[-1][0].tolist()


@pytest.mark.parametrize("kept", ["float32", "bf16", "int8"])
def test_rows_side_by_side_draw_what_each_draws_alone(kept: Any) -> None:
    tokenizer = Tokenizer.char("abcdef gh")
    shape = Architecture("lstm", tokenizer.size, 24, embedding=5, direct=4, direct_rows=R)
    decoder, sampling = CompiledDecoder(shape, weights(shape), kept), Sampling(temperature=1.0, seed=3)
    state = decoder.read(np.array([shape.start, 258, 259]), decoder.start())
    primed = Primed(260, state, "")
    alone = [list(islice(decoder.drawn(primed, tokenizer, sampling, draws(3, n)), 70)) for n in range(7)]
    together = for_rows(decoder).drawn(primed, tokenizer, sampling, range(7))  # type: ignore[union-attr]
    assert [list(islice(row, 70)) for row in together] == alone
    exact = Decoder(shape, weights(shape), "numpy")
    if kept == "float32":
        logits, _ = exact.logits(np.array([shape.start, 258, 259, 260, *(id_ for id_, _ in alone[0])]), exact.start())
        costs = [cost(logits[3 + n], id_) for n, (id_, _) in enumerate(alone[0])]
        assert np.allclose(costs, [nats for _, nats in alone[0]], atol=1e-4)


def test_tables_begin_anew_where_a_second_text_moves_ids(corpus: Corpus, tmp_path: Path) -> None:
    base, text = Run(tmp_path / "base"), tmp_path / "other.txt"
    list(loop.new_run(small(corpus.text.source, steps=6, **DIRECT), base))
    text.write_text("THE cat met 2 dogs. " * 99)  # whose capitals are before all that were known
    pretrained = Pretrained.of(base)
    asked = pretrained.settings({"corpus": (str(text),), "steps": 3})
    said = list(loop.new_run(asked, Run(tmp_path / "two"), pretrained=pretrained))
    notes = next(event.notes for event in said if isinstance(event, Started))
    assert any("begin anew" in note for note in notes)
    other = prepare(asked, known=pretrained.tokenizer.characters)
    assert not pretrained.start(resolve(asked, other, Machine(asked, other)), other)["direct"].any()


@pytest.mark.parametrize("columns", [1, 16, 65, 130])
@pytest.mark.parametrize("kind", ["rows", "sparse", "dense"])
def test_a_compiled_step_is_torch_s(kind: str, columns: int) -> None:
    rows, shares = torch.tensor(rng.integers(0, 40, (4, 5, 3))), torch.tensor([[1.0, 0.0, 2.0]]).expand(4, 3)
    of_sum = torch.tensor(rng.normal(size=(5, 3, columns)).astype(np.float32))
    start = torch.tensor(rng.normal(size=(60, columns)).astype(np.float32))
    by_rows = RowGradient(rows, shares, of_sum)
    flat = by_rows.flat()
    sparse = torch.sparse_coo_tensor(flat[0][None], flat[1], start.shape, check_invariants=True)
    gradient = {"rows": by_rows, "sparse": sparse, "dense": sparse.to_dense()}[kind]
    for _ in range(2):  # room for a step is used again
        ways = [(start.clone(), torch.linspace(0, 1, 60)) for _ in range(2)]
        tables.step(ways[0][0], gradient, ways[0][1], 0.1, 1e-8)
        tables.by_torch(ways[1][0], *flat, ways[1][1], 0.1, 1e-8)
        for compiled, by_torch in zip(*ways, strict=True):
            assert torch.allclose(compiled, by_torch, atol=1e-5)
        assert torch.equal(ways[0][0][40:], start[40:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("orders", [1, 2, 5])
def test_what_is_looked_up_is_the_sum_of_the_rows(orders: int, dtype: torch.dtype) -> None:
    table = torch.tensor(rng.normal(size=(orders * R, 21)), dtype=dtype)
    ids, before = (
        torch.tensor(rng.integers(250, V + 1, (3, 7))),
        torch.tensor(rng.integers(250, V + 1, (7, orders - 1))),
    )
    shares = torch.tensor(rng.random((orders, 7)), dtype=dtype)
    expected = contexts.rows_of_window(ids, before, V, R, torch)
    for given in (None, shares):
        rows, summed = tables.look_up(table, ids, before, given, V, R)
        assert torch.equal(rows, expected)
        each = table[expected] if given is None else table[expected] * given[:, None, :, None]
        assert torch.allclose(summed, each.sum(dim=0), atol=1e-5)


@pytest.mark.parametrize("orders", [1, 4, 6])
def test_the_number_of_threads_changes_no_bit_of_what_tables_say_and_learn(orders: int) -> None:
    T, B, C = 40, 9, 37
    draw = torch.Generator().manual_seed(1)
    table, squares = torch.randn(orders * R, C, generator=draw), torch.rand(orders * R, generator=draw)
    ids, before = (torch.randint(V + 1, size, generator=draw) for size in ((T, B), (B, orders - 1)))
    shares, of_sum = torch.rand(orders, B, generator=draw), torch.randn(T, B, C, generator=draw)
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            rows, summed = tables.look_up(table, ids, before, shares, V, R)
            learned, sums = table.clone(), squares.clone()
            for _ in range(2):
                tables.step(learned, RowGradient(rows, shares, of_sum), sums, 0.1, 1e-8)
            found.append((rows, summed, learned, sums))
    finally:
        torch.set_num_threads(threads)
    assert T * B >= tables.PLACES
    for each in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], each, strict=True))


def test_adapting_learns_the_tables_too(corpus: Corpus) -> None:
    one = trainer(corpus)
    for _ in range(40):
        one.update()
    text = corpus.tokenizer.encode("a zebra ate the oats. " * 30)
    costs = []
    for how in (Adaptation(table_rate=0.0), Adaptation()):
        model = CharRNN(one.architecture, one.weights(), "loop")
        adapting = Adapting(model, how)
        costs.append(adapting.costs(text))
        changed = np.abs(adapting.weights()["direct"] - one.weights()["direct"]).sum(axis=1)
        assert (np.count_nonzero(changed) > 0) == (how.table_rate > 0)
    assert np.allclose(costs[0][:32], costs[1][:32])  # scored before it is learned
    assert costs[1].mean() < costs[0].mean() - 0.02


DIRECT = {"direct": 3, "direct_rows": 512, "direct_rate": 3.0, "direct_dropout": 0.3}


def test_a_run_with_tables_cut_off_goes_on_to_the_last_bit(corpus: Corpus, tmp_path: Path) -> None:
    asked = small(corpus.text.source, steps=6, validate_every=2, **DIRECT)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    list(loop.new_run(asked, whole))
    calls = iter(range(100))
    list(loop.new_run(asked, cut, stop=lambda: next(calls) >= 2))
    assert cut.about()["step"] < 6
    list(loop.resume(cut))
    for name, value in whole.weights("last").items():
        np.testing.assert_array_equal(value, cut.weights("last")[name], err_msg=name)


def test_a_second_text_has_new_columns_and_the_old_ones_of_the_first(corpus: Corpus, tmp_path: Path) -> None:
    base, text = Run(tmp_path / "base"), tmp_path / "other.txt"
    list(loop.new_run(small(corpus.text.source, steps=6, **DIRECT), base))
    text.write_text("the cat {sat} on čž. " * 99)  # of which the new letters are after all others
    pretrained = Pretrained.of(base)
    asked = pretrained.settings({"corpus": (str(text),), "steps": 3})
    other = prepare(asked, known=pretrained.tokenizer.characters)
    start = pretrained.start(resolve(asked, other, Machine(asked, other)), other)["direct"]
    old, known = base.weights("best")["direct"], base.tokenizer().characters
    assert start.shape[1] > old.shape[1]
    for column, character in enumerate(other.tokenizer.characters):
        expected = old[:, known.index(character)] if character in known else np.zeros(len(old), np.float32)
        np.testing.assert_array_equal(start[:, column], expected, err_msg=character)
    assert not pretrained.notes(other.tokenizer)
    with pytest.raises(OptionError, match="direct is 2, that of base is 3"):
        pretrained.settings({"corpus": (str(text),), "direct": 2})
