"""Speed of training, decoding and encoding here: against what a careful torch user would write, and the limits."""

from collections.abc import Iterator
from typing import Any

from charrnn import cells, devices
from charrnn.bench import bench_decode, bench_encode, bench_machine, bench_serve, bench_train
from charrnn.bench.bench_machine import seconds_of as seconds_of
from charrnn.errors import OptionError

DECODE_SIZES = ((128, 2), (512, 2))
TRAIN_SIZES = ((128, 2, 50, 50), (512, 1, 32, 64))  # hidden, layers, batch, window
GPU_SIZE = (512, 2, 64, 128)
SERVE_QUICK = ((128, 2),)
TRAIN_QUICK = ((256, 1, 32, 32),)


def run(
    what: str,
    cell: str,
    hidden: int | None = None,
    layers: int | None = None,
    quick: bool = False,
    batch: int | None = None,
    window: int | None = None,
    device: str = "cpu",
) -> Iterator[tuple[str, Any]]:
    """Measure, and yield ('machine', limits) and then ('train' | 'decode' | 'encode' | 'serve', rows) as they are done.

    what: one of those, or 'all': without 'serve' where what that needs is missing. hidden, layers, and in training
    batch and window: instead of the usual sizes. quick: within a minute. device: 'cpu', or 'cuda' for training and
    decoding on a GPU.
    Raises CharRNNError for sizes that are not positive, a cell or device that is not there, and what a GPU does not do.
    """
    cells.get(cell)
    for name, value in (("hidden", hidden), ("layers", layers), ("batch", batch), ("window", window)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}", "expected a whole number of 1 or more")
    if devices.resolve(device) == "cuda":
        yield from _on_a_gpu(what, cell, hidden, layers, batch, window)
        return
    limits = bench_machine.machine(quick)
    yield "machine", limits
    if what in ("decode", "all"):
        for H, L in _chosen(DECODE_SIZES, (hidden, layers)):
            precisions = ("float32",) if quick and not hidden else ("float32", "bf16", "int8")
            yield "decode", bench_decode.measure(cell, H, L, 2 if quick else 15, precisions)
    if what in ("train", "all"):
        gflops = limits["gflops"][str(limits["threads"])]
        for H, L, B, T in _chosen(TRAIN_QUICK if quick else TRAIN_SIZES, (hidden, layers, batch, window)):
            yield "train", bench_train.measure(cell, H, L, B, T, 4 if quick else 20, gflops)
    if what in ("encode", "all"):
        yield "encode", bench_encode.measure(1 if quick else 5)
    if what == "serve" or (what == "all" and bench_serve.available()):
        for H, L in _chosen(SERVE_QUICK if quick else DECODE_SIZES, (hidden, layers)):
            yield "serve", bench_serve.measure(cell, H, L, 1 if quick else 5)


def _on_a_gpu(
    what: str, cell: str, hidden: int | None, layers: int | None, batch: int | None, window: int | None
) -> Iterator[tuple[str, Any]]:
    if what not in ("train", "decode", "all"):
        raise OptionError(f"{what} is not measured on a GPU", "measure train or decode, or use --device cpu")
    from charrnn.bench import bench_cuda

    H, L, B, T = (n or usual for n, usual in zip((hidden, layers, batch, window), GPU_SIZE, strict=True))
    yield "machine", bench_cuda.machine()
    if what != "decode":
        yield "train", bench_cuda.train(cell, H, L, B, T)
    if what != "train":
        yield "decode", bench_cuda.decode(cell, H, L)


def _chosen(sizes: tuple[tuple[int, ...], ...], given: tuple[int | None, ...]) -> list[tuple[int, ...]]:
    """Return the usual sizes, or those given, with the last usual one for each that is not."""
    if not any(given):
        return list(sizes)
    return [tuple(n or usual for n, usual in zip(given, sizes[-1], strict=True))]
