"""What single units of a model follow in a text: where a line is, quotes, brackets, spaces, case.

A unit is one number of a layer's state, as it is after a character was read. How well it follows a property of the
characters is their correlation over the text (Karpathy, Johnson and Fei-Fei 2015 found such units by eye).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import figures, frames
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate.decoder import Decoder
from charrnn.terminal import visible
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer

OPENING, CLOSING, EITHER = "„“«‹", "”»›", '"'
SHOWN_UNITS = 5  # of each property, in a notebook
LETTERS = 100  # under a picture: of a longer text they would not be read
BRACKETS = dict(zip("([{", ")]}", strict=True))


@dataclass(frozen=True)
class Unit:
    """A unit of a model. layer, number: from 1. state: its name in the cell's equations."""

    layer: int
    state: str
    number: int

    @property
    def name(self) -> str:
        """The unit as it is typed: 1.h.37."""
        return f"{self.layer}.{self.state}.{self.number}"


@dataclass(frozen=True)
class Units:
    """The units of a model on a text. activations: (N, U), after each character. correlations: (U,) by property.

    A property that does not vary in the text has none. A notebook shows the units that follow each property best, and
    the text coloured by the best of all.
    """

    text: str
    units: tuple[Unit, ...]
    activations: NDArray[np.float32]
    correlations: dict[str, NDArray[np.float64]]

    def best(self, what: str, count: int) -> list[tuple[Unit, float]]:
        """Return the units that follow a property best, with their correlations, the strongest first."""
        order = np.argsort(-abs(self.correlations[what]), kind="stable")[:count]
        return [(self.units[i], float(self.correlations[what][i])) for i in order]

    def of(self, name: str) -> NDArray[np.float32]:
        """Return the activations (N,) of a unit by its name. Raises OptionError where there is none."""
        for i, unit in enumerate(self.units):
            if unit.name == name:
                return self.activations[:, i]
        first, last = self.units[0].name, self.units[-1].name
        raise OptionError(f"there is no unit {name!r}", f"give one from {first} to {last}: LAYER.STATE.NUMBER")

    @property
    def strongest(self) -> Unit:
        """The unit that follows any property best; the first one where nothing varies."""
        best = [self.best(name, 1)[0] for name in self.correlations]
        return max(best, key=lambda pair: abs(pair[1]))[0] if best else self.units[0]

    def follows(self, name: str) -> str:
        """Say how well a unit follows each property."""
        place = [each.name for each in self.units].index(name)
        return ", ".join(f"{what} {r[place]:+.2f}" for what, r in self.correlations.items())

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


def read(decoder: Decoder, tokenizer: Tokenizer, text: str, ids: NDArray[Any], starts: Starts) -> Units:
    """Read a text and note every unit after each of its characters.

    ids: of the text. starts: the positions in them at which documents begin, before which the model forgets.
    Raises CharRNNError for an empty text.
    """
    if not text:
        raise CharRNNError("the text is empty", "give a text of at least one character")
    states = tuple(decoder.architecture.definition.state)
    architecture = decoder.architecture
    layers, hidden = range(1, architecture.layers + 1), range(1, architecture.hidden + 1)
    units = tuple(Unit(layer, state, n) for layer in layers for state in states for n in hidden)
    ends = np.flatnonzero(np.diff(tokenizer.character_index(ids), append=len(text)))  # the last id of each character
    rows, begins, wanted = [], {0, *starts.tolist()}, set(ends.tolist())
    state = decoder.start()
    for i in range(len(ids)):
        if i in begins:
            state = decoder.read(np.array([architecture.start]), decoder.start())
        state = decoder.read(ids[i : i + 1], state)
        if i in wanted:
            rows.append(np.concatenate([part[0] for layer in state for part in layer]))
    activations = np.stack(rows).astype(np.float32)
    found = {name: _correlations(activations, of(text)) for name, of in PROPERTIES.items()}
    return Units(text, units, activations, {name: r for name, r in found.items() if r is not None})


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
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
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
