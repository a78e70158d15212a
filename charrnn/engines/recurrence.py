"""The recurrence h_t = a_t h_{t-1} + b_t over a whole sequence, element by element, with its gradients.

On a CPU the sequence is walked step by step, whole rows at a time, in place. For large rows that is as fast as memory
allows; blocks would only read everything twice. The results are those of the equations' loop to the last bit, since a
product and a sum are rounded as there; one fused operation would be faster and differ in the last bits. Where starting
an operation costs more than doing it (a GPU), it is one kernel, an associative scan in Triton. Without Triton the
sequence is cut into about sqrt(T) blocks: all blocks advance side by side from zero, the ends are carried from block to
block, and what each carried into its block is added. No way divides or takes logarithms, so gates of exactly 0 and 1,
either sign and any carried state are as exact as the rest.
"""

import math
from importlib.util import find_spec
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
        states = torch.empty_like(b, memory_format=torch.contiguous_format)
        if block < len(b):
            _side_by_side(a, b, h, states, block)
        else:
            _step_by_step(a, b, h, states)
        ctx.save_for_backward(a, h, states)
        ctx.block = block
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dstates: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        a, h, states = ctx.saved_tensors
        want_a, _, want_h, _ = ctx.needs_input_grad
        db = torch.empty_like(states)
        da = torch.empty_like(states) if want_a else None
        if ctx.block < len(a):
            # db_t = dstates_t + a_{t+1} db_{t+1}: the same recurrence, from the last step to the first.
            db[-1] = dstates[-1]
            turned = torch.empty_like(db[:-1])
            _side_by_side(a[1:].flip(0), dstates[:-1].flip(0), dstates[-1], turned, ctx.block)
            db[:-1] = turned.flip(0)
            if da is not None:
                torch.mul(db[1:], states[:-1], out=da[1:])
                torch.mul(db[0], h, out=da[0])
        else:
            _step_by_step_back(a, dstates, (h, *states.unbind(0)), db, da)
        return da, db, a[0] * db[0] if want_h else None, None


def _step_by_step(a: Tensor, b: Tensor, h: Tensor, states: Tensor) -> None:
    for a_t, b_t, h_t in zip(a.unbind(0), b.unbind(0), states.unbind(0), strict=True):
        h = torch.mul(a_t, h, out=h_t).add_(b_t)


def _step_by_step_back(a: Tensor, dstates: Tensor, before: tuple[Tensor, ...], db: Tensor, da: Tensor | None) -> None:
    """Gradients from the last step to the first; before: the state before each step."""
    a_n, d_n, db_n = a.unbind(0), dstates.unbind(0), db.unbind(0)
    da_n = da.unbind(0) if da is not None else None
    db_n[-1].copy_(d_n[-1])
    for t in range(len(a_n) - 1, -1, -1):
        if da_n is not None:
            torch.mul(db_n[t], before[t], out=da_n[t])  # while db_t is in the cache
        if t > 0:
            torch.mul(a_n[t], db_n[t], out=db_n[t - 1]).add_(d_n[t - 1])


def _side_by_side(a: Tensor, b: Tensor, h: Tensor, states: Tensor, block: int) -> None:
    """Fill the states by a kernel where there is one, else in blocks."""
    if has_kernel(b):
        from charrnn.engines import scan_kernel  # wakes Triton

        scan_kernel.run(a, b, h, states)
    else:
        _in_blocks(a, b, h, states, block)


def has_kernel(b: Tensor) -> bool:
    """Tell whether a kernel can run the recurrence where a tensor is."""
    return b.is_cuda and find_spec("triton") is not None


def _in_blocks(a: Tensor, b: Tensor, h: Tensor, states: Tensor, block: int) -> None:
    whole = len(b) // block * block  # what does not fill a block comes after, step by step
    if whole == 0:
        _step_by_step(a, b, h, states)
        return
    a_n, b_n, h_n = (x[:whole].reshape(-1, block, *x.shape[1:]).transpose(0, 1) for x in (a, b, states))
    kept = torch.empty_like(h_n)  # (block, N, B, H): a block's gates multiplied so far, what is left of what it carries
    h_n[0], kept[0] = b_n[0], a_n[0]
    for t in range(1, block):
        torch.addcmul(b_n[t], a_n[t], h_n[t - 1], out=h_n[t])
        torch.mul(a_n[t], kept[t - 1], out=kept[t])
    carried = [h]
    for n in range(1, whole // block):
        carried.append(torch.addcmul(h_n[-1, n - 1], kept[-1, n - 1], carried[-1]))
    h_n.addcmul_(kept, torch.stack(carried))
    _step_by_step(a[whole:], b[whole:], states[whole - 1], states[whole:])
