"""A step of AdaGrad on the rows of a matrix that were read, as one call of machine code.

Of thousands of rows a step reads some, several of them more than once. Their gradients are added up first, in the order
in which they come; then each row is changed once:

    s <- s + mean of g^2        w <- w - rate g / (sqrt(s) + small)
"""

import ctypes
import threading
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from charrnn.compiler import cache as disk
from charrnn.compiler.arithmetic import I32, I64, Maths, Value, define, in_parts
from charrnn.compiler.objects import compiled, new_module
from charrnn.compiler.processor import processor
from charrnn.compiler.products import FLOAT, load, loop, store
from charrnn.compiler.rounding import read, write
from charrnn.errors import WrongCodeWarning

TOLERANCE = 1e-4  # of the norm of what a step changes: wrong code is far off
_preparing = threading.Lock()


def step(weight: Tensor, gradient: Tensor, squares: Tensor, rate: Any, small: float) -> None:
    """Take a step, of any dtype and on any device. A row without a gradient stays as it is.

    weight: (R, C). gradient: like it, sparse or not. squares: (R,), the sums so far. rate: a number, or a tensor () on
    the device. Weight and squares change.
    """
    if not gradient.is_sparse:
        # Passes over the whole weight are what it costs on a GPU: there are two, all between is a number a row. To take
        # the rows that were read alone would need more kernels: how many there are is known there only.
        norms = torch.linalg.vector_norm(gradient, dim=1)
        squares.addcmul_(norms, norms, value=1 / gradient.shape[1])
        weight.addcmul_(gradient, (rate * (squares.sqrt() + small).reciprocal())[:, None], value=-1)
        return
    read = weight, gradient._indices()[0], gradient._values(), squares, rate, small
    if not take(*read):
        by_torch(*read)


def take(weight: Tensor, rows: Tensor, gradients: Tensor, squares: Tensor, rate: float, small: float) -> bool:
    """Take a step; False where nothing was done, since there is no code for such numbers or it is wrong here.

    weight: (R, C) float32. rows: (n,), which rows `gradients` (n, C) are of; a row may come more than once. squares:
    (R,), the sums so far. Weight and squares change.
    """
    numbers = (weight, gradients, squares)
    if any(each.dtype != torch.float32 or each.device.type != "cpu" for each in numbers) or not weight.is_contiguous():
        return False
    run = _code()
    if run is None:
        return False
    _take(run, weight, rows, gradients, squares, rate, small)
    return True


def by_torch(weight: Tensor, rows: Tensor, gradients: Tensor, squares: Tensor, rate: Any, small: float) -> None:
    """Take a step as `take` does, by torch's operations, of any dtype and on any device."""
    found, places = torch.unique(rows, return_inverse=True)
    sums = gradients.new_zeros(len(found), gradients.shape[1]).index_add_(0, places, gradients)
    own = squares[found].add_(sums.square().mean(dim=1))
    squares[found] = own
    weight.index_add_(0, found, sums.div_((own.sqrt() + small)[:, None]).mul_(-rate))


def _take(
    run: Any, weight: Tensor, rows: Tensor, gradients: Tensor, squares: Tensor, rate: float, small: float
) -> None:
    rows, gradients = rows.contiguous(), gradients.contiguous()
    n, columns = gradients.shape
    slots = torch.zeros(len(weight), dtype=torch.int32)
    found, sums = torch.empty(n, dtype=torch.int64), torch.empty(n, columns)
    addresses = (each.data_ptr() for each in (weight, squares, rows, gradients, slots, found, sums))
    run(*addresses, n, columns, rate, small)


@cache
def _code() -> Any:
    """Return the compiled function, tried when it is new; None, with a warning, where it is wrong on this processor."""
    with _preparing:
        code = compiled(_source())
        run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9, ctypes.c_float, ctypes.c_float)(code.address("learn"))
        if not code.is_new:
            return run
        if _is_right(run):
            disk.keep(code)
            return run
    warnings.warn(
        "code compiled for direct connections computes something else than torch on this processor: torch computes, "
        "which is slower; please report it with what `charrnn env` prints",
        WrongCodeWarning,
        stacklevel=4,
    )
    return None


