"""A recurrent cell: a few functions of arrays, and the parameters and state they need.

Letters: T time steps, B rows, I input features, H hidden features, O output features. The functions see arrays whose
last axis is features; leading axes (none, B, or T and B) are carried along, so the same equation serves one row, a
batch and a whole sequence. `p` has one attribute per parameter; `state` is a tuple of (..., H) arrays, or of arrays of
the shapes that the cell declares.
"""

import math
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.cells.ops import Array, matmul
from charrnn.cells.shapes import Declaration, InLetters, Sizes, drawn, of_state, read
from charrnn.cells.shapes import Param as Param
from charrnn.errors import CharRNNError, did_you_mean

MOST_OPTION = 1000  # far more than anybody used: equations are written out as often as an option says
State = tuple[Array, ...]
Step = Callable[[Array, State, Any], tuple[Array, State]]


@dataclass(frozen=True)
class Twin:
    """The torch layer that computes exactly the same numbers as a cell's equations.

    layer: 'RNN', 'LSTM' or 'GRU'. to_torch(p) gives weight_ih (k H, I), weight_hh (k H, H), bias_ih, bias_hh (k H,)
    from the cell's parameters, differentiably; from_torch(weight_ih, weight_hh, bias_ih, bias_hh) gives the cell's
    parameters in their declared order, or is None where the torch layer can hold what the cell cannot.
    """

    layer: str
    to_torch: Callable[[Any], tuple[Array, Array, Array, Array]]
    from_torch: Callable[[Array, Array, Array, Array], tuple[Array, ...]] | None = None


