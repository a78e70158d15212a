"""The matrix product of a time step, as LLVM instructions: some rows by a packed matrix that stays the same.

    C (rows, N) = A (rows, K) by B (K, N)

B is packed in panels of PANEL columns, rows one after the other in each, so that it is read from front to back; bf16
rows come in pairs, the two numbers of a column side by side, the last one with a row of zeros if K is odd. A tile of 4
rows by one panel stays in registers while K runs: 16 sums, enough to keep the multipliers busy, each panel register
used four times and each number of A as often.
Packing is worth it because the same matrix is used at every time step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from charrnn.compiler.processor import Processor, processor
from charrnn.compiler.training.arithmetic import I32, I64, BFloat

ROWS = 4


@dataclass(frozen=True)
class Shape:
    """The form in which a matrix is packed for products in a dtype, on a processor."""

    dtype: torch.dtype
    processor: Processor = field(default_factory=processor)

    @property
    def lanes(self) -> int:
        """Sums in a register: float64, or float32 (of bf16 too)."""
        return self.processor.vector_bytes // (8 if self.dtype == torch.float64 else 4)

    @property
    def registers(self) -> int:
        """Registers across a panel: with as many rows, half of the 32 (or 16) there are."""
        return 4 if self.processor.vector_bytes == 64 else 2

    @property
    def panel(self) -> int:
        return self.lanes * self.registers

    def panels(self, N: int) -> int:
        return -(-N // self.panel)

    def steps(self, K: int) -> int:
        """Return how many numbers, or pairs of bf16 ones, a row of A has."""
        return -(-K // 2) if self.dtype == torch.bfloat16 else K

    def pack(self, matrix: Tensor, transposed: bool) -> Tensor:
        """Pack a matrix (K, N), or the transpose of (N, K)."""
        matrix = matrix.detach().to(self.dtype).contiguous()
        if self.dtype == torch.bfloat16 and matrix.shape[transposed] % 2:
            matrix = torch.nn.functional.pad(matrix, (0, 1) if transposed else (0, 0, 0, 1))
        if transposed:
            words = matrix.view(torch.int32) if self.dtype == torch.bfloat16 else matrix  # pairs are side by side
            words = words.t().contiguous()  # torch goes through a matrix in squares, through more axes it does not
        elif self.dtype == torch.bfloat16:
            even, odd = matrix.view(torch.int16).view(len(matrix) // 2, 2, -1).unbind(1)
            words = torch.stack((even, odd), dim=-1).view(torch.int32).squeeze(-1)
        else:
            words = matrix
        P = self.panels(words.shape[1])
        if missing := P * self.panel - words.shape[1]:
            words = torch.nn.functional.pad(words, (0, missing))
        return words.view(-1, P, self.panel).transpose(0, 1).contiguous()


def emit_product(module: Any, shape: Shape) -> Any:
    """Add to a module, and return, the function of one product.

    Its arguments: A, bytes of a row of A, B, C, bytes of a row of C, rows, steps of K, panels.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 8), "product")
    A, a_row, B, C, c_row, rows, steps, panels = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    tile = {n: _emit_tile(module, shape, n) for n in (ROWS, 1)}
    whole = builder.and_(rows, I64(-ROWS))
    panel_bytes = builder.mul(steps, I64(shape.registers * shape.processor.vector_bytes))
    with loop(builder, I64(0), panels, 1) as p:
        b = builder.add(B, builder.mul(p, panel_bytes))
        c = builder.add(C, builder.mul(p, I64(shape.registers * shape.processor.vector_bytes)))
        for n, begin, end in ((ROWS, I64(0), whole), (1, whole, rows)):
            with loop(builder, begin, end, n) as r:
                a_at, c_at = (builder.add(x, builder.mul(r, row)) for x, row in ((A, a_row), (c, c_row)))
                builder.call(tile[n], [a_at, a_row, b, c_at, c_row, steps])
    builder.ret_void()
    return function


