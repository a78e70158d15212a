"""The scan: the step-by-step form over a whole sequence, in value and in gradient, for any gates and carried state."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from charrnn import cells, engines
from charrnn.cells.cell import Cell
from charrnn.engines import scan as scan_engine
from charrnn.engines.recurrence import scan

LINEAR = [name for name in cells.names() if cells.get(name).linear]
BLOCKS = [None, 1, 7, 64, 4096]
EPS = float(np.finfo(np.float32).eps)


def sequential(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    states = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states)


def extreme(T: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Gates at 0, at 1, within 1e-6 of either, and anywhere, mixed over units; what enters keeps h within about 10."""
    rng = np.random.default_rng(0)
    u, kind = rng.random((T, 3, 40)), np.arange(40) % 5
    a = np.choose(kind, [u < 0.5, np.ones_like(u), 1e-6 * u, 1 - 1e-6 * u, u])
    a[:, :, 5] = -a[:, :, 5]  # and a gate below 0, which no logarithm knows
    b = rng.standard_normal((T, 3, 40)) * np.choose(kind, [1, 0.01, 1, 0.01, 1]) * np.where(kind == 0, u > 0.9, 1)
    h = 10 * rng.standard_normal((3, 40))
    a_t, b_t, h_t = (torch.tensor(x, dtype=torch.float32).to(dtype) for x in (a, b, h))
    return a_t, b_t, h_t


def test_4096_steps_of_extreme_gates_are_the_sequential_form_to_the_last_bit() -> None:
    a, b, h = extreme(4096)
    assert torch.equal(scan(a, b, h), sequential(a, b, h))


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_of_any_length_agree_in_float64(block: int | None) -> None:
    a, b, h = extreme(4096, torch.float64)
    assert torch.allclose(scan(a, b, h, block), sequential(a, b, h), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("block", BLOCKS)
def test_float32_is_as_near_to_the_truth_as_the_sequential_form(block: int | None) -> None:
    a, b, h = extreme(4096)
    truth = sequential(a.double(), b.double(), h.double())
    largest = truth.abs().amax(0).clamp(min=1)

    def error(states: Tensor) -> float:
        return float(((states - truth).abs() / largest).max())

    # Where a is nearly 1 every step may err by half a unit in the last place, in the sequential form as in any other.
    assert error(scan(a, b, h, block)) <= max(error(sequential(a, b, h)), 1e-6)
    short = a < 0.999  # where the gate forgets, errors do not add up
    a, b = torch.where(short, a, 0), torch.where(short, b, 0)
    truth = sequential(a.double(), b.double(), h.double())
    assert error(scan(a, b, h, block)) <= 1e-6


@pytest.mark.parametrize("block", [None, 1, 3, 4, 11, 20])
@pytest.mark.parametrize("T", [1, 2, 11])
def test_gradients_are_those_of_the_recurrence(T: int, block: int | None) -> None:
    a, b, h = (x[..., :6].clone().requires_grad_() for x in extreme(T, torch.float64))
    assert torch.autograd.gradcheck(lambda a, b, h: scan(a, b, h, block), (a, b, h))


@pytest.mark.parametrize("block", [None, 64])
def test_gradients_over_4096_steps_are_those_of_the_sequential_form(block: int | None) -> None:
    gradients = []
    for run in (lambda *x: scan(*x, block), sequential):
        leaves = [x.requires_grad_() for x in extreme(4096, torch.float32 if block is None else torch.float64)]
        states = run(*leaves)
        weight = torch.cos(torch.arange(states.numel())).view_as(states)
        gradients.append(torch.autograd.grad((states * weight).sum() + states[-1].sum(), leaves))
    for ours, theirs in zip(*gradients, strict=True):
        if block is None:
            assert torch.equal(ours, theirs)
        else:
            assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-11 * float(theirs.abs().max()))


@pytest.mark.parametrize("block", BLOCKS)
def test_splitting_a_sequence_anywhere_changes_nothing(block: int | None) -> None:
    a, b, h = extreme(130, torch.float64)
    whole = scan(a, b, h, block)
    for t in (1, 63, 64, 129):
        first = scan(a[:t], b[:t], h, block)
        second = scan(a[t:], b[t:], first[-1], block)
        assert torch.allclose(torch.cat((first, second)), whole, rtol=1e-12, atol=1e-12)


