"""The few functions that equations are written in, for NumPy arrays and torch tensors alike.

Every op takes arrays whose last axis is the feature axis and whose leading axes, if any, are rows or time steps; none
modifies its arguments. An equation may use these ops, `+ - * / @`, unary minus, numbers, indexing by an integer, and
functions made of these.

This is the one table of operations: a row says what an operation is for NumPy and torch, its derivative, its cost, and
its code for each compiler. Whoever adds one adds a row here, and nothing elsewhere. torch is never imported here: an
array that is neither NumPy's nor a symbol is a torch tensor, so torch is already there.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from charrnn.cells.operation import Array as Array
from charrnn.cells.operation import Operation, Symbol

F = TypeVar("F", bound=Callable[..., Any])
TWO = ("a", "b")


def equation(function: F) -> F:
    """Return a function as it is: files of cells once had to mark their helpers so, and may still do."""
    return function


# What moves numbers, and multiplies them by matrices


def matmul(a: Array, b: Array) -> Array:
    """Multiply (..., I) by (I, O) to (..., O). A cell's matrices appear here and nowhere else."""
    return a @ b


def split(x: Array, parts: int) -> tuple[Array, ...]:
    """Cut the last axis into `parts` equal parts: (..., parts * H) gives `parts` arrays (..., H)."""
    width = x.shape[-1] // parts
    if not isinstance(x, np.ndarray):
        return tuple(x.split(width, dim=-1))  # its gradient is one join; that of slices fills the whole for each part
    return tuple(x[..., i * width : (i + 1) * width] for i in range(parts))


def concat(a: Array, b: Array) -> Array:
    """Join two arrays along the last axis: (..., I) and (..., J) give (..., I + J)."""
    if isinstance(a, np.ndarray):
        return np.concatenate((a, b), axis=-1)
    return a.record("concat", a, b) if isinstance(a, Symbol) else sys.modules["torch"].cat((a, b), dim=-1)


# What derivatives are made of

_positive = Operation(
    "positive",
    "Return 1 where x is above 0, else 0.",
    numpy=lambda x: (x > 0).astype(x.dtype),
    torch=lambda x: (x > 0).to(x.dtype),
    llvm=lambda m, x: m.choose(x.compare(">", 0), 1, 0),
    triton="tl.where({0} > 0, 1.0, 0.0)",
)
_sign = Operation(
    "sign",
    "Return 1 where x is above 0, -1 where it is below, else 0.",
    numpy=lambda x: (x > 0).astype(x.dtype) - (x < 0),
    torch=lambda x: x.sign(),
    llvm=lambda m, x: m.choose(x.compare(">", 0), 1, m.choose(x.compare("<", 0), -1, 0)),
    triton="tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))",
)
_above = Operation(
    "above",
    "Return 1 where a is above b, a half where they are equal, else 0.",
    numpy=lambda a, b: (a > b).astype(a.dtype) + (a == b) / a.dtype.type(2),
    torch=lambda a, b: (a > b).to(a.dtype) + (a == b).to(a.dtype) / 2,
    llvm=lambda m, a, b: m.choose(a.compare(">", b), 1, m.choose(a.compare("==", b), 0.5, 0)),
    triton="tl.where({0} > {1}, 1.0, tl.where({0} == {1}, 0.5, 0.0))",
    parameters=TWO,
)
_total = Operation(
    "total",
    "Return the sum over the last axis, which becomes one number.",
    numpy=lambda x: x.sum(axis=-1, keepdims=True),
    torch=lambda x: x.sum(dim=-1, keepdim=True),
    llvm=lambda m, so_far, x: so_far + x,
    elementwise=False,
    identity=0,
)


# Arithmetic, which equations write with + - * / and -

