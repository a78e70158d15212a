"""The decoding loop of one model, as source for Numba: characters in, characters out, no Python in between.

It depends on the cell's equations and on the sizes alone, so that models of one shape share compiled code. Everything
it works on comes as addresses, so that the compiled code stands alone: no Numba is needed to load and run it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from charrnn.compiler.decoding.source import FunctionSource, Layout
from charrnn.compiler.decoding.templates import HEADER, LOOP
from charrnn.compiler.decoding.weights import WIDEST
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

    `run` moves each of T rows on by N ids: it reads those that are given, -1 for none, and draws the others with the
    row's own filters. An id of -1 is drawn in a row whose logits are not finite: what follows there means nothing, and
    no other row notices. wanted: 1 for the last layer's outputs of every step, 2 for the logits after the last one.

    layouts: where the scratch vector of each layer keeps what. weights: what each layer's parameters are, in the order
    in which their addresses follow the others: (layer, leaf, whether it is a matrix). half: int32 for each row that
    products need to work in, and a float32. logits: room for a row's. signature: of run: addresses, then numbers.
    """

    text: str
    layouts: list[Layout]
    weights: list[tuple[int, Leaf, bool]]
    half: int
    signature: tuple[str, ...]

    def logits(self, V: int) -> int:
        """Return how many numbers a row of V logits needs: whole panels are written."""
        return -(-V // WIDEST) * WIDEST


def write(architecture: "Architecture", dtype: str = "float32", real: str = "float32", rows: bool = False) -> Driver:
    """Write the driver of a model.

    dtype: of the weights: float32, bf16 or int8. real: float32, or float64 to check the equations. rows: to
    decode several texts side by side. Raises CharRNNError where the equations cannot be compiled.
    """
    cell, H, L, options = architecture.definition, architecture.hidden, architecture.layers, architecture.cell_options
    _, below = trace(cell, architecture.input_size(0), H, H, dict(options))
    above_inputs, above = trace(cell, H, H, H, dict(options))
    first, upper = Layout(), Layout()
    steps = [FunctionSource("first_step", below, first, dtype)]
    texts = [steps[0].text()]
    if L > 1:
        for name, function in (("step", above), ("inputs", above_inputs)):
            steps.append(FunctionSource(name, function, upper, dtype))
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
        return ", ".join([f"s{layer}", "rounded", "steps", *arguments])

    lines = [f"look_up(table, ids, s0, {first.place('z', below.inputs['z'])})", f"first_step({take(0, steps[0])})"]
    y = first.place("y", H)
    for n in range(1, L):
        x = upper.place("x", H)
        lines += [f"move(s{n - 1}, {y}, s{n}, {x}, {H})", f"inputs({take(n, steps[2])})", f"step({take(n, steps[1])})"]
        y = upper.place("y", H)
        lines += [f"add(s{n}, {x}, s{n}, {y}, {H})"] if architecture.residual else []
    head = _pointers("head", Leaf("head", (), (H, 0)), True, dtype, real)
    scratch = [Pointer(f"s{n}", real, ("T", str((first if n == 0 else upper).size))) for n in range(L)]
    half = (max([H, *(n for _, leaf, _ in weights for n in leaf.shape[-2:-1])]) + 1) // 2
    before = [
        Pointer("table", real, ("V + 1", str(below.inputs["z"]))),
        Pointer("rounded", "int32", ("T", str(half))),
        Pointer("steps", "float32", ("T",)),
    ]
    calls = [
        Pointer("bias", real, ("V",)),
        Pointer("ids", "int64", ("T",)),
        Pointer("given", "int64", ("N", "T")),
        Pointer("outputs", real, ("N * T", str(H))),
        Pointer("logits", real, ("T", f"(V + {WIDEST - 1}) // {WIDEST} * {WIDEST}")),
        Pointer("us", "float64", ("N", "T")),
        Pointer("position", "int64", ("T",)),
        Pointer("following", "int16", ("states * V",)),
        Pointer("drawn", "int64", ("N", "T")),
    ]
    everything = [*before, *scratch, *pointers, *head, *calls]
    numbers = ["logits_at", "allowed_at", "filters_at", "numbers_at", "order_at", "costs_at", "draw"]
    numbers += ["T", "N", "V", "states", "wanted"]
    product = f"{'rows_' if rows else ''}by_{dtype}"
    text = HEADER.format(cell=cell.name, layers=L, hidden=H, dtype=dtype, real=real, product=product)
    text += "\n".join(f"\n@njit(**FLAGS)\n{part}" for part in texts)
    text += LOOP.format(
        vectors=", ".join(pointer.name for pointer in (*scratch, *pointers)),
        advance="\n".join(f"    {line}" for line in lines),
        head=", ".join(pointer.name for pointer in head),
        parameters=", ".join([*(f"{p.name}_" for p in everything), *numbers]),
        views="\n".join(f"    {p.name} = {_view(p)}" for p in everything),
        top=f"s{L - 1}",
        y=y,
        hidden=H,
    )
    signature = (*(f"{p.dtype}*" for p in everything), *("int64" for _ in numbers))
    return Driver(text, [first, *[upper] * (L - 1)], weights, half, signature)


def _pointers(name: str, leaf: Leaf, is_matrix: bool, dtype: str, real: str) -> list[Pointer]:
    """List the arrays that hold a parameter, whose matrices are of this dtype."""
    if not is_matrix:
        return [Pointer(name, real, (str(leaf.shape[-1]),))]
    panels = Pointer(name, DTYPES[dtype], ("1",))  # more than one: products know addresses alone
    return [panels, Pointer(f"{name}_scale", "float32", ("1",))] if dtype == "int8" else [panels]


def _view(pointer: Pointer) -> str:
    return f"{'vector' if len(pointer.shape) == 1 else 'matrix'}({pointer.name}_, {', '.join(pointer.shape)})"