def test_nothing_given_is_modified_and_a_fixed_gate_is_broadcast() -> None:
    a, b, h = extreme(9)
    before = [x.clone() for x in (a, b, h)]
    scan(a, b, h, 3)
    assert all(torch.equal(x, y) for x, y in zip((a, b, h), before, strict=True))
    fixed = a[0, 0]
    assert torch.equal(scan(fixed, b, h), scan(fixed.expand_as(b).contiguous(), b, h))


def test_halves_are_accumulated_in_float32() -> None:
    a, b, h = (x.bfloat16() for x in extreme(200))
    assert torch.equal(scan(a, b, h), sequential(a.float(), b.float(), h.float()))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_cell_scanned_is_the_cell_looped_in_value_and_gradient(name: str, dtype: torch.dtype) -> None:
    cell = cells.get(name)
    results = []
    for engine in ("scan", "loop"):
        x, state, p, leaves = problem(cell, T=70, B=3, I=5, H=6, dtype=dtype)
        y, (last,) = engines.named(engine).run(cell, x, (state,), p)
        loss = (y * torch.cos(torch.arange(y.numel(), dtype=dtype)).view_as(y)).sum() + (last * last).sum()
        results.append([y, last, *torch.autograd.grad(loss, leaves)])
    # Values differ by how the matrix products of one step and of all are summed, gradients by the order of their sums.
    bound = 1e-12 if dtype == torch.float64 else 64 * EPS
    for scanned, looped in zip(*results, strict=True):
        assert scanned.dtype == dtype
        assert (scanned - looped).abs().max() <= bound * looped.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("chunk", [1, 100, 1 << 17])
def test_looking_characters_up_after_the_gates_changes_nothing_nor_does_the_length_of_pieces(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cells.get(name)
    monkeypatch.setattr(scan_engine, "CHUNK", chunk)
    table, state, p, leaves = problem(cell, T=1, B=9, I=5, H=6, dtype=torch.float64)
    ids = torch.tensor(np.random.default_rng(2).integers(0, 9, (50, 9)))
    results = []
    for engine in ("scan", "loop"):
        y, (last,) = engines.named(engine).run(cell, (table[0], ids), (state,), p)
        results.append([y, last, *torch.autograd.grad(torch.cos(y).sum() + last.sum(), leaves)])
    for scanned, looped in zip(*results, strict=True):
        assert torch.allclose(scanned, looped, rtol=1e-11, atol=1e-11)


def test_a_gate_that_no_input_moves_can_be_scanned() -> None:
    cell = dataclasses.replace(cells.get("mingru"), step=None, gates=lambda z, p: (p.b[:6] / 2, z[..., :6]))
    x, state, p, _ = problem(cell, T=20, B=3, I=5, H=6, dtype=torch.float64)
    ids = torch.arange(60).view(20, 3) % 3
    for given in (x, (x[0], ids)):
        scanned, looped = (engines.named(engine).run(cell, given, (state,), p)[0] for engine in ("scan", "loop"))
        assert torch.allclose(scanned, looped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_cells_are_scanned_unless_asked_otherwise(name: str) -> None:
    assert engines.choose(cells.get(name), "auto").name == "scan"
    assert engines.choose(cells.get(name), "loop").name == "loop"


@pytest.mark.timing
@pytest.mark.parametrize("name", LINEAR)
def test_from_64_steps_the_scan_is_faster_than_the_loop(name: str) -> None:
    cell = cells.get(name)
    x, state, p, leaves = problem(cell, T=64, B=32, I=128, H=256, dtype=torch.float32)
    seconds: dict[str, list[float]] = {"scan": [], "loop": []}
    for _ in range(7):
        for engine, taken in seconds.items():
            began = time.perf_counter()
            y, _ = engines.named(engine).run(cell, x, (state,), p)
            torch.autograd.grad(y.sum(), leaves)
            taken.append(time.perf_counter() - began)
    assert min(seconds["scan"]) < min(seconds["loop"])


def problem(
    cell: Cell, T: int, B: int, I: int, H: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, object, list[Tensor]]:
    """Inputs, a carried state and parameters of a cell, and all of these as leaves that want gradients."""
    rng = np.random.default_rng(1)
    values = cell.initial(rng, I, H)
    leaves = [torch.tensor(v + 0.1 * rng.standard_normal(v.shape), dtype=dtype) for v in values.values()]
    x = torch.tensor(rng.standard_normal((T, B, I)), dtype=dtype)
    state = torch.tensor(rng.standard_normal((B, H)), dtype=dtype)
    wanted = [leaf.requires_grad_() for leaf in (x, state, *leaves)]
    return x, state, cell.pack(leaves), wanted
