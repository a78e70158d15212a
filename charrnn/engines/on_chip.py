"""The on-chip engine, `triton` in settings: a layer's time loop as one kernel on a GPU, made from the equations.

`charrnn.compiler.targets.triton` writes the kernels and says how they work. What depends on x alone, and every matrix's
derivative, are large products that torch makes. Arithmetic and states are float32; products are bf16 under autocast,
with float32 sums. Programs wait for each other, so there are no more of them than the GPU has processors.
"""

import linecache
import warnings
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import product as pairs
from typing import Any, NamedTuple

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.compiler.blocks import UnsupportedError
from charrnn.compiler.targets import triton as target
from charrnn.compiler.training.derivative import differentiate, trace
from charrnn.engines import agreement, fused, loop
from charrnn.engines.sequence import Looked, States, inputs
from charrnn.errors import WrongCodeWarning

KEPT_BYTES = 144 << 10  # of matrices, in a program: a processor's registers and memory are larger, but hold more
ROWS, COLUMNS = (16, 32, 64, 128), (16, 32, 64)  # of a program
BF16_BYTES = 2
WIDE = 2048  # numbers of an array of a program, from which on more threads share them
PROGRAMS = 64  # in all, where there is no GPU that says how many it runs at once


def supports(cell: Cell, device: str) -> bool:
    """Tell whether the engine can run a cell on a device: on a GPU with Triton, where its step can be written so."""
    return device == "cuda" and has_triton() and why_not(cell) is None


@cache
def has_triton() -> bool:
    """Tell whether Triton is installed, without importing it; torch for CUDA brings it."""
    return find_spec("triton") is not None


def note(cell: Cell, device: str, precision: str) -> str | None:
    """Say that the loop runs instead."""
    if precision != "bf16":
        other = "fused engine" if fused.supports(cell, device) else "loop"
        return f"the triton engine multiplies bf16 numbers alone: in {precision} the {other} runs"
    return None


def run(cell: Cell, x: Tensor | Looked, state: States, p: Any) -> tuple[Tensor, States]:
    """Run one layer over a sequence, as `Engine.run` says.

    The loop runs it where the kernels were found to be wrong here, or there are so many rows and features that programs
    which wait for each other do not all fit; where products are not bf16, torch's own layer does if the cell has one.
    """
    (B, H), device = state[0].shape, state[0].device
    z = inputs(cell, x, p)
    if state[0].dtype == torch.float32 and z.ndim == 3:
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.bfloat16 if autocast else torch.float32
        params = {name: getattr(p, name) for name in p._fields}
        shapes = tuple((name, tuple(value.shape)) for name, value in params.items())
        made = _made(cell, _Key((cell.name, cell.step), shapes, z.shape[2], H, dtype, device.type), B)
        if made is not None:
            return run_code(*made, dtype, z, state, params)
        if not autocast and fused.supports(cell, device.type):
            return fused.run(cell, x, state, p)
    return loop.run(_step_alone(cell), z, state, p)


def why_not(cell: Cell) -> str | None:
    """Say what of a cell's step the kernels cannot do; None where they can do all."""
    key = (cell.name, cell.step, cell.inputs)
    if key not in _refused:
        try:
            written(cell, {name: param.shape for name, param in cell.shapes(8, 4).items()}, _width(cell), 4)
            _refused[key] = None
        except UnsupportedError as error:
            _refused[key] = str(error)
    return _refused[key]


_refused: dict[Any, str | None] = {}


def written(cell: Cell, shapes: dict[str, tuple[int, ...]], Z: int, H: int) -> target.Kernels:
    """Write the kernels of a cell's step. Z: numbers of a row that `inputs` makes. Raises UnsupportedError."""
    equations = trace(_step_alone(cell), shapes, Z, H)
    return target.write(equations, differentiate(equations), H)


