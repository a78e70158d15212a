"""What single units of a model follow in a text: where a line is, quotes, brackets, spaces, case.

A unit is one number of a layer's state, as it is after a character was read. How well it follows a property of the
characters is their correlation over the text (Karpathy, Johnson and Fei-Fei 2015 found such units by eye). A gate has
units too: how far it is open while a character is read.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import figures, frames
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate import gates
from charrnn.generate.decoder import Decoder, State
from charrnn.model.architecture import Architecture
from charrnn.terminal import visible
from charrnn.text.code_points import code_points
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

Coded = tuple[NDArray[Any], Starts]  # the ids of a text, and where in them documents begin
Before = tuple[NDArray[Any], gates.States]  # the last id of each character, and the states before it
OPENING, CLOSING, EITHER = "„“«‹", "”»›", '"'
BRACKETS = dict(zip("([{", ")]}", strict=True))
SHOWN_UNITS = 5  # of each property, in a notebook
LETTERS = 100  # under a picture: of a longer text they would not be read
NEARLY = 0.1  # a gate below it is nearly closed, and as far below 1 nearly open (the bounds of Karpathy et al. 2015)


@dataclass(frozen=True)
class Unit:
    """A unit of a model. layer, number: from 1. state: its name, or that of a gate, in the cell's equations."""

    layer: int
    state: str
    number: int

    @property
    def name(self) -> str:
        """The unit as it is typed: 1.h.37."""
        return f"{self.layer}.{self.state}.{self.number}"


@dataclass(frozen=True)
class Activations:
    """Units on a text. activations: (N, U), for each character. correlations: (U,) by property.

    A property that does not vary in the text has none.
    """

    text: str
    units: tuple[Unit, ...]
    activations: NDArray[np.float32]
    correlations: dict[str, NDArray[np.float64]]

    def best(self, what: str, count: int) -> list[tuple[Unit, float]]:
        """Return the units that follow a property best, with their correlations, the strongest first."""
        order = np.argsort(-abs(self.correlations[what]), kind="stable")[:count]
        return [(self.units[i], float(self.correlations[what][i])) for i in order]

    @property
    def strongest(self) -> Unit:
        """The unit that follows any property best; the first one where nothing varies."""
        best = [self.best(name, 1)[0] for name in self.correlations]
        return max(best, key=lambda pair: abs(pair[1]))[0] if best else self.units[0]


@dataclass(frozen=True)
class Gates(Activations):
    """The gates of a model on a text: how far each unit of each gate is open, from 0 to 1, while a character is read.

    No units where the cell has no gates, that is no sigmoid. problem: why they are not known, where that is so.
    """

    problem: str | None = None

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean openness (U,) of each unit."""
        mean: NDArray[np.float64] = self.activations.mean(axis=0, dtype=np.float64)
        return mean

    @property
    def closed(self) -> NDArray[np.float64]:
        """The share of characters (U,) at which each unit is nearly closed: below 0.1."""
        share: NDArray[np.float64] = (self.activations < NEARLY).mean(axis=0, dtype=np.float64)
        return share

    @property
    def open(self) -> NDArray[np.float64]:
        """The share of characters (U,) at which each unit is nearly open: above 0.9."""
        share: NDArray[np.float64] = (self.activations > 1 - NEARLY).mean(axis=0, dtype=np.float64)
        return share


@dataclass(frozen=True)
class Units(Activations):
    """The units of a model's state on a text, as they are after each character. gates: those of its cell.

    A notebook shows the units that follow each property best, and the text coloured by the best of all.
    """

    gates: Gates = field(kw_only=True)

    def of(self, name: str) -> NDArray[np.float32]:
        """Return the activations (N,) of a unit, of a state or a gate, by its name. Raises OptionError for none."""
        found, place = self._place(name)
        return found.activations[:, place]

    def follows(self, name: str) -> str:
        """Say how well a unit, of a state or a gate, follows each property. Raises OptionError for none."""
        found, place = self._place(name)
        return ", ".join(f"{what} {r[place]:+.2f}" for what, r in found.correlations.items())

    def _place(self, name: str) -> tuple[Activations, int]:
        for each in (self, self.gates):
            for i, unit in enumerate(each.units):
                if unit.name == name:
                    return each, i
        first, last = self.units[0].name, self.units[-1].name
        raise OptionError(f"there is no unit {name!r}", f"give one from {first} to {last}: LAYER.STATE.NUMBER")

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, a row for each unit: layer, state, number, its correlation with every property.

        Raises CharRNNError where pandas is missing.
        """
        names = [unit.name for unit in self.units]
        own = {what: [getattr(unit, what) for unit in self.units] for what in ("layer", "state", "number")}
        return frames.of_columns({"unit": names, **own, **self.correlations})

    def plot(self, unit: str | None = None) -> Any:
        """Draw the activation of a unit along the text; of the one that follows a property best, where none is given.

        Returns a matplotlib Figure. Raises CharRNNError where matplotlib is missing, OptionError for no such unit.
        """
        name = unit or self.strongest.name
        values = self.of(name)

        def draw(figure: Any) -> None:
            axes = figure.subplots()
            axes.plot(np.arange(len(values)), values, color=figures.COLOURS[0], linewidth=1)
            axes.set(xlabel="characters of the text", ylabel="activation", title=f"unit {name}: {self.follows(name)}")
            axes.set_xlim(-0.5, len(values) - 0.5)
            if len(values) <= LETTERS:
                axes.set_xticks(range(len(values)), list(map(visible, self.text)))

        return figures.drawn(draw, (9.0, 3.0))

    def _repr_html_(self) -> str:
        from charrnn.pages import activation  # a notebook alone asks for it

        ranked = [
            (what, [(unit.name, f"{r:+.2f}") for unit, r in self.best(what, SHOWN_UNITS)]) for what in self.correlations
        ]
        name = self.strongest.name
        about = f"The text, coloured by unit {name}: {self.follows(name)}"
        return str(activation.shown(self.text, self.of(name).tolist(), about, ranked))