def _is_right(run: Any) -> bool:
    draw = torch.Generator().manual_seed(7)
    weight, squares = torch.randn(9, 37, generator=draw), torch.rand(9, generator=draw)
    rows, gradients = torch.tensor([3, 5, 3, 0, 5, 3, 8]), torch.randn(7, 37, generator=draw)
    ways = [(weight.clone(), squares.clone()) for _ in range(2)]
    _take(run, ways[0][0], rows, gradients, ways[0][1], 0.3, 1e-8)
    by_torch(ways[1][0], rows, gradients, ways[1][1], 0.3, 1e-8)
    scale = float((ways[1][0] - weight).norm())
    return all(float((a - b).norm()) <= TOLERANCE * scale for a, b in zip(*ways, strict=True))


def _source() -> str:
    """Write down the code of the function `learn`.

    Its arguments: where weight, squares, rows and gradients are; slots, a zero of 32 bits for each row of the weight;
    room for n row numbers and for n rows; n, columns, rate and small.
    """
    module = new_module()
    kinds = [I64] * 9 + [FLOAT] * 2
    _, builder, (weight, squares, rows, gradients, slots, found, sums, n, columns, rate, small) = define(
        module, "learn", kinds
    )
    row_bytes, lanes = builder.mul(columns, I64(4)), processor().vector_bytes // 4
    one = Maths(builder, 1)

    def at(base: Any, i: Any, size: Any) -> Any:
        return builder.add(base, builder.mul(i, size))

    turns = loop(builder, I64(0), n, 1, [I64(0)])
    with turns as k:  # add up what is of one row
        count = turns.carried[0]
        row = load(builder, at(rows, k, I64(8)), I64)
        slot_at = at(slots, row, I64(4))
        known = builder.zext(load(builder, slot_at, I32), I64)
        is_new = builder.icmp_signed("==", known, I64(0))
        slot = builder.select(is_new, count, builder.sub(known, I64(1)))
        after = builder.select(is_new, builder.add(count, I64(1)), count)
        with builder.if_then(is_new):
            store(builder, builder.trunc(after, I32), slot_at)
            store(builder, row, at(found, slot, I64(8)))
        own, to = at(gradients, k, row_bytes), at(sums, slot, row_bytes)
        for maths, begin, end in in_parts(builder, columns, lanes):
            with loop(builder, begin, end, maths.lanes) as j:
                value, sum_at = read(maths, at(own, j, I64(4)), 4), at(to, j, I64(4))
                # Where nothing was added before, there may be any number, but it is not taken.
                total = builder.select(is_new, value.ir, (value + read(maths, sum_at, 4)).ir)
                write(maths, Value(maths, total), sum_at, 4)
        turns.carry([after])
    with loop(builder, I64(0), turns.carried[0], 1) as slot:
        row, own = load(builder, at(found, slot, I64(8)), I64), at(sums, slot, row_bytes)
        total = one.constant(0)
        for maths, begin, end in in_parts(builder, columns, lanes):
            squared = loop(builder, begin, end, maths.lanes, [maths.constant(0).ir])
            with squared as j:
                value = read(maths, at(own, j, I64(4)), 4)
                squared.carry([(Value(maths, squared.carried[0]) + value * value).ir])
            total = total + maths.reduce("total", Value(maths, squared.carried[0]))
        square_at = at(squares, row, I64(4))
        mean = total / Value(one, builder.sitofp(columns, FLOAT))
        sum_ = read(one, square_at, 4) + mean
        write(one, sum_, square_at, 4)
        step = Value(one, rate) / (one.intrinsic("sqrt", sum_) + Value(one, small))
        for maths, begin, end in in_parts(builder, columns, lanes):
            with loop(builder, begin, end, maths.lanes) as j:
                to = at(at(weight, row, row_bytes), j, I64(4))
                change = read(maths, at(own, j, I64(4)), 4) * maths.splat(step)
                write(maths, read(maths, to, 4) - change, to, 4)
    builder.ret_void()
    return str(module)
