"""Matrices packed for the products of a time loop, in one pass over each.

A step of training packs every matrix as it is and turned around, so this counts. The code is LLVM's, a part of the time
loop's: panels of columns, rows one after the other in each, and of bf16 numbers rows in pairs (`compiler.products`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charrnn.compiler.arithmetic import Maths, as_bf16, in_parts, read
from charrnn.compiler.emitting import I32, I64, define, load, loop, nth, store
from charrnn.compiler.products import Form
from charrnn.compiler.training import threads as team

PANELS = 8  # of a part, at least: fewer do not make up for waking a thread


def pack(address: int, matrix: Tensor, form: Form, transposed: bool) -> Tensor:
    """Pack a matrix (K, N), or the transpose of (N, K), by the code of `emit` at an address.

    matrix: float64 for a form of that, else float32. Returns the panels, of words: numbers, or pairs of bf16 ones.
    """
    matrix = matrix if matrix.stride(1) == 1 else matrix.contiguous()
    K, N = reversed(matrix.shape) if transposed else matrix.shape
    words = torch.int32 if form.kind == "pairs" else matrix.dtype
    packed = torch.empty(form.panels(N), form.steps(K), form.panel, dtype=words)
    task = np.array([matrix.data_ptr(), matrix.stride(0) * matrix.element_size(), packed.data_ptr(), K, N], np.int64)
    threads, panels = torch.get_num_threads(), len(packed)
    parts = max(1, min(threads, panels // PANELS))
    cuts = itertools.pairwise(panels * i // parts for i in range(parts + 1))
    team.run(address, [(task.ctypes.data, 0, first, end) for first, end in cuts], threads)
    return packed


def emit(module: Any, form: Form, transposed: bool) -> str:
    """Add to a module the function that packs some panels, and return its name.

    Its arguments: the address of five whole numbers (the matrix's address, bytes of its row, where panels go, K, N), 0,
    the first panel, the one after the last.
    """
    name = "pack.transposed" if transposed else "pack"
    _, builder, (task, _, first, end) = define(module, name, [I64] * 4)
    matrix, row_bytes, to, K, N = (load(builder, builder.add(task, I64(8 * i)), I64) for i in range(5))
    size = 8 if form.kind == "float64" else 4
    step_bytes, steps = form.panel * size, builder.udiv(builder.add(K, I64(form.group - 1)), I64(form.group))
    emit_panel = _emit_turned if transposed else _emit_rows
    with loop(builder, first, end, 1) as p:
        column = builder.mul(p, I64(form.panel))
        left = builder.sub(N, column)
        columns = builder.select(builder.icmp_signed("<", left, I64(form.panel)), left, I64(form.panel))
        panel = nth(builder, to, p, builder.mul(steps, I64(step_bytes)))
        at = nth(builder, matrix, column, row_bytes if transposed else size)
        emit_panel(builder, form, at, row_bytes, panel, K, columns)
        with loop(builder, I64(0), steps, 1) as s, loop(builder, columns, I64(form.panel), 1) as j:
            zero = Maths(builder, 1, size == 8).constant(0)
            store(builder, zero.ir, nth(builder, nth(builder, panel, s, step_bytes), j, size))
    builder.ret_void()
    return name


def _emit_rows(builder: Any, form: Form, at: Any, row_bytes: Any, panel: Any, K: Any, columns: Any) -> None:
    """Fill a panel from rows: of bf16 numbers two together, of which the last may lack its second."""
    double, size = form.kind == "float64", 8 if form.kind == "float64" else 4

    def emit_step(step: Any, rows: Sequence[Any]) -> None:
        to = nth(builder, panel, step, form.panel * size)
        for maths, begin, end in in_parts(builder, columns, double):
            with loop(builder, begin, end, maths.lanes) as j:
                numbers = [read(maths, nth(builder, row, j, size), size) for row in rows]
                store(builder, _word(maths, numbers) if form.group == 2 else numbers[0].ir, nth(builder, to, j, size))

    whole = builder.udiv(K, I64(form.group))
    with loop(builder, I64(0), whole, 1) as step:
        first = nth(builder, at, step, builder.mul(row_bytes, I64(form.group)))
        emit_step(step, [builder.add(first, builder.mul(row_bytes, I64(k))) for k in range(form.group)])
    if form.group == 2:
        with loop(builder, builder.mul(whole, I64(2)), K, 1) as k:
            emit_step(whole, [nth(builder, at, k, row_bytes)])


def _emit_turned(builder: Any, form: Form, at: Any, row_bytes: Any, panel: Any, K: Any, columns: Any) -> None:
    """Fill a panel from the columns of the transpose: a register of each, so that lines stay in the cache."""
    double, size = form.kind == "float64", 8 if form.kind == "float64" else 4
    whole = builder.udiv(K, I64(form.group))
    for maths, begin, end in in_parts(builder, whole, double):
        with loop(builder, begin, end, maths.lanes) as step, loop(builder, I64(0), columns, 1) as n:
            numbers = Maths(builder, maths.lanes * form.group, double)
            given = read(numbers, nth(builder, nth(builder, at, n, row_bytes), step, form.group * size), size)
            words = builder.bitcast(as_bf16(given), maths.many(I32)) if form.group == 2 else given.ir
            for lane in range(maths.lanes):
                word = words if maths.lanes == 1 else builder.extract_element(words, I32(lane))
                row = nth(builder, panel, builder.add(step, I64(lane)), form.panel * size)
                store(builder, word, nth(builder, row, n, size))
    if form.group == 2:
        one, row = Maths(builder, 1), nth(builder, panel, whole, form.panel * size)
        with loop(builder, builder.mul(whole, I64(2)), K, 1) as k, loop(builder, I64(0), columns, 1) as n:
            number = read(one, nth(builder, nth(builder, at, n, row_bytes), k, size), size)
            store(builder, _word(one, [number]), nth(builder, row, n, size))


def _word(maths: Maths, numbers: Sequence[Any]) -> Any:
    """Return two bf16 numbers side by side in 32 bits, the second 0 where there is none."""
    builder = maths.builder
    words = [builder.zext(as_bf16(number), maths.many(I32)) for number in numbers]
    return words[0] if len(words) == 1 else builder.or_(words[0], builder.shl(words[1], maths.whole(16)))
