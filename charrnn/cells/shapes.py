"""The shapes of parameters, in letters: `Param("I 4H", glorot(4))` is a matrix of I rows and 4 H columns.

A shape is its axes, with spaces between them. An axis is a whole number, a name, or one before the other: `3`, `H`,
`4H`. A name is I (input features), H (hidden features), O (output features), or an option of the cell.

A cell gives its parameters as a dict {name: Param}. Where a number has to be computed from options, it gives a function
of its options that returns this dict. The older form, a function of I, H, O and the options that returns shapes in
numbers, is read too: `OlderForm` is the one place that knows it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from charrnn.cells.initialisation import Init
from charrnn.errors import CharRNNError, did_you_mean

LETTERS = ("I", "H", "O")
Sizes = tuple[int, ...]
Shape = TypeVar("Shape", str, Sizes)
# What to do about parameters of another kind.
WANTED = 'parameters is a dict such as {"W": Param("I 4H", glorot(4))}, or a function of the options that returns it'


class Param(NamedTuple, Generic[Shape]):
    """A parameter's shape and how it starts.

    shape: in letters where a cell declares it, such as "I 4H"; in numbers at a given size, such as (128, 2048).
    """

    shape: Shape
    init: Init


class Axis(NamedTuple):
    """One axis of a parameter: so many times what a name stands for, or the number alone where the name is empty."""

    times: int
    name: str = ""

    def __str__(self) -> str:
        if not self.name:
            return str(self.times)
        return self.name if self.times == 1 else f"{self.times} {self.name}"

    def size(self, sizes: Mapping[str, int]) -> int:
        """Return how long the axis is where names stand for `sizes`."""
        return self.times * sizes[self.name] if self.name else self.times


class InLetters(NamedTuple):
    """The parameters of a cell whose options are decided.

    params: by name, in the order they are stored and counted. axes: of each of them, options by name.
    """

    params: Mapping[str, Param[str]]
    axes: Mapping[str, tuple[Axis, ...]]
    options: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return tuple(self.params)

    def at(self, I: int, H: int, O: int) -> dict[str, Param[Sizes]]:
        """Return the parameters at a given size."""
        sizes = {**self.options, "I": I, "H": H, "O": O}
        return {
            name: Param(tuple(axis.size(sizes) for axis in self.axes[name]), param.init)
            for name, param in self.params.items()
        }


def drawn(what: str, param: Param[Sizes], rng: np.random.Generator) -> NDArray[np.float64]:
    """Start a parameter by its rule.

    what: its name, for errors. Raises CharRNNError where the rule fails, or gives another shape.
    """
    hint = "a rule is a function of a generator and a shape that gives an array of that shape, such as glorot(4)"
    try:
        values = param.init(rng, param.shape)
    except CharRNNError as error:
        raise CharRNNError(f"{what} has shape {param.shape}: {error.problem}", error.hint) from error
    except Exception as error:
        problem = f"the rule of {what} fails for shape {param.shape}: {type(error).__name__}: {error}"
        raise CharRNNError(problem, hint) from error
    if np.shape(values) != tuple(param.shape) or not isinstance(values, np.ndarray):
        shape = f"shape {values.shape}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
        raise CharRNNError(f"the rule of {what} gives {shape}, expected an array of shape {param.shape}", hint)
    return values


def read(
    cell: str,
    parameters: Mapping[str, Param[str]] | Callable[..., Mapping[str, Param[Any]]],
    options: Mapping[str, int],
) -> "Declaration":
    """Read what a cell gives as its parameters.

    cell: its name, for errors. options: all of the cell's, with their values.
    Raises CharRNNError, with the parameter and what is expected, for what cannot be read.
    """
    for letter in LETTERS:
        if letter in options:
            raise CharRNNError(f"cell {cell!r} has an option {letter!r}, which is a size", "give it another name")
    if not isinstance(parameters, Mapping):
        if _takes_sizes(cell, parameters, options):
            return OlderForm(cell, parameters, options)
        parameters = parameters(**options)
        if not isinstance(parameters, Mapping):
            raise CharRNNError(
                f"the parameters of cell {cell!r} are of type {type(parameters).__name__}, expected a dict", WANTED
            )
    axes = {name: _axes(f"parameter {name} of cell {cell!r}", param, options) for name, param in parameters.items()}
    return InLetters(parameters, axes, options)


def of_state(what: str, shape: object, options: Mapping[str, int]) -> tuple[Axis, ...]:
    """Read the shape of a state in letters: H, options and numbers; what: its name, for errors.

    Raises CharRNNError for another.
    """
    return _in_letters(what, shape, ("H", *options), "4 H")


def _axes(what: str, param: object, options: Mapping[str, int]) -> tuple[Axis, ...]:
    """Read the shape of one parameter; what: its name, for errors."""
    if not isinstance(param, Param):
        raise CharRNNError(f"{what} is of type {type(param).__name__}, expected a Param", WANTED)
    axes = _in_letters(what, param.shape, (*LETTERS, *options), "I 4H")
    if not callable(param.init):
        raise CharRNNError(
            f"{what} starts by {param.init!r}, expected a rule", "charrnn.cells.initialisation has some, such as zeros"
        )
    return axes


def _in_letters(what: str, shape: object, known: Sequence[str], example: str) -> tuple[Axis, ...]:
    """Read a shape of axes that are `known`."""
    if not isinstance(shape, str) or not shape.split():
        raise CharRNNError(
            f"{what} has shape {shape!r}, expected axes in letters", f"write them in quotes, such as {example!r}"
        )
    axes = []
    for word in shape.split():
        axis = _axis(word)
        if axis is None or (axis.name and axis.name not in known):
            other = "where a number must be computed, give a function of the cell's options that returns the dict"
            hint = other if axis is None else did_you_mean(axis.name, list(known))
            raise CharRNNError(
                f"{what} has the axis {word!r} in its shape {shape!r}, expected {', '.join(known)}, a whole "
                "number, or one right before the other, such as 4H",
                hint,
            )
        axes.append(axis)
    return tuple(axes)


@cache
def _axis(word: str) -> Axis | None:
    """Read one axis; None where it is not written as an axis is."""
    name = word.lstrip("0123456789")
    digits = word.removesuffix(name)
    if name and (not name.isidentifier() or digits.startswith("0")):
        return None
    return Axis(int(digits or 1), name)


def _takes_sizes(cell: str, parameters: Callable[..., Any], options: Mapping[str, int]) -> bool:
    """Tell whether a function is of the older form, (I, H, O, **options); else it is one of the options alone."""
    if not callable(parameters):
        raise CharRNNError(f"the parameters of cell {cell!r} are of type {type(parameters).__name__}", WANTED)
    try:
        signature = inspect.signature(parameters)
    except ValueError:  # written in C
        return True
    try:
        signature.bind(*LETTERS, **options)
    except TypeError:
        pass
    else:
        return True
    try:
        signature.bind(**options)
    except TypeError as error:
        raise CharRNNError(
            f"the parameters of cell {cell!r} cannot be told: TypeError: {error}",
            f"make them a dict, or a function of the cell's options ({', '.join(options) or 'it has none'})",
        ) from error
    return False


# Primes: an axis of k H has exactly one of them as a factor, and one that an option sets has none.
_PROBE = (10007, 10009, 10037)


class OlderForm(NamedTuple):
    """Parameters as cells gave them once: a function of I, H, O and the options that returns shapes in numbers.

    Its shapes may be any numbers, so it is called for every size. Letters are found by calling it with sizes that tell
    each other apart; an axis that is no multiple of one of them stays a number.
    """

    cell: str
    parameters: Callable[..., Any]
    options: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return tuple(self.at(2, 2, 2))

    @property
    def axes(self) -> dict[str, tuple[Axis, ...]]:
        """The axes of each parameter, by name."""
        return {name: tuple(map(self._axis, param.shape)) for name, param in self.at(*_PROBE).items()}

    def _axis(self, n: int) -> Axis:
        for letter, prime in zip(LETTERS, _PROBE, strict=True):
            if n and n % prime == 0:
                return Axis(n // prime, letter)
        return Axis(n)

    def at(self, I: int, H: int, O: int) -> dict[str, Param[Sizes]]:
        """Return the parameters at a given size; raises CharRNNError where they are no dict of Params in numbers."""
        params: dict[str, Param[Sizes]] = self.parameters(I, H, O, **self.options)
        if not isinstance(params, dict):
            given = f"the parameters of cell {self.cell!r} are of type {type(params).__name__}"
            raise CharRNNError(f"{given}, which is not what the library reads", WANTED)
        for name, param in params.items():
            _refuse_what_is_not_in_numbers(f"parameter {name} of cell {self.cell!r}", param)
        return params


def _refuse_what_is_not_in_numbers(what: str, param: Any) -> None:
    if not isinstance(param, Param):
        raise CharRNNError(f"{what} is of type {type(param).__name__}, which is not what the library reads", WANTED)
    if isinstance(param.shape, str):
        raise CharRNNError(f"{what} has shape {param.shape!r}, which is not what the library reads", WANTED)
    shape: Any = param.shape
    if isinstance(shape, int):
        raise CharRNNError(
            f"{what} has shape {shape}, a number, expected a tuple of whole numbers",
            "write (H,) for one axis of H: without its comma, (H) is a number",
        )
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int | np.integer) and n >= 0 for n in shape):
        raise CharRNNError(
            f"{what} has shape {shape!r}, expected a tuple of whole numbers", "write for instance (I, 4 * H)"
        )
    if not callable(param.init):
        raise CharRNNError(
            f"{what} starts by {param.init!r}, expected a rule", "charrnn.cells.initialisation has some, such as zeros"
        )


Declaration = InLetters | OlderForm
