"""The decoding loop of one model, as source for Numba: characters in, characters out, no Python in between.

It depends on the cell's equations and on the sizes alone, so that models of one shape share compiled code. Everything
it works on comes as addresses, so that the compiled code stands alone: no Numba is needed to load and run it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from charrnn.compiler.decoding.source import FunctionSource, Layout
from charrnn.compiler.decoding.templates import HEADER, LOOP, ONE_ROW, ROWS, ROWS_LOOP
from charrnn.compiler.decoding.weights import GROUP, PANEL, TILE, TILE_ROWS
from charrnn.compiler.trace import Leaf, trace

if TYPE_CHECKING:
    from charrnn.model.architecture import Architecture

DTYPES = {"float32": "float32", "bf16": "uint32", "int8": "int8"}  # of a matrix in panels


@dataclass(frozen=True)
class Pointer:
    """A parameter of `run` that is an address. shape: of the array there, in source; none: it is only handed on."""

    name: str
    dtype: str
    shape: tuple[str, ...] = ()


@dataclass(frozen=True)
class Driver:
    """A model's source, and what its `run` is to be given.

    `run` reads T ids and draws N more; or, for rows, moves each of T rows on by N ids: it reads those that are given,
    -1 for none, and draws the others with the row's own filters. An id of -1 is drawn in a row whose logits are not
    finite: what follows there means nothing, and no other row notices.

    layouts: where the scratch vector of each layer keeps what. weights: what each layer's parameters are, in the order
    in which their addresses follow the others: (layer, leaf, whether it is a matrix). room: how many float32 and int32
    products need to work in; of T rows, a float32 more for each, and so many int32 for each.
    parameters: of run, all: addresses first, then numbers.
    """

    text: str
    layouts: list[Layout]
    weights: list[tuple[int, Leaf, bool]]
    room: tuple[int, int]
    signature: tuple[str, ...]


def write(architecture: "Architecture", dtype: str = "float32", real: str = "float32", rows: bool = False) -> Driver:
    """Write the driver of a model.

    dtype: of the weights: float32, bf16 or int8. real: float32, or float64 to check the equations. rows: to
    decode several texts side by side. Raises CharRNNError where the equations cannot be compiled.
    """
    cell, H, L, options = architecture.definition, architecture.hidden, architecture.layers, architecture.cell_options
    _, below = trace(cell, architecture.input_size(0), H, H, dict(options))
    above_inputs, above = trace(cell, H, H, H, dict(options))
    first, upper = Layout(), Layout()
    steps = [FunctionSource("first_step", below, first, real, dtype, rows)]
    texts = [steps[0].text()]
    if L > 1:
        for name, function in (("step", above), ("inputs", above_inputs)):
            steps.append(FunctionSource(name, function, upper, real, dtype, rows))
            texts.append(steps[-1].text())
    weights: list[tuple[int, Leaf, bool]] = []
    pointers: list[Pointer] = []

    def take(layer: int, function: FunctionSource) -> str:
        """Return the arguments of a layer's call: its scratch vector, its weights."""
        arguments = []
        for leaf in function.leaves:
            of = _pointers(f"{function.name}{layer}_{len(weights)}", leaf, leaf in function.matrices, dtype, real)
            weights.append((layer, leaf, leaf in function.matrices))
            pointers.extend(of)
            arguments += [pointer.name for pointer in of]
        return ", ".join([f"s{layer}", "sums", "rounded", *arguments])

    lines = [f"look_up(table, id_, s0, {first.place('z', below.inputs['z'])})", f"first_step({take(0, steps[0])})"]
    y = first.place("y", H)
    for n in range(1, L):
        x = upper.place("x", H)
        lines += [f"move(s{n - 1}, {y}, s{n}, {x}, {H})", f"inputs({take(n, steps[2])})", f"step({take(n, steps[1])})"]
        y = upper.place("y", H)
        lines += [f"add(s{n}, {x}, s{n}, {y}, {H})"] if architecture.residual else []
    head = _pointers("head", Leaf("head", (), (H, 0)), True, dtype, real)
    many = ("T",) if rows else ()
    scratch = [Pointer(f"s{n}", real, (*many, str((first if n == 0 else upper).size))) for n in range(L)]
    widest = max([H, *(n for _, leaf, _ in weights for n in leaf.shape[-2:-1])])
    table = Pointer("table", real, ("V + 1", str(below.inputs["z"])))
    half, times = (widest + 1) // 2, " * T" if rows else ""
    sums = TILE * TILE_ROWS if rows else PANEL
    room = [
        Pointer("sums", "float32", (f"{sums}{' + T' if rows else ''}",)),
        Pointer("rounded", "int32", (f"{half}{times}",)),
    ]
    calls = [
        Pointer("bias", real, ("V",)),
        Pointer("ids", "int64", ("T",)),
        Pointer("given", "int64", ("N * T",)) if rows else Pointer("outputs", real, (f"T * {H}",)),
        Pointer("logits", real, (*many, "V")),
        Pointer("us", "float64", (f"N{times}",)),
        Pointer("position", "int64", ("T" if rows else "1",)),
        Pointer("following", "int16", ("states * V",)),
        Pointer("drawn", "int64", (f"N{times}",)),
    ]
    everything = [table, *room, *scratch, *pointers, *head, *calls]
    numbers = ["logits_at", "allowed_at", "filters_at", "numbers_at", "order_at", "costs_at", "draw"]
    numbers += ["T", "N", "V", "states", *([] if rows else ["wanted"])]
    vectors = [pointer.name for pointer in (*scratch, *pointers)]
    module, product = ("rows", f"rows_by_{dtype}") if rows else ("products", f"by_{dtype}")
    panels = ", ".join(pointer.name for pointer in head)
    arguments = (
        f"s{L - 1}, {y}, {H}, {panels}, logits, 0, V, rounded, sums" if rows else f"y, {panels}, logits, sums, rounded"
    )
    text = HEADER.format(cell=cell.name, layers=L, hidden=H, dtype=dtype, real=real, module=module, product=product)
    text += ROWS if rows else ONE_ROW
    text += "\n".join(f"\n@njit(**FLAGS)\n{part}" for part in texts)
    text += (ROWS_LOOP if rows else LOOP).format(
        vectors=", ".join(vectors),
        advance="\n".join(f"    {line}" for line in lines),
        head=panels,
        product=f"{product}({arguments})",
        parameters=", ".join([*(f"{p.name}_" for p in everything), *numbers]),
        views="\n".join(f"    {p.name} = {_view(p)}" for p in everything),
        top=f"s{L - 1}",
        y=y,
        hidden=H,
    )
    signature = (*(f"{p.dtype}*" for p in everything), *("int64" for _ in numbers))
    return Driver(text, [first, *[upper] * (L - 1)], weights, (sums, half), signature)


def _pointers(name: str, leaf: Leaf, is_matrix: bool, dtype: str, real: str) -> list[Pointer]:
    """List the arrays that hold a parameter, whose matrices are of this dtype. A width of 0 stands for V."""
    if not is_matrix:
        return [Pointer(name, real, (str(leaf.shape[-1]),))]
    I, O = leaf.shape
    width, rows = str(O) if O else "V", GROUP[dtype]
    numbers = -(-I // rows) * PANEL * (2 if dtype == "int8" else 1)
    panels = Pointer(name, DTYPES[dtype], (f"({width} + {PANEL - 1}) // {PANEL}", str(numbers)))
    return [panels, Pointer(f"{name}_scale", "float32", (width,))] if dtype == "int8" else [panels]


def _view(pointer: Pointer) -> str:
    return f"{'vector' if len(pointer.shape) == 1 else 'matrix'}({pointer.name}_, {', '.join(pointer.shape)})"
