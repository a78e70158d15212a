"""Compiled code is tried when it is compiled, and kept then: what is wrong on a processor is said and not used."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn import cells
from charrnn.cells import ops
from charrnn.compiler import cache
from charrnn.engines import agreement
from charrnn.errors import CharRNNError, WrongCodeWarning
from charrnn.generate import decoders, rows
from charrnn.generate.compiled import CompiledDecoder
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text.tokenizer import Tokenizer

IDS = torch.arange(24).view(6, 4) % 9


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of compiled code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return tmp_path


def kept() -> int:
    """Count the files of compiled code."""
    return len(list(cache.folder().glob("native-*.o"))) if cache.folder().exists() else 0


def logits(engine: str, hidden: int) -> torch.Tensor:
    architecture = Architecture("lstm", 9, hidden, 1, 5)
    model = CharRNN(architecture, architecture.initial(seed=3), engine)
    found, _ = model(IDS, model.start(4))
    return found.detach()


def break_code_of_tanh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code that is compiled from now on compute another function; NumPy and torch know the right one."""
    sigmoid = ops.sigmoid
    broken = dataclasses.replace(ops.tanh, llvm=sigmoid.llvm)
    monkeypatch.setitem(ops.TABLE, "tanh", broken)


def test_wrong_code_for_training_is_said_and_not_kept_and_the_loop_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_code_of_tanh(patch)
        with pytest.warns(WrongCodeWarning, match="code compiled for lstm computes something else .* the loop"):
            found = logits("native", 11)
        assert kept() == 0
        assert torch.equal(found, logits("loop", 11))
        assert torch.equal(logits("native", 11), found)  # it is not compiled again in this process, nor said again


def test_right_code_for_training_is_tried_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    files_while_tried = []
    real = agreement.difference
    monkeypatch.setattr(agreement, "difference", lambda *given: files_while_tried.append(kept()) or real(*given))  # type: ignore[func-returns-value]
    for _ in range(2):
        torch.testing.assert_close(logits("native", 10), logits("loop", 10))
    assert files_while_tried == [0]  # so a process that is killed meanwhile leaves no code that nobody tried
    assert kept() == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["output", "gradient", "nan"])
def test_a_difference_anywhere_is_found(part: str, dtype: torch.dtype) -> None:
    """Here the loop stands in for compiled code, once right and once wrong."""
    cell = cells.get("lstm")
    shapes = {name: param.shape for name, param in cell.shapes(7, 6).items()}

    def run(x: torch.Tensor, index: torch.Tensor, states: tuple[torch.Tensor, ...], p: object, wrong: bool) -> object:
        with torch.autocast("cpu", enabled=False):
            y, after = agreement.loop.run(cell, x[index], states, p)
        if wrong and part == "output":
            return torch.cat([y[:-1], y[:1]]), after
        if wrong and part == "nan":
            return y * torch.nan, after
        if wrong:  # the right numbers, half of whose gradient is missing
            return (y + y.detach()) / 2, after
        return y, after

    for wrong in (False, True):
        found = agreement.difference(cell, shapes, 7, 6, dtype, lambda *given, wrong=wrong: run(*given, wrong))  # type: ignore[misc, arg-type, return-value]
        assert (found is not None) == wrong, found


def test_equations_that_overflow_are_no_difference() -> None:
    cell = dataclasses.replace(cells.get("simple"), step=lambda z, state, p: (z / 0.0 * 0.0, state))
    shapes = {name: param.shape for name, param in cell.shapes(7, 6).items()}

    def run(x: torch.Tensor, index: torch.Tensor, states: tuple[torch.Tensor, ...], p: object) -> object:
        return agreement.loop.run(cell, x[index], states, p)

    assert agreement.difference(cell, shapes, 7, 6, torch.float32, run) is None  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bf16", "int8"])
def test_wrong_code_for_completing_is_said_and_not_kept_and_torch_completes(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = Architecture("lstm", 40, 12, 1, 6)
    weights = architecture.initial(seed=3)
    with monkeypatch.context() as patch:
        break_code_of_tanh(patch)
        with pytest.raises(CharRNNError, match="computes something else than its equations on this processor"):
            CompiledDecoder(architecture, weights, dtype)
        assert kept() == 0
        if dtype == "float32":
            decoder = decoders.make(architecture, weights, "cpu")
            assert not decoder.is_compiled
            assert "torch decodes, which is slower" in decoder.notes[0]
    decoder = CompiledDecoder(architecture, weights, dtype)
    assert kept() == 1
    exact = decoders.Decoder(architecture, weights, "numpy")
    found, expected = (d.step(np.array([3]), d.start())[0] for d in (decoder, exact))
    assert np.abs(found - expected).max() < (1e-5 if dtype == "float32" else 0.1) * np.abs(expected).max()


def test_wrong_code_for_many_rows_is_said_and_not_kept_and_they_are_decoded_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = Tokenizer.char("abcd ")
    architecture = Architecture("lstm", tokenizer.size, 12, 1, 6)
    decoder = CompiledDecoder(architecture, architecture.initial(seed=3))
    with monkeypatch.context() as patch:
        break_code_of_tanh(patch)
        with pytest.warns(WrongCodeWarning, match="something else than its equations .*: many completions are decoded"):
            together = rows.in_groups(decoder, tokenizer, 4)
        assert isinstance(together.each[0], rows.OneAfterTheOther)
        assert kept() == 1  # that for one row
    assert isinstance(rows.in_groups(decoder, tokenizer, 4).each[0], rows.Rows)
    assert kept() == 2