_add = Operation(
    "add",
    "Return a + b.",
    numpy=lambda a, b: a + b,
    torch=lambda a, b: a + b,
    derivative=lambda d, a, b, y: (d, d),
    llvm=lambda m, a, b: a + b,
    triton="{} + {}",
    onnx=lambda graph, a, b: graph.add("Add", a, b),
    javascript="{} + {}",
    latex="{} + {}",
    parameters=TWO,
)
_sub = Operation(
    "sub",
    "Return a - b.",
    numpy=lambda a, b: a - b,
    torch=lambda a, b: a - b,
    derivative=lambda d, a, b, y: (d, -d),
    llvm=lambda m, a, b: a - b,
    triton="{} - {}",
    onnx=lambda graph, a, b: graph.add("Sub", a, b),
    javascript="{} - {}",
    latex="{} - {}",
    parameters=TWO,
)
_mul = Operation(
    "mul",
    "Return a b.",
    numpy=lambda a, b: a * b,
    torch=lambda a, b: a * b,
    derivative=lambda d, a, b, y: (d * b, d * a),
    llvm=lambda m, a, b: a * b,
    triton="{} * {}",
    onnx=lambda graph, a, b: graph.add("Mul", a, b),
    javascript="{} * {}",
    latex=r"{} \odot {}",
    parameters=TWO,
)
_div = Operation(
    "div",
    "Return a / b.",
    numpy=lambda a, b: a / b,
    torch=lambda a, b: a / b,
    derivative=lambda d, a, b, y: (d / b, -(d / b * y)),
    cost=4,
    llvm=lambda m, a, b: a / b,
    triton="{} / {}",
    onnx=lambda graph, a, b: graph.add("Div", a, b),
    javascript="{} / {}",
    latex=r"\frac{{{}}}{{{}}}",
    parameters=TWO,
)
_neg = Operation(
    "neg",
    "Return -x.",
    numpy=lambda x: -x,
    torch=lambda x: -x,
    derivative=lambda d, x, y: (-d,),
    llvm=lambda m, x: -x,
    triton="-{}",
    onnx=lambda graph, x: graph.add("Neg", x),
    javascript="-{}",
    latex="-{}",
)
_abs = Operation(
    "abs",
    "Return x without its sign.",
    numpy=np.abs,
    torch=lambda x: x.abs(),
    derivative=lambda d, x, y: (d * _sign(x),),
    llvm=lambda m, x: m.intrinsic("fabs", x),
    triton="tl.abs({})",
    onnx=lambda graph, x: graph.add("Abs", x),
    javascript="Math.abs({})",
    latex="|{}|",
)


# Functions


def _stable_sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # at most 1, so nothing overflows and small results keep their digits
    return np.where(x >= 0, 1, e) / (1 + e)


def _expm1_in_onnx(graph: Any, x: Any) -> Any:
    # Near zero by tanh(x / 2) = (e^x - 1) / (e^x + 1), which keeps the digits of a small x.
    one, t = graph.number(1), graph.add("Tanh", graph.add("Mul", x, graph.number(0.5)))
    near = graph.add("Div", graph.add("Add", t, t), graph.add("Sub", one, t))
    is_near = graph.add("Less", graph.add("Abs", x), one)
    return graph.add("Where", is_near, near, graph.add("Sub", graph.add("Exp", x), one))


def _log1p_in_onnx(graph: Any, x: Any) -> Any:
    # log(u) x / (u - 1), u = 1 + x: what the sum lost of x, the quotient loses too.
    one = graph.number(1)
    u = graph.add("Add", x, one)
    corrected = graph.add("Mul", graph.add("Log", u), graph.add("Div", x, graph.add("Sub", u, one)))
    return graph.add("Where", graph.add("Equal", u, one), x, corrected)


sigmoid = Operation(
    "sigmoid",
    "Return the logistic function 1 / (1 + exp(-x)), without overflow for any x.",
    numpy=_stable_sigmoid,
    torch=lambda x: x.sigmoid(),
    derivative=lambda d, x, y: (d * (y * (1 - y)),),
    cost=10,
    llvm=lambda m, x: m.sigmoid(x),
    triton="sigmoid({})",
    onnx=lambda graph, x: graph.add("Sigmoid", x),
    javascript="sigmoid({})",
    latex=r"\sigma({})",
)
tanh = Operation(
    "tanh",
    "Return the hyperbolic tangent.",
    numpy=np.tanh,
    torch=lambda x: x.tanh(),
    derivative=lambda d, x, y: (d * (1 - y * y),),
    cost=10,
    llvm=lambda m, x: m.tanh(x),
    triton="tanh({})",
    onnx=lambda graph, x: graph.add("Tanh", x),
    javascript="Math.tanh({})",
    latex=r"\tanh({})",
)
exp = Operation(
    "exp",
    "Return e to the x.",
    numpy=np.exp,
    torch=lambda x: x.exp(),
    derivative=lambda d, x, y: (d * y,),
    cost=8,
    llvm=lambda m, x: m.exp(x),
    triton="tl.exp({})",
    onnx=lambda graph, x: graph.add("Exp", x),
    javascript="Math.exp({})",
    latex=r"\exp({})",
)
expm1 = Operation(
    "expm1",
    "Return e to the x, less one, exact near zero.",
    numpy=np.expm1,
    torch=lambda x: x.expm1(),
    derivative=lambda d, x, y: (d * (y + 1),),
    cost=8,
    llvm=lambda m, x: m.expm1(x),
    triton="expm1({})",
    onnx=_expm1_in_onnx,
    javascript="Math.expm1({})",
    latex=r"\exp({}) - 1",
)
_log1p = Operation(
    "log1p",
    "Return log(1 + x), exact near zero; compiled for training, for x from 0 to 1.",
    numpy=np.log1p,
    torch=lambda x: x.log1p(),
    derivative=lambda d, x, y: (d / (1 + x),),
    cost=10,
    llvm=lambda m, x: m.log1p(x),
    triton="log1p({})",
    onnx=_log1p_in_onnx,
    javascript="Math.log1p({})",
    latex=r"\log(1 + {})",
)
sqrt = Operation(
    "sqrt",
    "Return the square root.",
    numpy=np.sqrt,
    torch=lambda x: x.sqrt(),
    derivative=lambda d, x, y: (d / (y + y),),
    cost=4,
    llvm=lambda m, x: m.intrinsic("sqrt", x),
    triton="tl.sqrt({})",
    onnx=lambda graph, x: graph.add("Sqrt", x),
    javascript="Math.sqrt({})",
    latex=r"\sqrt{{{}}}",
)
relu = Operation(
    "relu",
    "Return the positive part of x.",
    numpy=lambda x: np.maximum(x, 0),
    torch=lambda x: x.relu(),
    derivative=lambda d, x, y: (d * _positive(x),),
    llvm=lambda m, x: m.choose(x.compare("<", 0), 0, x),
    triton="tl.where({0} < 0, 0.0, {0})",
    onnx=lambda graph, x: graph.add("Relu", x),
    javascript="Math.max({}, 0)",
    latex=r"\mathrm{{relu}}({})",
)