def linear_inputs(x: Array, p: Any) -> Array:
    """Return the usual part of a cell that depends on x_t alone: x W + b."""
    return matmul(x, p.W) + p.b


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its equations and what they need. Made once per cell, in the cell's own file.

    parameters: {name: Param}, in the order they are stored and counted, with shapes in letters: Param("I 4H", rule); or
    a function of the options that returns it, with the same names whatever they are. (The older form is read too: a
    function of I, H, O and the options that returns shapes in numbers.)
    state: the start value of each state, in order; the start of a text is a state of those values.
    state_shapes: of each state that is not of H features, its shape in letters: {"S": "4 H"} is (..., 4, H). An axis is
    H, an option, a number, or one before the other.
    inputs(x, p) -> z: all that depends on x_t alone; called on (T, B, I) at once.
    step(z, state, p) -> (y, state): one time step, z = inputs(x_t, p).
    A linear recurrence h_t = a_t h_{t-1} + b_t gives gates(z, p) -> (a, b) and readout(z, h, p) -> y instead of step;
    its step is derived from them, and so is its parallel scan.
    options: the cell's own knobs with their defaults, for `parameters`; equations see them only as shapes.
    twin: the torch layer that is the same function, if there is one.
    """

    name: str
    summary: str
    source: str
    parameters: Mapping[str, Param[str]] | Callable[..., Mapping[str, Param[Any]]]
    state: Mapping[str, float]
    step: Step = field(default=None)  # type: ignore  # derived from gates and readout when not given
    inputs: Callable[[Array, Any], Array] = linear_inputs
    gates: Callable[[Array, Any], tuple[Array, Array]] | None = None
    readout: Callable[[Array, Array, Any], Array] | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    twin: Twin | None = None
    state_shapes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        linear = self.gates is not None and self.readout is not None
        if (self.step is None) != linear or (self.gates is None) != (self.readout is None):
            raise CharRNNError(
                f"cell {self.name!r} gives neither or both of a step and a linear recurrence",
                "give step=..., or gates=... and readout=...",
            )
        if linear and len(self.state) != 1:
            raise CharRNNError(
                f"cell {self.name!r} is a linear recurrence with {len(self.state)} states", "give it exactly one"
            )
        if self.gates is not None and self.readout is not None:
            object.__setattr__(self, "step", _linear_step(self.gates, self.readout))
        if isinstance(self.parameters, Mapping):  # a function may need what its file defines later
            self._declared()

    @property
    def linear(self) -> bool:
        """Tell whether the cell is a linear recurrence, which can be trained in parallel over time."""
        return self.gates is not None

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order they are stored and counted."""
        return self._declared().names

    def shapes(self, I: int, H: int, O: int | None = None, **options: int) -> dict[str, Param[tuple[int, ...]]]:
        """Return the parameters at a given size; O is H unless the cell has an output layer of its own size.

        Raises CharRNNError for an option the cell does not have, or one that is not a positive integer.
        """
        return self._declared(**options).at(I, H, H if O is None else O)

    @cached_property
    def _by_default(self) -> Declaration:
        return read(self.name, self.parameters, self.options)

    def _declared(self, **options: int) -> Declaration:
        """Return the parameters as they are declared, with these options decided and the others at their defaults."""
        if not options:
            return self._by_default
        for name, value in options.items():
            if name not in self.options:
                hint = did_you_mean(name, list(self.options)) if self.options else "leave it out"
                raise CharRNNError(f"cell {self.name!r} has no option {name!r}", hint)
            if not isinstance(value, int) or not 1 <= value <= MOST_OPTION:
                raise CharRNNError(
                    f"option {name} of cell {self.name!r} is {value!r}, "
                    f"expected a whole number of 1 or more, up to {MOST_OPTION}",
                    f"for instance {name}={self.options[name]}",
                )
        declared = read(self.name, self.parameters, {**self.options, **options})
        if isinstance(declared, InLetters) and declared.names != self.parameter_names:
            raise CharRNNError(
                f"cell {self.name!r} has parameters {', '.join(declared.names)} with options {options}, and "
                f"{', '.join(self.parameter_names)} without",
                "give the same names whatever the options are",
            )
        return declared

    def latex(self, **options: int) -> str:
        """Return the equations in LaTeX, as they are for these options; vectors are columns, as in textbooks: W x.

        Raises CharRNNError where the equations do what only Python can.
        """
        from charrnn.cells import latex  # a notebook alone asks for it

        text = " \\\\\n".join(latex.lines(self, **options))
        return f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"

    def _repr_latex_(self) -> str | None:
        try:
            return f"$$\n{self.latex()}\n$$"
        except CharRNNError:  # it has equations all the same, and a plain text
            return None

    def count(self, I: int, H: int, O: int | None = None, **options: int) -> int:
        """Count the numbers that the parameters hold."""
        return sum(math.prod(param.shape) for param in self.shapes(I, H, O, **options).values())

    def pack(self, values: Mapping[str, Array] | Sequence[Array]) -> Any:
        """Return the `p` that equations see: a named tuple with one field per parameter, in declared order."""
        fields = self._pack_type._fields
        if isinstance(values, Mapping):
            if set(values) != set(fields):
                raise CharRNNError(
                    f"cell {self.name!r} was given parameters {', '.join(sorted(values)) or 'none'}",
                    f"it needs exactly {', '.join(fields)}",
                )
            return self._pack_type(*(values[name] for name in fields))
        return self._pack_type(*values)

    @cached_property
    def _pack_type(self) -> Any:
        identifier = "".join(c if f"a{c}".isidentifier() else "_" for c in self.name)
        return namedtuple(f"parameters_of_{identifier}", self.parameter_names)

    def initial(
        self, rng: np.random.Generator, I: int, H: int, O: int | None = None, **options: int
    ) -> dict[str, NDArray[np.float64]]:
        """Draw fresh float64 parameters from `rng`, each by its own rule, in declared order.

        Raises CharRNNError, with the parameter, for a rule that fails or gives another shape.
        """
        params = self.shapes(I, H, O, **options)
        return {name: drawn(f"parameter {name} of cell {self.name!r}", param, rng) for name, param in params.items()}

    def states(self, H: int, **options: int) -> dict[str, Sizes]:
        """Return the shape of each state of one row, by name: (H,), or what the cell declares.

        Raises CharRNNError for a shape that cannot be read.
        """
        sizes = {**self.options, **options}
        what = f"of cell {self.name!r}"
        axes = {name: of_state(f"state {name} {what}", shape, sizes) for name, shape in self.state_shapes.items()}
        return {
            name: tuple(axis.size({**sizes, "H": H}) for axis in axes[name]) if name in axes else (H,)
            for name in self.state
        }

    def start(self, shape: tuple[int, ...], dtype: Any = np.float64, **options: int) -> tuple[NDArray[Any], ...]:
        """Return the state before any input, as NumPy arrays.

        shape: (..., H), of a state of H features, usually (B, H); () gives the start values alone. options: of the
        cell, where they are not its defaults.
        """
        own = self.states(shape[-1], **options) if shape else dict.fromkeys(self.state, ())
        return tuple(np.full((*shape[:-1], *own[name]), value, dtype=dtype) for name, value in self.state.items())


