"""Machine code for the time loop of a layer, forwards and backwards, made by LLVM from a `Plan`.

One call runs some rows through all time steps, products and all. Rows do not depend on each other: threads share them
out and never wait, and the result does not depend on how many threads there are.

Every function gets a table with a line for each buffer: address, bytes from one time slot to the next, bytes from one
row to the next, and a mask for slots (-1 all, 1 two that take turns, 0 one).
"""

import ctypes
from collections.abc import Iterable
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir

from charrnn.cells import ops
from charrnn.compiler import cache as object_cache
from charrnn.compiler.arithmetic import I16, I32, I64, BFloat, Maths, Value
from charrnn.compiler.graph import Node, walk
from charrnn.compiler.processor import processor
from charrnn.compiler.products import load, loop, store
from charrnn.compiler.training.passes import Pass, Reduction, in_passes
from charrnn.compiler.training.products import Shape
from charrnn.compiler.training.schedule import INDEX, SCRATCH, Place, Plan, Store, Way

COLUMNS = 4  # of the table


class Machine:
    """The compiled time loops of a plan with products in a dtype.

    lines: the line of each buffer in the table; besides the plan's, the index of looked-up buffers' rows, each
    product's packed matrix, and scratch memory, `scratch` numbers for each thread. forward and backward are addresses
    of functions of (table's address, time steps, first row, row after the last). add_rows takes (rows' address, bytes
    of a row, index's address, rows, sums' address, bytes of a row, first column, column after the last) and adds each
    row to the row of sums that its index says.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.plan, self.shape = plan, Shape(dtype)
        self.double = dtype == torch.float64
        places = [*plan.buffers, INDEX]
        places += [Place.of("packed", p) for p in (*plan.equations.products, *plan.derivative.products)]
        self.lines = {place: i for i, place in enumerate([*places, SCRATCH])}
        self.scratch = 0
        self.module = ir.Module()
        self.module.triple = llvm.get_process_triple()
        self._product = self.shape.emit(self.module)
        for name, way in (("forward", plan.forward), ("backward", plan.backward)):
            self._emit_way(name, way)
        self._emit_add_rows()
        self.code = compiled(str(self.module))
        self.forward, self.backward, add_rows = map(
            self.code.engine.get_function_address, ("forward", "backward", "add_rows")
        )
        self.add_rows = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(add_rows)

    # The loop over time

    def _emit_way(self, name: str, way: Way) -> None:
        stages = {"tail": way.tail}
        if way.multiply:
            stages |= {"head": way.head, "merged": way.merged}
            stages |= {str(i + 1): stage for i, stage in enumerate(way.middle)}
        kernels = {stage: self._emit_kernel(f"{name}.{stage}", stores) for stage, stores in stages.items()}
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [I64] * 4), name)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        table, T, first, end = function.args
        # Steps are counted from 0; t runs downwards on the way back.
        last = builder.sub(T, I64(1))

        def time(i: Any) -> Any:
            return i if way.step > 0 else builder.sub(last, i)

        def run(stage: str, t: Any) -> None:
            builder.call(kernels[stage], [table, t, first, end])

        def before_the_last_stage(t: Any) -> None:
            for i, multiplies in enumerate(way.multiply):
                if i > 0:
                    run(str(i), t)
                for m in multiplies:
                    self._emit_multiply(builder, table, t, first, end, m)

        if not way.multiply:
            with loop(builder, I64(0), T, 1) as i:
                run("tail", time(i))
        else:
            run("head", time(I64(0)))
            with loop(builder, I64(0), last, 1) as i:
                t = time(i)
                before_the_last_stage(t)
                run("merged", t)
            t = time(last)
            before_the_last_stage(t)
            run("tail", t)
        builder.ret_void()

    def _emit_multiply(self, builder: Any, table: Any, t: Any, first: Any, end: Any, m: Any) -> None:
        K, N = (sum(e.width for e in blocks) for blocks in (m.product.left, m.product.outputs))
        if not m.product.transposed:
            widths = [self.plan.buffers[m.out].width]
        else:  # constants among the derivatives have no width: the buffer's outputs say it
            of = next(p for p in self.plan.equations.products if p.number == m.product.number)
            K, widths = sum(e.width for e in of.outputs), [sum(e.width for e in of.left)]
        N = widths[0]
        address, row = self._row_of(builder, table, m.left, t, first)
        address = builder.add(address, I64(m.column * self._size(m.left)))
        out, out_row = self._row_of(builder, table, m.out, I64(0), first)
        packed = self._entry(builder, table, Place.of("packed", m.product), 0)
        rows = builder.sub(end, first)
        sizes = [rows, I64(self.shape.steps(K)), I64(self.shape.panels(N))]
        builder.call(self._product, [address, row, packed, out, out_row, *sizes])

    def _row_of(self, builder: Any, table: Any, buffer: Place, t: Any, row: Any) -> tuple[Any, Any]:
        """Return the address of a row in slot t, and bytes from one row to the next."""
        row_bytes = self._entry(builder, table, buffer, 2)
        return builder.add(self._slot(builder, table, buffer, t), builder.mul(row, row_bytes)), row_bytes

    def _slot(self, builder: Any, table: Any, buffer: Place, t: Any) -> Any:
        t = builder.and_(t, self._entry(builder, table, buffer, 3))
        offset = builder.mul(t, self._entry(builder, table, buffer, 1))
        return builder.add(self._entry(builder, table, buffer, 0), offset)

    def _entry(self, builder: Any, table: Any, buffer: Place, column: int) -> Any:
        return load(builder, builder.add(table, I64(8 * (COLUMNS * self.lines[buffer] + column))), I64)

    def _size(self, buffer: Place) -> int:
        """Return the bytes of a number."""
        if self.double:
            return 8
        product = buffer != SCRATCH and self.plan.buffers[buffer].product
        return 2 if product and self.shape.dtype == torch.bfloat16 else 4

    # A stage

    def _emit_kernel(self, name: str, stores: Iterable[Store]) -> Any:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [I64] * 4), name)
        function.linkage = "internal"
        passes, scratch = in_passes(tuple(stores), self.plan.buffers, self.shape.dtype != torch.bfloat16)
        self.scratch = max(self.scratch, scratch)
        _Kernel(self, function, passes).emit()
        return function

    def _emit_add_rows(self) -> None:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [I64] * 8), "add_rows")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        rows, row_bytes, index, n, sums, sum_bytes, first, end = function.args
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


class _Kernel:
    """Emits a stage: for each row, pass by pass, for each block, all loads and arithmetic and then the stores."""

    def __init__(self, machine: Machine, function: Any, passes: list[Pass]) -> None:
        self.machine, self.passes = machine, passes
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.table, self.t, self.first, self.end = function.args
        self.bases: dict[tuple[Place, int], Any] = {}
        self.rows: dict[tuple[Place, int], Any] = {}
        self.scalar = Maths(self.builder, 1, machine.double)
        self.numbers: dict[Node, Value] = {}  # one for a whole row

    def emit(self) -> None:
        builder = self.builder
        used = {(s.buffer, s.shift) for each in self.passes for s in each.stores}
        used |= _loaded([expr for each in self.passes for expr in each.expressions])
        used |= {(INDEX, shift) for buffer, shift in used if self._looked_up(buffer)}
        for buffer, shift in sorted(used, key=lambda each: (each[0].order, each[1])):
            t = I64(0) if self._looked_up(buffer) else builder.add(self.t, I64(shift))
            self.bases[buffer, shift] = (
                self.machine._slot(builder, self.table, buffer, t),
                self.machine._entry(builder, self.table, buffer, 2),
            )
        with loop(builder, self.first, self.end, 1) as r:
            for (buffer, shift), (base, row_bytes) in self.bases.items():
                row = r
                if self._looked_up(buffer):
                    index, index_bytes = self.bases[INDEX, shift]
                    row = load(builder, builder.add(index, builder.mul(r, index_bytes)), I64)
                self.rows[buffer, shift] = builder.add(base, builder.mul(row, row_bytes))
            for each in self.passes:
                self._emit_pass(each)
        builder.ret_void()

    def _emit_pass(self, each: Pass) -> None:
        for width in sorted({expr.width for expr in each.expressions} - {0}):
            stores = [s for s in each.stores if s.expr.width == width]
            self._emit_blocks(width, stores, [r.of_width(width) for r in each.reductions])
        # Numbers of a row are stored last: the blocks may read those of the step before in their places.
        numbers = [(s, self._number(s.expr)) for s in each.stores if s.expr.width == 0]
        for s, number in numbers:
            write(self.scalar, number, *self._address(s.buffer, s.column, s.shift, I64(0)))

    def _looked_up(self, buffer: Place) -> bool:
        return buffer in self.machine.plan.buffers and self.machine.plan.buffers[buffer].slots == "rows"

    def _emit_blocks(self, width: int, stores: list[Store], reductions: list[Reduction]) -> None:
        reductions = [r for r in reductions if r.given]
        expressions = Pass(tuple(reductions), tuple(stores)).expressions
        lanes = (
            1 if self.machine.double else self.machine.shape.processor.vector_bytes // 4
        )  # float64 calls the C library, number by number
        whole = width // lanes * lanes
        for step, begin, end in ((lanes, 0, whole), (width - whole, whole, width)):  # the rest is a shorter vector
            if begin == end:
                continue
            maths = Maths(self.builder, step, self.machine.double)
            made = {node: maths.splat(self._number(node)) for node in _numbers_of_rows(expressions)}
            starts = [maths.constant(ops.TABLE[r.node.op].identity or 0).ir for r in reductions]
            blocks = loop(self.builder, I64(begin), I64(end), step, starts)
            with blocks as j:
                results = [self._emit_expr(maths, s.expr, j, made) for s in stores]
                reduced = []
                for r, so_far in zip(reductions, blocks.carried, strict=True):
                    given = reduce(
                        partial(maths.apply, r.node.op), [self._emit_expr(maths, e, j, made) for e in r.given]
                    )
                    reduced.append(maths.apply(r.node.op, Value(maths, so_far), given).ir)
                for s, value in zip(stores, results, strict=True):
                    at, size = self._address(s.buffer, s.column, s.shift, j)
                    write(maths, value + read(maths, at, size) if s.add else value, at, size)
                blocks.carry(reduced)
            for r, value in zip(reductions, blocks.carried, strict=True):
                number = maths.reduce(r.node.op, Value(maths, value))
                others = [self.numbers[r.node]] if r.node in self.numbers else []
                self.numbers[r.node] = reduce(partial(self.scalar.apply, r.node.op), [*others, number])

    def _number(self, node: Node) -> Value:
        """Emit a number that is one for the whole row, once."""
        return self._emit_expr(self.scalar, node, I64(0), self.numbers)

    def _emit_expr(self, maths: Maths, expr: Node, j: Any, made: dict[Node, Value]) -> Value:
        if expr not in made:
            if expr.op == "constant":
                made[expr] = maths.constant(expr.data)
            elif expr.op == "load":
                buffer, column, shift = expr.data
                made[expr] = read(maths, *self._address(buffer, column, shift, j))
            else:
                made[expr] = maths.apply(expr.op, *(self._emit_expr(maths, a, j, made) for a in expr.args))
        return made[expr]

    def _address(self, buffer: Place, column: int, shift: int, j: Any) -> tuple[Any, int]:
        size = self.machine._size(buffer)
        offset = self.builder.mul(self.builder.add(j, I64(column)), I64(size))
        return self.builder.add(self.rows[buffer, shift], offset), size


def read(maths: Maths, address: Any, size: int) -> Value:
    """Load numbers from an address; bf16 ones, of 2 bytes, are widened."""
    builder = maths.builder
    if size != 2:
        return Value(maths, load(builder, address, maths.number))
    bits = builder.zext(load(builder, address, maths.many(I16)), maths.many(I32))
    return Value(maths, builder.bitcast(builder.shl(bits, maths.whole(16)), maths.number))


def write(maths: Maths, value: Value, address: Any, size: int) -> None:
    """Store numbers, rounded to the nearest bf16 ones where they have 2 bytes."""
    builder, result = maths.builder, value.ir
    if size == 2 and processor().multiplies_bf16:
        result = builder.bitcast(builder.fptrunc(result, maths.many(BFloat())), maths.many(I16))
    elif size == 2:  # to nearest, ties to even; LLVM would call a function that may not be there
        bits = value.bits()
        odd = builder.and_(builder.lshr(bits, maths.whole(16)), maths.whole(1))
        rounded = builder.add(builder.add(bits, maths.whole(0x7FFF)), odd)
        number = builder.select(value.compare("==", value), rounded, maths.whole(0x7FC00000))  # NaN stays NaN
        result = builder.trunc(builder.lshr(number, maths.whole(16)), maths.many(I16))
    store(builder, result, address)


def _numbers_of_rows(exprs: list[Node]) -> list[Node]:
    """List what loops over blocks take from outside, in an order that is the same every time."""
    found = walk(exprs, lambda node: () if node.of_row else node.args)
    return sorted((node for node in found if node.of_row), key=lambda node: node.number)


def _loaded(exprs: list[Node]) -> set[tuple[Place, int]]:
    return {(node.data[0], node.data[2]) for node in walk(exprs, lambda node: node.args) if node.op == "load"}


@cache
def compiled(source: str) -> object_cache.Code:
    """Return a module's code; layers that differ in what it does not depend on share it."""
    enabled = processor().enabled
    if processor().vector_bytes == 64:
        enabled += ",-prefer-256-bit"
    made_by = enabled + Path(__file__).read_text(encoding="utf-8")  # this module chooses the passes
    return object_cache.code(source, made_by, lambda: object_code(source, enabled))


def object_code(source: str, enabled: str) -> bytes:
    """Compile a module for this processor. enabled: its features, as LLVM writes them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(source)
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=processor().name, features=enabled, opt=2, jit=True
    )
    # The code has its vectors and tiles already: addresses out of loops is all it needs.
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_new_gvn_pass()
    passes.add_loop_rotate_pass()
    passes.add_instruction_combine_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(module)
    return code
