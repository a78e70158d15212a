"""The machine's limits: matrix products, and reading memory. Everything else is measured against them."""

import platform
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from charrnn.compiler import cache

Work = Callable[[], Any]
SLOW_SIZE = 256

READ = """
import numpy as np
from charrnn.compiler.decoding.views import vector


def read(data_, n, times):
    data = vector(data_, n)
    total = np.uint64(0)
    for k in range(times):
        for i in range(n):
            total += data[i] ^ np.uint64(k)  # a different sum each time, or the compiler reads once
    return np.int64(total)
"""


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
    """Make a plain streaming read of `size` bytes, so many times over, by so many threads."""
    function, _ = cache.load(READ, "read", ("uint64*", "int64", "int64"))
    words = np.ones(max(threads, size // 8), np.uint64)
    parts = np.array_split(words, threads)

    def read(part: Any) -> None:
        function(part.ctypes.data, len(part), times)

    def work() -> None:
        others = [threading.Thread(target=read, args=(part,)) for part in parts[1:]]
        for thread in others:
            thread.start()
        read(parts[0])
        for thread in others:
            thread.join()

    return work


def machine(quick: bool) -> dict[str, Any]:
    """Measure the processor's limits, for one thread and all: GFLOP/s of a square product, GB/s of reading.

    A precision that the processor has no units for is so slow that a smaller product shows it as well.
    """
    import torch

    cores, n = torch.get_num_threads(), 1024 if quick else 2048
    limits: dict[str, Any] = {
        "processor": _processor(),
        "threads": cores,
        "torch": torch.__version__,
        "product_size": n,
        "gflops": {},
        "read_gb_per_s": {},
    }
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        pairs = {name: _factors(n, dtype) for name, dtype in _precisions().items()}
        times = seconds_of({name: _product(pair) for name, pair in pairs.items()}, 0.5 if quick else 3, 2)
        limits["gflops"][str(threads)] = {name: 2 * len(pairs[name][0]) ** 3 / s / 1e9 for name, s in times.items()}
        sizes = {"1 MB": 1 << 20, "16 MB": 1 << 24, "256 MB": 1 << 28}
        times_over = {name: max(1, (1 << 26) // size) for name, size in sizes.items()}  # what fits a cache is in it
        works = {name: reader(size, threads, times_over[name]) for name, size in sizes.items()}
        times = seconds_of(works, 0.3 if quick else 2)
        limits["read_gb_per_s"][str(threads)] = {
            name: sizes[name] * times_over[name] / s / 1e9 for name, s in times.items()
        }
    torch.set_num_threads(cores)
    return limits


def _precisions() -> dict[str, Any]:
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


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