def _emit_tile(module: Any, shape: Shape, rows: int) -> Any:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 6), f"tile.{rows}")
    function.linkage = "internal"
    A, a_row, B, C, c_row, steps = function.args
    entry, body, done = (function.append_basic_block(name) for name in ("entry", "body", "done"))
    builder = ir.IRBuilder(entry)
    number = ir.DoubleType() if shape.dtype == torch.float64 else ir.FloatType()
    sums = ir.VectorType(number, shape.lanes)
    size = 8 if shape.dtype == torch.float64 else 4  # a number of A, or a pair of bf16 ones
    builder.branch(body)
    builder.position_at_end(body)
    k = builder.phi(I64)
    k.add_incoming(I64(0), entry)
    running = [[builder.phi(sums) for _ in range(shape.registers)] for _ in range(rows)]
    b_at = builder.add(B, builder.mul(k, I64(shape.registers * shape.processor.vector_bytes)))
    b = [load(builder, builder.add(b_at, I64(i * shape.processor.vector_bytes)), sums) for i in range(shape.registers)]
    for r, row in enumerate(running):
        a_at = builder.add(builder.add(A, builder.mul(a_row, I64(r))), builder.mul(k, I64(size)))
        a = load(builder, a_at, I32 if size == 4 else I64, 2 if shape.dtype == torch.bfloat16 else size)
        for sum_, column in zip(row, b, strict=True):
            sum_.add_incoming(ir.Constant(sums, [0.0] * shape.lanes), entry)
            sum_.add_incoming(_multiply_add(builder, shape, a, column, sum_), body)
    following = builder.add(k, I64(1))
    k.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, steps), body, done)
    builder.position_at_end(done)
    for r, row in enumerate(running):
        for i, sum_ in enumerate(row):
            at = builder.add(C, builder.mul(c_row, I64(r)))
            store(builder, sum_.incomings[1][0], builder.add(at, I64(i * shape.processor.vector_bytes)))
    builder.ret_void()
    return function


def _multiply_add(builder: Any, shape: Shape, a: Any, b: Any, sums: Any) -> Any:
    """Return sums + a b, a the bits of one number for all lanes, or of a pair of bf16 ones."""
    words = ir.VectorType(a.type, shape.lanes)
    a = builder.insert_element(ir.Constant(words, ir.Undefined), a, I32(0))
    a = builder.shuffle_vector(a, a, ir.Constant(ir.VectorType(I32, shape.lanes), [0] * shape.lanes))
    letter = "f64" if shape.dtype == torch.float64 else "f32"
    # Where it is not one operation, LLVM would call a function for each number.
    fused = "llvm.fma" if shape.processor.fuses else "llvm.fmuladd"
    if shape.dtype != torch.bfloat16:
        return _call(builder, f"{fused}.v{shape.lanes}{letter}", sums, [builder.bitcast(a, sums.type), b, sums])
    if shape.processor.multiplies_bf16:
        pairs = ir.VectorType(BFloat(), 2 * shape.lanes)
        a, b = builder.bitcast(a, pairs), builder.bitcast(b, pairs)
        return _call(builder, f"llvm.x86.avx512bf16.dpbf16ps.{8 * shape.processor.vector_bytes}", sums, [sums, a, b])
    half, mask = (ir.Constant(words, [n] * shape.lanes) for n in (16, 0xFFFF0000))
    b = builder.bitcast(b, words)
    for widen, by in ((builder.shl, half), (builder.and_, mask)):
        factors = [builder.bitcast(widen(x, by), sums.type) for x in (a, b)]
        sums = _call(builder, f"{fused}.v{shape.lanes}{letter}", sums, [*factors, sums])
    return sums


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(result.type, [a.type for a in args]), name
    )
    return builder.call(function, args)


class loop:  # noqa: N801  # used as a statement
    """`with loop(builder, begin, end, step) as i:` emits what is inside as a loop while i + step <= end (step > 0).

    starts: of values that go from each turn to the next, as `carried`; `carry` says which the next turn gets. After
    the loop, `carried` is what the last turn gave.
    """

    def __init__(self, builder: Any, begin: Any, end: Any, step: int, starts: Sequence[Any] = ()) -> None:
        self.builder, self.begin, self.end, self.step, self.starts = builder, begin, end, step, starts

    def __enter__(self) -> Any:
        builder = self.builder
        before = builder.block
        self.test, body, self.after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
        builder.branch(self.test)
        builder.position_at_end(self.test)
        self.i = builder.phi(I64)
        self.i.add_incoming(self.begin, before)
        self.carried = [builder.phi(start.type) for start in self.starts]
        for value, start in zip(self.carried, self.starts, strict=True):
            value.add_incoming(start, before)
        self.following = builder.add(self.i, I64(self.step))
        builder.cbranch(builder.icmp_signed("<=", self.following, self.end), body, self.after)
        builder.position_at_end(body)
        return self.i

    def carry(self, values: Sequence[Any]) -> None:
        """Say, at the end of the loop's body, what the next turn gets."""
        for carried, value in zip(self.carried, values, strict=True):
            carried.add_incoming(value, self.builder.block)

    def __exit__(self, *exception: object) -> None:
        self.i.add_incoming(self.following, self.builder.block)
        self.builder.branch(self.test)
        self.builder.position_at_end(self.after)


def load(builder: Any, address: Any, kind: Any, align: int | None = None) -> Any:
    """Load what stands at an address, aligned as a number is if nothing else is said."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align or _size(kind), typ=kind)


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=_size(value.type))


def _size(kind: Any) -> int:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return 8 if isinstance(element, ir.DoubleType) or element == I64 else 4 if element != ir.IntType(16) else 2
