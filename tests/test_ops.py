"""The table of operations: every row computes the same thing in every target, at the ends of the range too."""

import ctypes
import dataclasses
import math
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from compiled import CompiledStep
from llvmlite import binding as llvm
from llvmlite import ir
from numpy.typing import NDArray

from charrnn.cells import ops
from charrnn.cells.operation import Operation
from charrnn.compiler.arithmetic import Maths, Value
from charrnn.compiler.graph import Graph
from charrnn.compiler.targets.javascript import FUNCTIONS
from charrnn.compiler.targets.onnx import OnnxGraph
from charrnn.compiler.trace import Function, named

Array = NDArray[Any]
EDGES = [0.0, -0.0, 1e-300, -1e-300, 1e-8, 0.5, -0.5, 1, -1, 20, -20, 25, -25, 37, -37, 300, -300, 700]
FAR = [-700, -1e4, 1e4, np.inf, -np.inf, np.nan]
RNG = np.random.default_rng(0)
ELEMENTWISE = [name for name, operation in ops.TABLE.items() if operation.elementwise]
NUMPY = {name: operation.numpy for name, operation in ops.TABLE.items()}
NODE = shutil.which("node")
# Where a row is asked for less than all numbers, and where its derivative is.
DOMAINS = {"log1p": (0, 1), "exp": (-80, 80), "expm1": (-80, 80), "sqrt": (1e-3, 700)}
# A function of C's library, or of a vector unit, may be off by some units in the last place.
ULPS = 8


def arguments(operation: Operation, dtype: Any, edges: list[float]) -> list[Array]:
    """Arrays for an operation: edges and ordinary numbers, pairs of them that are equal too."""
    x = np.array([*edges, *(5 * RNG.standard_normal(194 - len(edges)))], dtype)
    if operation.name in DOMAINS:
        x = np.clip(x, *DOMAINS[operation.name])
    y = np.roll(x, 1)
    y[::7] = x[::7]
    return [x, np.where(y == 0, 1, y).astype(dtype) if operation.name == "div" else y][: len(operation.parameters)]


def exact(operation: Operation, given: list[Array]) -> Array:
    """The results as NumPy has them in float64, rounded; of the row as it stands in the file, whatever is tried."""
    with np.errstate(all="ignore"):
        return np.asarray(NUMPY[operation.name](*(x.astype(np.float64) for x in given)), given[0].dtype)


def assert_near(found: Any, expected: Array, name: str, absolute: float = 0) -> None:
    dtype = expected.dtype
    assert np.asarray(found).dtype == dtype
    atol = max(absolute, np.finfo(dtype).tiny)
    np.testing.assert_allclose(found, expected, rtol=ULPS * np.finfo(dtype).eps, atol=atol, err_msg=name)


# Targets: each computes an operation of arrays in its own way.


def by_numpy(operation: Operation, given: list[Array]) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(operation.numpy(*given))


def by_torch(operation: Operation, given: list[Array]) -> Array:
    return np.asarray(operation.torch(*map(torch.from_numpy, given)))


def by_llvm(operation: Operation, given: list[Array]) -> Array:
    """Number by number, as float64 is computed; and for float32 four at once."""
    double = given[0].dtype == np.float64
    lanes = 1 if double else 4
    padded = [np.concatenate([x, np.ones(-len(x) % lanes, x.dtype)]) for x in given]
    result = np.empty_like(padded[0])
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    i64 = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * (len(given) + 1)), "one_op")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    maths = Maths(builder, lanes, double)
    pointers = [builder.inttoptr(at, maths.number.as_pointer()) for at in function.args]
    loaded = [builder.load(pointer, align=result.itemsize) for pointer in pointers[:-1]]
    value = maths.apply(operation.name, *(Value(maths, each) for each in loaded))
    builder.store(value.ir, pointers[-1], align=result.itemsize)
    builder.ret_void()
    arrays = (*padded, result)
    addresses = [[a.ctypes.data + at * a.itemsize for a in arrays] for at in range(0, len(result), lanes)]
    run(module, "one_op", *addresses)
    return result[: len(given[0])]


