"""The compiled engine, `native` in settings: a layer, both ways, as one call of machine code made from equations.

What autograd would do step by step is planned once (`derivative` and `schedule` of `charrnn.compiler.training`) and
compiled once (`llvm` there). Products that do not wait for the state (x W, and every matrix's derivative) are left
to torch, one large product each. Pointwise arithmetic and the carried state are float32 (float64 for float64 weights);
products are bf16 under autocast, with float32 sums.

Multiplications limit the speed, not bytes: all rows of a tile share each weight that is read. An odd hidden size, which
`compare` may find, has bf16 products too, and the rest of a row is one shorter vector. With a table of V characters the
first layer's x W and both its derivatives cost V / (T B) of what they would.

Evidence, with the roofline: docs/results/training-speed.md.
"""

import itertools
import math
import threading
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.compiler import cache
from charrnn.compiler.blocks import Product, UnsupportedError
from charrnn.compiler.schedule import DX, DY, INDEX, SAVED, SCRATCH, Buffer, Place, X, make_plan
from charrnn.compiler.training import threads as team
from charrnn.compiler.training.derivative import differentiate, trace
from charrnn.compiler.training.llvm import Machine
from charrnn.compiler.training.packing import pack
from charrnn.compiler.training.products import ROWS
from charrnn.engines import agreement, loop
from charrnn.engines.sequence import Looked, States, is_small, look_up
from charrnn.errors import WrongCodeWarning

MIN_ROWS = 2 * ROWS  # fewer do not make up for waking a thread
LONG = 128  # steps of time that are worth waking a thread for, however few rows
PARTS = 2  # for each thread: one that is delayed leaves a part to the others
LARGE = 2e6  # bytes of matrices that no core's own cache holds, so that each part reads them from further away


def supports(cell: Cell, device: str) -> bool:
    """Tell whether the engine can run a cell on a device: on a CPU, where all its operations have a derivative."""
    return device == "cpu" and why_not(cell) is None


def run(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence, as `Engine.run` says.

    Where the compiled code was found to be wrong on this processor, the loop runs it.
    """
    if is_small(x):
        rows, index = x
    else:
        x = look_up(x)
        rows, index = x.flatten(0, 1), torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2])
    machine = _machine(cell, p, rows.shape[1], state)
    return loop.run(cell, x, state, p) if machine is None else _run(machine, rows, index, state, p)


def why_not(cell: Cell) -> str | None:
    """Say which operation of a cell has no compiled form; None where all have one."""
    key = (cell.name, cell.step, cell.inputs)
    if key not in _refused:
        shapes = {name: param.shape for name, param in cell.shapes(6, 4).items()}
        try:
            trace(cell, shapes, 6, 4)
            _refused[key] = None
        except UnsupportedError as error:
            _refused[key] = str(error).replace("'Traced'", "an array")
    return _refused[key]


def _run(machine: Machine, x: Tensor, index: Tensor, state: States, p: Any) -> tuple[Tensor, States]:
    """Run a layer over a sequence of T steps.

    x: rows (R, I). index: (T, B) int64, which row is read where. state: (B, H) tensors, not modified. p: from
    `Cell.pack`. Returns outputs (T, B, O), in the products' dtype, and the state after the last step.
    """
    params = {name: getattr(p, name) for name in p._fields}
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *state, *params.values()))
    layer = _Layer(machine, list(params), index, training)
    y, *last = _Run.apply(layer, x, *state, *params.values())  # type: ignore[no-untyped-call]
    return y, tuple(last)


_refused: dict[Any, str | None] = {}
_machines: dict[Any, Machine | None] = {}
_compiling = threading.Lock()  # of threads that need the same loops at once, one compiles them and the others wait


def _machine(cell: Cell, p: Any, I: int, state: States) -> Machine | None:
    """Return the compiled loops for a cell of certain sizes, compiled once in a process; None where they are wrong."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") and state[0].dtype == torch.float32 else state[0].dtype
    shapes, H = {name: tuple(getattr(p, name).shape) for name in p._fields}, state[0].shape[1]
    key = (cell.name, cell.step, cell.inputs, tuple(shapes.items()), I, H, dtype)
    if key not in _machines:
        with _compiling:
            if key not in _machines:
                equations = trace(cell, shapes, I, H)
                plan = make_plan(equations, differentiate(equations), same_dtype=dtype != torch.bfloat16)
                machine = Machine(plan, dtype)
                _machines[key] = machine if _is_right(machine, cell, shapes, I, H) else None
    return _machines[key]


