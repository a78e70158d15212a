"""The conformance suite: every cell of the registry, and the three that only the tests know, keeps every promise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compiled import compiled
from numpy.typing import NDArray

from charrnn import cells, engines
from charrnn.cells.cell import Cell, run_cell
from charrnn.errors import CharRNNError
from charrnn.model import torch_layers

T, B, I, H = 7, 3, 5, 6
FLOAT64 = 1e-12

Params = dict[str, NDArray[Any]]


ENGINES = [(name, engine) for name in cells.names() for engine in engines.names_for(cells.get(name))]


@pytest.fixture(params=cells.names())
def cell(request: pytest.FixtureRequest) -> Cell:
    return cells.get(request.param)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Of a test parametrised by ENGINES, together with its cell."""
    return str(request.param)


@pytest.fixture
def params(cell: Cell) -> Params:
    return parameters(cell)


@pytest.fixture
def x() -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal((T, B, I))


@pytest.fixture
def state(cell: Cell, x: NDArray[Any], params: Params) -> tuple[NDArray[Any], ...]:
    """A state as it is after some steps: every value finite."""
    return run_cell(cell, x[:2] + 1, params)[1]


def parameters(cell: Cell, I: int = I, H: int = H) -> Params:
    """As the cell starts them, but with nothing left at zero."""
    rng = np.random.default_rng(0)
    return {name: value + 0.2 * rng.standard_normal(value.shape) for name, value in cell.initial(rng, I, H).items()}


def tensors(values: Any) -> Any:
    return {name: torch.tensor(v, requires_grad=True) for name, v in values.items()}


def in_torch(engine: str, cell: Cell, x: Any, params: Any, state: Any = None) -> tuple[torch.Tensor, Any]:
    x = torch.as_tensor(x)
    state = cell.start((x.shape[1], H), x.numpy().dtype) if state is None else state
    state = tuple(torch.as_tensor(s) for s in state)
    return engines.named(engine).run(cell, x, state, cell.pack(params))


def in_llvm(cell: Cell, x: NDArray[Any], params: Params, state: Any = None) -> tuple[NDArray[Any], Any]:
    """As `run_cell` on (T, B, I), compiled, row by row."""
    state = cell.start((x.shape[1], H), x.dtype) if state is None else state
    code = compiled(cell.name, I, H, str(x.dtype))
    rows = [code.run(x[:, b], params, tuple(s[b] for s in state)) for b in range(x.shape[1])]
    outputs, after = zip(*rows, strict=True)
    return np.stack(outputs, axis=1), tuple(np.stack(s) for s in zip(*after, strict=True))


def assert_close(a: Any, b: Any, tolerance: float = FLOAT64) -> None:
    for u, v in zip(flat(a), flat(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=tolerance, atol=tolerance)


def flat(value: Any) -> list[NDArray[Any]]:
    if isinstance(value, tuple | list):
        return [array for part in value for array in flat(part)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)]


# The same numbers everywhere


@pytest.mark.parametrize(("cell", "engine"), ENGINES, indirect=True)
def test_torch_computes_what_numpy_computes(engine: str, cell: Cell, params: Params, x: Any, state: Any) -> None:
    assert_close(in_torch(engine, cell, x, tensors(params)), run_cell(cell, x, params))
    assert_close(in_torch(engine, cell, x, tensors(params), state), run_cell(cell, x, params, state))


def test_llvm_computes_what_numpy_computes(cell: Cell, params: Params, x: Any, state: Any) -> None:
    assert_close(in_llvm(cell, x, params), run_cell(cell, x, params))
    assert_close(in_llvm(cell, x, params, state), run_cell(cell, x, params, state))


def test_float32_stays_float32_and_within_its_rounding(cell: Cell, params: Params, x: Any) -> None:
    exact = flat(run_cell(cell, x, params))
    narrow = {name: v.astype(np.float32) for name, v in params.items()}
    bound = rounding_bound(cell, params, x)
    x = x.astype(np.float32)
    for got in (run_cell(cell, x, narrow), in_torch("loop", cell, x, tensors(narrow)), in_llvm(cell, x, narrow)):
        for value, reference, most in zip(flat(got), exact, bound, strict=True):
            assert value.dtype == np.float32
            assert np.abs(value - reference).max() <= most


def rounding_bound(cell: Cell, params: Params, x: NDArray[Any]) -> list[float]:
    """How far float32 may be off, by backward error analysis.

    A sum of n products in floating point is the exact one of data that are each off by at most n eps, and so is each
    step here, with n = I + H and some twenty element-wise roundings. What a relative error of eps in the data does to
    the results is measured in float64, as the largest of several random ones, and counted n times.
    """
    eps, n = float(np.finfo(np.float32).eps), I + H + 20
    exact, rng = flat(run_cell(cell, x, params)), np.random.default_rng(2)
    worst = [0.0] * len(exact)
    for _ in range(8):
        shaken = {name: v * (1 + eps * rng.choice([-1, 1], v.shape)) for name, v in params.items()}
        moved = flat(run_cell(cell, x * (1 + eps * rng.choice([-1, 1], x.shape)), shaken))
        worst = [max(w, float(np.abs(a - b).max())) for w, a, b in zip(worst, moved, exact, strict=True)]
    return [n * w for w in worst]


