"""The on-chip engine computes what the equations say: its kernels in Triton's interpreter, here where there is no GPU.

They are also compiled for a GPU, which Triton's own compiler does without one. On a GPU tests/test_cuda.py has this
engine among all others.
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from charrnn import cells, engines
from charrnn.cells import ops
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, orthogonal, uniform
from charrnn.engines import fused, loop, on_chip, recurrence
from charrnn.engines.on_chip import Tiling
from charrnn.errors import WrongCodeWarning

pytest.importorskip("triton", reason="torch for CUDA brings Triton")
if torch.cuda.is_available():
    pytest.skip("the interpreter is for machines without a GPU", allow_module_level=True)

ROOT = Path(__file__).parent.parent
# The interpreter computes with NumPy, which warns of what overflows where a mask will hide it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
TAKEN = [name for name in cells.names() if on_chip.why_not(cells.get(name)) is None]
FEW = ["lstm", "gru", "mogrifier-lstm", "sru"]  # one, two and many meetings a step, and none
SIZES = {  # T, B, H and a tiling: all odd; one of several groups of rows, one that reads matrices at every step
    "one program": (4, 5, 10, Tiling(16, 16, keeps=True)),
    "two groups of rows": (3, 18, 20, Tiling(16, 32, keeps=False)),
}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}  # of an array's norm: some roundings of a product's factors


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test found of kernels is not known to another."""
    monkeypatch.setattr(on_chip, "CODE", {})
    monkeypatch.setattr(on_chip, "RIGHT", {})


def drawn(cell: Cell, T: int, B: int, H: int) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
    """Return x, a state and parameters, all with gradients."""
    torch.manual_seed(3)
    I = H if cell.name == "mogrifier-lstm" else H + 3  # it scales x by products: x has to be of blocks too
    initial = cell.initial(np.random.default_rng(1), I, H)
    params = {name: torch.tensor(v, dtype=torch.float32) for name, v in initial.items()}
    params = {name: (v + 0.1 * torch.randn(v.shape)).requires_grad_() for name, v in params.items()}
    state = [(torch.full((B, H), float(v)) + 0.3 * torch.randn(B, H)).requires_grad_() for v in cell.state.values()]
    return torch.randn(T, B, I, requires_grad=True), tuple(state), params


def outcome(
    cell: Cell, sizes: tuple[int, int, int, Tiling], dtype: torch.dtype, by_loop: bool = False
) -> dict[str, Tensor]:
    """Return outputs, last states and all gradients, by name."""
    T, B, H, tiling = sizes
    x, state, params = drawn(cell, T, B, H)
    if by_loop:
        x, *rest = (t.detach().double().requires_grad_() for t in (x, *state, *params.values()))
        state, params = tuple(rest[: len(state)]), dict(zip(params, rest[len(state) :], strict=True))
        y, last = loop.run(cell, x, state, cell.pack(params))
    else:
        z = cell.inputs(x, cell.pack(params))
        shapes = {name: tuple(v.shape) for name, v in params.items()}
        code = on_chip.compiled(on_chip.written(cell, shapes, z.shape[2], H))
        y, last = on_chip.run_code(code, tiling, dtype, z, state, params)
    leaves = {"x": x} | {f"state {i}": s for i, s in enumerate(state)} | params
    outputs = {"y": y} | {f"last {i}": s for i, s in enumerate(last)}
    weights = [torch.linspace(0.5, 1.5, o.numel()).view_as(o) for o in outputs.values()]
    found = torch.autograd.grad(list(outputs.values()), list(leaves.values()), weights, allow_unused=True)
    zeros = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves.values(), found, strict=True)]
    return outputs | {f"gradient of {name}": g for name, g in zip(leaves, zeros, strict=True)}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    largest = max(float(value.detach().norm()) for value in expected.values() if value.isfinite().all())
    for name, value in expected.items():
        finite = value.isfinite()
        assert torch.equal(found[name].isfinite(), finite), name
        error = float((found[name].double() - value)[finite].detach().norm())
        assert error <= tolerance * max(float(value[finite].detach().norm()), 1e-3 * largest), name


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", TAKEN)
def test_kernels_compute_what_the_equations_say(name: str, sizes: str) -> None:
    cell = cells.get(name)
    expected = outcome(cell, SIZES[sizes], torch.float32, by_loop=True)
    assert_near(outcome(cell, SIZES[sizes], torch.float32), expected, TOLERANCE[torch.float32])


@pytest.fixture
def dots_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter multiply bf16 numbers: it has them as integers of the same bits, and multiplies those."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot = InterpreterBuilder.create_dot

    def wide(value: Any) -> Any:
        if value.dtype.scalar != tl.bfloat16:
            return value
        return TensorHandle((value.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest))


