"""The engines: each gives what the equations' loop gives, in value and in every gradient, for every cell."""

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config
from torch import Tensor

from charrnn import cells, engines
from charrnn.cells import ops
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import zeros
from charrnn.compiler import blocks
from charrnn.compiler.processor import processor
from charrnn.compiler.training import derivative
from charrnn.compiler.training import threads as team
from charrnn.engines import fused
from charrnn.engines.compiled import LONG
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import prepare
from charrnn.training import loop, resolve, speed
from charrnn.training.config import Config
from charrnn.training.run import Run
from charrnn.training.settings import Plan, Settings

OTHERS = [(cell, engine) for cell in cells.names() for engine in engines.names_for(cells.get(cell)) if engine != "loop"]
NATIVE, FUSED = ([cell for cell, engine in OTHERS if engine == each] for each in ("native", "fused"))
EXACT = 1e-10


def equations(cell: Cell, I: int, H: int) -> blocks.Equations:
    return derivative.trace(cell, {name: param.shape for name, param in cell.shapes(I, H).items()}, I, H)


# Cells with operations that look across features, and some of the others: a cell is compiled for about a second.
ACROSS = [name for name in NATIVE if equations(cells.get(name), 6, 4).across]
EXAMPLES = sorted({*NATIVE[::5], *ACROSS})


def model(cell: str, engine: str, **sizes: Any) -> CharRNN:
    architecture = Architecture(**{"cell": cell, "vocabulary": 11, "hidden": 10, "layers": 2, "embedding": 6, **sizes})
    return CharRNN(architecture, architecture.initial(5), engine).double()


def outcome(network: CharRNN, T: int, B: int) -> dict[str, Tensor]:
    """Logits, last states and every gradient after two windows, the second with the state of the first."""
    rng = np.random.default_rng(T)
    ids = torch.tensor(rng.integers(0, 12, (2 * T, B)))
    _, state = network(ids[:T], network.start(B))
    start = [[s.detach().clone().requires_grad_() for s in layer] for layer in state]
    logits, state = network(ids[T:], tuple(map(tuple, start)))
    last = [s for layer in state for s in layer]
    weighted = [(t * torch.tensor(rng.standard_normal(t.shape))).sum() for t in (logits, *last)]
    torch.autograd.backward(torch.stack(weighted).sum())
    found = {"logits": logits.detach()} | {f"state {i}": s.detach() for i, s in enumerate(last)}
    found |= {name: w.grad for name, w in network.weights.items() if w.grad is not None}
    found |= {f"start {i}": s.grad for i, s in enumerate(s for layer in start for s in layer) if s.grad is not None}
    return found


def some(quick: list[tuple[Any, ...]], every: list[tuple[Any, ...]]) -> list[Any]:
    """All parameters of a test, of which all but the quick ones are marked as slow."""
    assert quick
    assert set(quick) <= set(every)
    return [each if each in quick else pytest.param(*each, marks=pytest.mark.long) for each in every]


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    # An engine may give zeros where another says that there is no gradient.
    for name in set(a) | set(b):
        left, right = (d.get(name, torch.zeros(())) for d in (a, b))
        assert torch.allclose(left, right, rtol=tolerance, atol=tolerance), name


# Every cell and engine is compared with the loop in tests/test_cells.py too, at one size.
SOME_OTHERS = [(cell, engine) for cell, engine in OTHERS if engine != "native" or cell in EXAMPLES]


@pytest.mark.parametrize(("cell", "engine"), some(SOME_OTHERS, OTHERS))
def test_an_engine_gives_the_loops_numbers_and_gradients(cell: str, engine: str) -> None:
    # 5 x 3 characters are more than the table's 12 rows, which are put through inputs() once; 2 x 3 are fewer.
    for T, B in ((5, 3), (2, 3)):
        assert_equal(outcome(model(cell, "loop"), T, B), outcome(model(cell, engine), T, B), EXACT)


@pytest.mark.parametrize(
    "sizes", [{"embedding": None}, {"tie": True, "embedding": 10}, {"residual": True, "hidden": 7}]
)
def test_the_compiled_engine_knows_every_architecture(sizes: dict[str, Any]) -> None:
    for cell in ("lstm", "gru"):
        assert_equal(outcome(model(cell, "loop", **sizes), 5, 9), outcome(model(cell, "native", **sizes), 5, 9), EXACT)


