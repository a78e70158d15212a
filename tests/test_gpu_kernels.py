"""On a GPU: what was compiled and recorded for it computes what the equations say, and repeats to the last bit.

    python -m pytest -m gpu tests/test_gpu_kernels.py

What it runs was tried before in Triton's interpreter and with a stand-in for torch's recording: tests/test_on_chip.py,
tests/test_graphed.py, tests/test_graphed_completing.py.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config

from charrnn import cells, engines
from charrnn.engines import agreement, on_chip
from charrnn.engines.sequence import States
from charrnn.generate.decoder import Decoder
from charrnn.generate.graphed import GraphedDecoder
from charrnn.generate.sampling import Sampling, drawn_step_by_step, draws, generate, read_prime
from charrnn.model.architecture import Architecture
from charrnn.text.corpus import prepare
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import resolve
from charrnn.training.loop import Trainer
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of

pytestmark = pytest.mark.gpu

TAKEN = [name for name in cells.names() if "triton" in engines.names_for(cells.get(name), "cuda")]
STEPS = 14


@pytest.mark.parametrize("H", [64, 100])
@pytest.mark.parametrize("name", TAKEN)
def test_kernels_compute_what_the_equations_say(name: str, H: int) -> None:
    """With more rows and columns than a program has, so that programs meet."""
    cell, dtype = cells.get(name), torch.bfloat16
    shapes = {key: tuple(param.shape) for key, param in cell.shapes(H, H).items()}
    p = cell.pack({key: torch.zeros(shape) for key, shape in shapes.items()})
    z = cell.inputs(torch.zeros(1, H), p)
    code = on_chip.compiled(on_chip.written(cell, shapes, z.shape[-1], H))

    def ran(rows: Any, index: Any, states: States, p: Any) -> Any:
        z = torch.nn.functional.embedding(index, cell.inputs(rows, p))
        return on_chip.run_code(code, tiling, dtype, z, states, {key: getattr(p, key) for key in p._fields})

    for tiling in on_chip.tilings(40, H, code.kernels.tiles, 2, 132):
        assert agreement.difference(cell, shapes, H, H, dtype, ran, "cuda") is None, tiling


@pytest.mark.parametrize("orders", [0, 4])
@pytest.mark.parametrize("engine", ["triton", "fused", "loop"])
def test_recorded_steps_are_those_that_are_not(engine: str, orders: int, corpus: str) -> None:
    changes = {"direct": orders, "direct_rows": 4096, "direct_dropout": 0.3} if orders else {"dropout": 0.3}
    asked = config(corpus, steps=STEPS, layers=2, engine=engine, device="cuda", precision="bf16", **changes)
    text = prepare(asked)
    settled = resolve.resolve(asked, text, Machine(asked, text))
    found = []
    with threads_of(settled), warnings.catch_warnings():
        warnings.simplefilter("error")  # it can be recorded
        for records in (True, False, True):
            trainer = Trainer(settled, text)
            trainer.graphed.records_steps = records  # type: ignore[union-attr]
            losses = [float(trainer.update()) for _ in range(STEPS)]
            found.append((losses, trainer.weights()))
    for losses, weights in found[1:]:
        assert losses == found[0][0]
        assert all(np.array_equal(weights[key], value) for key, value in found[0][1].items())


@pytest.mark.parametrize("how", [Sampling(seed=3), Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=4)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "layernorm-lstm", "sru"])
def test_what_a_gpu_draws_is_what_the_contract_says(cell: str, how: Sampling) -> None:
    """Logits are another device's, so a u may lie between two borders: not within so few characters, by the odds."""
    tokenizer = Tokenizer.char("abcdefghijklmnopqrstuvwxyz .\n")
    architecture = Architecture(cell, tokenizer.size, 64, 2, 32)
    weights = architecture.initial(5)
    fast, plain = GraphedDecoder(architecture, weights), Decoder(architecture, weights)
    expected = []
    for n in range(3):
        drawn = generate(plain, tokenizer, read_prime(plain, tokenizer, "abc"), how, n)
        expected.append("".join(next(drawn).character for _ in range(60)))
    together = fast.drawn_together(read_prime(fast, tokenizer, "abc"), tokenizer, how, range(3))
    for n, ids in enumerate(
        [*together, fast.drawn(read_prime(fast, tokenizer, "abc"), tokenizer, how, draws(how.seed, 0))]
    ):
        drawn = generate(fast, tokenizer, read_prime(fast, tokenizer, "abc"), how, n % 3, ids=ids)
        assert "".join(next(drawn).character for _ in range(60)) == expected[n % 3]


@pytest.mark.parametrize("orders", [1, 6])
def test_many_rows_with_tables_are_what_the_contract_says(orders: int) -> None:
    tokenizer, how, rng = Tokenizer.char("abcdefghijklmnopqrstuvwxyz .\n"), Sampling(seed=3), np.random.default_rng(1)
    architecture = Architecture("gru", tokenizer.size, 64, 2, 32, direct=orders, direct_rows=1 << 15)
    weights = architecture.initial(5)
    weights["direct"] = rng.standard_normal(weights["direct"].shape).astype(np.float32)
    fast, plain = GraphedDecoder(architecture, weights), Decoder(architecture, weights, "numpy")
    for prime in ("abc", "z"):  # the second one finds the recording of the first
        rows = fast.drawn_together(read_prime(fast, tokenizer, prime), tokenizer, how, range(1000))
        found = [[next(row)[0] for row in rows] for _ in range(60)]  # all move on together
        for n in (0, 1, 500, 999):
            drawn = plain_ids(plain, tokenizer, prime, how, n)
            assert [ids[n] for ids in found] == [next(drawn) for _ in range(60)], n
        del rows
    ids = rng.integers(0, tokenizer.size + 1, (8, 20))  # a step by itself, with texts that begin
    states = fast.start(20), plain.start(20)
    for each in ids:
        (logits, first), (expected, second) = (d.step(each, s) for d, s in zip((fast, plain), states, strict=True))
        states = first, second
        assert np.allclose(logits, expected, atol=1e-4)


def plain_ids(decoder: Decoder, tokenizer: Tokenizer, prime: str, how: Sampling, n: int) -> Iterator[int]:
    primed = read_prime(decoder, tokenizer, prime)
    drawn = drawn_step_by_step(decoder, primed, tokenizer, how, draws(how.seed, n), None, None)
    return (id_ for id_, _ in drawn)


def test_memory_that_does_not_suffice_is_told_with_a_batch_that_fits(corpus: str) -> None:
    from charrnn.errors import CharRNNError
    from charrnn.training import memory

    asked = config(corpus, steps=2, device="cuda")
    text = prepare(asked)
    settled = resolve.resolve(asked, text, Machine(asked, text))
    told = r"of the CUDA device does not suffice.*--batch \d+ would fit"
    with pytest.raises(CharRNNError, match=told), memory.explained(settled, text):
        torch.empty(1 << 50, device="cuda")
