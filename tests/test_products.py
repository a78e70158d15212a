"""Products of training's time loop, in every dtype and size, by the instructions that this processor has."""

import ctypes
import itertools

import numpy as np
import pytest
import torch
from compiled import function_of

from charrnn.compiler import objects
from charrnn.compiler.training import packing, products

SHAPES = [(1, 1), (2, 64), (3, 65), (31, 5), (32, 64), (33, 130), (64, 63), (66, 128), (95, 70), (129, 200)]
ROWS = [1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 64, 70]
AROUND = 3.5  # what stands before and behind C


def packed_by_code(matrix: torch.Tensor, dtype: torch.dtype, transposed: bool) -> torch.Tensor:
    """A matrix, or its transpose, packed for products in a dtype."""
    module, form = objects.new_module(), products.form(dtype)
    name = packing.emit(module, form, transposed)
    return packing.pack(objects.compiled(str(module)).address(name), matrix, form, transposed)


def multiplied(A: torch.Tensor, matrix: torch.Tensor, transposed: bool) -> torch.Tensor:
    """A (rows, K) by the matrix, compiled. A's rows and C's are longer than their numbers."""
    form = products.form(A.dtype)
    module = objects.new_module()
    form.emit(module).linkage = "external"
    (name,) = (each.name for each in module.functions if each.linkage == "external" and not each.is_declaration)
    wide = torch.float64 if A.dtype == torch.float64 else torch.float32
    packed = packed_by_code(matrix.to(wide), A.dtype, transposed)
    (rows, K), N = A.shape, matrix.shape[0 if transposed else 1]
    given = torch.ones(rows, K + 7, dtype=A.dtype)
    given[:, :K] = A
    C = torch.full((rows + 2, form.panels(N) * form.panel + 16), AROUND, dtype=wide)
    run = function_of(str(module), name, None, *[ctypes.c_int64] * 8)
    at = [given.data_ptr(), given.stride(0) * given.element_size(), packed.data_ptr()]
    run(*at, C[1].data_ptr(), C.stride(0) * C.element_size(), rows, form.steps(K), form.panels(N))
    assert (C[[0, -1]] == AROUND).all()
    assert (C[:, form.panels(N) * form.panel :] == AROUND).all()
    return C[1:-1, :N]


@pytest.mark.parametrize("dtype", products.KINDS)
def test_products_are_right_in_every_size_and_a_row_does_not_depend_on_others(dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    for (K, N), transposed in itertools.product(SHAPES, (False, True)):
        matrix = torch.randn((N, K) if transposed else (K, N), generator=numbers).to(dtype)
        A = torch.randn(max(ROWS), K, generator=numbers).to(dtype)
        wide = matrix.double().t() if transposed else matrix.double()
        exact, size = A.double() @ wide, A.double().abs() @ wide.abs()
        whole = multiplied(A, matrix, transposed)
        rounding = np.finfo(np.float64 if dtype == torch.float64 else np.float32).eps
        assert ((whole - exact).abs() <= K * rounding * size).all(), (K, N)
        for rows in ROWS:
            assert torch.equal(multiplied(A[-rows:], matrix, transposed), whole[-rows:]), (rows, K, N)


@pytest.mark.parametrize("dtype", products.KINDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_packed_matrices_are_panels_of_columns_in_the_order_that_products_read(
    dtype: torch.dtype, transposed: bool
) -> None:
    form, numbers = products.form(dtype), torch.Generator().manual_seed(0)
    for K, N in [*SHAPES, (300, 700)]:
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        matrix = torch.randn(K, 2 * N, generator=numbers, dtype=kind)[:, ::2]
        given = matrix.t() if transposed else matrix  # with numbers between those of a row
        packed = packed_by_code(given.contiguous(), dtype, transposed)
        assert torch.equal(packed, packed_by_code(given, dtype, transposed))
        rows, columns = form.steps(K) * form.group, form.panels(N) * form.panel
        whole = torch.zeros(rows, columns, dtype=dtype)
        whole[:K, :N] = matrix.to(dtype)
        panels = whole.view(form.steps(K), form.group, form.panels(N), form.panel).permute(2, 0, 3, 1)
        assert torch.equal(packed.view(dtype).view(panels.shape), panels), (K, N)