def _is_right(machine: Machine, cell: Cell, shapes: dict[str, tuple[int, ...]], I: int, H: int) -> bool:
    """Tell whether compiled loops compute what the equations say; warn where they do not.

    Code that was kept is right: it was tried first.
    """
    if not machine.code.is_new:
        return True
    wrong = agreement.difference(cell, shapes, I, H, machine.dtype, partial(_run, machine))
    if wrong is None:
        cache.keep(machine.code)
        return True
    warnings.warn(
        f"code compiled for {cell.name} computes something else than its equations on this processor ({wrong}): the "
        "loop runs them, which is slower; please report it with what `charrnn env` prints",
        WrongCodeWarning,
        stacklevel=2,
    )
    return False


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: "_Layer", x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.layer = layer
        with torch.autocast("cpu", enabled=False):
            return layer.forward(x, tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dstates: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return None, *ctx.layer.backward(dy, dstates, ctx.needs_input_grad[1:])


class _Layer:
    """One run of a layer: its buffers from the way forwards to the way back."""

    def __init__(self, machine: Machine, names: list[str], index: Tensor, training: bool) -> None:
        self.machine, self.plan, self.names = machine, machine.plan, names
        self.index, self.training = index.contiguous(), training
        self.T, self.B = index.shape
        self.dtype = machine.dtype
        self.wide = torch.float32 if self.dtype == torch.bfloat16 else self.dtype
        self.equations = self.plan.equations
        # bf16 numbers are multiplied in pairs. The last of an odd number is paired with what comes next in its row, of
        # which the matrix takes nothing: it must be there, and finite, though it may not have been computed yet.
        per_step = [p for p in self.equations.products if p.per_step]
        widths = [e.width for p in per_step for e in (*p.left, *p.outputs)]
        self.unpaired = self.dtype == torch.bfloat16 and any(width % 2 for width in widths)
        self.threads = threads = torch.get_num_threads()
        parts = max(1, min(threads, self.B // MIN_ROWS))
        rows = self.B // (PARTS * threads)
        if parts == threads > 1 and rows >= machine.form.rows_that_share and self._matrix_bytes(per_step) < LARGE:
            parts *= PARTS
        # So few rows are not multiplied together, but in tiles of AMX: each can have a thread of its own.
        if 1 < self.B < ROWS and self.T >= LONG and threads > 1 and not machine.form.is_in_tiles:
            cuts = list(range(self.B + 1))
        else:
            cuts = [self.B * k // parts // ROWS * ROWS for k in range(parts)] + [self.B]
        self.parts = list(itertools.pairwise(cuts))
        self.buffers: dict[Place, Tensor] = {}

    def _matrix_bytes(self, products: list[Product]) -> int:
        """Return the bytes that a time step reads of matrices."""
        sizes = (sum(e.width for e in p.left) * sum(e.width for e in p.outputs) for p in products)
        return sum(sizes) * self.dtype.itemsize

    # Buffers

    def _slots(self, place: Place, buffer: Buffer) -> int:
        if buffer.slots not in ("history", "state"):
            return 2 if buffer.slots == "turns" else 1
        is_state = place.kind == "state"
        is_read = self.training and (not is_state or place.which in self.plan.kept)
        if is_read or place == self.plan.y[0]:
            return self.T + (buffer.slots == "state")
        return 2 if is_state else 1

    def _allocate(self, forwards: bool) -> None:
        """Make what is still missing of the buffers of one way through time."""
        for place, buffer in self.plan.buffers.items():
            if place not in self.buffers and _is_of_way(place, forwards):
                width = buffer.width
                if place.kind == "out":
                    width = self.machine.form.panels(width) * self.machine.form.panel
                multiplied = place.kind in ("left", "dout")
                if multiplied and self.unpaired:
                    width += 2 - width % 2  # so that the last of a row has a neighbour, wherever its product begins
                dtype = self.dtype if buffer.product else self.wide
                shape = (self._slots(place, buffer), self.B, width)
                reused = place not in self._handed_out()
                self.buffers[place] = _spare.take(shape, dtype) if reused else torch.empty(shape, dtype=dtype)
                if multiplied and self.unpaired:
                    self.buffers[place].zero_()

    def _handed_out(self) -> tuple[Place, ...]:
        """Buffers whose numbers leave this module, and must not be written again."""
        return self.plan.y[0], DX

    def _table(self, part: int, scratch: Tensor) -> np.ndarray[Any, Any]:
        """Address, bytes of a slot, bytes of a row, and mask of every buffer there is."""
        table = np.zeros((len(self.plan.lines), 4), np.int64)
        for place, tensor in self.buffers.items():
            size, line = tensor.element_size(), self.plan.lines[place]
            slots = self.plan.buffers[place].slots if place in self.plan.buffers else "one"
            address = tensor.data_ptr()
            if slots == "fixed":
                table[line] = address + (part * tensor.stride(0) * size if place.kind == "dvector" else 0), 0, 0, 0
            elif slots == "rows":
                table[line] = address, 0, tensor.stride(0) * size, 0
            else:
                mask = 0 if len(tensor) == 1 else 1 if len(tensor) == 2 and slots in ("state", "turns") else -1
                table[line] = address, tensor.stride(0) * size, tensor.stride(1) * size, mask
        table[self.plan.lines[INDEX]] = self.index.data_ptr(), 8 * self.B, 8, -1
        table[self.plan.lines[SCRATCH]] = scratch.data_ptr(), 0, 0, 0
        return table

    def _in_parts(self, address: int) -> None:
        """Run all rows through time, shared out among threads."""
        scratch = torch.empty(len(self.parts), self.machine.scratch, dtype=self.wide)
        tables = [self._table(i, row) for i, row in enumerate(scratch)]
        parts = [(t.ctypes.data, self.T, *rows) for t, rows in zip(tables, self.parts, strict=True)]
        team.run(address, parts, self.threads)

    # Forwards

    def forward(self, x: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states, params = tensors[: len(self.equations.states)], tensors[len(self.equations.states) :]
        self.params = dict(zip(self.names, params, strict=True))
        self.x_dtype = x.dtype
        plan, buffers = self.plan, self.buffers
        buffers[X] = x.detach().to(self.dtype).contiguous()
        for product in self.equations.products:
            if product.per_step:
                buffers[Place.of("packed", product)] = self._packed(product)
            else:
                buffers[Place.of("out", product)] = buffers[X] @ self._matrix(product.weight).to(self.dtype)
        for place in plan.buffers:
            if place.kind == "vector" and isinstance(place.which, tuple):
                buffers[place] = self._matrix(place.which).to(self.wide).contiguous()
        self._allocate(forwards=True)
        for j, state in enumerate(states):
            buffers[Place("state", j)][0].copy_(state)
        self._in_parts(self.machine.forward)
        last = [buffers[Place("state", j)] for j in range(len(states))]
        place, slot = plan.y
        y = buffers[place][slot : slot + self.T, :, : sum(e.width for e in self.equations.y)]
        result = (y, *(slots[self.T % len(slots)].clone() for slots in last))
        needed = {X, SAVED, place, *(Place("state", j) for j in plan.kept), *(left for left, _ in plan.lefts.values())}
        self._release(needed | {each for each in buffers if each.kind == "vector"} if self.training else set())
        return result

    def _matrix(self, weight: tuple[str, int | None]) -> Tensor:
        name, k = weight
        return self.params[name].detach() if k is None else self.params[name].detach()[k]

    def _packed(self, product: Product) -> Tensor:
        address = self.machine.packs[product.transposed]
        return pack(address, self._matrix(product.weight).to(self.wide), self.machine.form, product.transposed)

    def _release(self, keep: set[Place]) -> None:
        """Let go of buffers; those of a size that is worth it are used again by the next run."""
        for place in [each for each in self.buffers if each not in keep]:
            tensor = self.buffers.pop(place)
            allocated = place in self.plan.buffers and self.plan.buffers[place].slots not in ("fixed", "rows")
            if allocated and place != DY and place not in self._handed_out():
                _spare.give(tensor)

    # Backwards

    def backward(self, dy: Tensor, dstates: tuple[Tensor, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        plan, buffers = self.plan, self.buffers
        buffers[DY] = dy.to(self.dtype).contiguous()
        for product in self.plan.derivative.products:
            buffers[Place.of("packed", product)] = self._packed(product)
        for place, buffer in plan.buffers.items():
            if place.kind == "dvector":
                buffers[place] = torch.zeros(len(self.parts), buffer.width, dtype=self.wide)
        self._allocate(forwards=False)
        for j, dstate in enumerate(dstates):
            buffers[Place("dstate", j)][self.T & 1].copy_(dstate)
        self._in_parts(self.machine.backward)
        grads: dict[str, Tensor] = {}
        dx = self._products(grads, needed[0])
        for weight, place in plan.vectors.items():
            self._put(grads, weight, buffers[place].sum(0))
        before = [buffers[Place("dstate", j)][0].clone() for j in range(len(dstates))]
        self._release(set())
        of_params = ((grads.get(name), param) for name, param in self.params.items())
        result = (dx, *before, *(None if grad is None else grad.to(param.dtype) for grad, param in of_params))
        return tuple(g if wanted else None for g, wanted in zip(result, needed, strict=True))

    def _products(self, grads: dict[str, Tensor], dx_needed: bool) -> Tensor | None:
        """Compute the derivatives by all matrices, and by x where needed."""
        n, x = self.T * self.B, self.buffers[X]
        looked_up = len(x) < n
        dx: Tensor | None = None
        if DX in self.buffers:
            dx = self.buffers[DX].flatten(0, 1)
            dx = self._add_rows(dx) if looked_up else dx
        for product in self.equations.products:
            if (product.number, True) not in self.plan.lefts:
                continue
            dout = self._operand(product, True)
            if product.per_step:
                self._put(grads, product.weight, self._operand(product, False).t() @ dout)
                continue
            dout = self._add_rows(dout) if looked_up else dout
            self._put(grads, product.weight, x.to(dout.dtype).t() @ dout)
            if dx_needed:
                share = dout @ self._matrix(product.weight).to(dout.dtype).t()
                dx = share if dx is None else dx + share
        return dx.to(self.x_dtype) if dx is not None and dx_needed else None

    def _operand(self, product: Product, of_derivative: bool) -> Tensor:
        """Return the left operand of a product, or of its derivative's, for all steps: (T B, K)."""
        place, column = self.plan.lefts[product.number, of_derivative]
        width = sum(e.width for e in (product.outputs if of_derivative else product.left))
        return self.buffers[place][: self.T].flatten(0, 1)[:, column : column + width]

    def _put(self, grads: dict[str, Tensor], weight: tuple[str, int | None], grad: Tensor) -> None:
        """Add a derivative, of a whole parameter or of one in a stack."""
        name, k = weight
        if k is None:
            grads[name] = grads[name] + grad if name in grads else grad
            return
        if name not in grads:
            grads[name] = torch.zeros_like(self.params[name])
        grads[name][k] += grad

    def _add_rows(self, rows: Tensor) -> Tensor:
        """(T B, N) summed by the row of x each has read: (R, N), in the same order every time."""
        R, N = len(self.buffers[X]), rows.shape[1]
        sums = torch.zeros(R, N, dtype=self.wide)
        if rows.dtype != self.dtype:
            return sums.index_add_(0, self.index.flatten(), rows)
        size = rows.element_size()
        where = (rows.data_ptr(), rows.stride(0) * size, self.index.data_ptr(), len(rows))
        self.machine.add_rows(*where, sums.data_ptr(), N * sums.element_size(), 0, N)
        return sums


def _is_of_way(place: Place, forwards: bool) -> bool:
    """Tell whether a buffer is first used on the way forwards, or on the way back."""
    if place.kind in ("out", "packed", "between"):
        return place.transposed != forwards
    return (place.kind in ("left", "saved", "state", "y", "x", "vector")) == forwards


class _Spare:
    """Large buffers between runs: memory that is new to the process costs as much as the arithmetic done in it."""

    KEPT = 64  # of a dtype

    def __init__(self) -> None:
        self._waiting: dict[torch.dtype, list[Tensor]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        n = math.prod(shape)
        with self._lock:
            waiting = self._waiting.setdefault(dtype, [])
            fits = [i for i, flat in enumerate(waiting) if n <= len(flat) <= n + n // 4]
            flat = waiting.pop(fits[-1]) if fits else None
        with torch.inference_mode(False):  # what is made while validating will be written to while training
            if flat is None:  # windows differ by a character: one buffer will do for all
                flat = torch.empty(n + n // 16, dtype=dtype)
            return flat[:n].view(shape)

    def give(self, tensor: Tensor) -> None:
        with torch.inference_mode(False), self._lock:
            flat = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            waiting = self._waiting.setdefault(tensor.dtype, [])
            waiting.append(flat)
            del waiting[: -self.KEPT]


_spare = _Spare()