def read(decoder: Decoder, weights: gates.Weights, tokenizer: Tokenizer, text: str, coded: Coded) -> Units:
    """Read a text and note every unit for each of its characters.

    weights: those of the decoder, by name. coded: the ids of the text, and the positions in them at which documents
    begin, before which the model forgets.
    Raises CharRNNError for an empty text.
    """
    if not text:
        raise CharRNNError("the text is empty", "give a text of at least one character")
    ids, starts = coded
    before, after = _states(decoder, tokenizer, text, ids, starts)
    architecture = decoder.architecture
    properties = {name: of(text) for name, of in PROPERTIES.items()}
    sizes = {name: math.prod(shape) for name, shape in architecture.states.items()}
    layers = range(1, architecture.layers + 1)
    units = tuple(Unit(layer, state, n) for layer in layers for state, N in sizes.items() for n in range(1, N + 1))
    activations = np.concatenate([part.reshape(len(part), -1) for layer in after for part in layer], axis=1)
    return Units(
        text,
        units,
        activations,
        _followed(activations, properties),
        gates=_gates(architecture, weights, text, before, properties),
    )


def _states(
    decoder: Decoder, tokenizer: Tokenizer, text: str, ids: NDArray[Any], starts: Starts
) -> tuple[Before, gates.States]:
    """Return what the model has before and after the last id of each character, that id with what is before it."""
    ends = np.flatnonzero(np.diff(tokenizer.character_index(ids), append=len(text)))
    begins, wanted = {0, *starts.tolist()}, set(ends.tolist())
    layers = decoder.architecture.layers  # what is remembered beside them are ids, not units
    before, after = [], []
    state = decoder.start()
    for i in range(len(ids)):
        if i in begins:
            state = decoder.read(np.array([decoder.architecture.start]), decoder.start())
        if i in wanted:
            before.append(state[:layers])
        state = decoder.read(ids[i : i + 1], state)
        if i in wanted:
            after.append(state[:layers])
    return (ids[ends], _together(before)), _together(after)


def _together(states: list[State]) -> gates.States:
    """Put the states of many characters together: by layer, then as the cell names them, (N, H)."""
    return [
        [np.concatenate(parts) for parts in zip(*(state[layer] for state in states), strict=True)]
        for layer in range(len(states[0]))
    ]


def _gates(
    architecture: Architecture,
    weights: gates.Weights,
    text: str,
    before: Before,
    properties: dict[str, NDArray[np.float64]],
) -> Gates:
    try:
        found, problem = gates.of(architecture, weights, *before), None
    except CharRNNError as error:
        found, problem = [], error.problem
    openness = np.concatenate([np.empty((len(text), 0), np.float32), *(gate.openness for gate in found)], axis=1)
    units = tuple(Unit(gate.layer, gate.name, n) for gate in found for n in range(1, gate.openness.shape[1] + 1))
    return Gates(text, units, openness, _followed(openness, properties), problem)


def _followed(
    activations: NDArray[np.float32], properties: dict[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """Return the correlations of units with every property that varies."""
    found = {name: _correlations(activations, values) for name, values in properties.items()}
    return {name: r for name, r in found.items() if r is not None}


def _correlations(activations: NDArray[np.float32], property_: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return Pearson's r of every unit with a property (N,), 0 for a unit that does not vary.

    None for a property that does not vary.
    """
    y = property_ - property_.mean()
    if not y.any():
        return None
    x = activations.astype(np.float64)
    x -= x.mean(axis=0)
    lengths = np.linalg.norm(x, axis=0) * np.linalg.norm(y)
    r: NDArray[np.float64] = np.divide(y @ x, lengths, out=np.zeros(x.shape[1]), where=lengths > 0)
    return r.clip(-1, 1)


def line_position(text: str) -> NDArray[np.float64]:
    """Return log(1 + characters since the last line end), after each character."""
    codes = code_points(text, 0, len(text))
    places = np.arange(1, len(codes) + 1)
    after = np.maximum.accumulate(np.where(codes == ord("\n"), places, 0))
    return np.log1p((places - after).astype(np.float64))


def quotes(text: str) -> NDArray[np.float64]:
    """Tell whether each character is inside quotation marks; a blank line ends what nobody closed."""
    inside, found, before = False, [], ""
    for c in text:
        if c in EITHER:
            inside = not inside
        elif c == "“" and inside:  # opens in English, closes in Serbian and German
            inside = False
        elif c in OPENING:
            inside = True
        elif c in CLOSING or c == before == "\n":
            inside = False
        found.append(inside)
        before = c
    return np.array(found, np.float64)


def brackets(text: str) -> NDArray[np.float64]:
    """Count the brackets that are open after each character."""
    waiting: list[str] = []
    found = []
    for c in text:
        if c in BRACKETS:
            waiting.append(BRACKETS[c])
        elif c in waiting:
            del waiting[len(waiting) - 1 - waiting[::-1].index(c) :]
        found.append(len(waiting))
    return np.array(found, np.float64)


def _each(test: Callable[[str], bool]) -> Callable[[str], NDArray[np.float64]]:
    return lambda text: np.array([test(c) for c in text], np.float64)


PROPERTIES: dict[str, Callable[[str], NDArray[np.float64]]] = {
    "line position": line_position,
    "quotes": quotes,
    "brackets": brackets,
    "spaces": _each(str.isspace),
    "case": _each(str.isupper),
}