def test_a_whole_sequence_is_its_steps_and_its_parts(cell: Cell, params: Params, x: Any) -> None:
    whole = run_cell(cell, x, params)
    state, outputs = cell.start((B, H)), []
    p = cell.pack(params)
    for x_t in x:
        y, state = cell.step(cell.inputs(x_t, p), state, p)
        outputs.append(y)
    assert_close((np.stack(outputs), state), whole)
    for cut in range(1, T):
        first, carried = run_cell(cell, x[:cut], params)
        second, last = run_cell(cell, x[cut:], params, carried)
        assert_close((np.concatenate([first, second]), last), whole)


@pytest.mark.parametrize(("cell", "engine"), ENGINES, indirect=True)
def test_a_split_sequence_with_carried_state_changes_nothing(
    engine: str, cell: Cell, params: Params, x: Any, state: Any
) -> None:
    whole = in_torch(engine, cell, x, params_of(params), state)
    first, carried = in_torch(engine, cell, x[:3], params_of(params), state)
    second, last = in_torch(engine, cell, x[3:], params_of(params), carried)
    assert_close((torch.cat([first, second]), last), whole)


@pytest.mark.parametrize("rows", [T * B - 1, T * B + 1])  # a table shorter than the sequence, and a longer one
@pytest.mark.parametrize(("cell", "engine"), ENGINES, indirect=True)
def test_rows_of_a_table_are_looked_up_or_computed_alike(
    engine: str, cell: Cell, params: Params, state: Any, rows: int
) -> None:
    rng, p, given = np.random.default_rng(6), cell.pack(tensors(params)), tuple(map(torch.tensor, state))
    table, ids = torch.tensor(rng.standard_normal((rows, I))), torch.tensor(rng.integers(0, rows, (T, B)))
    assert_close(
        engines.named(engine).run(cell, (table, ids), given, p), engines.named("loop").run(cell, table[ids], given, p)
    )


def params_of(params: Params) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in params.items()}


def test_rows_do_not_know_of_each_other(cell: Cell, params: Params, x: Any) -> None:
    together = run_cell(cell, x, params)
    changed = x.copy()
    changed[:, 0] += 1
    for a, b in zip(flat(together), flat(run_cell(cell, changed, params)), strict=True):
        assert np.array_equal(a[..., 1:, :], b[..., 1:, :])
        assert not np.array_equal(a[..., 0, :], b[..., 0, :])
    outputs, last = run_cell(cell, x[:, 1], params)  # a row of its own, without a batch axis
    assert_close((outputs, last), (together[0][:, 1], tuple(s[1] for s in together[1])))


def test_nothing_that_is_given_is_modified(cell: Cell, params: Params, x: Any, state: Any) -> None:
    given = [x, *params.values(), *state]
    before = [v.copy() for v in given]
    run_cell(cell, x, params, state)
    in_llvm(cell, x, params, state)
    for engine in engines.names_for(cell):
        in_torch(engine, cell, torch.from_numpy(x), {n: torch.from_numpy(v) for n, v in params.items()}, state)
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))


# Gradients


def test_gradients_of_the_loop_are_the_numerical_ones(cell: Cell, params: Params, x: Any, state: Any) -> None:
    names = list(params)

    def run(x: torch.Tensor, *values: torch.Tensor) -> Any:
        given, carried = values[: len(names)], values[len(names) :]
        y, last = engines.named("loop").run(cell, x, tuple(carried), cell.pack(given))
        return (y, *last)

    inputs = [x[:3, :2], *params.values(), *(s[:2] for s in state)]
    assert torch.autograd.gradcheck(run, [torch.tensor(v, requires_grad=True) for v in inputs])


def test_gradients_at_the_start_of_a_text_are_finite(cell: Cell, params: Params, x: Any) -> None:
    for engine in engines.names_for(cell):
        weights = tensors(params)
        y, _ = in_torch(engine, cell, x, weights)
        y.square().sum().backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values())