@pytest.mark.parametrize("name", FEW)
def test_with_bf16_products_only_factors_are_rounded(name: str, dots_of_bf16: None) -> None:
    cell, sizes = cells.get(name), SIZES["one program"]
    expected = outcome(cell, sizes, torch.float32, by_loop=True)
    assert_near(outcome(cell, sizes, torch.bfloat16), expected, TOLERANCE[torch.bfloat16])


def odd_step(z: Any, state: Any, p: Any) -> Any:
    """Every operation there is a form of, a product of two blocks, a stack of matrices and a vector of it."""
    h, c = state
    a, b = ops.split(z + ops.matmul(ops.concat(h, c), p.U), 2)
    c = ops.minimum(ops.maximum(a, b), 2 * h + p.v[0]) + ops.relu(b) - abs(a) / (2 + ops.exp(-ops.softplus(c)))
    h = ops.tanh(c) * ops.sigmoid(ops.matmul(ops.expm1(0.3 * c), p.R[0])) + ops.sqrt(1 + b * b) * p.v[1]
    return ops.concat(h, c), (h, c)


ODD = Cell(
    name="odd",
    summary="",
    source="",
    parameters={
        "W": Param("I 2H", glorot(2)),
        "b": Param("2H", uniform(0.5)),
        "U": Param("2H 2H", glorot(2)),
        "R": Param("2 H H", orthogonal()),
        "v": Param("2 H", uniform(0.5)),
    },
    state={"h": 0, "c": 1},
    step=odd_step,
)


def test_every_operation_has_a_form_and_an_unused_parameter_no_gradient() -> None:
    missing = [operation.name for operation in ops.TABLE.values() if operation.elementwise and not operation.triton]
    assert not missing
    expected = outcome(ODD, SIZES["one program"], torch.float32, by_loop=True)
    found = outcome(ODD, SIZES["one program"], torch.float32)
    assert_near(found, expected, 2 * TOLERANCE[torch.float32])
    assert not found["gradient of R"][1].any()


def test_what_looks_across_features_is_left_to_the_loop() -> None:
    reason = on_chip.why_not(cells.get("layernorm-lstm"))
    assert reason is not None
    assert "layernorm" in reason
    assert "triton" not in engines.names_for(cells.get("layernorm-lstm"), "cuda")
    assert "triton" in engines.names_for(cells.get("lstm"), "cuda")
    assert "triton" not in engines.names_for(cells.get("lstm"), "cpu")


# Programs that meet


