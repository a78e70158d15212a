"""On a GPU: what was compiled and recorded for it computes what the equations say, and repeats to the last bit.

    python -m pytest -m gpu tests/test_gpu_kernels.py

What it runs was tried before in Triton's interpreter and with a stand-in for torch's recording: tests/test_on_chip.py,
tests/test_graphed.py, tests/test_graphed_completing.py.
"""

import warnings
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
from charrnn.generate.sampling import Sampling, draws, generate, read_prime
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


@pytest.mark.parametrize("engine", ["triton", "fused", "loop"])
def test_recorded_steps_are_those_that_are_not(engine: str, corpus: str) -> None:
    asked = config(corpus, steps=STEPS, layers=2, engine=engine, device="cuda", precision="bf16", dropout=0.3)
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


def test_memory_that_does_not_suffice_is_told_with_a_batch_that_fits(corpus: str) -> None:
    from charrnn.errors import CharRNNError
    from charrnn.training import memory

    asked = config(corpus, steps=2, device="cuda")
    text = prepare(asked)
    settled = resolve.resolve(asked, text, Machine(asked, text))
    told = r"of the CUDA device does not suffice.*--batch \d+ would fit"
    with pytest.raises(CharRNNError, match=told), memory.explained(settled, text):
        torch.empty(1 << 50, device="cuda")
