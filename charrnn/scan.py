"""The recurrence h_t = a_t h_{t-1} + b_t over a whole sequence, element by element, with its gradients.

On a CPU the sequence is walked step by step, whole rows at a time, in place: from some ten thousand elements up that
is as fast as memory allows, blocks would only read everything twice, and the results are those of the equations' loop
to the last bit, since a product and a sum are rounded as there (one fused operation would save a fifth of the time and
differ in the last bits). Where starting an operation costs more than doing it (CUDA), the sequence is cut into about
sqrt(T) blocks: all blocks advance side by side from zero, the ends are carried from block to block, and what each
carried into its block is added. Neither way divides or takes logarithms, so gates of exactly 0 and 1, either sign and
any carried state are as exact as the rest.
"""

import math
from typing import Any

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, h: Tensor, block: int | None = None) -> Tensor:
    """All states h_1 .. h_T of h_t = a_t h_{t-1} + b_t.

    a, b: (T, B, H), T at least 1; a may be broadcast to b. h: (B, H), the state before the first step; none is
    modified. block: time steps per block, chosen for the device when None. Halves are accumulated in float32.
    Returns (T, B, H), float32 or wider; differentiable once in a, b and h.
    """
    dtype = torch.promote_types(b.dtype, torch.float32)
    T = len(b)
    if block is None:
        block = T if b.device.type == "cpu" else math.isqrt(T - 1) + 1
    tensors = a.expand_as(b).to(dtype), b.to(dtype), h.to(dtype)
    states: Tensor = _Scan.apply(*tensors, min(block, T))  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor, block: int) -> Tensor:
        states = _run(a, b, h, block, backwards=False)
        ctx.save_for_backward(a, h, states)
        ctx.block = block
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dstates: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        a, h, states = ctx.saved_tensors
        # db_t = dstates_t + a_{t+1} db_{t+1}: the same recurrence, from the last step to the first.
        db = torch.cat((_run(a[1:], dstates[:-1], dstates[-1], ctx.block, backwards=True), dstates[-1:]))
        da = torch.cat(((db[0] * h)[None], db[1:] * states[:-1])) if ctx.needs_input_grad[0] else None
        return da, db, a[0] * db[0] if ctx.needs_input_grad[2] else None, None


def _run(a: Tensor, b: Tensor, h: Tensor, block: int, backwards: bool) -> Tensor:
    if block < len(b):
        if backwards:
            return _in_blocks(a.flip(0), b.flip(0), h, block).flip(0)
        return _in_blocks(a, b, h, block)
    states = torch.empty_like(b, memory_format=torch.contiguous_format)
    order = slice(None, None, -1 if backwards else 1)
    _step_by_step(a.unbind(0)[order], b.unbind(0)[order], h, states.unbind(0)[order])
    return states


def _step_by_step(a: tuple[Tensor, ...], b: tuple[Tensor, ...], h: Tensor, states: tuple[Tensor, ...]) -> None:
    for a_t, b_t, h_t in zip(a, b, states, strict=True):
        h = torch.mul(a_t, h, out=h_t).add_(b_t)


def _in_blocks(a: Tensor, b: Tensor, h: Tensor, block: int) -> Tensor:
    whole = len(b) // block * block  # what does not fill a block comes after, step by step
    states = torch.empty_like(b, memory_format=torch.contiguous_format)
    a_n, b_n, h_n = (
        x[:whole].reshape(-1, block, *x.shape[1:]).transpose(0, 1) for x in (a, b, states)
    )  # (block, N, B, H)
    kept = torch.empty_like(h_n)  # the product of a block's gates so far: what is left of its carried state
    h_n[0], kept[0] = b_n[0], a_n[0]
    for t in range(1, block):
        torch.addcmul(b_n[t], a_n[t], h_n[t - 1], out=h_n[t])
        torch.mul(a_n[t], kept[t - 1], out=kept[t])
    carried = [h]
    for n in range(1, whole // block):
        carried.append(torch.addcmul(h_n[-1, n - 1], kept[-1, n - 1], carried[-1]))
    h_n.addcmul_(kept, torch.stack(carried))
    if whole < len(b):
        _step_by_step(a[whole:].unbind(0), b[whole:].unbind(0), states[whole - 1], states[whole:].unbind(0))
    return states
