"""Equations in LaTeX: read back as mathematics, they compute what the cell computes."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from charrnn import cells
from charrnn.cells import latex, ops
from charrnn.cells.cell import Cell, Param, run_cell
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import matmul, sigmoid, split, tanh
from charrnn.errors import CharRNNError

I, H = 3, 4
Values = dict[str, Any]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    r"\sigma": lambda x: 1 / (1 + np.exp(-x)),
    r"\tanh": np.tanh,
    r"\exp": np.exp,
    r"\log": np.log,
    r"\max": np.maximum,
    r"\min": np.minimum,
    r"\mathrm{relu}": lambda x: np.maximum(x, 0),
    r"\mathrm{softplus}": lambda x: np.logaddexp(0, x),
    r"\mathrm{LN}": lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-5),
}


class Reader:
    """Reads a right side as mathematics, vectors as columns."""

    def __init__(self, text: str, value: Callable[[str], Any], part: Callable[[Any, str], Any]) -> None:
        self.rest, self.value, self.part = text.strip(), value, part

    def taken(self, token: str) -> bool:
        if not self.rest.startswith(token):
            return False
        self.rest = self.rest[len(token) :].lstrip()
        return True

    def expect(self, token: str) -> None:
        assert self.taken(token), f"{token!r} expected: {self.rest!r}"

    def whole(self) -> Any:
        found = self.sum()
        assert not self.rest, self.rest
        return found

    def sum(self) -> Any:
        total = -self.product() if self.taken("-") else self.product()
        while self.rest[:1] in ("+", "-"):
            total = total + self.product() if self.taken("+") else total - (self.expect("-") or self.product())
        return total

    def product(self) -> Any:
        found = self.factor()
        while self.taken(r"\odot"):
            found = found * self.factor()
        return found

    def factor(self) -> Any:
        """What stands side by side: a number times a vector, a matrix by a vector."""
        found = self.atom()
        while self.rest and self.rest[0] not in "+-)]},;" and not self.rest.startswith(r"\odot"):
            right = self.factor()
            found = found * right if np.ndim(found) == 0 else right @ found  # parameters are kept for rows
        return found

    def braces(self) -> str:
        """The inside of a pair of braces."""
        assert self.rest[0] == "{"
        depth = 0
        for n, c in enumerate(self.rest):
            depth += (c == "{") - (c == "}")
            if depth == 0:
                inside, self.rest = self.rest[1:n], self.rest[n + 1 :].lstrip()
                return inside
        raise AssertionError(self.rest)

    def inner(self) -> Any:
        return Reader(self.braces(), self.value, self.part).whole()

    def atom(self) -> Any:
        if number := re.match(r"[\d.]+(e-?\d+)?", self.rest):
            self.expect(number[0])
            return float(number[0])
        if self.taken(r"\frac"):
            above, below = self.inner(), self.inner()
            return above / below
        if self.taken(r"\sqrt"):
            return np.sqrt(self.inner())
        if self.taken("("):
            found = self.sum()
            self.expect(")")
            return found
        if self.taken("["):
            found = self.sum()
            self.expect("]")
            self.expect("_")
            return self.part(found, plain(self.braces()))
        name = next((f for f in FUNCTIONS if self.rest.startswith(f"{f}(")), None)
        if name is None:
            return self.value(self.name())
        self.expect(f"{name}(")
        arguments = [self.sum()]
        while self.taken(","):
            arguments.append(self.sum())
        self.expect(")")
        return FUNCTIONS[name](*arguments)

    def name(self) -> str:
        found = re.match(r"(\\log )?(\\tilde\{\w\}|\\mathrm\{\w+\}|\w)(\^\{\(\d\)\})?_?", self.rest)
        assert found, self.rest
        self.expect(found[0])
        return found[0] + (f"{{{self.braces()}}}" if found[0].endswith("_") else "")


NAMED = re.compile(r"(?:\\log )?(\\tilde\{\w\}|\\mathrm\{\w+\}|\w)(?:\^\{\((\d)\)\})?_\{((?:[^{}]|\{\w+\})*)\}")


def plain(text: str) -> str:
    return re.sub(r"\\mathrm\{(\w+)\}", r"\1", text)


def parameter(name: str, params: Values) -> tuple[str, int | None, str | None]:
    """Which parameter a name means: its own name, which of a stack, which part."""
    base, _, index = plain(name).partition("_")
    base, _, power = base.partition("^")
    below = [i for i in index.strip("{}").split(",") if i]
    for n in range(len(below), max(-1, len(below) - 2), -1):
        for spelled in ("_".join([base, *below[:n]]), "".join([base, *below[:n]])):
            if spelled in params:
                return spelled, int(power.strip("{()}")) - 1 if power else None, below[n] if n < len(below) else None
    raise AssertionError(f"{name} is no parameter, and no result of a line before it")


def results(lines: list[str], time: str, states: tuple[str, ...]) -> set[str]:
    """All names that are no parameters."""
    return {line.split(" &= ")[0] for line in lines} | {f"x_{{{time}}}"} | {f"{s}_{{{time}-1}}" for s in states}


def computed(cell: Cell, lines: list[str], x: Any, state: Any, params: Values) -> Iterator[tuple[Any, ...]]:
    """The output and the states of the lines, for every order in which the parts of parameters may stand.

    The lines do not say it; all parameters must have the same.
    """
    time = r"\tau" if any(r"\tau" in line for line in lines) else "t"
    others = results(lines, time, tuple(cell.state))
    parts: dict[str, list[str]] = {}  # by parameter, or "" for parts of results
    for line in lines:
        for found in NAMED.finditer(line):
            if found[0] not in others:
                name, _, part = parameter(found[0], params)
                if part is not None:
                    parts.setdefault(name, []).append(part)
        for found in re.finditer(r"\]_\{(.*?)\}", line):
            parts.setdefault("", []).append(plain(found[1]))
    known: Values = {f"x_{{{time}}}": x}
    known |= {f"{name}_{{{time}-1}}": s for name, s in zip(cell.state, state, strict=True)}
    for order in itertools.permutations(dict.fromkeys(name for names in parts.values() for name in names)):
        stand = {of: [name for name in order if name in names] for of, names in parts.items()}
        found_values = in_order(lines, dict(known), params, stand)
        yield tuple(found_values[f"{name}_{{{time}}}"] for name in cell.state), list(found_values.values())[-1]


def in_order(lines: list[str], known: Values, params: Values, stand: dict[str, list[str]]) -> Values:
    """The results of the lines, where parts stand so in their parameters."""

    def cut(array: Any, name: str, own: list[str]) -> Any:
        assert array.shape[-1] == len(own) * H
        return array[..., own.index(name) * H : (own.index(name) + 1) * H]

    def value(name: str) -> Any:
        if name in known:
            return known[name]
        own, which, part = parameter(name, params)
        array = params[own] if which is None else params[own][which]
        return array if part is None else cut(array, part, stand[own])

    for line in lines:
        left, right = line.split(" &= ")
        known[left] = Reader(right, value, lambda array, name: cut(array, name, stand[""])).whole()
    return known


@pytest.mark.parametrize("name", cells.names())
def test_the_lines_compute_what_the_cell_computes(name: str) -> None:
    """And they do so in one order of the parts alone, so that no two of them are called alike."""
    cell = cells.get(name)
    rng = np.random.default_rng(3)
    params = {key: value + 0.1 * rng.standard_normal(value.shape) for key, value in cell.initial(rng, I, H, H).items()}
    x, state = rng.standard_normal((1, I)), tuple(0.5 * rng.standard_normal(H) for _ in cell.state)
    y, after = run_cell(cell, x, params, state)
    found = list(computed(cell, latex.lines(cell), x[0], state, params))
    right = [
        all(np.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip((*states, last), (*after, y[0]), strict=True))
        for states, last in found
    ]
    assert right.count(True) == 1


@pytest.mark.parametrize("name", cells.names())
def test_every_parameter_is_there_under_its_own_name_and_every_line_parses(name: str) -> None:
    mathtext = pytest.importorskip("matplotlib.mathtext")
    cell = cells.get(name)
    lines = latex.lines(cell)
    parser = mathtext.MathTextParser("path")
    for line in lines:
        parser.parse(f"${line.replace('&', '')}$")
    found = set()
    for line in lines:
        for token in re.findall(
            r"\\mathrm\{\w+\}(?:_\{[^ ]*\})?|[A-Za-z](?:\^\{\(\d\)\})?(?:_\{(?:[^{}]|\{\w+\})*\})?", line
        ):
            try:
                found.add(parameter(token, dict.fromkeys(cell.parameter_names))[0])
            except AssertionError:
                continue
    assert found == set(cell.parameter_names)
    assert cell._repr_latex_() == f"$$\n{cell.latex()}\n$$"


def test_the_gru_reads_as_in_textbooks() -> None:
    assert latex.lines(cells.get("nn.GRU"))[-1] == r"h_{t} &= (1 - z_{t}) \odot n_{t} + z_{t} \odot h_{t-1}"
    assert latex.lines(cells.get("gru")) == [
        r"z_{t} &= \sigma(W_{z} x_{t} + U_{z} h_{t-1} + b_{z})",
        r"r_{t} &= \sigma(W_{r} x_{t} + U_{r} h_{t-1} + b_{r})",
        r"g_{t} &= \tanh(W_{g} x_{t} + V (r_{t} \odot h_{t-1}) + b_{g})",
        r"h_{t} &= (1 - z_{t}) \odot h_{t-1} + z_{t} \odot g_{t}",
    ]


def test_a_part_is_called_after_what_it_is_for() -> None:
    assert latex.lines(cells.get("mingru")) == [
        r"z_{t} &= \sigma(W_{z} x_{t} + b_{z})",
        r"h_{t} &= (1 - z_{t}) \odot h_{t-1} + z_{t} \odot (W_{g} x_{t} + b_{g})",
    ]


def test_what_is_taken_away_or_divided_keeps_its_brackets() -> None:
    def step(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        f, g = split(z + matmul(h, p.U), 2)
        h = h - (tanh(f) - tanh(g)) * (-h) - (h + h) / (1 + h * h)
        return h, (h,)

    assert latex.lines(own_cell(step))[-1] == (
        r"h_{t} &= h_{t-1} - (f_{t} - g_{t}) \odot (-h_{t-1}) - \frac{h_{t-1} + h_{t-1}}{1 + h_{t-1} \odot h_{t-1}}"
    )

    def sums(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        f, g = split(z + matmul(h, p.U), 2)
        h = tanh(f) - (tanh(g) + h)
        return h, (h,)

    assert latex.lines(own_cell(sums))[-1] == r"h_{t} &= f_{t} - (g_{t} + h_{t-1})"


def test_options_of_a_cell_are_in_its_lines() -> None:
    cell = cells.get("rhn")
    assert len(latex.lines(cell, depth=2)) == 6
    assert len(latex.lines(cell, depth=4)) == 12


def own_cell(step: Callable[..., Any]) -> Cell:
    parameters = {"W": Param("I 2H", glorot(2)), "U": Param("H 2H", glorot(2)), "b": Param("2H", zeros)}
    return Cell("own", "a cell of a test", "nowhere", parameters, {"h": 0}, step)


def test_a_cell_of_ones_own_has_its_lines() -> None:
    def step(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        alpha, g = split(z + matmul(h, p.U), 2)
        h = sigmoid(alpha) * h + 0.5 * tanh(g)
        return h, (h,)

    assert latex.lines(own_cell(step)) == [
        r"\alpha_{t} &= \sigma(W_{\alpha} x_{t} + U_{\alpha} h_{t-1} + b_{\alpha})",
        r"g_{t} &= \tanh(W_{g} x_{t} + U_{g} h_{t-1} + b_{g})",
        r"h_{t} &= \alpha_{t} \odot h_{t-1} + 0.5 g_{t}",
    ]


def test_what_cannot_be_written_is_refused_and_shown_as_plain_text() -> None:
    cell = own_cell(lambda z, state, p: (z, (np.cumsum(z),)))
    with pytest.raises(CharRNNError, match="own"):
        cell.latex()
    assert cell._repr_latex_() is None


def test_every_operation_of_equations_has_latex() -> None:
    missing = [name for name, f in ops.public().items() if isinstance(f, ops.Operation) and not f.latex]
    assert missing == []
