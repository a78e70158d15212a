"""The few functions that equations are written in, for NumPy arrays and torch tensors alike.

Every op takes arrays whose last axis is the feature axis and whose leading axes, if any, are rows or time steps; none
modifies its arguments. torch is never imported here: an array that is not NumPy's is a torch tensor, so torch is
already there, or a stand-in that brings its own `library`: the compiler records equations that way.

An equation may use these ops, `+ - * / @`, unary minus, numbers, indexing by an integer, and functions made of these.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Array = Any  # a NumPy array or a torch tensor: the equations do not care which
F = TypeVar("F", bound=Callable[..., Any])


def equation(function: F) -> F:
    """Return a function as it is: files of cells once had to mark their helpers so, and may still do."""
    return function


def _library(x: Array) -> Any:
    return getattr(x, "library", None) or sys.modules["torch"]


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
    return _library(a).cat((a, b), dim=-1)


def sigmoid(x: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-x)), without overflow for any x."""
    if isinstance(x, np.ndarray):
        e = np.exp(-np.abs(x))  # at most 1, so nothing overflows and small results keep their digits
        return np.where(x >= 0, 1, e) / (1 + e)
    return x.sigmoid()


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return np.tanh(x) if isinstance(x, np.ndarray) else x.tanh()


def exp(x: Array) -> Array:
    """Return e to the x."""
    return np.exp(x) if isinstance(x, np.ndarray) else x.exp()


def expm1(x: Array) -> Array:
    """Return e to the x, less one, exact near zero."""
    return np.expm1(x) if isinstance(x, np.ndarray) else x.expm1()


def sqrt(x: Array) -> Array:
    """Return the square root."""
    return np.sqrt(x) if isinstance(x, np.ndarray) else x.sqrt()


def relu(x: Array) -> Array:
    """Return the positive part of x."""
    return np.maximum(x, 0) if isinstance(x, np.ndarray) else x.relu()


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow for any x."""
    if isinstance(x, np.ndarray):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    # Not torch's softplus: past its threshold it is the identity, which is not exact enough in float64.
    return x.relu() + (-x.abs()).exp().log1p()


def maximum(a: Array, b: Array) -> Array:
    """Return the larger of a and b, element by element; -inf is allowed."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) else _library(a).maximum(a, b)


def minimum(a: Array, b: Array) -> Array:
    """Return the smaller of a and b, element by element."""
    return np.minimum(a, b) if isinstance(a, np.ndarray) else _library(a).minimum(a, b)


def layernorm(x: Array) -> Array:
    """Scale the last axis to zero mean and unit variance, 1e-5 added to the variance (Ba et al. 2016, eq. 4)."""
    if isinstance(x, np.ndarray):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return centred / np.sqrt(variance + x.dtype.type(1e-5))
    return _library(x).nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)