def run(module: ir.Module, name: str, *calls: list[int]) -> None:
    """Compile a module and call one of its functions, with whole numbers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(calls[0]))(engine.get_function_address(name))
    for arguments in calls:
        function(*arguments)


def by_onnx(operation: Operation, given: list[Array]) -> Array:
    onnx = pytest.importorskip("onnx", reason="ONNX is an extra")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")
    names, width = operation.parameters, len(given[0])
    symbols, graph = Graph(), OnnxGraph()
    node = operation(*(named(symbols, name, width) for name in names)).node
    last = graph.function(Function(dict.fromkeys(names, width), {"result": node}), {n: n for n in names}, {})["result"]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width]) for name in (*names, last)]
    whole = onnx.helper.make_graph(graph.nodes, "one_op", info[:-1], info[-1:], graph.constants)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {n: x[None] for n, x in zip(names, given, strict=True)})[0][0])


def by_javascript(operation: Operation, given: list[Array]) -> Array:
    if NODE is None:
        pytest.skip("Node is not installed")
    lists = [[f"{x!r}".replace("inf", "Infinity").replace("nan", "NaN") for x in each.tolist()] for each in given]
    arrays = [f"Float64Array.from([{', '.join(each)}])" for each in lists]
    terms = [f"given[{k}][i]" for k in range(len(given))]
    loop = f"for (let i = 0; i < {len(given[0])}; i++) y[i] = {operation.javascript.format(*terms)};"
    script = f"{FUNCTIONS}\nconst given = [{', '.join(arrays)}], y = new Float64Array({len(given[0])});\n{loop}\n"
    script += "console.log(Array.from(y, (value) => String(value)).join(' '));"
    ran = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60, check=True)
    words = ran.stdout.replace("Infinity", "inf").split()
    return np.array([float(word) for word in words]).astype(given[0].dtype)


Way = Callable[[Operation, list[Array]], Array]
# Of each: the dtypes, and whether it must be right for what is far out.
TARGETS: dict[str, tuple[Way, tuple[Any, ...], bool]] = {
    "numpy": (by_numpy, (np.float32, np.float64), True),
    "torch": (by_torch, (np.float32, np.float64), True),
    "llvm": (by_llvm, (np.float32, np.float64), False),
    "onnx": (by_onnx, (np.float32,), False),
    "javascript": (by_javascript, (np.float64,), True),
}
ABSOLUTE = {"onnx": 1e-7}  # ONNX Runtime's own sigmoid is no nearer, for small results
COLUMNS = [
    (target, name)
    for target in TARGETS
    for name in ELEMENTWISE
    if target in ("numpy", "torch") or getattr(ops.TABLE[name], target)
]


def conforms(target: str, operation: Operation) -> None:
    """Compare one row in one target with NumPy in float64."""
    way, dtypes, far = TARGETS[target]
    for dtype in dtypes:
        given = arguments(operation, dtype, [*EDGES, *FAR] if far else [e for e in EDGES if abs(e) < 80])
        name = f"{operation.name} by {target} in {dtype.__name__}"
        assert_near(way(operation, given), exact(operation, given), name, ABSOLUTE.get(target, 0))


@pytest.mark.parametrize(("target", "name"), COLUMNS)
def test_a_row_computes_the_same_in_every_target(target: str, name: str) -> None:
    conforms(target, ops.TABLE[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_completing_computes_every_row(dtype: Any) -> None:
    """In loops over arrays, and in numbers that are far out too."""
    for name in ELEMENTWISE:
        row = ops.TABLE[name]
        given = arguments(row, dtype, [*EDGES, *FAR])
        graph = Graph()
        first, *others = [named(graph, f"state {k}" if k else "z", len(x)) for k, x in enumerate(given)]
        outputs = {"y": row(first, *others).node, **{f"state {k}": x.node for k, x in enumerate(others, 1)}}
        step = CompiledStep(
            None, Function({x.node.data: len(given[0]) for x in (first, *others)}, outputs), dtype.__name__
        )
        found = step(given[0], {f"state {k}": x for k, x in enumerate(given[1:], 1)}, {})["y"]
        assert_near(found, exact(row, given), name)


def test_every_row_that_an_equation_can_ask_for_has_every_target() -> None:
    asked = [op for op in ops.TABLE.values() if op.derivative is not None]
    assert len(asked) > 10
    for operation in asked:
        assert operation.llvm, operation.name
        assert operation.onnx, operation.name
        assert operation.javascript, operation.name
    for operation in ops.TABLE.values():  # what derivatives are made of is compiled with them
        assert operation.llvm or not operation.elementwise, operation.name


DIFFERENTIATED = [name for name, operation in ops.TABLE.items() if operation.derivative is not None]


def differentiates(operation: Operation) -> None:
    """Compare a row's derivative, computed by rows of NumPy, with torch's own."""
    given = arguments(operation, np.float64, [e for e in EDGES if abs(e) < 80])
    if operation.name == "div":
        given[1] = np.where(np.abs(given[1]) < 0.1, 1, given[1])
    tensors = [torch.from_numpy(x).requires_grad_() for x in given]
    y = operation.torch(*tensors)
    d = np.roll(given[0], 3)
    y.backward(torch.from_numpy(d))
    assert operation.derivative is not None
    for tensor, found in zip(tensors, operation.derivative(d, *given, y.detach().numpy()), strict=True):
        assert tensor.grad is not None
        np.testing.assert_allclose(found, tensor.grad, rtol=1e-12, atol=1e-13, err_msg=operation.name)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_a_row_gives_its_derivative(name: str) -> None:
    differentiates(ops.TABLE[name])


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("numpy", lambda x: np.tanh(np.float32(x)).astype(x.dtype)),
        ("torch", lambda x: x.sinh()),
        ("llvm", lambda m, x: m.tanh(x * 1.0001)),
        ("onnx", lambda graph, x: graph.add("Sigmoid", x)),
        ("javascript", "Math.tan({})"),
        ("derivative", lambda d, x, y: (d * (1 + y * y),)),
    ],
)
def test_a_broken_row_is_found(target: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(ops.tanh, **{target: wrong})
    monkeypatch.setitem(ops.TABLE, "tanh", broken)
    checked = differentiates if target == "derivative" else partial(conforms, target)
    with pytest.raises(AssertionError):
        checked(broken)


REDUCTIONS = [name for name, operation in ops.TABLE.items() if operation.identity is not None]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_takes_every_lane_once(name: str, dtype: Any) -> None:
    """Of whole numbers, which are exact: whatever the order."""
    for lanes in range(1, 18) if dtype == np.float32 else (1,):
        given = RNG.integers(-1000, 1000, lanes).astype(dtype)
        module = ir.Module()
        module.triple = llvm.get_process_triple()
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 2), "reduce")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        maths, one = (Maths(builder, n, dtype == np.float64) for n in (lanes, 1))
        pointers = [
            builder.inttoptr(at, m.number.as_pointer()) for at, m in zip(function.args, (maths, one), strict=True)
        ]
        start = maths.constant(ops.TABLE[name].identity or 0)
        loaded = Value(maths, builder.load(pointers[0], align=given.itemsize))
        builder.store(maths.reduce(name, maths.apply(name, start, loaded)).ir, pointers[1])
        builder.ret_void()
        result = np.full(1, np.nan, dtype)
        run(module, "reduce", [given.ctypes.data, result.ctypes.data])
        assert result == ops.TABLE[name].numpy(given), lanes
        assert result == ops.TABLE[name].torch(torch.from_numpy(given)).numpy()


def test_softplus_is_right_everywhere() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([*EDGES, *FAR[:-1]], dtype)
        with np.errstate(all="ignore"):
            expected = np.logaddexp(x.astype(np.float64), 0).astype(dtype)
            for found in (ops.softplus(x), ops.softplus(torch.from_numpy(x)).numpy()):
                np.testing.assert_allclose(found, expected, rtol=ULPS * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_parts_joins_and_norms_are_compiled_for_completing(dtype: Any) -> None:
    x = (RNG.standard_normal(220) / 3).astype(dtype)
    graph = Graph()
    first, second = ops.split(named(graph, "z", len(x)), 2)
    found = {"y": ops.concat(second, first), "first": first, "second": second, "norm": ops.layernorm(first)}
    states = {"first": 110, "second": 110, "norm": 110}
    step = Function({"z": len(x), **states}, {name: traced.node for name, traced in found.items()})
    results = CompiledStep(None, step, np.dtype(dtype).name)(x, {n: np.zeros(w, dtype) for n, w in states.items()}, {})
    parts = ops.split(x, 2)
    assert np.array_equal(results["first"], parts[0])
    assert np.array_equal(results["second"], parts[1])
    assert np.array_equal(results["y"], np.concatenate(parts[::-1]))
    # A sum of n numbers, and n more in the variance: off by n roundings each.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(results["norm"], ops.layernorm(parts[0]), rtol=0, atol=len(x) * eps)


def test_functions_with_large_arguments_do_not_overflow() -> None:
    x = np.array([-1e4, 1e4])
    assert ops.sigmoid(x).tolist() == [0, 1]
    assert ops.softplus(x).tolist() == [0, 1e4]
    assert ops.tanh(x).tolist() == [-1, 1]


def test_small_results_keep_their_digits() -> None:
    assert ops.sigmoid(np.array(-50.0)) == pytest.approx(np.exp(-50.0), rel=1e-15)
    assert ops.softplus(np.array(-50.0)) == pytest.approx(np.exp(-50.0), rel=1e-15)
    assert ops.expm1(np.array(1e-12)) == pytest.approx(1e-12, rel=1e-11)


def test_minus_infinity_is_a_legal_maximum_and_minimum() -> None:
    a, b = np.array([-np.inf, 2.0, -np.inf]), np.array([1.0, 1.0, -np.inf])
    for x, y in ((a, b), (torch.from_numpy(a), torch.from_numpy(b))):
        assert ops.maximum(x, y).tolist() == [1, 2, -np.inf]
        assert ops.minimum(x, y).tolist() == [-np.inf, 1, -np.inf]


def test_layernorm_has_mean_zero_and_variance_one_and_is_torchs() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 50)) * 7 + 3
    y = ops.layernorm(x)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(y, ops.layernorm(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-12)


def test_splitting_and_joining_are_each_others_inverse() -> None:
    x = np.arange(24.0).reshape(2, 12)
    for value in (x, torch.from_numpy(x)):
        a, b, c = ops.split(value, 3)
        assert a.shape == (2, 4)
        joined = ops.concat(ops.concat(a, b), c)
        assert np.array_equal(np.asarray(joined), x)


def test_products_keep_leading_axes() -> None:
    a, b = np.ones((2, 3, 4)), np.ones((4, 5))
    assert ops.matmul(a, b).shape == (2, 3, 5)
    assert ops.matmul(a[0, 0], b).shape == (5,)


def test_square_roots() -> None:
    assert ops.sqrt(np.array([0.0, 4.0])).tolist() == ops.sqrt(torch.tensor([0.0, 4.0])).tolist() == [0, 2]
    assert math.isnan(ops.sqrt(torch.tensor(-1.0)))
