"""Stages of a `Step` or a `Plan` as LLVM instructions, and the products between them: for training and completing.

A stage runs some rows. Every function gets a table with a line for each buffer: address, bytes from one time slot to
the next, bytes from one row to the next, and a mask for slots (-1 all, 1 two that take turns, 0 one).
"""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import Any

from charrnn.cells import ops
from charrnn.compiler.arithmetic import Maths, Value, read, write
from charrnn.compiler.blocks import Product
from charrnn.compiler.emitting import I64, define, load, loop, nth, store
from charrnn.compiler.graph import Node, walk
from charrnn.compiler.passes import Pass, in_passes
from charrnn.compiler.products import Form
from charrnn.compiler.rounding import emit_round
from charrnn.compiler.schedule import INDEX, MATRIX, ROUNDED, ROUNDING, SCRATCH, Place, Step, Store

COLUMNS = 4  # of the table


class Stages:
    """Emits the stages of a plan, with products of a form, into a module.

    gradual: as `Maths` has it. scratch: how many numbers of scratch memory a row needs.
    """

    def __init__(self, module: Any, plan: Step, form: Form, gradual: bool = False) -> None:
        self.module, self.plan, self.form = module, plan, form
        self.double, self.scratch = form.kind == "float64", 0
        self.maths = partial(Maths, double=self.double, gradual=gradual)
        self._product = form.emit(module)
        self._round = emit_round(module) if form.kind == "int8" else None

    def emit_kernel(self, name: str, stores: Iterable[Store]) -> Any:
        """Emit the function of a stage, of (table's address, time step, first row, row after the last)."""
        function, builder, arguments = define(self.module, name, [I64] * 4, linkage="internal")
        passes, scratch = in_passes(tuple(stores), self.plan.buffers, self.form.kind != "pairs")
        self.scratch = max(self.scratch, scratch)
        _Kernel(self, builder, arguments, passes).emit()
        return function

    def emit_step(self, name: str) -> Any:
        """Emit the function of a step alone, of table, time step, first row, row after the last."""
        way = self.plan.forward
        kernels = [self.emit_kernel(f"{name}.{i}", stores) for i, stores in enumerate(way.stages)]
        function, builder, arguments = define(self.module, name, [I64] * 4)
        used = [kernel if stores else None for kernel, stores in zip(kernels, way.stages, strict=True)]
        self.emit_stages(builder, used, way.multiply, arguments)
        builder.ret_void()
        return function

    def emit_stages(self, builder: Any, kernels: list[Any], multiply: Sequence[Sequence[Product]], at: Any) -> None:
        """Emit stages, None for what is left out, each with the products that follow it. at: their arguments."""
        for kernel, products in itertools.zip_longest(kernels, multiply, fillvalue=()):
            if kernel is not None:
                builder.call(kernel, at)
            for product in products:
                self.emit_multiply(builder, product, *at)

    def emit_multiply(self, builder: Any, product: Product, table: Any, t: Any, first: Any, end: Any) -> None:
        """Emit one product of the rows from..to."""
        of = self.plan.equations.products[product.number]
        K, N = (sum(e.width for e in blocks) for blocks in (of.left, of.outputs))
        K, N = (N, K) if product.transposed else (K, N)
        place, column = self.plan.lefts[product.number, product.transposed]
        address, row = self._row_of(builder, table, place, t, first)
        left = builder.add(address, I64(column * self.size(place))), row
        out = self._row_of(builder, table, Place.of("out", product), I64(0), first)
        matrix = [entry(builder, table, self.plan.lines[Place.of(kind, product)], 0) for kind in MATRIX]
        self.multiply(builder, table, (first, end), left, K, matrix, out, I64(self.form.panels(N)))

    def multiply(
        self, builder: Any, table: Any, rows: Any, left: Any, K: int, matrix: list[Any], out: Any, panels: Any
    ) -> None:
        """Emit a product: of K numbers in each of the rows from..to by a packed matrix.

        left, out: address of the first row, and bytes from one to the next. matrix: its address, that of its scales.
        """
        first, end = rows
        n, others = builder.sub(end, first), []
        if self._round:
            rounded, steps = (self._row_of(builder, table, place, I64(0), first) for place in (ROUNDED, ROUNDING))
            with loop(builder, I64(0), n, 1) as r:
                x, to, step = (nth(builder, at, r, row) for at, row in (left, rounded, steps))
                store(builder, builder.call(self._round, [x, I64(K), to]), step)
            left, others = rounded, [matrix[1], steps[0]]
        builder.call(self._product, [*left, matrix[0], *out, n, I64(self.form.steps(K)), panels, *others])

    def _row_of(self, builder: Any, table: Any, buffer: Place, t: Any, row: Any) -> tuple[Any, Any]:
        return row_of(builder, table, self.plan.lines[buffer], t, row)

    def size(self, buffer: Place) -> int:
        """Return the bytes of a number."""
        if self.double:
            return 8
        product = buffer != SCRATCH and self.plan.buffers[buffer].product
        return 2 if product and self.form.kind == "pairs" else 4


def entry(builder: Any, table: Any, line: int, column: int) -> Any:
    """Load a number of the table."""
    return load(builder, builder.add(table, I64(8 * (COLUMNS * line + column))), I64)


