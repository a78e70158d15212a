"""States of other shapes than (B, H): a matrix for each row, one that a scan carries, one that is twice as wide."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from charrnn import api, cells, engines
from charrnn.cells.cell import Cell, Param, run_cell
from charrnn.cells.initialisation import constant, glorot, orthogonal, uniform, zeros
from charrnn.cells.ops import concat, matmul, sigmoid, split, tanh
from charrnn.compare.gradients import reach
from charrnn.compiler.decoding import driver
from charrnn.compiler.targets import javascript, onnx
from charrnn.compiler.training.derivative import UnsupportedError
from charrnn.compiler.training.derivative import trace as trace_training
from charrnn.engines import mps
from charrnn.engines.sequence import run_documents
from charrnn.errors import CharRNNError
from charrnn.generate.compiled import CompiledDecoder
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Sampling
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.training import loop

I, H, B, T = 5, 6, 3, 7


def _fast_weights(z: Any, state: Any, p: Any) -> Any:
    h, S = state
    k, q = tanh(matmul(h, p.K)), matmul(h, p.Q)
    S = 0.9 * S + k[..., :, None] * z[..., None, :]
    h = tanh(z + (q[..., :, None] * S).sum(-2))
    return h, (h, S)


def _two_speeds(z: Any, p: Any) -> Any:
    return sigmoid(p.a), z[..., None, :] * p.c


def _side_by_side(z: Any, state: Any, p: Any) -> Any:
    h, c = split(state[0], 2)
    f, i, o, g = split(z + matmul(h, p.U), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    s = concat(sigmoid(o) * tanh(c), c)
    return split(s, 2)[0], (s,)


CELLS = [
    Cell(
        "fast-weights",
        "S = 0.9 S + k z; h = tanh(z + q S)",
        "Ba et al., Using fast weights to attend to the recent past, 2016, cut down",
        {
            "W": Param("I H", glorot()),
            "b": Param("H", zeros),
            "K": Param("H keys", glorot()),
            "Q": Param("H keys", glorot()),
        },
        {"h": 0, "S": 0.5},
        _fast_weights,
        options={"keys": 4},
        state_shapes={"S": "keys H"},
    ),
    Cell(
        "two-speeds",
        "S = sigmoid(a) S + c z, twice; y = the sum of both",
        "",
        {
            "W": Param("I H", glorot()),
            "b": Param("H", zeros),
            "a": Param("2 H", uniform(1)),
            "c": Param("2 H", uniform(1)),
        },
        {"S": 0},
        gates=_two_speeds,
        readout=lambda z, S, p: S.sum(-2),
        state_shapes={"S": "2 H"},
    ),
    Cell(
        "side-by-side",
        "an LSTM whose h and c are one state",
        "",
        {"W": Param("I 4H", glorot(4)), "U": Param("H 4H", orthogonal(4)), "b": Param("4H", constant(1, 0, 0, 0))},
        {"s": 0.25},
        _side_by_side,
        state_shapes={"s": "2H"},
    ),
]
NAMES = [cell.name for cell in CELLS]
SHAPES = {"fast-weights": {"h": (H,), "S": (4, H)}, "two-speeds": {"S": (2, H)}, "side-by-side": {"s": (2 * H,)}}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for cell in CELLS:
        cells.register(cell)
    yield
    for name in NAMES:
        cells.unregister(name)


def by_engine(engine: str, name: str, dtype: Any = torch.float64) -> Any:
    """A cell's outputs, last states and gradients on a sequence, from a state that is not its start."""
    cell, rng = cells.get(name), np.random.default_rng(2)
    params = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in cell.initial(rng, I, H).values()]
    x = torch.tensor(rng.standard_normal((T, B, I)), dtype=dtype)
    state = tuple(torch.tensor(rng.standard_normal((B, *shape)), dtype=dtype) for shape in cell.states(H).values())
    y, last = engines.named(engine).run(cell, x, state, cell.pack(params))
    total = y.square().sum() + sum(s.square().sum() for s in last)
    return [y, *last, *torch.autograd.grad(total, params)]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_read_and_states_begin_so(name: str) -> None:
    cell = cells.get(name)
    assert cell.states(H) == SHAPES[name]
    assert [s.shape for s in cell.start((B, H))] == [(B, *shape) for shape in SHAPES[name].values()]
    assert [float(s.flat[0]) for s in cell.start((B, H))] == list(cell.state.values())
    assert Architecture(name, 9, H).states == SHAPES[name]


