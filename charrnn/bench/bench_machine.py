"""The machine's limits: matrix products, and reading memory. Everything else is measured against them.

A limit is the best that anything does here: torch or the compiled code of this package, whichever is faster.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, reduce
from typing import Any

import numpy as np

from charrnn import hardware

Work = Callable[[], Any]
SLOW_SIZE = 256
TILE_ROWS, TILE_DEPTH = 32, 128  # of a product that stays in the nearest cache
TILE_TIMES = 400  # over, in one work: about a millisecond

REGISTERS = 8  # that a plain read adds to in turns, so that no sum waits for the one before
PANEL_ROWS = 512  # of a matrix that is read so


def seconds_of(works: Mapping[str, Work], seconds: float, at_least: int = 5) -> dict[str, float]:
    """Return the shortest time of each work; they take turns until `seconds` are over, to meet the same machine."""
    best = {name: float("inf") for name in works}
    for work in works.values():
        work()  # what is made at the first call does not count
    began, rounds = time.perf_counter(), 0
    while rounds < at_least or time.perf_counter() - began < seconds:
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


def reader(size: int, threads: int = 1, times: int = 1) -> Work:
    """Make a plain streaming read of `size` bytes or a little more, so many times over, by so many threads."""
    from charrnn.compiler.processor import processor

    function, at_once = _plain_read(), REGISTERS * processor().vector_bytes
    words = np.ones(-(-size // (threads * at_once)) * threads * at_once // 8, np.uint64)  # whole turns of each thread
    parts, total = np.array_split(words, threads), np.empty(1, np.uint64)

    def read(part: Any) -> None:
        function(part.ctypes.data, len(part), times, total.ctypes.data)

    def work() -> None:
        others = [threading.Thread(target=read, args=(part,)) for part in parts[1:]]
        for thread in others:
            thread.start()
        read(parts[0])
        for thread in others:
            thread.join()

    return work


@cache
def _plain_read() -> Any:
    """Compile a read of n words, whole turns of REGISTERS, so many times over: (words, n, times, where a sum goes)."""
    from llvmlite import ir

    from charrnn.compiler.arithmetic import Maths
    from charrnn.compiler.emitting import I64, load, loop, splat, store
    from charrnn.compiler.objects import compiled, new_module
    from charrnn.compiler.processor import processor

    module = new_module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 4), "read")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    words, n, times, to = function.args
    register = Maths(builder, processor().vector_bytes // 8, double=True)
    starts, size = [register.whole(0)] * REGISTERS, 8 * register.lanes
    over = loop(builder, I64(0), times, 1, starts)
    with over as k:
        turns = loop(builder, I64(0), builder.mul(n, I64(8)), size * REGISTERS, over.carried)
        with turns as at:
            # A different sum each time, or the compiler would read once.
            places = [builder.add(words, builder.add(at, I64(i * size))) for i in range(REGISTERS)]
            read = [builder.xor(load(builder, p, starts[0].type), splat(builder, k, register.lanes)) for p in places]
            turns.carry([builder.add(total, each) for total, each in zip(turns.carried, read, strict=True)])
        over.carry(turns.carried)
    total = reduce(builder.add, over.carried)
    store(builder, reduce(builder.add, [builder.extract_element(total, I64(i)) for i in range(register.lanes)]), to)
    builder.ret_void()
    return compiled(str(module)).function("read", 4)


@cache
def _product_of_a_row(dtype: str) -> Any:
    """Compile a product of one row as completing makes it: (x, panels, y, steps, number of panels, scales, step)."""
    from llvmlite import ir

    from charrnn.compiler.decoding import weights
    from charrnn.compiler.emitting import I64
    from charrnn.compiler.objects import compiled, new_module

    module = new_module()
    product = weights.form(dtype, False).emit(module)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 7), "read")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x, panels, y, steps, count, *others = function.args
    scales = others if dtype == "int8" else []
    builder.call(product, [x, I64(0), panels, y, I64(0), I64(1), steps, count, *scales])
    builder.ret_void()
    return compiled(str(module)).function("read", 7)


def panel_reader(size: int, dtype: str) -> Work:
    """Make a read of about `size` bytes of weights in a dtype, as completing reads them, and multiplies with them."""
    from charrnn.compiler.decoding import weights

    function, form = _product_of_a_row(dtype), weights.form(dtype, False)
    bytes_of = {"float32": 4, "bf16": 2, "int8": 1}[dtype]
    columns = max(1, round(size / (PANEL_ROWS * weights.WIDEST * bytes_of))) * weights.WIDEST
    panels, *scales = weights.pack(np.ones((PANEL_ROWS, columns), np.float32), form)
    x, y, step = np.ones(PANEL_ROWS, np.float32), np.empty(columns, np.float32), np.ones(1, np.float32)
    kept = x, panels, y, (scales or [y])[0], step  # as long as the work is

    def work() -> None:
        at = [array.ctypes.data for array in kept]
        function(*at[:3], form.steps(PANEL_ROWS), form.panels(columns), *at[3:])

    return work


class Tile:
    """A product in compiled training's own tiles, of numbers that stay in the nearest cache, by every thread.

    dtype: of torch. operations: 10^9 in one work, two a multiplication.
    """

    def __init__(self, dtype: Any, threads: int) -> None:
        import torch
        from llvmlite import ir

        from charrnn.compiler.emitting import I64, loop
        from charrnn.compiler.objects import compiled, new_module
        from charrnn.compiler.training import products

        shape = products.form(dtype)
        module = new_module()
        product = shape.emit(module)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 4), "tiles")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        A, B, C, times = function.args
        row, steps = TILE_DEPTH * dtype.itemsize, shape.steps(TILE_DEPTH)
        with loop(builder, I64(0), times, 1):
            of_c = I64(shape.panel * (8 if dtype == torch.float64 else 4))
            builder.call(product, [A, I64(row), B, C, of_c, I64(TILE_ROWS), I64(steps), I64(1)])
        builder.ret_void()
        self._engine = compiled(str(module)).engine
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self._arrays = []
        for _ in range(threads):
            packed = torch.ones(TILE_DEPTH, shape.panel, dtype=dtype)  # in any order
            a, c = torch.ones(TILE_ROWS, TILE_DEPTH, dtype=dtype), torch.empty(TILE_ROWS, shape.panel, dtype=wide)
            self._arrays.append((a, packed, c))
        self.operations = 2 * TILE_ROWS * TILE_DEPTH * shape.panel * TILE_TIMES * threads / 1e9

    def __call__(self) -> None:
        from charrnn.compiler.training import threads

        parts = [(a.data_ptr(), b.data_ptr(), c.data_ptr(), TILE_TIMES) for a, b, c in self._arrays]
        threads.run(self._engine.get_function_address("tiles"), parts)


def machine(quick: bool) -> dict[str, Any]:
    """Measure the processor's limits, for one thread and all: GFLOP/s of products, GB/s of reading.

    Products: of square matrices by torch, and of a tile that stays in the nearest cache; what is faster is the limit.
    A precision that the processor has no units for is so slow that a smaller product shows it as well.
    """
    import torch

    cores, n = torch.get_num_threads(), 1024 if quick else 2048
    limits: dict[str, Any] = {
        "processor": hardware.processor(),
        "threads": cores,
        "torch": torch.__version__,
        "product_size": n,
        "gflops": {},
        "read_gb_per_s": {},
    }
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        works, operations = product_works(threads, n)
        times = seconds_of(works, 0.5 if quick else 3, 2)
        limits["gflops"][str(threads)] = fastest_products(times, operations)
        sizes = {"1 MB": 1 << 20, "16 MB": 1 << 24, "256 MB": 1 << 28}
        times_over = {name: max(1, (1 << 26) // size) for name, size in sizes.items()}  # what fits a cache is in it
        works = {name: reader(size, threads, times_over[name]) for name, size in sizes.items()}
        times = seconds_of(works, 0.3 if quick else 2)
        limits["read_gb_per_s"][str(threads)] = {
            name: sizes[name] * times_over[name] / s / 1e9 for name, s in times.items()
        }
    torch.set_num_threads(cores)
    return limits


def product_works(threads: int, n: int) -> tuple[dict[str, Work], dict[str, float]]:
    """Return works that show how fast this machine multiplies, by name, and the 10^9 operations in each.

    threads: that torch computes with now. n: of the square matrices.
    """
    works: dict[str, Work] = {}
    operations: dict[str, float] = {}
    for name, dtype in precisions().items():
        pair, tile = _factors(n, dtype), Tile(dtype, threads)
        works |= {f"square {name}": _product(pair), f"tile {name}": tile}
        operations |= {f"square {name}": 2 * len(pair[0]) ** 3 / 1e9, f"tile {name}": tile.operations}
    return works, operations


def fastest_products(times: Mapping[str, float], operations: Mapping[str, float]) -> dict[str, float]:
    """Return 10^9 operations a second by precision, of the fastest work. times: of the works, by name, and others."""
    return {
        precision: max(operations[f"{kind} {precision}"] / times[f"{kind} {precision}"] for kind in ("square", "tile"))
        for precision in precisions()
    }


def precisions() -> dict[str, Any]:
    """Return the dtypes of training's products by name."""
    import torch

    return {"float32": torch.float32, "bf16": torch.bfloat16}


def _factors(n: int, dtype: Any) -> Any:
    """Make two square matrices (2, n, n), or of SLOW_SIZE where their product would take more than a second."""
    import torch

    small = torch.ones(2, SLOW_SIZE, SLOW_SIZE, dtype=dtype)
    seconds = seconds_of({"": _product(small)}, 0, 1)[""]
    return small if seconds * (n / SLOW_SIZE) ** 3 > 1 else torch.ones(2, n, n, dtype=dtype)


def _product(pair: Any) -> Work:
    return lambda: pair[0] @ pair[1]
