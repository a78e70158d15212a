"""Rows of numbers by a matrix, as LLVM instructions: for training and for completing.

    C (rows, N) = A (rows, K) by B (K, N)

B is packed in panels of so many columns, rows one after the other in each, so that it is read from front to back. A
panel's last columns, where there are none, are zeros, and are written to C too. A tile of some rows by one panel stays
in registers while K runs: so many sums that the multipliers are busy, each register of the panel used by all rows and
each number of A by all columns. A row's results do not depend on how many rows there are.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llvmlite import ir

from charrnn.compiler import amx
from charrnn.compiler.emitting import (
    CACHE_LINE,
    DOUBLE,
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    BFloat,
    call,
    define,
    load,
    loop,
    nth,
    prefetch,
    size_of,
    splat,
    store,
)
from charrnn.compiler.processor import Processor, processor

PAIRS_AT_ONCE = 256  # pairs of int8 rows whose products, 2 x 127 x 32767 each at most, cannot overflow an int32
AHEAD = 2048  # bytes between what is multiplied and what is prefetched: docs/results/completing-speed.md

# What is multiplied. float64 and float32: both factors. pairs: bf16 numbers of both, two rows of B side by side. bf16:
# float32 numbers of A, bf16 ones of B in such pairs. int8: whole numbers, of A int16 ones, in pairs too.
Kind = Literal["float64", "float32", "pairs", "bf16", "int8"]
# Of each kind: what sums are, what is loaded of B, and the bytes that a step takes of a row of A.
NUMBERS = {"float64": (DOUBLE, DOUBLE, 8), "float32": (FLOAT, FLOAT, 4), "pairs": (FLOAT, I32, 4)}
NUMBERS |= {"bf16": (FLOAT, I32, 8), "int8": (I32, I16, 4)}


@dataclass(frozen=True)
class Form:
    """How a matrix is packed for products of a kind, and the tiles that these are made in.

    registers: across a tile. heights: rows of a tile, and of the tiles for what is left of them, down to 1. The sums
    fill half of the processor's registers or more. tiles: side by side in a panel; the cache holds it for the later
    ones. is_read_once: memory is the limit, so it is asked for in advance.
    """

    kind: Kind
    registers: int
    heights: tuple[int, ...]
    tiles: int = 1
    is_read_once: bool = False
    processor: Processor = field(default_factory=processor)

    @property
    def lanes(self) -> int:
        """Sums in a register."""
        return self.processor.vector_bytes // (8 if self.kind == "float64" else 4)

    @property
    def is_in_tiles(self) -> bool:
        """Whether the processor has registers for tiles of these numbers."""
        return self.kind == "pairs" and self.processor.multiplies_tiles and self.panel == amx.COLUMNS

    @property
    def rows_that_share(self) -> int:
        """Rows that are enough for reading a matrix: with fewer it takes longer than multiplying."""
        return 2 * amx.ROWS if self.is_in_tiles else 4 * self.heights[0]

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.registers * self.tiles

    @property
    def group(self) -> int:
        """Rows of the matrix that are multiplied in one step, side by side."""
        return 1 if self.kind in ("float64", "float32") else 2

    def panels(self, N: int) -> int:
        return -(-N // self.panel)

    def steps(self, K: int) -> int:
        """Return how many numbers, or pairs of them, a row of A has."""
        return -(-K // self.group)

    def emit(self, module: Any) -> Any:
        """Add to a module, and return, the function of one product.

        Its arguments: A, bytes of a row of A, B, C, bytes of a row of C, rows, steps of K, panels; of int8 the scales
        of B's columns and of A's rows, float32. Where K is odd, a row of A is read to one number beyond: it must be
        finite, and the matrix takes nothing of it.
        """
        name = f"product.{self.kind}.{self.registers}.{self.heights[0]}"
        if name in module.globals:
            return module.globals[name]
        if self.is_in_tiles:
            return amx.emit(module, name)
        is_int8 = self.kind == "int8"
        tiles = {height: self._emit_tile(module, height, f"{name}.{height}") for height in self.heights}
        function, builder, arguments = define(module, name, [I64] * (10 if is_int8 else 8), linkage="internal")
        A, a_row, B, C, c_row, rows, steps, panels, *scales = arguments
        tile_bytes, by = self.registers * self.processor.vector_bytes, 2 if is_int8 else 1
        panel_bytes = self.tiles * tile_bytes
        of_panel = builder.mul(steps, I64(panel_bytes // by))
        with loop(builder, I64(0), panels, 1) as p, loop(builder, I64(0), I64(self.tiles), 1) as n:
            at = builder.mul(n, I64(tile_bytes))
            b = builder.add(nth(builder, B, p, of_panel), builder.udiv(at, I64(by)))
            columns = builder.add(builder.mul(p, I64(panel_bytes)), at)
            c = builder.add(C, columns)

            def multiply(height: int, begin: Any, end: Any) -> Any:
                """Emit a loop over tiles of a height; return the first row that is left."""
                turns = loop(builder, begin, end, height)
                with turns as r:
                    a_at, c_at = (nth(builder, x, r, row) for x, row in ((A, a_row), (c, c_row)))
                    of_scales = [columns, builder.mul(r, I64(4))] if is_int8 else []
                    scales_at = [builder.add(*each) for each in zip(scales, of_scales, strict=True)]
                    builder.call(tiles[height], [a_at, a_row, b, c_at, c_row, steps, *scales_at])
                return turns.i

            whole, *smaller = self.heights
            begin = multiply(whole, I64(0), rows)
            if smaller:
                begin = multiply(whole, *self._again(builder, begin, rows))
            for height in smaller:
                begin = multiply(height, begin, rows)
        builder.ret_void()
        return function

    def _again(self, builder: Any, begin: Any, rows: Any) -> tuple[Any, Any]:
        """Return from where to where one more of the highest tiles goes, up to the last row; `begin` twice for none.

        It costs little more than a smaller one. So it is made where a smaller one is not enough for the rows that are
        left, and enough precede them. Those are multiplied once more, which gives the same numbers.
        """
        height, lower = self.heights[:2]
        first, left = builder.sub(rows, I64(height)), builder.sub(rows, begin)
        pays = builder.and_(builder.icmp_signed(">", left, I64(lower)), builder.icmp_signed(">=", first, I64(0)))
        return builder.select(pays, first, begin), builder.select(pays, rows, begin)

    def _emit_tile(self, module: Any, rows: int, name: str) -> Any:
        is_int8 = self.kind == "int8"
        # Where LLVM knew the length of the loop, it would unroll it, and then have too few registers.
        function, builder, arguments = define(module, name, [I64] * (8 if is_int8 else 6), linkage="linkonce_odr")
        function.attributes.add("noinline")
        A, a_row, B, C, c_row, steps, *scales = arguments
        starts = [builder.add(A, builder.mul(a_row, I64(r))) for r in range(rows)]
        if is_int8:
            sums = self._sums_of_blocks(builder, starts, B, steps)
        elif self.kind == "bf16" and 4 * rows * self.registers > self.processor.registers:  # too few for both at once
            passes = (self._sums(builder, starts, B, I64(0), steps, (k,)) for k in (0, 1))
            sums = [builder.fadd(a, b) for a, b in zip(*passes, strict=True)]
        elif self.kind == "bf16":
            both = self._sums(builder, starts, B, I64(0), steps, (0, 1))
            sums = [builder.fadd(a, b) for a, b in zip(both[::2], both[1::2], strict=True)]
        else:
            sums = self._sums(builder, starts, B, I64(0), steps)
        register = self.processor.vector_bytes
        for n, total in enumerate(sums):
            r, i = divmod(n, self.registers)
            if is_int8:
                of_column = load(builder, builder.add(scales[0], I64(register * i)), total.type)
                of_row = splat(builder, load(builder, builder.add(scales[1], I64(4 * r)), FLOAT), self.lanes)
                total = builder.fmul(total, builder.fmul(of_row, of_column))
            at = builder.add(C, builder.mul(c_row, I64(r)))
            store(builder, total, builder.add(at, I64(register * i)))
        builder.ret_void()
        return function

    def _sums_of_blocks(self, builder: Any, starts: list[Any], B: Any, steps: Any) -> list[Any]:
        """Sum whole numbers in blocks of PAIRS_AT_ONCE, and these as float32."""
        zero = ir.Constant(ir.VectorType(FLOAT, self.lanes), [0.0] * self.lanes)
        n = builder.udiv(builder.add(steps, I64(PAIRS_AT_ONCE - 1)), I64(PAIRS_AT_ONCE))
        blocks = loop(builder, I64(0), n, 1, [zero] * (len(starts) * self.registers))
        with blocks as block:
            first = builder.mul(block, I64(PAIRS_AT_ONCE))
            end = builder.add(first, I64(PAIRS_AT_ONCE))
            end = builder.select(builder.icmp_signed("<", end, steps), end, steps)
            whole = self._sums(builder, starts, B, first, end)
            numbers = [builder.sitofp(each, zero.type) for each in whole]
            blocks.carry([builder.fadd(a, b) for a, b in zip(numbers, blocks.carried, strict=True)])
        return list(blocks.carried)

    def _sums(
        self, builder: Any, starts: list[Any], B: Any, first: Any, end: Any, halves: Sequence[int] = (0,)
    ) -> list[Any]:
        """Emit the loop over K: the sums of each row, register by register.

        halves: which numbers of bf16 pairs are summed, each apart, as one sum would wait for its last product.
        """
        number, word, a_bytes = NUMBERS[self.kind]
        zero = ir.Constant(ir.VectorType(number, self.lanes), [0] * self.lanes)
        words, size = ir.VectorType(word, self.lanes), self.lanes * size_of(word)
        steps = loop(builder, first, end, 1, [zero] * (len(starts) * self.registers * len(halves)))
        with steps as k:
            b_at = nth(builder, B, k, self.tiles * self.registers * size)
            if self.is_read_once and self.processor.vector_bytes < 64:
                for line in range(0, self.registers * size, CACHE_LINE):
                    prefetch(builder, builder.add(b_at, I64(AHEAD + line)))
            panel = [load(builder, builder.add(b_at, I64(i * size)), words) for i in range(self.registers)]
            columns = [self._columns(builder, each, halves) for each in panel]
            sums, after = iter(steps.carried), []
            for start in starts:
                factors = self._factors(builder, nth(builder, start, k, a_bytes), halves)
                for column in columns:
                    after += self._added(builder, list(itertools.islice(sums, len(halves))), factors, column)
            steps.carry(after)
        return list(steps.carried)

    def _factors(self, builder: Any, at: Any, halves: Sequence[int]) -> list[Any]:
        """Load what a step takes of a row of A, each in every lane."""
        if self.kind == "bf16":
            return [splat(builder, load(builder, builder.add(at, I64(4 * k)), FLOAT), self.lanes) for k in halves]
        word = {"float64": DOUBLE, "float32": FLOAT}.get(self.kind, I32)
        return [splat(builder, load(builder, at, word, 2 if self.kind == "pairs" else None), self.lanes)]

    def _columns(self, builder: Any, words: Any, halves: Sequence[int]) -> list[Any]:
        """Widen what was loaded of B to what it is multiplied as."""
        if self.kind == "bf16":
            return [self._half(builder, words, k) for k in halves]
        if self.kind == "int8":
            bytes_ = builder.bitcast(words, ir.VectorType(I8, 2 * self.lanes))
            return [builder.sext(bytes_, ir.VectorType(I16, 2 * self.lanes))]
        return [words]

    def _half(self, builder: Any, pairs: Any, which: int) -> Any:
        """Return the bf16 numbers in the lower halves of words, or in the upper ones, as float32."""
        bits = ir.Constant(pairs.type, [(16, 0xFFFF0000)[which]] * self.lanes)
        pairs = builder.and_(pairs, bits) if which else builder.shl(pairs, bits)
        return builder.bitcast(pairs, ir.VectorType(FLOAT, self.lanes))

    def _added(self, builder: Any, sums: list[Any], factors: list[Any], columns: list[Any]) -> list[Any]:
        """Add the products of one step to sums."""
        if self.kind == "int8":
            return [self._added_whole(builder, sums[0], factors[0], columns[0])]
        if self.kind != "pairs":
            return [self._multiply_add(builder, *each) for each in zip(factors, columns, sums, strict=True)]
        if self.processor.multiplies_bf16:
            pairs = ir.VectorType(BFloat(), 2 * self.lanes)
            factors, columns = ([builder.bitcast(x, pairs) for x in each] for each in (factors, columns))
            name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * self.processor.vector_bytes}"
            return [call(builder, name, sums[0].type, [*sums, *factors, *columns])]
        (total,) = sums
        for k in (0, 1):
            a, b = (self._half(builder, x, k) for (x,) in (factors, columns))
            total = self._multiply_add(builder, a, b, total)
        return [total]

    def _multiply_add(self, builder: Any, a: Any, b: Any, c: Any) -> Any:
        # Where it is not one operation, LLVM would call a function for each number.
        fused = "llvm.fma" if self.processor.fuses else "llvm.fmuladd"
        return call(builder, f"{fused}.v{self.lanes}f{64 if self.kind == 'float64' else 32}", c.type, [a, b, c])

    def _added_whole(self, builder: Any, sums: Any, a: Any, b: Any) -> Any:
        """Return sums, int32, + a_0 b_0 + a_1 b_1 of each pair of int16."""
        bits = 8 * self.processor.vector_bytes
        if bits == 512 and self.processor.has("avx512vnni"):
            b = builder.bitcast(b, sums.type)
            return call(builder, "llvm.x86.avx512.vpdpwssd.512", sums.type, [sums, a, b])
        a = builder.bitcast(a, b.type)
        names = {512: "avx512bw avx512.pmaddw.d.512", 256: "avx2 avx2.pmadd.wd", 128: "sse2 sse2.pmadd.wd"}
        feature, name = names[bits].split()
        if self.processor.has(feature):
            return builder.add(sums, call(builder, f"llvm.x86.{name}", sums.type, [a, b]))
        for half in (0, 1):
            lanes = ir.Constant(ir.VectorType(I32, self.lanes), list(range(half, 2 * self.lanes, 2)))
            factors = [builder.sext(builder.shuffle_vector(v, v, lanes), sums.type) for v in (a, b)]
            sums = builder.add(sums, builder.mul(*factors))
        return sums