def test_the_compiled_engine_runs_every_cell() -> None:
    assert cells.names() == NATIVE
    assert ACROSS


def test_an_operation_without_a_compiled_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ops.TABLE, "layernorm", dataclasses.replace(ops.layernorm, llvm=None))
    with pytest.raises(blocks.UnsupportedError, match="layernorm"):
        equations(cells.get(ACROSS[0]), 6, 4)


def normed_step(z: Any, h: Any, p: Any) -> Any:
    return ops.tanh(z + ops.matmul(h, p.U))


def normed_gate(z: Any, h: Any, p: Any) -> Any:
    g = ops.matmul(h, p.U)
    f = ops.sigmoid(ops.layernorm(z + g) * p.gain)
    return f * h + (1 - f) * ops.tanh(z - g)


# Where a user's cell may normalise: what z is of x, and what h becomes by z, h and s, a sum of z.
Place = tuple[Callable[[Any, Any], Any], Callable[[Any, Any, Any, Any], Any]]
PLACES: dict[str, Place] = {
    "the state": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: normed_step(z, ops.layernorm(h) * p.gain, p),
    ),
    "the state, read before a product and after": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: normed_step(z, ops.layernorm(h), p) * ops.layernorm(h) + p.gain,
    ),
    "x, read before a product and long after": (
        lambda x, p: ops.layernorm(ops.matmul(x, p.W)),
        lambda z, h, s, p: ops.layernorm(ops.tanh(ops.matmul(z * h, p.U))) * p.gain + z,
    ),
    "a second state, read before a product and long after": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: ops.layernorm(ops.tanh(ops.matmul(ops.layernorm(s) * h, p.U))) * p.gain + ops.layernorm(s),
    ),
    "the new state": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: ops.layernorm(z + ops.matmul(h, p.U)) * p.gain,
    ),
    "a gate": (lambda x, p: ops.matmul(x, p.W), lambda z, h, s, p: normed_gate(z, h, p)),
    "twice in a row": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: ops.layernorm(ops.layernorm(ops.tanh(z + ops.matmul(h, p.U))) * p.gain + z),
    ),
    "without a product": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: ops.layernorm(z + h / 2) * p.gain + h / 2,
    ),
    "x": (lambda x, p: ops.matmul(ops.layernorm(x), p.W), lambda z, h, s, p: normed_step(z, h, p)),
    "blocks of two widths": (
        lambda x, p: ops.matmul(ops.layernorm(ops.concat(ops.matmul(x, p.W), x)), p.V) * p.gain,
        lambda z, h, s, p: normed_step(z, h, p),
    ),
    "a block twice": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: (
            sum(ops.split(ops.layernorm(ops.concat(normed_step(z, h, p), normed_step(z, h, p))), 2)) * p.gain
        ),
    ),
    "one of two blocks": (
        lambda x, p: ops.matmul(x, p.W),
        lambda z, h, s, p: ops.split(ops.layernorm(ops.concat(normed_step(z, h, p), h)), 2)[0] * p.gain,
    ),
    "a parameter": (
        lambda x, p: ops.matmul(x, p.W) + ops.layernorm(p.gain),
        lambda z, h, s, p: normed_step(z, h, p),
    ),
    "before two products in a row": (
        lambda x, p: ops.layernorm(ops.matmul(x, p.W)),
        lambda z, h, s, p: z * normed_step(z, ops.layernorm(normed_step(z, h, p)) * p.gain, p),
    ),
}


