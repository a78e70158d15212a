"""The ops that equations are written in: NumPy, torch and Numba agree, also at the ends of the range."""

from typing import Any

import numpy as np
import pytest
import torch
from compiled import MachineCode

from charrnn.cells import ops
from charrnn.compiler.decoding.trace import Function, Graph

EDGES = [0.0, -0.0, 1e-300, -1e-300, 1e-8, 0.5, -0.5, 1, -1, 20, -20, 25, -25, 37, -37, 300, -300, 700]
UNARY = ["sigmoid", "tanh", "exp", "expm1", "relu", "softplus"]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numpy_and_torch_agree_everywhere(name: str, dtype: Any) -> None:
    x = np.array(EDGES + list(np.random.default_rng(0).standard_normal(200) * 5), dtype=dtype)
    if name in ("exp", "expm1"):
        x = np.minimum(x, 80)
    op, eps = getattr(ops, name), np.finfo(dtype).eps
    ours, theirs = op(x), op(torch.from_numpy(x)).numpy()
    assert ours.dtype == theirs.dtype == dtype
    np.testing.assert_allclose(ours, theirs, rtol=8 * eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numba_agrees_with_numpy_everywhere(dtype: Any) -> None:
    rng, eps, tiny = np.random.default_rng(0), np.finfo(dtype).eps, np.finfo(dtype).tiny
    x = np.array([*EDGES, -700, -1e4, 1e4, np.inf, -np.inf, np.nan, *(5 * rng.standard_normal(196))], dtype=dtype)
    y = np.roll(x, 1)
    results = compiled_ops(x, y, dtype)
    with np.errstate(all="ignore"):  # overflow and inf - inf are what is asked for
        # The exact results, nearly: of float64 where float32 is tested. Both may be off by 4 units in the last place.
        wide = (x.astype(np.float64), y.astype(np.float64))
        for name in (*UNARY, "sqrt", "maximum", "minimum"):
            expected = getattr(ops, name)(*wide if name in ("maximum", "minimum") else wide[:1]).astype(dtype)
            np.testing.assert_allclose(results[name], expected, rtol=8 * eps, atol=tiny, err_msg=name)
    finite = ops.split(np.nan_to_num(x, posinf=1, neginf=-1) / 1e4, 2)
    for name, part in zip(("first", "second"), finite, strict=True):
        assert np.array_equal(results[name], part)
    assert np.array_equal(results["concat"], np.concatenate(finite[::-1]))
    # A sum of n numbers, and n more in the variance: off by n roundings each.
    np.testing.assert_allclose(results["layernorm"], ops.layernorm(finite[0]), rtol=0, atol=len(x) * eps)


def compiled_ops(x: Any, y: Any, dtype: Any) -> dict[str, Any]:
    """What machine code makes of x and y (N,): every op's result by name; and the two halves of a tame x."""
    graph, tame = Graph(), np.nan_to_num(x, posinf=1, neginf=-1) / dtype(1e4)
    a, b, c = (graph.input(name, len(x)) for name in ("x", "y", "tame"))
    traced = {name: getattr(ops, name)(a) for name in (*UNARY, "sqrt")}
    traced |= {name: getattr(ops, name)(a, b) for name in ("maximum", "minimum")}
    first, second = ops.split(c, 2)
    traced |= {"first": first, "second": second, "concat": ops.concat(second, first), "layernorm": ops.layernorm(first)}
    function = Function({name: len(x) for name in ("x", "y", "tame")}, {n: t.node for n, t in traced.items()})
    code = MachineCode({"every_op": function}, np.dtype(dtype).name)
    scratch = code.scratch()
    for name, value in (("x", x), ("y", y), ("tame", tame)):
        scratch[code.place(name)] = value
    code(scratch, {})
    return {name: scratch[code.place(name)].copy() for name in traced}


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