def _linear_step(
    gates: Callable[[Array, Any], tuple[Array, Array]], readout: Callable[[Array, Array, Any], Array]
) -> Step:
    def step(z: Array, state: State, p: Any) -> tuple[Array, State]:
        a, b = gates(z, p)
        h = a * state[0] + b
        return readout(z, h, p), (h,)

    return step


def run_cell(
    cell: Cell, inputs: NDArray[Any], params: Mapping[str, NDArray[Any]], state: State | None = None
) -> tuple[NDArray[Any], State]:
    """Run a cell's equations over a NumPy sequence: the reference that every other way is checked against.

    inputs: (T, I) for one row or (T, B, I) for several. params: by name, as from `Cell.initial`. state: a tuple of
    (H,) or (B, H) arrays, the cell's start when None; not modified.
    Returns outputs (T, O) or (T, B, O) and the state after the last step. Raises CharRNNError for wrong shapes.
    """
    p = cell.pack(params)
    if inputs.ndim not in (2, 3) or len(inputs) == 0:
        raise CharRNNError(
            f"inputs have shape {inputs.shape}", "give (T, I) for one row or (T, B, I) for several, with T at least 1"
        )
    z = cell.inputs(inputs, p)
    if state is None:
        sizes = _sizes(cell, params)
        options = {name: n for name, n in sizes.items() if name in cell.options}
        state = cell.start((*inputs.shape[1:-1], sizes["H"]), inputs.dtype, **options)
    outputs = []
    for z_t in z:
        y, state = cell.step(z_t, state, p)
        outputs.append(y)
    return np.stack(outputs), state


def letters(cell: Cell, **options: int) -> dict[str, tuple[str, ...]]:
    """Return every parameter's shape in letters: ('I', '4 H'); an axis that an option sets is a number."""
    decided = {**cell.options, **options}
    return {
        name: tuple(str(axis.size(decided)) if axis.name in decided else str(axis) for axis in axes)
        for name, axes in cell._declared(**options).axes.items()
    }


def hidden_size(cell: Cell, params: Mapping[str, Array]) -> int:
    """Read H off the shapes of the parameters.

    Raises CharRNNError where shapes disagree with the cell's own or with each other, or where none of them has H.
    """
    return _sizes(cell, params)["H"]


def _sizes(cell: Cell, params: Mapping[str, Array]) -> dict[str, int]:
    """Read H, and what else is named, off the shapes of the parameters.

    An option may have any value, but the same wherever it is named. Raises CharRNNError where shapes disagree with the
    cell's own or with each other, or where none of them has H.
    """
    # A function may have computed its numbers from options: any size will do.
    computed = not isinstance(cell.parameters, Mapping)
    sizes: dict[str, int] = {}
    for name, expected in cell._declared().axes.items():
        given = tuple(params[name].shape)
        fits = len(given) == len(expected)
        for n, axis in zip(given, expected, strict=fits):
            if axis.name:
                fits = fits and sizes.setdefault(axis.name, n // axis.times) * axis.times == n
            else:
                fits = fits and (computed or n == axis.times)
        if not fits:
            raise CharRNNError(
                f"parameter {name} of cell {cell.name!r} has shape {given}, expected ({', '.join(map(str, expected))})",
                f"where {', '.join(f'{x} is {n}' for x, n in sizes.items())}" if sizes else "",
            )
    if "H" not in sizes:
        raise CharRNNError(
            f"no parameter of cell {cell.name!r} says how large H is", "give the state to start from, of H features"
        )
    return sizes
