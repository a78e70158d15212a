"""Parts of a piece of work, done side by side by the threads that torch computes with.

Those threads are OpenMP's. While they wait for their next work they spin for some milliseconds, so threads of our own
would have to share the cores with them, and be slower (docs/results/training-speed.md). So OpenMP's threads do the
work, called by the entry that GNU's, LLVM's and Intel's OpenMP all have. Where it is not found, threads of our own do.
Rows do not depend on each other, so nobody waits within a part. How the threads wait at the end, `openmp` decides.
"""

import ctypes
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from charrnn.compiler.cache import Code
from charrnn.compiler.emitting import I64, VOID
from charrnn.compiler.objects import compiled, new_module
from charrnn.compiler.training.openmp import gomp_parallel

Part = tuple[int, int, int, int]
PART = [ctypes.c_int64] * 4


def run(address: int, parts: Sequence[Part], threads: int | None = None) -> None:
    """Call the machine code at an address once for each part, with its four whole numbers; return when all are done.

    threads: that torch computes with, so that its team stays as it is; as many as there are parts when None. Each takes
    a part whenever it has done one: a thread that other work delays takes fewer.
    """
    threads = len(parts) if threads is None else threads
    parallel = gomp_parallel() if min(len(parts), threads) > 1 else None
    if parallel is not None:
        worker = _worker()  # held until the work is done: the code lives as long as it does
        task = np.array([0, len(parts), address, *(n for part in parts for n in part)], np.int64)
        parallel(worker.address("work"), task.ctypes.data, threads, 0)
        return
    function, left = ctypes.CFUNCTYPE(None, *PART)(address), deque(parts)

    def work() -> None:
        with suppress(IndexError):  # none is left
            while True:
                function(*left.popleft())

    others = [_threads(threads).submit(work) for _ in range(min(len(parts), threads) - 1)]
    work()
    for other in others:
        other.result()


@cache
def _worker() -> Code:
    """Compile what every thread of a team runs, `work` of a task: it takes parts of it until none is left.

    A task is int64 numbers: the next part, how many there are, the address to call, and four numbers a part. Parts
    are taken one by one because a team may be smaller than was asked for.
    """
    module = new_module()
    function = ir.Function(module, ir.FunctionType(VOID, [I64.as_pointer()]), "work")
    (task,) = function.args
    entry, take, call, done = (function.append_basic_block(name) for name in ("entry", "take", "call", "done"))
    builder = ir.IRBuilder(entry)

    def number(at: Any) -> Any:
        return builder.load(builder.gep(task, [at]))

    builder.branch(take)
    builder.position_at_end(take)
    i = builder.atomic_rmw("add", task, I64(1), "seq_cst")
    builder.cbranch(builder.icmp_signed("<", i, number(I64(1))), call, done)
    builder.position_at_end(call)
    first = builder.add(builder.mul(i, I64(len(PART))), I64(3))
    kind = ir.FunctionType(VOID, [I64] * len(PART)).as_pointer()
    arguments = [number(builder.add(first, I64(k))) for k in range(len(PART))]
    builder.call(builder.inttoptr(number(I64(2)), kind), arguments)
    builder.branch(take)
    builder.position_at_end(done)
    builder.ret_void()
    return compiled(str(module))


@cache
def _threads(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="charrnn")
