"""What the compiled decoder runs for a model: the plan of each layer's step, and the table that its code is given.

It depends on the cell's equations and on the sizes alone, so that models of one shape share compiled code. All that the
code works on stands in one table, as addresses. Nothing here needs LLVM: code that is on disk is loaded at once.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charrnn.compiler.blocks import Equations, UnsupportedError, in_blocks, largest_size
from charrnn.compiler.decoding.weights import form
from charrnn.compiler.schedule import Place, Step, make_step
from charrnn.compiler.trace import Function, trace
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.model.architecture import Architecture

# The lines of the table before those of the layers. given: ids to be read, -1 for none; us: the numbers to draw with;
# drawn: what was read or drawn; costs: its nats; outputs: of the last layer; of each of these a slot a step, and costs
# and outputs only where they are wanted. following: the next state of the tokenizer's automaton, and allowed: what may
# follow, a row for each of its states; position: in which of them each row is. numbers: room for a draw; who computes
# some rows uses the first one's. head: in the second column, how many panels it has. past: the last ids of each row,
# the newest first. direct: tables of direct connections; then columns, the first id that has one, rows of each table.
LINES = ["given", "us", "drawn", "costs", "outputs", "logits", "position", "filters", "numbers", "following", "allowed"]
LINES += ["head", "head_scale", "bias", "past", "direct"]
LINE = {name: i for i, name in enumerate(LINES)}

PACKAGE = Path(__file__).parent.parent
SOURCES: tuple[str, ...] = ("amx", "arithmetic", "blocks", "emitting", "graph", "lookups", "objects", "passes")
SOURCES = (*SOURCES, "processor", "products", "rounding", "schedule", "stages", "../cells/operation", "../cells/ops")
SOURCES = (*SOURCES, "decoding/draw", "decoding/driver", "decoding/llvm", "decoding/weights", "../text/contexts")
MOST_BLOCKS = 64  # of an array: more would make too much code


@dataclass(frozen=True)
class Driver:
    """A model as completing runs it.

    form: of its products. steps: the plan of each layer's step; all above the first are one. states: the width of each
    state. hidden: H. direct: N, of direct connections. description: all that its code depends on but this package.
    """

    form: Any
    steps: tuple[Step, ...]
    states: tuple[int, ...]
    hidden: int
    direct: int
    description: str

    def first_line(self, layer: int) -> int:
        """Return where a layer's lines begin in the table; of the layer after the last, how many there are."""
        return len(LINES) + sum(len(step.lines) for step in self.steps[:layer])

    @property
    def real(self) -> Any:
        """The dtype of arithmetic."""
        return np.dtype(np.float64 if self.form.kind == "float64" else np.float32)

    def line(self, layer: int, place: Place) -> int:
        """Return the line of a layer's buffer."""
        return self.first_line(layer) + self.steps[layer].lines[place]


def make(architecture: "Architecture", dtype: Any = "float32", rows: bool = False) -> Driver:
    """Make the driver of a model.

    dtype: of the weights: float32, bf16 or int8, or float64 for everything. rows: to decode several texts side by side.
    Raises CharRNNError where the equations cannot be compiled.
    """
    cell, H, L, options = architecture.definition, architecture.hidden, architecture.layers, architecture.cell_options
    _, below = trace(cell, architecture.input_size(0), H, H, dict(options))
    functions = trace(cell, H, H, H, dict(options)) if L > 1 else ()
    try:
        steps = [make_step(in_largest_blocks(None, below), looked_up=True)]
        if L > 1:
            above = in_largest_blocks(*functions)
            if architecture.residual:
                above = replace(above, y=tuple(y.record("add", y, x) for y, x in zip(above.y, above.x, strict=True)))
            steps += [make_step(above, looked_up=False)] * (L - 1)
    except UnsupportedError as error:
        raise CharRNNError(
            f"the equations of cell {cell.name!r} cannot be compiled: {error}",
            "write them with arrays that are cut into fewer parts",
        ) from error
    sizes = f"{dtype} {rows} {L} {H} {architecture.residual} {architecture.direct}"
    lines = [line for function in (below, *functions) for line in function.lines()]
    states = tuple(width for name, width in below.inputs.items() if name != "z")
    return Driver(form(dtype, rows), tuple(steps), states, H, architecture.direct, "\n".join([sizes, *lines]))


def in_largest_blocks(inputs: Function | None, step: Function) -> Equations:
    """Return a step of completing in the largest blocks that all its arrays are made of; see `in_blocks`."""
    functions = [step] if inputs is None else [inputs, step]
    size = largest_size(*functions)
    widest = max(node.width for function in functions for node in function.outputs.values())
    if widest > MOST_BLOCKS * size:
        raise UnsupportedError(f"parts of {size} features of an array of {widest}")
    return in_blocks(inputs, step, size, at_once=False)


@cache
def made_by() -> str:
    """Return the part of this package that makes code, as text: other text, other code."""
    return "\n".join((PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in SOURCES)
