"""Machine code for the time loop of a layer, forwards and backwards, made by LLVM from a `Plan`.

One call runs some rows through all time steps, products and all. Rows do not depend on each other: threads share them
out and never wait, and the result does not depend on how many threads there are.
"""

from typing import Any

import torch

from charrnn.compiler.arithmetic import Maths, read, write
from charrnn.compiler.emitting import I64, define, load, loop, nth
from charrnn.compiler.objects import compiled, new_module
from charrnn.compiler.schedule import Plan, Way
from charrnn.compiler.stages import Stages
from charrnn.compiler.training import packing
from charrnn.compiler.training.products import form


class Machine(Stages):
    """The compiled time loops of a plan with products in a dtype.

    forward and backward are addresses of functions of (table's address, time steps, first row, row after the last);
    packs those of `packing.emit`, of a matrix as it is and of its transpose. add_rows takes (rows' address, bytes of a
    row, index's address, rows, sums' address, bytes of a row, first column, column after the last) and adds each row to
    the row of sums that its index says.
    """

    plan: Plan

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        super().__init__(new_module(), plan, form(dtype))
        self.dtype = dtype
        for name, way in (("forward", plan.forward), ("backward", plan.backward)):
            self._emit_way(name, way)
        self._emit_add_rows()
        packs = [packing.emit(self.module, self.form, transposed) for transposed in (False, True)]
        self.code = compiled(str(self.module))
        self.forward, self.backward = self.code.address("forward"), self.code.address("backward")
        self.packs = [self.code.address(name) for name in packs]
        self.add_rows = self.code.function("add_rows", 8)

    # The loop over time

    def _emit_way(self, name: str, way: Way) -> None:
        kernels = [self.emit_kernel(f"{name}.{i}", stores) for i, stores in enumerate(way.stages)]
        _, builder, (table, T, first, end) = define(self.module, name, [I64] * 4)
        # Steps are counted from 0; t runs downwards on the way back.
        last = builder.sub(T, I64(1))

        def at(i: Any) -> tuple[Any, ...]:
            return table, i if way.step > 0 else builder.sub(last, i), first, end

        if way.multiply:
            merged = self.emit_kernel(f"{name}.merged", way.merged)
            builder.call(kernels[0], at(I64(0)))
            with loop(builder, I64(0), last, 1) as i:
                self.emit_stages(builder, [None, *kernels[1:-1], merged], way.multiply, at(i))
            self.emit_stages(builder, [None, *kernels[1:]], way.multiply, at(last))
        else:
            with loop(builder, I64(0), T, 1) as i:
                builder.call(kernels[0], at(i))
        builder.ret_void()

    def _emit_add_rows(self) -> None:
        _, builder, (rows, row_bytes, index, n, sums, sum_bytes, first, end) = define(
            self.module, "add_rows", [I64] * 8
        )
        size, sum_size = 2 if self.dtype == torch.bfloat16 else 8 if self.double else 4, 8 if self.double else 4
        lanes = self.form.processor.vector_bytes // sum_size
        with loop(builder, I64(0), n, 1) as r:
            row = nth(builder, rows, r, row_bytes)
            to = load(builder, nth(builder, index, r, 8), I64)
            sum_ = nth(builder, sums, to, sum_bytes)
            whole = builder.add(first, builder.and_(builder.sub(end, first), I64(-lanes)))
            for step, begin, stop in ((lanes, first, whole), (1, whole, end)):
                maths = Maths(builder, step, self.double)
                with loop(builder, begin, stop, step) as j:
                    at = nth(builder, sum_, j, sum_size)
                    value = read(maths, nth(builder, row, j, size), size)
                    write(maths, value + read(maths, at, sum_size), at, sum_size)
        builder.ret_void()