def ran(where: str, engine: str, I: int, H: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs, the last state and all gradients of a cell that normalises somewhere, from a carried state."""
    inputs, step = PLACES[where]

    def state_and_output(z: Any, state: Any, p: Any) -> Any:
        h, s = state
        h = step(z, h, s, p)
        return h, (h, s / 2 + z)

    shapes = {"W": (I, H), "U": (H, H), "V": (H + I, H), "gain": (H,)}
    cell = Cell(
        name=f"normalises {where}",
        summary="",
        source="",
        parameters={name: Param("H", zeros) for name in shapes},  # their names alone are asked for
        state={"h": 0, "s": 0},
        inputs=inputs,
        step=state_and_output,
    )
    rng = np.random.default_rng(1)

    def some_numbers(*shape: int) -> Tensor:
        return torch.tensor(rng.standard_normal(shape)).to(dtype).requires_grad_()

    p = cell.pack([some_numbers(*shape) for shape in shapes.values()])
    given = dict(zip(shapes, p, strict=True)) | {"x": some_numbers(5, 9, I), "h": some_numbers(9, H)}
    given["s"] = some_numbers(9, H)
    y, (h, s) = engines.named(engine).run(cell, given["x"], (given["h"], given["s"]), p)
    torch.autograd.backward((y * torch.tensor(rng.standard_normal(y.shape))).sum() + (h * h).sum() + (s * s).sum())
    with torch.no_grad():  # where nothing is kept for the derivative
        alone, _ = engines.named(engine).run(cell, given["x"], (given["h"], given["s"]), p)
    found = {"y": y, "last h": h, "last s": s, "read": alone} | {
        f"d{name}": t.grad for name, t in given.items() if t.grad is not None
    }
    return {name: tensor.detach() for name, tensor in found.items()}


@pytest.mark.parametrize("where", PLACES)
def test_an_operation_across_features_may_stand_anywhere(where: str) -> None:
    for I, H in ((6, 5), (5, 5), (13, 24)):
        assert_equal(ran(where, "loop", I, H, torch.float64), ran(where, "native", I, H, torch.float64), EXACT)


@pytest.mark.parametrize("mixed", ["other blocks", "another number of blocks"])
def test_arrays_that_are_cut_into_blocks_otherwise_are_left_to_another_engine(mixed: str) -> None:
    """Of 6 inputs and 4 hidden features: 4 and 6 against 6 and 4, or against the 10 that a vector is."""

    def inputs(x: Any, p: Any) -> Any:
        joined = ops.concat(p.b, x)
        return ops.matmul(joined + (ops.concat(x, p.b) if mixed == "other blocks" else p.wide), p.W)

    shapes = {"W": (10, 4), "b": (4,), "wide": (10,)}
    cell = Cell(
        name="mixed",
        summary="",
        source="",
        parameters={name: Param(letters, zeros) for name, letters in (("W", "H H"), ("b", "H"), ("wide", "H"))},
        state={"h": 0, "s": 0},
        inputs=inputs,
        step=lambda z, state, p: (z, (state[0] + z, state[1])),
    )
    with pytest.raises(blocks.UnsupportedError, match="blocks"):
        derivative.trace(cell, shapes, 6, 4)


WIDTHS = [*((c, 40) for c in NATIVE), *((c, h) for c in ("lstm", *ACROSS) for h in range(1, 35))]
# Below, at and above one vector and two; each width is compiled for itself.
SOME_WIDTHS = [*((c, 40) for c in EXAMPLES), *((c, h) for c in ("lstm", *ACROSS) for h in (1, 7, 8, 9, 15, 16, 17, 33))]


@pytest.mark.parametrize(("cell", "hidden"), some(SOME_WIDTHS, WIDTHS))
def test_in_single_precision_it_is_as_near_to_the_truth_as_the_loop(cell: str, hidden: int) -> None:
    # Widths with whole vectors and every rest, more rows than a tile.
    sizes = {"hidden": hidden, "layers": 1}
    truth = outcome(model(cell, "loop", **sizes), 6, 9)
    errors = {}
    for engine in ("loop", "native"):
        found = outcome(model(cell, engine, **sizes).float(), 6, 9)
        errors[engine] = max(float((found[n] - truth[n]).norm() / truth[n].norm().clamp(min=1e-3)) for n in truth)
    assert errors["native"] <= 4 * errors["loop"] + 1e-6  # 4 ulp in a function, where torch has 1


@pytest.mark.parametrize("cell", ["lstm", *ACROSS])
@pytest.mark.parametrize("rows", [29, 70])  # a part for each thread, or two
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_sums_over_rows_alone(threads: int, rows: int, cell: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found, again = (outcome(model(cell, "native"), 5, rows) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert_equal(found, outcome(model(cell, "loop"), 5, rows), EXACT)
    assert all(torch.equal(found[name], again[name]) for name in found)  # whichever thread took which part


@pytest.mark.parametrize("cell", ["lstm", *ACROSS])
@pytest.mark.parametrize("rows", [2, 3])
def test_few_rows_of_a_long_text_are_what_the_loop_reads(rows: int, cell: str) -> None:
    """Each has a thread then, or they take turns."""
    before, expected = torch.get_num_threads(), outcome(model(cell, "loop"), LONG, rows)
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert_equal(outcome(model(cell, "native"), LONG, rows), expected, EXACT)
    finally:
        torch.set_num_threads(before)


def test_reading_without_gradients_gives_the_same_and_leaves_nothing_that_training_cannot_use() -> None:
    network = model("gru", "native")
    ids = torch.arange(40).view(8, 5) % 11
    with torch.inference_mode():
        read, _ = network(ids, network.start(5))
        network(ids[:1], network.start(5))  # with the sizes of buffers for one step
    for piece in (ids, ids[:1]):
        logits, _ = network(piece, network.start(5))
        assert torch.allclose(logits, read[: len(piece)], rtol=EXACT, atol=EXACT)
        torch.autograd.backward(logits.sum())


def test_outputs_handed_out_are_never_written_again() -> None:
    cell, rng = cells.get("lstm"), np.random.default_rng(0)
    p = cell.pack([torch.tensor(v, requires_grad=True) for v in cell.initial(rng, 6, 10).values()])
    kept = []
    for _ in range(3):
        x = torch.tensor(rng.standard_normal((4, 9, 6)))
        y, last = engines.named("native").run(cell, x, (torch.zeros(9, 10).double(),) * 2, p)
        kept += [(t, t.detach().clone()) for t in (y, *last)]
        torch.autograd.backward(y.sum())
    assert all(torch.equal(a, b) for a, b in kept)


@pytest.mark.parametrize("cell", [*EXAMPLES, *(pytest.param(c, marks=pytest.mark.slow) for c in NATIVE)])
def test_memory_that_nobody_wrote_is_not_read(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # with NaN
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        for hidden in (7, 8):
            for precision in (torch.float32, torch.bfloat16):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                    found = outcome(model(cell, "native", hidden=hidden, layers=2).float(), 6, 9)
                assert [name for name, value in found.items() if not value.isfinite().all()] == [], (hidden, precision)
    finally:
        torch.set_deterministic_debug_mode(before)


@pytest.mark.parametrize("hidden", [40, 43])
@pytest.mark.parametrize("cell", [*EXAMPLES, *(pytest.param(c, marks=pytest.mark.long) for c in NATIVE)])
def test_bf16_products_err_no_more_than_the_loops_under_autocast(cell: str, hidden: int) -> None:
    sizes = {"hidden": hidden, "layers": 2}
    squares: dict[str, list[float]] = {}
    for T in (4, 5, 6, 7):  # the two round at different places, and on one text either may be luckier
        truth = outcome(model(cell, "loop", **sizes), T, 9)
        with torch.autocast("cpu", torch.bfloat16):
            found = [outcome(model(cell, engine, **sizes).float(), T, 9) for engine in ("loop", "native")]
        for name in truth:
            errors = [(each[name] - truth[name]).norm() / truth[name].norm().clamp(min=1e-3) for each in found]
            squares[name] = [a + float(e) ** 2 / 4 for a, e in zip(squares.get(name, [0, 0]), errors, strict=True)]
    for name, (by_loop, by_native) in squares.items():
        assert by_native**0.5 < 1.5 * by_loop**0.5 + 2**-9, name  # 2^-9 for one more rounding


@pytest.mark.parametrize("hidden", [1, 16, 17, 31])
def test_asked_for_bf16_products_it_makes_them_at_every_width(hidden: int) -> None:
    cell, rng = cells.get("rnn"), np.random.default_rng(0)
    p = cell.pack([torch.tensor(v).float().requires_grad_() for v in cell.initial(rng, 6, hidden).values()])
    x = torch.tensor(rng.standard_normal((4, 3, 6))).float()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = engines.named("native").run(cell, x, (torch.zeros(3, hidden),), p)
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("cell", FUSED)
def test_layers_in_one_call_are_layers_one_after_the_other(cell: str) -> None:
    engine, rnn = engines.named("fused"), model(cell, "fused", hidden=16, layers=3)
    state = tuple(tuple(s + 0.1 * torch.randn_like(s) for s in layer) for layer in rnn.start(2))
    packs = [rnn.cell.pack([rnn.weights[f"layers.{i}.{n}"] for n in rnn.cell.parameter_names]) for i in range(3)]
    x = torch.randn(7, 2, rnn.architecture.input_size(0), dtype=rnn.weights["head.b"].dtype)
    found, last = engine.run_layers(rnn.cell, x, state, packs) or pytest.fail("there is no such call")
    for layer, p, after in zip(state, packs, last, strict=True):
        x, expected = engine.run(rnn.cell, x, layer, p)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(after, expected, strict=True))
    assert torch.allclose(found, x, atol=1e-6)
    assert engines.named("loop").run_layers(rnn.cell, x, state, packs) is None


@pytest.mark.parametrize("cell", FUSED)
def test_the_fused_engine_runs_under_autocast_on_every_processor(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = outcome(model(cell, "fused", hidden=16), 6, 9)
    for lacking in (False, True):
        if lacking:
            monkeypatch.setattr(fused, "lstm_takes_bf16", lambda: False)
        with torch.autocast("cpu", torch.bfloat16):
            found = outcome(model(cell, "fused", hidden=16).float(), 6, 9)
        assert all(torch.isfinite(value).all() for value in found.values())
        if not fused.multiplies_bf16(cells.get(cell), "cpu"):
            errors = [(found[name] - truth[name]).norm() / truth[name].norm().clamp(min=1e-3) for name in truth]
            assert max(errors) < 0.02  # what is outside the layer is still rounded


# The choice


def test_short_runs_are_not_measured_and_long_ones_are(corpus: str) -> None:
    encoded = prepare(config(corpus))

    def resolved(settings: Settings) -> Config:
        return resolve.resolve(settings, encoded, speed.Machine(settings, encoded))

    short = resolved(config(corpus, cell="gru"))
    assert (short.engine, short.measured_us) == ("loop", {})
    long = resolved(config(corpus, cell="gru", budget=60.0))
    assert f"{long.engine} {long.precision} {long.threads}" in long.measured_us
    assert "auto" not in (long.engine, long.precision)
    planned = long.planned(Plan(0, 10, 5))
    assert resolved(planned) == planned  # what is decided is not measured again


def test_a_compiled_run_repeats_and_resumes_to_the_last_bit(corpus: str, tmp_path: Path) -> None:
    wanted = config(corpus, cell="gru", layers=2, engine="native", precision="bf16", dropout=0.2)
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    list(loop.new_run(wanted, whole))
    list(loop.new_run(wanted, parts, stop=iter([False] * 6 + [True]).__next__))
    list(loop.resume(parts))
    a, b = (run.weights("last") for run in (whole, parts))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert whole.config().engine == "native"


@pytest.mark.slow
@pytest.mark.skipif(not processor().multiplies_bf16, reason="this processor does not multiply bf16")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_500_steps_of_bf16_products_end_within_a_hundredth_of_a_nat(cell: str, trained: Any) -> None:
    sizes = {"hidden": 128, "embedding": 64, "batch": 16, "window": 32, "steps": 500, "lr": 3e-3, "engine": "native"}
    nats = [
        trained(p, cell=cell, precision=p, corpus="rekurentne", validate_every=500, **sizes).about()["result"][
            "val_nats"
        ]
        for p in ("float32", "bf16")
    ]
    assert abs(nats[0] - nats[1]) < 0.01


@pytest.mark.parametrize("threads", ["torch's", "own"])
def test_a_team_does_every_part_once_whichever_threads_it_has(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads == "own":
        monkeypatch.setattr(team, "gomp_parallel", lambda: None)
    for n in (1, 2, 3, 20):
        done: list[tuple[int, ...]] = []
        function = ctypes.CFUNCTYPE(None, *team.PART)(lambda *part, done=done: done.append(part))
        parts = [(i, -i, 10**15 + i, 7) for i in range(n)]
        for own in (None, 1, 2, 5):
            done.clear()
            team.run(ctypes.cast(function, ctypes.c_void_p).value or 0, parts, own)
            assert sorted(done) == parts