SOFTPLUS_LATEX = r"\mathrm{{softplus}}({})"


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow for any x."""
    # Not torch's softplus: past its threshold it is the identity, which is not exact enough in float64.
    return relu(x) + _log1p(exp(-_abs(x)))


# Where a equals b, the larger and the smaller are half each, as torch has it.
maximum = Operation(
    "maximum",
    "Return the larger of a and b, element by element; -inf is allowed.",
    numpy=np.maximum,
    torch=lambda a, b: a.maximum(b),
    derivative=lambda d, a, b, y: (d * _above(a, b), d * _above(b, a)),
    llvm=lambda m, a, b: m.choose(a.compare(">", b), a, m.choose(a.compare("==", a), b, a)),  # either NaN is kept
    triton="tl.where({0} > {1}, {0}, tl.where({1} == {1}, {1}, {0}))",
    onnx=lambda graph, a, b: graph.add("Max", a, b),
    javascript="Math.max({}, {})",
    latex=r"\max({}, {})",
    parameters=TWO,
)
minimum = Operation(
    "minimum",
    "Return the smaller of a and b, element by element.",
    numpy=np.minimum,
    torch=lambda a, b: a.minimum(b),
    derivative=lambda d, a, b, y: (d * _above(b, a), d * _above(a, b)),
    llvm=lambda m, a, b: m.choose(a.compare("<", b), a, m.choose(a.compare("==", a), b, a)),
    triton="tl.where({0} < {1}, {0}, tl.where({1} == {1}, {1}, {0}))",
    onnx=lambda graph, a, b: graph.add("Min", a, b),
    javascript="Math.min({}, {})",
    latex=r"\min({}, {})",
    parameters=TWO,
)


# What looks across features


def _mean(x: Array) -> Array:
    return _total(x) * (1 / x.shape[-1])


def _inverse_deviation(x: Array) -> Array:
    centred = x - _mean(x)
    return 1 / sqrt(_mean(centred * centred) + EPSILON)


def _layernorm_derivative(d: Array, x: Array, y: Array) -> tuple[Array]:
    return ((d - _mean(d) - y * _mean(d * y)) * _inverse_deviation(x),)


def _normalized(x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + x.dtype.type(EPSILON))


EPSILON = 1e-5
layernorm = Operation(
    "layernorm",
    "Scale the last axis to zero mean and unit variance, 1e-5 added to the variance (Ba et al. 2016, eq. 4).",
    numpy=_normalized,
    torch=lambda x: sys.modules["torch"].nn.functional.layer_norm(x, x.shape[-1:], eps=EPSILON),
    derivative=_layernorm_derivative,
    llvm=lambda m, x: (x - _mean(x)) * _inverse_deviation(x),
    onnx=lambda graph, x: graph.add("LayerNormalization", x, graph.ones(x), epsilon=EPSILON),
    javascript=f"layernorm({{}}, {EPSILON!r}, {{}});",
    latex=r"\mathrm{{LN}}({})",
    elementwise=False,
)


TABLE = {operation.name: operation for operation in list(vars().values()) if isinstance(operation, Operation)}


def public() -> dict[str, Callable[..., Any]]:
    """Return the functions that equations are written in, by name, in the order of this file."""
    functions = {
        name: value
        for name, value in globals().items()
        if isinstance(value, Operation) or getattr(value, "__module__", "") == __name__
    }
    apart = ("F", "equation", "public")
    return {name: value for name, value in functions.items() if name not in apart and name[0] != "_"}
