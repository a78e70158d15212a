"""Machine code for the time loop of a layer, forwards and backwards, made by LLVM from a `Plan`.

One call runs some rows through all time steps, products and all. Rows do not depend on each other: threads share them
out and never wait, and the result does not depend on how many threads there are.
"""

import ctypes
from typing import Any

import torch

from charrnn.compiler.arithmetic import I64, Maths, define
from charrnn.compiler.objects import compiled, new_module
from charrnn.compiler.products import load, loop
from charrnn.compiler.rounding import read, write
from charrnn.compiler.schedule import Plan, Way
from charrnn.compiler.stages import Stages
from charrnn.compiler.training.products import Shape


class Machine(Stages):
    """The compiled time loops of a plan with products in a dtype.

    forward and backward are addresses of functions of (table's address, time steps, first row, row after the last).
    add_rows takes (rows' address, bytes of a row, index's address, rows, sums' address, bytes of a row, first column,
    column after the last) and adds each row to the row of sums that its index says.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.shape, self.trained = Shape(dtype), plan
        super().__init__(new_module(), plan, self.shape)
        for name, way in (("forward", plan.forward), ("backward", plan.backward)):
            self._emit_way(name, way)
        self._emit_add_rows()
        self.code = compiled(str(self.module))
        self.forward, self.backward, add_rows = map(self.code.address, ("forward", "backward", "add_rows"))
        self.add_rows = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(add_rows)

    # The loop over time

    def _emit_way(self, name: str, way: Way) -> None:
        head, *middle = (f"{name}.{i}" for i in ("head", *range(1, len(way.multiply))))
        stages = {f"{name}.tail": way.stages[-1]}
        if way.multiply:
            stages |= {head: way.stages[0], f"{name}.merged": way.merged}
            stages |= dict(zip(middle, way.stages[1:-1], strict=True))
        kernels = {stage: self.emit_kernel(stage, stores) for stage, stores in stages.items()}
        _, builder, (table, T, first, end) = define(self.module, name, [I64] * 4)
        # Steps are counted from 0; t runs downwards on the way back.
        last = builder.sub(T, I64(1))

        def run(i: Any, stage: str) -> None:
            """Emit what precedes the last stage of step i, and then that stage."""
            t = i if way.step > 0 else builder.sub(last, i)
            for before, products in zip([None, *middle], way.multiply, strict=False):
                if before is not None:
                    builder.call(kernels[before], [table, t, first, end])
                for product in products:
                    self.emit_multiply(builder, product, table, t, first, end)
            builder.call(kernels[f"{name}.{stage}"], [table, t, first, end])

        if way.multiply:
            t = I64(0) if way.step > 0 else builder.sub(last, I64(0))
            builder.call(kernels[head], [table, t, first, end])
            with loop(builder, I64(0), last, 1) as i:
                run(i, "merged")
            run(last, "tail")
        else:
            with loop(builder, I64(0), T, 1) as i:
                run(i, "tail")
        builder.ret_void()

    def _emit_add_rows(self) -> None:
        _, builder, (rows, row_bytes, index, n, sums, sum_bytes, first, end) = define(
            self.module, "add_rows", [I64] * 8
        )
        size, sum_size = 2 if self.shape.dtype == torch.bfloat16 else 8 if self.double else 4, 8 if self.double else 4
        lanes = self.shape.processor.vector_bytes // sum_size
        with loop(builder, I64(0), n, 1) as r:
            row = builder.add(rows, builder.mul(r, row_bytes))
            to = load(builder, builder.add(index, builder.mul(r, I64(8))), I64)
            sum_ = builder.add(sums, builder.mul(to, sum_bytes))
            whole = builder.add(first, builder.and_(builder.sub(end, first), I64(-lanes)))
            for step, begin, stop in ((lanes, first, whole), (1, whole, end)):
                maths = Maths(builder, step, self.double)
                with loop(builder, begin, stop, step) as j:
                    at = builder.add(sum_, builder.mul(j, I64(sum_size)))
                    value = read(maths, builder.add(row, builder.mul(j, I64(size))), size)
                    write(maths, value + read(maths, at, sum_size), at, sum_size)
        builder.ret_void()