def test_an_option_sets_a_states_shape() -> None:
    architecture = Architecture("fast-weights", 9, H, cell_options={"keys": 2})
    assert architecture.states["S"] == (2, H)
    weights = architecture.initial(seed=1)
    assert CharRNN(architecture, weights).start(B)[0][1].shape == (B, 2, H)
    decoder = Decoder(architecture, weights, "numpy")
    _, state = decoder.step(np.array([3]), decoder.start())
    assert state[0][1].shape == (1, 2, H)


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_that_runs_it_gives_the_loops_numbers(name: str) -> None:
    others = [e for e in engines.names_for(cells.get(name)) if e != "loop"]
    assert others == (["scan"] if name == "two-speeds" else [])
    for engine in others:
        for a, b in zip(by_engine(engine, name), by_engine("loop", name), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_gpu_of_a_mac_can_be_tried_with_it(name: str) -> None:
    assert {"the output", "the gradient of x"} <= set(mps.outcome_on(name, "cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_and_numpy_agree_and_splitting_changes_nothing(name: str) -> None:
    cell, rng = cells.get(name), np.random.default_rng(3)
    params = cell.initial(rng, I, H)
    x = rng.standard_normal((T, B, I))
    y, last = run_cell(cell, x, params)
    first, between = run_cell(cell, x[:3], params)
    second, after = run_cell(cell, x[3:], params, between)
    np.testing.assert_array_equal(np.concatenate([first, second]), y)
    for a, b in zip(after, last, strict=True):
        np.testing.assert_array_equal(a, b)
    p = cell.pack([torch.tensor(v) for v in params.values()])
    state = tuple(map(torch.tensor, cell.start((B, H))))
    found, _ = engines.named("loop").run(cell, torch.tensor(x), state, p)
    np.testing.assert_allclose(found, y, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_begin_anew_have_the_start_state(name: str) -> None:
    cell, rng = cells.get(name), np.random.default_rng(4)
    p = cell.pack([torch.tensor(v) for v in cell.initial(rng, I, H).values()])
    x, begins = torch.tensor(rng.standard_normal((T, B, I))), torch.zeros(T, B, dtype=torch.bool)
    begins[4, 1] = True
    start = tuple(map(torch.tensor, cell.start((B, H))))
    y, _ = run_documents(engines.named("loop"), cell, x, start, p, [4], begins)
    alone, _ = engines.named("loop").run(cell, x[4:, 1:2], tuple(s[:1] for s in start), p)
    torch.testing.assert_close(y[4:, 1:2], alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_exactly_and_completes(name: str, trained: Any, corpus: str) -> None:
    settings = {"cell": name, "engine": "loop", "hidden": 10, "layers": 2, "batch": 4, "window": 8}
    settings |= {"direct": 2, "direct_rows": 50, "direct_rate": 5.0, "direct_dropout": 0.1}
    whole = trained("whole", steps=8, **settings)
    half = trained("half", steps=4, **settings)
    list(loop.resume(half, steps=8))
    expected, resumed = api.load(whole), api.load(half)
    for key, value in expected.weights.items():
        np.testing.assert_array_equal(resumed.weights[key], value, err_msg=key)
    text = expected.complete("Re", 40, temperature=1.0, seed=3)
    several = ["".join(c for c, _ in each) for each in expected.completions("Re", 40, Sampling(seed=3), 3)]
    assert several[0] == text
    assert len(text) == len(several[2]) == 40
    assert np.isfinite(expected.score("Rekurentne mreže").bits_per_char)


def test_one_wide_row_is_completed_by_machine_code() -> None:
    architecture = Architecture("side-by-side", 40, 12, 2, 8)
    weights = architecture.initial(seed=5, bound=0.3)
    compiled, exact = CompiledDecoder(architecture, weights), Decoder(architecture, weights, "numpy")
    a, b = compiled.start(), exact.start()
    for id_ in np.random.default_rng(2).integers(0, 40, 100):
        x, a = compiled.step(np.array([id_]), a)
        y, b = exact.step(np.array([id_]), b)
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert a[1][0].shape == (1, 24)


@pytest.mark.parametrize("name", ["fast-weights", "two-speeds"])
def test_what_is_not_compiled_is_said(name: str) -> None:
    architecture = Architecture(name, 9, H, 2)
    decoder = Decoder(architecture, architecture.initial(seed=1), "numpy")
    for written in (lambda: driver.make(architecture), lambda: javascript.write(decoder)):
        with pytest.raises(CharRNNError, match=r"state S is .* H', and compiled code has rows alone"):
            written()
    pytest.importorskip("onnx", reason="ONNX is an extra")
    with pytest.raises(CharRNNError, match="cannot be compiled"):
        onnx.write(decoder, architecture.initial(seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_training_says_why_it_is_not_compiled(name: str) -> None:
    cell = cells.get(name)
    assert "not of H features" in str(engines.why_not_compiled(cell))
    with pytest.raises(UnsupportedError, match="not of H features"):
        trace_training(cell, {n: s for n, (s, _) in cell.shapes(I, H).items()}, I, H)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_back_through_it(name: str) -> None:
    architecture = Architecture(name, 9, H)
    model = CharRNN(architecture, architecture.initial(seed=1), "loop")
    shares = reach(model, np.arange(300) % 9, back=5, rows=2)
    assert shares.shape == (6,)
    assert shares[0] == 1
    assert np.isfinite(shares).all()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"S": "K H"}, "axis 'K' in its shape 'K H', expected H"),
        ({"S": "I H"}, "axis 'I'"),
        ({"S": ""}, "expected axes in letters"),
        ({"C": "2 H"}, "the state 'C', which it has not"),
        ({"S": "3 H"}, r"S \(1, 3, 3\)"),
    ],
)
def test_a_shape_that_cannot_be_is_told(shapes: dict[str, str], message: str) -> None:
    cell = Cell(
        "told", "", "", {"W": Param("I H", glorot()), "b": Param("H", zeros)}, {"S": 0},
        lambda z, state, p: (z, (state[0][..., :2, :] + z[..., None, :],)), state_shapes=shapes,
    )  # fmt: skip
    with pytest.raises(CharRNNError, match=message):
        cells.register(cell)