def at_once(kernel: Any, programs: int, arguments: list[Any], sizes: dict[str, Any], options: dict[str, int]) -> None:
    """Run every program in a process of its own, all at the same time, on memory that they share."""
    shared = [a.clone().share_memory_() if isinstance(a, Tensor) else a for a in arguments]
    context = multiprocessing.get_context("fork")
    begun = [context.Process(target=kernel[(1,)], args=(*shared, i), kwargs=sizes) for i in range(programs)]
    for process in begun:
        process.start()
    for process in begun:
        process.join(60)
    codes = [process.exitcode for process in begun]
    for process in begun:
        process.kill()
    assert codes == [0] * programs
    for argument, value in zip(arguments, shared, strict=True):
        if isinstance(argument, Tensor):
            argument.copy_(value)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_programs_that_run_at_once_meet_and_read_what_others_wrote(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, sizes = cells.get(name), (3, 18, 20, Tiling(16, 16, keeps=True))  # two groups of two
    expected = outcome(cell, sizes, torch.float32, by_loop=True)
    monkeypatch.setattr(on_chip, "launch", at_once)
    assert_near(outcome(cell, sizes, torch.float32), expected, TOLERANCE[torch.float32])


def test_tilings_fill_the_processors_and_the_chip() -> None:
    lstm, gru_1024 = 4, 3  # tiles of H by a program's columns
    assert on_chip.tilings(64, 512, lstm, 2, 132)[0] == Tiling(16, 16, keeps=True)  # 128 programs of 64 KB
    for B, H, tiles, size in ((64, 512, lstm, 2), (64, 1024, gru_1024, 2), (1, 512, lstm, 2), (512, 2048, lstm, 2)):
        for tiling in on_chip.tilings(B, H, tiles, size, 132):
            assert -(-B // tiling.rows) * -(-H // tiling.columns) <= 132
            assert not tiling.keeps or tiles * H * tiling.columns * size <= on_chip.KEPT_BYTES
    assert not any(t.keeps for t in on_chip.tilings(64, 2048, lstm, 2, 132))  # they do not fit, and are read again
    assert on_chip.tilings(10**5, 512, lstm, 2, 132) == []  # programs would wait for others that cannot begin
    assert on_chip.tilings(10**5, 512, 0, 2, 132)  # without matrices nobody waits


# Linear recurrences


@pytest.mark.parametrize(("T", "B", "H"), [(1, 2, 3), (70, 3, 17), (128, 1, 5)])
def test_an_associative_scan_is_the_recurrence(T: int, B: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(T)
    a, b, h = torch.rand(T, B, H), torch.randn(T, B, H), torch.randn(B, H)
    a[:, 0, 0], a[:, 0, 1] = 0, 1  # gates that are shut, and open
    found = []
    for block in (T, 4):  # step by step; by the kernel, where it has more than a block
        leaves = [each.clone().requires_grad_() for each in (a, b, h)]
        states = recurrence.scan(*leaves, block=block)
        weights = torch.linspace(0.5, 1.5, states.numel()).view_as(states)
        gradients = torch.autograd.grad(states, leaves, weights)
        found.append([states, *gradients])
        monkeypatch.setattr(recurrence, "has_kernel", lambda _: True)
    for by_steps, by_kernel in zip(*found, strict=True):
        torch.testing.assert_close(by_kernel, by_steps, rtol=1e-5, atol=1e-5)


# The engine


def ran(cell: Cell, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what the engine and the loop make of one sequence."""
    x, state, params = drawn(cell, 3, 4, 16)
    p, found = cell.pack(params), []
    for each in (on_chip, loop):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y, last = each.run(cell, x, state, p)
        found.append({"y": y} | {f"last {i}": s for i, s in enumerate(last)})
    return found[0], found[1]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many programs each launch had."""
    launch, launches = on_chip.launch, list[int]()

    def counted(kernel: Any, programs: int, *rest: Any) -> None:
        launches.append(programs)
        launch(kernel, programs, *rest)

    monkeypatch.setattr(on_chip, "launch", counted)
    return launches


def test_the_engine_tries_its_kernels_once_and_runs_them(launched: list[int], dots_of_bf16: None) -> None:
    for expected in (3, 1):  # tried forwards and backwards, then run
        launched.clear()
        found, by_loop = ran(cells.get("lstm"))
        assert_near(found, {name: value.double() for name, value in by_loop.items()}, TOLERANCE[torch.bfloat16])
        assert len(launched) == expected


def test_kernels_that_are_wrong_are_said_and_left(
    monkeypatch: pytest.MonkeyPatch, launched: list[int], dots_of_bf16: None
) -> None:
    monkeypatch.setattr(on_chip.target, "PRELUDE", on_chip.target.PRELUDE.replace("-2 * tl.abs(x)", "-3 * tl.abs(x)"))
    with pytest.warns(WrongCodeWarning, match="lstm compute something else than its equations on this GPU"):
        found, by_loop = ran(cells.get("lstm"))
    assert all(torch.equal(value, by_loop[name]) for name, value in found.items())
    launched.clear()
    ran(cells.get("lstm"))
    assert not launched


def test_what_does_not_fit_on_the_chip_is_tried_otherwise(monkeypatch: pytest.MonkeyPatch, dots_of_bf16: None) -> None:
    from triton.runtime.errors import OutOfResources

    tried, launch = list[bool](), on_chip.launch

    def full(kernel: Any, programs: int, arguments: list[Any], sizes: dict[str, Any], options: dict[str, int]) -> None:
        tried.append(sizes["KEEP"])
        if sizes["KEEP"]:
            raise OutOfResources(300_000, 232_448, "shared memory")
        launch(kernel, programs, arguments, sizes, options)

    monkeypatch.setattr(on_chip, "launch", full)
    found, by_loop = ran(cells.get("lstm"))
    assert_near(found, {name: value.double() for name, value in by_loop.items()}, TOLERANCE[torch.bfloat16])
    assert tried == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("name", "dtype", "other"),
    [("lstm", torch.float32, fused), ("gru", torch.float32, loop), ("lstm", torch.float64, loop)],
)
def test_products_that_are_not_bf16_are_left_to_others(name: str, dtype: torch.dtype, other: Any) -> None:
    cell = cells.get(name)
    x, state, params = drawn(cell, 2, 3, 8)
    p = cell.pack({key: value.to(dtype) for key, value in params.items()})
    x, state = x.to(dtype), tuple(s.to(dtype) for s in state)
    assert torch.equal(on_chip.run(cell, x, state, p)[0], other.run(cell, x, state, p)[0])


def test_the_engine_says_what_runs_in_float32() -> None:
    note = engines.named("triton").note
    assert "in float32 the fused engine runs" in (note(cells.get("lstm"), "cuda", "float32") or "")
    assert "in float32 the loop runs" in (note(cells.get("gru"), "cuda", "float32") or "")
    assert note(cells.get("lstm"), "cuda", "bf16") is None


# Compiled for a GPU


def compiled_for_a_gpu(*names: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "tests" / "compiled_for_gpu.py"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_tritons_compiler_takes_the_kernels_of_an_lstm_and_they_fit_on_the_chip() -> None:
    assert compiled_for_a_gpu("lstm").count("ward: ") == 2


@pytest.mark.slow
def test_tritons_compiler_takes_the_kernels_of_every_cell() -> None:
    assert compiled_for_a_gpu(*TAKEN).count("ward: ") == 2 * len(TAKEN)