@pytest.mark.parametrize(("cell", "engine"), [e for e in ENGINES if e[1] != "loop"], indirect=True)
def test_every_engine_gives_the_loops_gradients(engine: str, cell: Cell, params: Params, x: Any, state: Any) -> None:
    grads = []
    for each in ("loop", engine):
        weights = tensors({**params, "x": x, **{f"s{i}": s for i, s in enumerate(state)}})
        carried = tuple(weights[f"s{i}"] for i in range(len(state)))
        y, last = engines.named(each).run(cell, weights["x"], carried, cell.pack([weights[name] for name in params]))
        (y.square().sum() + sum(s.sum() for s in last)).backward()
        grads.append([w.grad for w in weights.values()])
    assert_close(grads[1], grads[0])


# torch's own layers

TWINS = [name for name in cells.names() if cells.get(name).twin]


def test_the_fused_cells_have_torch_twins() -> None:
    assert {"nn.RNN", "nn.LSTM", "nn.GRU"} <= set(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_torchs_layer_with_our_weights_computes_our_equations(name: str) -> None:
    cell, size = cells.get(name), 64
    stack = [parameters(cell, 32, size), parameters(cell, size, size), parameters(cell, size, size)]
    module = torch_layers.to_torch(cell, [params_of(params) for params in stack], batch_first=True)
    inputs = torch.tensor(np.random.default_rng(3).standard_normal((16, 100, 32)))
    outputs, state = module(inputs)
    last = state if isinstance(state, tuple) else (state,)
    assert outputs.shape == (16, 100, 64)
    assert all(s.shape == (3, 16, 64) for s in last)
    y, states = inputs.numpy().swapaxes(0, 1), []
    for params in stack:
        y, after = run_cell(cell, y, params)
        states.append(after)
    assert_close(outputs, y.swapaxes(0, 1))
    assert_close(last, tuple(np.stack(s) for s in zip(*states, strict=True)))


@pytest.mark.parametrize("name", [name for name in TWINS if cells.get(name).twin.from_torch])  # type: ignore[union-attr]
def test_weights_go_to_torch_and_back_without_loss(name: str) -> None:
    cell = cells.get(name)
    stack = [params_of(parameters(cell)), params_of(parameters(cell, H, H))]
    back = torch_layers.from_torch(cell, torch_layers.to_torch(cell, stack))
    for given, returned in zip(stack, back, strict=True):
        assert list(given) == list(returned)
        assert all(torch.equal(given[key], returned[key]) for key in given)


@pytest.mark.parametrize("name", ["nn.RNN", "nn.LSTM", "nn.GRU"])
def test_a_step_is_that_of_torchs_single_cell(name: str) -> None:
    cell = cells.get(name)
    params, x = parameters(cell), np.random.default_rng(4).standard_normal((T, B, I))
    module = torch_layers.to_torch(cell, [params_of(params)])
    single = getattr(torch.nn, f"{name[3:]}Cell")(I, H, dtype=torch.float64)
    single.load_state_dict({key.removesuffix("_l0"): value for key, value in module.state_dict().items()})
    state, outputs = None, []
    for x_t in torch.from_numpy(x):
        state = single(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    last = state if isinstance(state, tuple) else (state,)
    assert_close((torch.stack(outputs), last), run_cell(cell, x, params))


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CharRNNError, match="no torch layer"):
        torch_layers.to_torch(cells.get("gru"), [params_of(parameters(cells.get("gru")))])
    with pytest.raises(CharRNNError, match="cannot take"):
        torch_layers.from_torch(cells.get("nn.GRU"), torch.nn.LSTM(3, 4))
    with pytest.raises(CharRNNError, match="cannot take"):
        torch_layers.from_torch(cells.get("lstm"), torch.nn.LSTM(3, 4))  # two biases do not fit into one
    with pytest.raises(CharRNNError, match="both ways"):
        torch_layers.from_torch(cells.get("nn.GRU"), torch.nn.GRU(3, 4, bidirectional=True))


# Shapes and counts


@pytest.mark.parametrize(
    ("name", "count"),
    [("nn.RNN", 6272), ("nn.LSTM", 25088), ("nn.GRU", 18816), ("simple", 6208), ("lstm", 24832), ("gru", 18624)],
)
def test_parameters_are_as_many_as_the_course_counts(name: str, count: int) -> None:
    cell = cells.get(name)
    assert cell.count(32, 64) == count
    if name.startswith("nn."):
        assert sum(p.numel() for p in getattr(torch.nn, name[3:])(32, 64).parameters()) == count


def test_an_output_layer_of_its_own_size_is_counted_and_run() -> None:
    cell = cells.get("rnn")
    assert cell.count(32, 32, 64) == 4192
    outputs, (h,) = run_cell(cell, np.ones((100, 32)), cell.initial(np.random.default_rng(0), 32, 32, 64))
    assert (outputs.shape, h.shape) == ((100, 64), (32,))


def test_every_cell_gives_one_output_of_its_width_per_step(cell: Cell, params: Params, x: Any) -> None:
    outputs, last = run_cell(cell, x, params)
    assert outputs.shape == (T, B, H)
    assert [s.shape for s in last] == [(B, H)] * len(cell.state)
    assert cell.count(I, H) == sum(v.size for v in params.values())


# The course notebook's loops, written out


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def notebook_simple(x: Any, p: Params) -> Any:
    o, outputs = np.zeros(64), []
    for x_t in x:
        o = np.tanh(x_t @ p["U"] + o @ p["V"] + p["b"])
        outputs.append(o)
    return outputs


def notebook_rnn(x: Any, p: Params) -> Any:
    h, outputs = np.zeros(64), []
    for x_t in x:
        h = np.tanh(x_t @ p["U"] + h @ p["V"] + p["b1"])
        outputs.append(np.tanh(h @ p["W"] + p["b2"]))
    return outputs


def notebook_lstm(x: Any, p: Params) -> Any:
    (W_f, W_i, W_o, W_c), (U_f, U_i, U_o, U_c) = np.split(p["W"], 4, axis=1), np.split(p["U"], 4, axis=1)
    b_f, b_i, b_o, b_c = np.split(p["b"], 4)
    h, c, outputs = np.zeros(64), np.zeros(64), []
    for x_t in x:
        f = sigmoid(x_t @ W_f + h @ U_f + b_f)
        i = sigmoid(x_t @ W_i + h @ U_i + b_i)
        o = sigmoid(x_t @ W_o + h @ U_o + b_o)
        candidate = np.tanh(x_t @ W_c + h @ U_c + b_c)
        c = f * c + i * candidate
        h = o * np.tanh(c)
        outputs.append(h)
    return outputs


def notebook_gru(x: Any, p: Params) -> Any:
    W_z, W_r, W_h = np.split(p["W"], 3, axis=1)
    U_z, U_r = np.split(p["U"], 2, axis=1)
    b_z, b_r, b_h = np.split(p["b"], 3)
    h, outputs = np.zeros(64), []
    for x_t in x:
        z = sigmoid(x_t @ W_z + h @ U_z + b_z)
        r = sigmoid(x_t @ W_r + h @ U_r + b_r)
        candidate = np.tanh(x_t @ W_h + (r * h) @ p["V"] + b_h)
        h = (1 - z) * h + z * candidate
        outputs.append(h)
    return outputs


@pytest.mark.parametrize(
    ("name", "loop"),
    [("simple", notebook_simple), ("rnn", notebook_rnn), ("lstm", notebook_lstm), ("gru", notebook_gru)],
)
def test_the_notebooks_loop_gives_the_same_numbers(name: str, loop: Callable[[Any, Params], Any]) -> None:
    # Centred and scaled: with the notebook's own all-positive parameters every unit saturates after one step.
    rng, cell = np.random.default_rng(5), cells.get(name)
    p = {key: rng.uniform(-1, 1, shape) / np.sqrt(64) for key, (shape, _) in cell.shapes(32, 64).items()}
    x = rng.standard_normal((100, 32))
    outputs, _ = cells.run(name, x, p)
    assert outputs.shape == (100, 64)
    assert np.abs(outputs).mean() > 0.01
    assert_close(outputs, np.array(loop(x, p)))


# What is refused


def test_run_says_which_parameter_does_not_fit() -> None:
    cell = cells.get("lstm")
    params = parameters(cell)
    with pytest.raises(CharRNNError, match=r"parameter U .* has shape \(6, 5\), expected"):
        run_cell(cell, np.ones((2, I)), {**params, "U": params["U"][:, :5]})
    with pytest.raises(CharRNNError, match="needs exactly W, U, b"):
        run_cell(cell, np.ones((2, I)), {"W": params["W"]})
    with pytest.raises(CharRNNError, match="inputs have shape"):
        run_cell(cell, np.ones(I), params)


def test_an_unknown_cell_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CharRNNError, match="lstm"):
        cells.get("lsmt")


def test_a_name_is_given_once() -> None:
    lstm = cells.get("lstm")
    assert cells.register(lstm) is lstm
    with pytest.raises(CharRNNError, match="registered already"):
        cells.register(Cell("lstm", "", "", lstm.parameters, {"h": 0, "c": 0}, lstm.step))


def test_a_cell_is_a_step_or_a_linear_recurrence() -> None:
    linear = cells.get("rg-lru")
    with pytest.raises(CharRNNError, match="neither or both"):
        Cell("none", "", "", linear.parameters, {"h": 0})
    with pytest.raises(CharRNNError, match="2 states"):
        Cell("two", "", "", linear.parameters, {"h": 0, "c": 0}, gates=linear.gates, readout=linear.readout)


def test_options_a_cell_does_not_have_are_refused() -> None:
    with pytest.raises(CharRNNError, match="no option 'depth'"):
        cells.get("lstm").shapes(2, 3, depth=4)