def _width(cell: Cell) -> int:
    """Return how many numbers `inputs` makes of a row, for 8 inputs and 4 features."""
    values = {name: torch.zeros(param.shape) for name, param in cell.shapes(8, 4).items()}
    return int(cell.inputs(torch.zeros(1, 8), cell.pack(values)).shape[-1])


def _step_alone(cell: Cell) -> Cell:
    """Return the cell whose x is what this one's `inputs` makes."""
    return replace(cell, inputs=lambda z, p: z, gates=None, readout=None)


# Which kernels, and in how many programs


class Tiling(NamedTuple):
    """A program's part: rows, columns of every block of features, and whether its matrices stay on the chip."""

    rows: int
    columns: int
    keeps: bool


class _Key(NamedTuple):
    """All that the text of kernels, and how they are compiled, depends on. step: the cell's name and equation."""

    step: tuple[str, Any]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    Z: int
    H: int
    dtype: torch.dtype
    device: str


def tilings(B: int, H: int, tiles: int, size: int, programs: int) -> list[Tiling]:
    """List the ways to share out B rows and H features among programs, the best first.

    tiles: of H by a program's columns that it reads of matrices. size: bytes of a number of them. programs: that run at
    once; without matrices they need not. There is none for float32, whose products the units for bf16 do not make.
    """
    if not tiles:
        return [Tiling(16, 32, keeps=False)]
    if size > BF16_BYTES:
        return []
    fitting = [t for t in pairs(ROWS, COLUMNS) if -(-B // t[0]) * -(-H // t[1]) <= programs]
    kept = [t for t in fitting if tiles * _power(H) * t[1] * size <= KEPT_BYTES]
    return [Tiling(*t, keeps=True) for t in kept[:2]] + [Tiling(*t, keeps=False) for t in fitting[:1]]


def _power(H: int) -> int:
    """Return the least power of two that is H or more, and 16 or more, as Triton's products ask for."""
    return max(16, 1 << (H - 1).bit_length())


@cache
def _programs(device: str) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device == "cuda" else PROGRAMS


@dataclass(frozen=True)
class Code:
    """Kernels that Triton has read."""

    kernels: target.Kernels
    forward: Any
    backward: Any


CODE: dict[Any, Code | None] = {}
RIGHT: dict[Any, bool] = {}


def _made(cell: Cell, key: _Key, B: int) -> tuple[Code, Tiling] | None:
    """Return the kernels of a layer and the tiling for B rows; None where there is none that is right here."""
    if key not in CODE:
        try:
            CODE[key] = compiled(written(cell, dict(key.shapes), key.Z, key.H))
        except UnsupportedError:
            CODE[key] = None
    code = CODE[key]
    if code is None:
        return None
    for tiling in tilings(B, key.H, code.kernels.tiles, key.dtype.itemsize, _programs(key.device)):
        if (key, tiling) not in RIGHT:
            if key.device == "cuda" and torch.cuda.is_current_stream_capturing():
                continue  # nothing is tried in a step that is being recorded
            RIGHT[key, tiling] = _is_right(cell, key, code, tiling)
        if RIGHT[key, tiling]:
            return code, tiling
    return None


def compiled(kernels: target.Kernels) -> Code:
    """Give the text of kernels to Triton, which compiles it at the first call."""
    space = _read(kernels.text)
    return Code(kernels, space["forward"], space["backward"])


def compiled_step(
    cell: Cell, shapes: dict[str, tuple[int, ...]], Z: int, H: int, whole: bool = False, alone: bool = False
) -> tuple[target.Stages, dict[str, Any]]:
    """Write the kernels of one time step, and return them with what Triton made of them, by name.

    Z: numbers of a row that they read. whole: that is what the cell reads, else what `inputs` makes of it. alone: for
    one row. Raises UnsupportedError.
    """
    equations = trace(cell if whole else _step_alone(cell), shapes, Z, H)
    stages = target.write_step(equations, differentiate(equations), H, alone)
    return stages, _read(stages.text)


def _read(text: str) -> dict[str, Any]:
    name = f"<kernels {hash(text):x}>"
    # Triton reads a function's text, and finds it there.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, name, "exec"), space)
    return space


def _is_right(cell: Cell, key: _Key, code: Code, tiling: Tiling) -> bool:
    """Tell whether kernels compute what the equations say on this GPU; warn where they do not."""

    def ran(rows: Tensor, index: Tensor, states: States, p: Any) -> tuple[Tensor, States]:
        z = torch.nn.functional.embedding(index, rows)
        return run_code(code, tiling, key.dtype, z, states, {name: getattr(p, name) for name in p._fields})

    try:
        wrong = agreement.difference(_step_alone(cell), dict(key.shapes), key.Z, key.H, key.dtype, ran, key.device)
    except Exception as error:
        if not _is_of_triton(error):
            raise
        return False  # it does not fit on the chip, or this Triton cannot compile it: the next tiling may
    if wrong is not None:
        warnings.warn(
            f"kernels compiled for {cell.name} compute something else than its equations on this GPU ({wrong}): "
            "the loop runs them, which is slower; please report it with what `charrnn env` prints",
            WrongCodeWarning,
            stacklevel=2,
        )
    return wrong is None


def _is_of_triton(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "triton"


# Running them


def run_code(
    code: Code, tiling: Tiling, dtype: torch.dtype, z: Tensor, state: States, params: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Run a layer over what `inputs` has made of it, z (T, B, Z). dtype: of products."""
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (z, *state, *params.values()))
    layer = _Layer(code, tiling, dtype, list(params), training)
    y, *last = _Run.apply(layer, z, *state, *params.values())  # type: ignore[no-untyped-call]
    return y, tuple(last)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: "_Layer", z: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(z.device.type, enabled=False):
            y, last, kept = layer.forward(z.detach().contiguous(), tensors)
        ctx.layer, ctx.dtypes = layer, [z.dtype, *(t.dtype for t in tensors)]
        ctx.save_for_backward(*kept)
        return y, *last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *dstates: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dy.device.type, enabled=False):
            found = ctx.layer.backward(ctx.saved_tensors, dy.contiguous(), dstates)
        return None, *(None if g is None else g.to(dtype) for g, dtype in zip(found, ctx.dtypes, strict=True))


class _Layer:
    """One run of a layer. What it keeps for the way back is given to autograd."""

    def __init__(self, code: Code, tiling: Tiling, dtype: torch.dtype, names: list[str], training: bool) -> None:
        self.code, self.kernels, self.tiling, self.dtype = code, code.kernels, tiling, dtype
        self.names, self.training = names, training

    def forward(self, z: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return y (T, B, Y), the last states, and what the way back needs."""
        kernels, (T, B, _) = self.kernels, z.shape
        n = len(kernels.equations.states)
        begun, params = tensors[:n], dict(zip(self.names, tensors[n:], strict=True))
        self.shape, self.H = (T, B), begun[0].shape[1]
        shared = self._shared(params)
        slots = T + 1 if self.training else 2
        states = [torch.empty(slots, B, self.H, device=z.device) for _ in begun]
        for buffer, start in zip(states, begun, strict=True):
            buffer[0].copy_(start)
        count = {i: len(p.left) for i, p in zip(kernels.lefts, kernels.products, strict=True)}
        lefts = [self._empty(z, T, count[i], self.dtype) for i in sorted(count)]
        outs = [self._empty(z, T if self.training else 0, len(p.outputs)) for p in kernels.products]
        y = self._empty(z, T, len(kernels.equations.y), self.dtype)
        self._launch(self.code.forward, z, [z, *shared, *states, *lefts, *outs, y, self.training])
        last = [buffer[T if self.training else T & 1].clone() for buffer in states]
        return y, last, [z, *shared, *states, *outs, *lefts] if self.training else []

    def backward(self, kept: tuple[Tensor, ...], dy: Tensor, dstates: tuple[Tensor, ...]) -> list[Tensor | None]:
        """Return the derivatives by z, states and parameters."""
        kernels, (T, B) = self.kernels, self.shape
        z, n_lefts = kept[0], len(set(kernels.lefts))
        lefts, before = kept[len(kept) - n_lefts :], kept[: len(kept) - n_lefts]
        d = [each.to(torch.float32, copy=True).contiguous() for each in dstates]
        douts = [self._empty(z, T, len(p.outputs), self.dtype) for p in kernels.products]
        dz = self._empty(z, T, len(kernels.equations.x))
        vectors = kept[1 : 1 + len(kernels.vectors)]
        groups = -(-B // self.tiling.rows)
        sums = [torch.zeros(groups, v.numel(), device=z.device) for v in vectors]
        self._launch(self.code.backward, z, [*before, dy, *d, *douts, dz, *sums])
        gradients: dict[str, Tensor] = {}
        differentiated = {p.number for p in kernels.derivative.products}
        for i, p in enumerate(kernels.products):
            if p.number in differentiated:
                left = lefts[kernels.lefts[i]].flatten(0, 1)
                self._add(gradients, p.weight, left.t() @ douts[i].flatten(0, 1))
        for vector, sum_ in zip(kernels.vectors, sums, strict=True):
            self._add(gradients, vector, sum_.sum(0))
        return [dz, *d, *(gradients.get(name) for name in self.names)]

    def _shared(self, params: dict[str, Tensor]) -> list[Tensor]:
        """Return the vectors, and the matrices in the dtype of products."""

        def of(weight: target.Weight, dtype: torch.dtype) -> Tensor:
            name, index = weight
            value = params[name].detach()
            return (value if index is None else value[index]).to(dtype).contiguous()

        self.shapes = {name: value.shape for name, value in params.items()}
        vectors = [of(vector, torch.float32) for vector in self.kernels.vectors]
        return [*vectors, *(of(p.weight, self.dtype) for p in self.kernels.products)]

    def _empty(self, like: Tensor, T: int, blocks: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(T, self.shape[1], blocks * self.H, dtype=dtype, device=like.device)

    def _add(self, gradients: dict[str, Tensor], weight: target.Weight, gradient: Tensor) -> None:
        """Add the derivative of a parameter, or of one in a stack."""
        name, index = weight
        gradient = gradient.to(torch.float32)
        if index is None:
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
            return
        if name not in gradients:
            gradients[name] = torch.zeros(self.shapes[name], device=gradient.device)
        gradients[name][index] += gradient

    def _launch(self, kernel: Any, like: Tensor, arguments: list[Any]) -> None:
        T, B = self.shape
        groups, columns = -(-B // self.tiling.rows), -(-self.H // self.tiling.columns)
        counter = torch.zeros(groups, dtype=torch.int32, device=like.device)
        shape = sizes(self.tiling, self.H)
        launch(kernel, groups * columns, [*arguments, counter, T, B], shape, options(self.tiling))


def sizes(tiling: Tiling, H: int) -> dict[str, Any]:
    """Return what of a kernel's arguments is decided when it is compiled."""
    BR, BH, keeps = tiling
    shape = {"H": H, "HP": _power(H), "BR": BR, "BH": BH, "COLUMNS": -(-H // BH), "KEEP": keeps}
    return {**shape, "PRECISION": "ieee"}


def options(tiling: Tiling) -> dict[str, int]:
    """Return how Triton compiles a kernel."""
    # What a step reads, others wrote in the step before: reading it ahead, as stages do, would be too early.
    return {"num_stages": 1, "num_warps": 8 if tiling.rows * tiling.columns >= WIDE else 4}


def launch(kernel: Any, programs: int, arguments: list[Any], shape: dict[str, Any], how: dict[str, int]) -> None:
    """Start a kernel's programs, numbered from 0. shape, how: as `sizes` and `options` give them."""
    kernel[(programs,)](*arguments, 0, **shape, **how)
