"""Products of pairs of bf16 numbers in the tile registers of Intel's AMX, as LLVM instructions.

A tile register holds up to 16 rows of 64 bytes. One instruction adds to a tile of sums, 16 rows by 16 columns, the
product of a tile of A, 16 rows by 16 pairs, and one of B, 16 pairs by 16 columns (Intel 64 and IA-32 Architectures
Software Developer's Manual, volume 2, TDPBF16PS). A panel of a `Form` of pairs has its numbers in that order already.

Sums stay in four tiles while K runs: of two by two of them each tile that is loaded is used twice. Where fewer than 32
rows are left, one by four is made: B is read once for the 16. A row's results do not depend on how many there are.
"""

from typing import Any

from llvmlite import ir

from charrnn.compiler.emitting import I8, I16, I64, VOID, call, define, loop, nth, store

ROWS, PAIRS, ROW_BYTES = 16, 16, 64  # of a tile, at most
PANEL = 4  # tiles side by side in a panel of B
COLUMNS = PANEL * ROW_BYTES // 4
SUMS, OF_A, OF_B = (0, 1, 2, 3), (4, 6), (5, 7)  # which register is used for what


def emit(module: Any, name: str) -> Any:
    """Add to a module, and return, the function of one product, of `Form.emit`'s arguments."""
    some = _emit_some(module, f"{name}.some")
    function, builder, arguments = define(module, name, [I64] * 8, linkage="internal")
    A, a_row, B, C, c_row, rows, steps, panels = arguments
    rows_left, pairs_left = builder.and_(rows, I64(ROWS - 1)), builder.and_(steps, I64(PAIRS - 1))
    whole_rows, whole_pairs = builder.sub(rows, rows_left), builder.sub(steps, pairs_left)
    tiles = builder.udiv(whole_pairs, I64(PAIRS))
    for first_row, n, height in ((I64(0), whole_rows, I64(ROWS)), (whole_rows, rows_left, rows_left)):
        with builder.if_then(builder.icmp_signed(">", n, I64(0))):
            of_rows = [nth(builder, A, first_row, a_row), a_row, B, nth(builder, C, first_row, c_row), c_row]
            of_rows += [n, steps, panels, height]
            builder.call(some, [*of_rows, I64(0), tiles, I64(PAIRS)])
            with builder.if_then(builder.icmp_signed(">", pairs_left, I64(0))):
                builder.call(some, [*of_rows, whole_pairs, I64(1), pairs_left])
    builder.ret_void()
    return function


def _emit_some(module: Any, name: str) -> Any:
    """Emit a product of some rows, tiles of a height, and some pairs of each: from `first`, so many tiles of so many.

    Sums begin at 0 where the first pair is the first of all, else at what is in C.
    """
    function, builder, arguments = define(module, name, [I64] * 12, linkage="internal")
    A, a_row, B, C, c_row, rows, steps, panels, height, first, tiles, pairs = arguments
    panel_row = PANEL * ROW_BYTES
    _emit_shapes(builder, height, pairs)
    A, B = nth(builder, A, first, 4), nth(builder, B, first, panel_row)
    begins = builder.icmp_signed("==", first, I64(0))
    in_twos = builder.and_(rows, I64(-2 * ROWS))

    def block(r: Any, b: Any, c: Any, tall: int, wide: int) -> None:
        """Emit the sums of so many tiles of rows from row r by so many of columns."""
        starts = [builder.add(nth(builder, A, r, a_row), builder.mul(a_row, I64(ROWS * i))) for i in range(tall)]
        ends = [builder.add(nth(builder, c, r, c_row), builder.mul(c_row, I64(ROWS * i))) for i in range(tall)]
        places = [builder.add(end, I64(ROW_BYTES * j)) for end in ends for j in range(wide)]
        with builder.if_else(begins) as (zero, old):
            with zero:
                for tile in SUMS:
                    _tile(builder, "tilezero", tile)
            with old:
                for tile, place in zip(SUMS, places, strict=True):
                    _tile(builder, "tileloadd64", tile, place, c_row)
        with loop(builder, I64(0), tiles, 1) as k:
            panel = nth(builder, b, k, PAIRS * panel_row)
            for j in range(wide):
                of_b = OF_B[j % 2]
                _tile(builder, "tileloadd64", of_b, builder.add(panel, I64(ROW_BYTES * j)), I64(panel_row))
                for i in range(tall):
                    if j == 0:
                        _tile(builder, "tileloadd64", OF_A[i], nth(builder, starts[i], k, 4 * PAIRS), a_row)
                    _tile(builder, "tdpbf16ps", wide * i + j, OF_A[i], of_b)
        for tile, place in zip(SUMS, places, strict=True):
            _tile(builder, "tilestored64", tile, place, c_row)

    with loop(builder, I64(0), panels, 1) as p:
        b, c = nth(builder, B, p, builder.mul(steps, I64(panel_row))), nth(builder, C, p, panel_row)
        with loop(builder, I64(0), I64(panel_row), panel_row // 2) as half:
            b_half, c_half = builder.add(b, half), builder.add(c, half)
            with loop(builder, I64(0), in_twos, 2 * ROWS) as r:
                block(r, b_half, c_half, 2, PANEL // 2)
        with builder.if_then(builder.icmp_signed("<", in_twos, rows)):
            block(in_twos, b, c, 1, PANEL)
    call(builder, "llvm.x86.tilerelease", VOID, [])
    builder.ret_void()
    return function


def _emit_shapes(builder: Any, rows: Any, pairs: Any) -> None:
    """Set the shapes of all tiles: `rows` rows of A and of sums, `pairs` pairs of A and of B."""
    memory = builder.alloca(ir.ArrayType(I64, 8))
    memory.align = 64
    at = builder.ptrtoint(memory, I64)
    for i in range(8):
        store(builder, I64(1 if i == 0 else 0), builder.add(at, I64(8 * i)))  # 1: the only palette there is
    for tile in (*SUMS, *OF_A, *OF_B):
        row_bytes = builder.mul(pairs, I64(4)) if tile in OF_A else I64(ROW_BYTES)
        store(builder, builder.trunc(row_bytes, I16), builder.add(at, I64(16 + 2 * tile)))
        store(builder, builder.trunc(pairs if tile in OF_B else rows, I8), builder.add(at, I64(48 + tile)))
    call(builder, "llvm.x86.ldtilecfg", VOID, [_address(builder, at)])


def _tile(builder: Any, instruction: str, tile: int, *others: Any) -> None:
    """Emit an instruction on a tile: with an address and bytes between rows, with two tiles, or with nothing else."""
    if instruction.startswith(("tileload", "tilestore")):
        arguments = [_address(builder, others[0]), others[1]]
    else:
        arguments = [I8(each) for each in others]
    call(builder, f"llvm.x86.{instruction}", VOID, [I8(tile), *arguments])


def _address(builder: Any, at: Any) -> Any:
    return builder.inttoptr(at, I8.as_pointer())
