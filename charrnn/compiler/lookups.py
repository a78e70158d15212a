"""Rows of tables that the last ids choose, as LLVM instructions; see `charrnn.text.contexts`."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from charrnn.compiler.emitting import I64
from charrnn.text import contexts


def emit_rows(builder: Any, ids: Sequence[Any], start: Any, R: Any) -> list[Any]:
    """Emit the row of each table, in the one weight that holds them all.

    ids: the last N, the newest first. start: the id of the start token. R: rows of each table.
    """
    h, began, found = I64(0), ir.Constant(ir.IntType(1), 0), []
    for n, id_ in enumerate(ids):
        c = builder.select(began, start, id_)
        began = builder.icmp_signed("==", c, start)
        mixed = builder.add(builder.mul(h, I64(contexts.P)), builder.mul(builder.add(c, I64(1)), I64(contexts.Q)))
        h = builder.and_(mixed, I64(contexts.MASK))
        row = builder.lshr(builder.mul(h, R), I64(contexts.BITS))
        found.append(builder.add(builder.mul(I64(n), R), row))
    return found
