"""A GPU that computes the same numbers every time, and float32 ones where float32 is asked for.

Left alone, torch lets cuDNN round the factors of a float32 recurrent layer to TF32, and sums some gradients in whatever
order its threads arrive. `repeatable` is around all that trains or scores; it changes nothing on a CPU.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from charrnn.errors import CharRNNError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
MODES = {"RNN": 1, "LSTM": 2, "GRU": 3}  # cuDNN's own numbers; RNN is with tanh


def prepare() -> None:
    """Ask cuBLAS and cuDNN for sums in one order. They look once a process, before their first product."""
    os.environ.setdefault(WORKSPACE, ":4096:8")


@contextmanager
def repeatable(device: str, precision: str = "float32") -> Iterator[None]:
    """Compute the same bits every time on a device, then go on as before.

    precision: of matrix products. 'tf32' rounds the factors of all float32 ones to TF32; 'bf16' those of cuDNN's
    recurrent layers, which have no bf16, and TF32 has more bits; 'float32' rounds none.
    Raises CharRNNError where this process has used cuBLAS in a way that cannot be made repeatable any more.
    """
    if device != "cuda":
        yield
        return
    prepare()
    rnn: Any = torch.backends.cudnn.rnn
    memory: Any = torch.utils.deterministic
    # Not use_deterministic_algorithms, which does the same after seconds of importing torch's compiler.
    before = torch.get_deterministic_debug_mode()
    layers, fill = rnn.fp32_precision, memory.fill_uninitialized_memory
    try:
        torch.set_deterministic_debug_mode("error")
        memory.fill_uninitialized_memory = False  # all that is allocated here is written before it is read
        rnn.fp32_precision = "ieee" if precision == "float32" else "tf32"
        with _tf32_products() if precision == "tf32" else _float32_products():
            refuse_late_preparation()
            yield
    finally:
        rnn.fp32_precision, memory.fill_uninitialized_memory = layers, fill
        torch.set_deterministic_debug_mode(before)


def wait(device: str) -> None:
    """Wait until a device has done all it was given: a GPU works on while Python goes ahead."""
    if device != "cpu":
        getattr(torch, device).synchronize()


WARM_UPS = 3  # before work is recorded: libraries choose their ways, and kernels are compiled


def recorded(
    work: Callable[[], None],
    warm_up: Callable[[], object],
    generator: torch.Generator | None = None,
    pool: Any = None,
) -> Callable[[], None]:
    """Record what a GPU is given by `work`, once, without doing it. Returns what gives all of it to the GPU again.

    work: reads and writes the same tensors every time, whose numbers may have changed. warm_up: what of it can be done
    before, without a trace. generator: whose seed, as it is then, each repetition begins with. pool: of memory, from
    `memory_pool`, for recordings of which one is done after the other.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            warm_up()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay


def memory_pool() -> Any:
    """Return a pool of memory that several recordings may share."""
    return torch.cuda.graph_pool_handle()


def sent(array: Any, to: Tensor) -> None:
    """Copy a NumPy array to a tensor on a GPU, which goes on working meanwhile."""
    given = torch.from_numpy(array)
    to.copy_(given.pin_memory() if to.is_cuda else given, non_blocking=True)


def in_one_buffer(layer: str, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the weights of torch layers as cuDNN wants them: copies in one buffer, in its own order.

    layer: 'RNN', 'LSTM' or 'GRU'. weights: as from `Twin.to_torch`, contiguous, four of each layer; gradients reach
    them. Given others, cuDNN copies them at every call, and warns.
    """
    if not torch.backends.cudnn.is_acceptable(weights[0]):  # type: ignore[no-untyped-call]
        return list(weights)
    return list(_InOneBuffer.apply(MODES[layer], *weights))  # type: ignore[no-untyped-call]


class _InOneBuffer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mode: int, *weights: Tensor) -> tuple[Tensor, ...]:
        copies = [weight.detach().clone(memory_format=torch.contiguous_format) for weight in weights]
        I, H = copies[0].shape[1], copies[1].shape[1]
        # Moves the copies into the buffer. 4 weights a layer, no projection, so many layers, time-major, one way.
        torch._cudnn_rnn_flatten_weight(copies, 4, I, mode, H, 0, len(copies) // 4, False, False)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients


def has_tf32() -> bool:
    """Tell whether the GPU has units for TF32, as NVIDIA's have since Ampere."""
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0)


@contextmanager
def _tf32_products() -> Iterator[None]:
    """Matrix products in TF32."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if before == "tf32":  # by either switch, and reading the old one fails once the new one was used
        yield
        return
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextmanager
def _float32_products() -> Iterator[None]:
    """Matrix products in float32, where something has set them to TF32, by torch's old switch or by its new one."""
    matmul = torch.backends.cuda.matmul
    if matmul.fp32_precision != "tf32":
        yield
        return
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the new switch was used, and the old one cannot say so
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = "tf32"
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def refuse_late_preparation() -> None:
    """Make one product, which torch refuses where cuBLAS was used before `prepare`."""
    one = torch.ones(1, 1, device="cuda")
    try:
        torch.mm(one, one)
    except RuntimeError as error:
        if WORKSPACE not in str(error):
            raise
        raise CharRNNError(
            f"the GPU cannot be made to repeat its sums: {WORKSPACE} is "
            f"{os.environ[WORKSPACE]!r}, or was set after the first product of this process",
            f"set {WORKSPACE}=:4096:8 before Python starts, or train before anything else uses the GPU",
        ) from None
