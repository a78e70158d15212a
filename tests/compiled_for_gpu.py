"""Compile kernels of cells for a GPU of compute capability 9.0, which needs none: python compiled_for_gpu.py CELL ...

Every cell at 512 features and 64 rows, with bf16 products, forwards and backwards, as a GPU of 132 processors would run
them. What Triton's compiler refuses ends it; so does what needs more memory than a processor has.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from charrnn import cells
from charrnn.engines import on_chip
from charrnn.generate import graphed
from charrnn.generate.direct_kernel import add_direct
from charrnn.generate.draw_kernel import draw

H, B, PROCESSORS, SHARED_BYTES = 512, 64, 132, 232_448


def compile_kernels(name: str) -> None:
    """Compile both kernels of a cell with the tiling that it gets first."""
    cell = cells.get(name)
    shapes = {key: tuple(param.shape) for key, param in cell.shapes(H, H).items()}
    z = cell.inputs(torch.zeros(1, H), cell.pack({key: torch.zeros(shape) for key, shape in shapes.items()}))
    code = on_chip.compiled(on_chip.written(cell, shapes, z.shape[-1], H))
    tiling = on_chip.tilings(B, H, code.kernels.tiles, on_chip.BF16_BYTES, PROCESSORS)[0]
    for kernel in (code.forward, code.backward):
        constants = on_chip.sizes(tiling, H) | ({"KEPT": True} if "KEPT" in kernel.arg_names else {})
        signature = {argument: _type(argument) for argument in kernel.arg_names}
        signature |= dict.fromkeys(constants, "constexpr")
        target = GPUTarget("cuda", 90, 32)
        found = triton.compile(ASTSource(kernel, signature, constants), target=target, options=on_chip.options(tiling))
        used = found.metadata.shared
        print(f"{name} {tiling} {kernel.__name__}: {used} bytes", flush=True)
        if used > SHARED_BYTES:
            sys.exit(f"{name} {kernel.__name__} needs {used} of {SHARED_BYTES} bytes")


def _type(argument: str) -> str:
    if argument in ("T", "B", "first"):
        return "i32"
    if argument == "counter":
        return "*i32"
    return "*bf16" if argument.startswith(("matrix", "left", "dout", "y", "dy")) else "*fp32"


def compile_draw() -> None:
    """Compile the draw, with filters that need an order and without."""
    types = {"logits": "*fp32", "allowed": "*u8", "following": "*i16", "filters": "*fp64", "costs": "*fp64"}
    types |= {"scratch": "*fp64", "V": "i32"}
    for ordered in (False, True):
        constants = {"VP": 512, "ORDERED": ordered, "CHUNK": graphed.CHUNK}
        signature = {argument: types.get(argument, "*i64") for argument in draw.arg_names}
        signature |= dict.fromkeys(constants, "constexpr")
        found = triton.compile(ASTSource(draw, signature, constants), target=GPUTarget("cuda", 90, 32))
        print(f"draw {constants}: {found.metadata.shared} bytes", flush=True)


def compile_direct() -> None:
    """Compile what adds tables of direct connections to logits, for one table and for several."""
    types = {"logits": "*fp32", "tables": "*fp32", "ids": "*i64", "before": "*i64", "after": "*i64"}
    for orders in (1, 6):
        constants = {"N": orders, "CP": 128}
        signature = {argument: types.get(argument, "i32") for argument in add_direct.arg_names}
        signature |= dict.fromkeys(constants, "constexpr")
        triton.compile(ASTSource(add_direct, signature, constants), target=GPUTarget("cuda", 90, 32))
        print(f"direct {constants}", flush=True)


def compile_steps(name: str) -> None:
    """Compile what makes one time step, with products by others and, for a row alone, with products."""
    cell = cells.get(name)
    shapes = {key: tuple(param.shape) for key, param in cell.shapes(H, H).items()}
    for alone, (rows, columns) in ((False, graphed.PROGRAM), (True, graphed.ALONE)):
        stages, kernels = on_chip.compiled_step(cell, shapes, H, H, whole=True, alone=alone)
        constants = {"H": H, "BR": rows, "BH": columns} | ({"BK": graphed.ADDED} if alone else {})
        for stage in filter(None, stages.names):
            signature = {argument: "i32" if argument == "B" else "*fp32" for argument in kernels[stage].arg_names}
            signature |= dict.fromkeys(constants, "constexpr")
            triton.compile(ASTSource(kernels[stage], signature, constants), target=GPUTarget("cuda", 90, 32))
            print(f"{name} {stage}{' of a row alone' if alone else ''}", flush=True)


compile_draw()
compile_direct()
for cell_name in sys.argv[1:]:
    compile_kernels(cell_name)
    compile_steps(cell_name)