def slot(builder: Any, table: Any, line: int, t: Any) -> Any:
    """Return the address of slot t of a buffer, by its line in the table."""
    t = builder.and_(t, entry(builder, table, line, 3))
    return nth(builder, entry(builder, table, line, 0), t, entry(builder, table, line, 1))


def row_of(builder: Any, table: Any, line: int, t: Any, row: Any) -> tuple[Any, Any]:
    """Return the address of a row in slot t, and bytes from one row to the next."""
    row_bytes = entry(builder, table, line, 2)
    return nth(builder, slot(builder, table, line, t), row, row_bytes), row_bytes


class _Kernel:
    """Emits a stage: for each row, pass by pass, for each block, all loads and arithmetic and then the stores."""

    def __init__(self, stages: Stages, builder: Any, arguments: Any, passes: list[Pass]) -> None:
        self.stages, self.builder, self.passes = stages, builder, passes
        self.table, self.t, self.first, self.end = arguments
        self.bases: dict[tuple[Place, int], Any] = {}
        self.rows: dict[tuple[Place, int], Any] = {}
        self.scalar = stages.maths(self.builder, 1)
        self.numbers: dict[Node, Value] = {}  # one for a whole row

    def emit(self) -> None:
        builder = self.builder
        used = {(s.buffer, s.shift) for each in self.passes for s in each.stores}
        computed = walk([expr for each in self.passes for expr in each.expressions], lambda node: node.args)
        used |= {(node.data[0], node.data[2]) for node in computed if node.op == "load"}
        used |= {(INDEX, shift) for buffer, shift in used if self._looked_up(buffer)}
        lines = self.stages.plan.lines
        for buffer, shift in sorted(used, key=lambda each: (lines[each[0]], each[1])):  # the same code every time
            t = I64(0) if self._looked_up(buffer) else builder.add(self.t, I64(shift))
            base = slot(builder, self.table, lines[buffer], t)
            self.bases[buffer, shift] = base, entry(builder, self.table, lines[buffer], 2)
        with loop(builder, self.first, self.end, 1) as r:
            for (buffer, shift), (base, row_bytes) in self.bases.items():
                row = r
                if self._looked_up(buffer):
                    index, index_bytes = self.bases[INDEX, shift]
                    row = load(builder, nth(builder, index, r, index_bytes), I64)
                self.rows[buffer, shift] = nth(builder, base, row, row_bytes)
            for each in self.passes:
                self._emit_pass(each)
        builder.ret_void()

    def _emit_pass(self, each: Pass) -> None:
        for width in sorted({expr.width for expr in each.expressions} - {0}):
            self._emit_blocks(width, each.of_width(width))
        # Numbers of a row are stored last: the blocks may read those of the step before in their places.
        numbers = [(s, self._number(s.expr)) for s in each.stores if s.expr.width == 0]
        for s, number in numbers:
            write(self.scalar, number, *self._address(s.buffer, s.column, s.shift, I64(0)))

    def _looked_up(self, buffer: Place) -> bool:
        return buffer in self.stages.plan.buffers and self.stages.plan.buffers[buffer].slots == "rows"

    def _emit_blocks(self, width: int, of: Pass) -> None:
        # float64 calls the C library, number by number.
        lanes = 1 if self.stages.double else self.stages.form.lanes
        whole = width // lanes * lanes
        for step, begin, end in ((lanes, 0, whole), (width - whole, whole, width)):  # the rest is a shorter vector
            if begin == end:
                continue
            maths = self.stages.maths(self.builder, step)
            made = {node: maths.splat(self._number(node)) for node in _numbers_of_rows(of.expressions)}
            starts = [maths.constant(ops.TABLE[node.op].identity or 0).ir for node in of.reductions]
            blocks = loop(self.builder, I64(begin), I64(end), step, starts)
            with blocks as j:
                results = [self._emit_expr(maths, s.expr, j, made) for s in of.stores]
                reduced = []
                for (node, given), so_far in zip(of.reductions.items(), blocks.carried, strict=True):
                    apply = partial(maths.apply, node.op)
                    number = reduce(apply, [self._emit_expr(maths, e, j, made) for e in given])
                    reduced.append(apply(Value(maths, so_far), number).ir)
                for s, value in zip(of.stores, results, strict=True):
                    at, size = self._address(s.buffer, s.column, s.shift, j)
                    write(maths, value + read(maths, at, size) if s.add else value, at, size)
                blocks.carry(reduced)
            for node, value in zip(of.reductions, blocks.carried, strict=True):
                number = maths.reduce(node.op, Value(maths, value))
                before = self.numbers.get(node)
                self.numbers[node] = number if before is None else self.scalar.apply(node.op, before, number)

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
        size = self.stages.size(buffer)
        return nth(self.builder, self.rows[buffer, shift], self.builder.add(j, I64(column)), size), size


def _numbers_of_rows(exprs: list[Node]) -> list[Node]:
    """List what loops over blocks take from outside, in an order that is the same every time."""
    found = walk(exprs, lambda node: () if node.of_row else node.args)
    return sorted((node for node in found if node.of_row), key=lambda node: node.number)
