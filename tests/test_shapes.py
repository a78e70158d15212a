"""Shapes are declared in letters and read; the older form, a function of sizes, gives the same."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from charrnn import cells
from charrnn.cells.cell import Cell, Param, hidden_size, letters, run_cell
from charrnn.cells.initialisation import constant, describe, glorot, orthogonal, uniform, zeros
from charrnn.cells.shapes import Axis, read
from charrnn.errors import CharRNNError

SIZES = [(2, 3, 5), (7, 4, 4), (1, 1, 1), (128, 64, 32)]


def made(parameters: Any, options: dict[str, int] | None = None, **changes: Any) -> Cell:
    """A cell of these parameters; its equations are never run."""
    return Cell("mine", "", "", parameters, {"h": 0}, lambda z, state, p: (z, state), options=options or {}, **changes)


def older(cell: Cell) -> Cell:
    """The same cell, its parameters given in the older form."""

    def parameters(I: int, H: int, O: int, **options: int) -> Any:
        return cell.shapes(I, H, O, **options)

    return dataclasses.replace(cell, parameters=parameters, step=None if cell.linear else cell.step)


def told(cell: Cell, *sizes: int, **options: int) -> list[tuple[str, tuple[int, ...], str]]:
    """What is said of each parameter, in order: its name, its shape and how it starts."""
    return [(name, shape, describe(init)) for name, (shape, init) in cell.shapes(*sizes, **options).items()]


@pytest.fixture(params=cells.names())
def cell(request: pytest.FixtureRequest) -> Cell:
    return cells.get(request.param)


# The grammar


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ("I", [Axis(1, "I")]),
        ("I 4H", [Axis(1, "I"), Axis(4, "H")]),
        ("  12O   3 ", [Axis(12, "O"), Axis(3)]),
        ("depth 2depth H", [Axis(1, "depth"), Axis(2, "depth"), Axis(1, "H")]),
        ("0 10", [Axis(0), Axis(10)]),
    ],
)
def test_a_shape_is_read_as_axes(shape: str, axes: list[Axis]) -> None:
    assert read("mine", {"W": Param(shape, zeros)}, {"depth": 3}).axes == {"W": tuple(axes)}


def test_sizes_and_options_stand_for_their_names() -> None:
    cell = made({"R": Param("depth H 2I", zeros), "b": Param("3 2depth O", zeros)}, {"depth": 5})
    assert {name: shape for name, (shape, _) in cell.shapes(2, 7, 11).items()} == {"R": (5, 7, 4), "b": (3, 10, 11)}
    assert cell.shapes(2, 7, depth=1)["b"].shape == (3, 2, 7)
    assert letters(cell) == {"R": ("5", "H", "2 I"), "b": ("3", "10", "O")}
    assert letters(cell, depth=2)["b"] == ("3", "4", "O")
    assert cell.count(2, 7, 11) == 5 * 7 * 4 + 3 * 10 * 11
    assert cell.parameter_names == ("R", "b")


# What is refused


@pytest.mark.parametrize(
    ("param", "problem", "hint"),
    [
        (Param("I 4Q", zeros), "the axis '4Q' in its shape 'I 4Q', expected I, H, O, depth, a whole number", "choose"),
        (Param("4h", zeros), "the axis '4h'", "did you mean 'H'?"),
        (Param("dept H", zeros), "the axis 'dept'", "did you mean 'depth'?"),
        (Param("I+H H", zeros), "the axis 'I+H'", "a function of the cell's options"),
        (Param("H/2", zeros), "the axis 'H/2'", "a function of the cell's options"),
        (Param("4*H", zeros), "the axis '4*H'", "a function of the cell's options"),
        (Param("0H", zeros), "the axis '0H'", "a function of the cell's options"),
        (Param("-1", zeros), "the axis '-1'", "a function of the cell's options"),
        (Param(" ", zeros), "shape ' ', expected axes in letters", "'I 4H'"),
        (Param((2, 3), zeros), "shape (2, 3), expected axes in letters", "'I 4H'"),
        (Param("H", 0), "starts by 0, expected a rule", "such as zeros"),  # type: ignore[arg-type]
        (("H", zeros), "is of type tuple, expected a Param", "parameters is a dict such as"),
    ],
)
def test_a_wrong_declaration_names_cell_and_parameter_and_what_is_expected(param: Any, problem: str, hint: str) -> None:
    for parameters in ({"U": Param("H", zeros), "W": param}, lambda depth: {"W": param}):
        with pytest.raises(CharRNNError) as caught:
            made(parameters, {"depth": 3}).shapes(2, 3)
        assert caught.value.problem.startswith("parameter W of cell 'mine' ")
        assert problem in caught.value.problem
        assert hint in caught.value.hint


def test_a_dict_is_read_when_the_cell_is_made() -> None:
    with pytest.raises(CharRNNError, match="the axis 'Q'"):
        made({"W": Param("Q", zeros)})


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        (lambda I, H: {}, {}, "cannot be told: TypeError: missing a required argument: 'I'"),
        (lambda dept: {}, {"depth": 3}, r"cannot be told: .* a function of the cell's options \(depth\)"),
        (lambda I, H, O: {}, {"depth": 3}, "cannot be told"),
        (lambda I, H, O: {"W": Param("I H", zeros)}, {}, "not what the library reads; parameters is a dict such as"),
        (lambda I, H, O: [], {}, "not what the library reads"),
        (list, {}, "are of type list, expected a dict"),
        (3, {}, "are of type int"),
        (lambda I, H, O: {"W": Param((I, H), zeros)}, {"H": 3}, "an option 'H', which is a size"),
    ],
)
def test_parameters_of_another_kind_are_refused(parameters: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(CharRNNError, match=message) as caught:
        made(parameters, options).shapes(2, 3)
    assert "cell 'mine'" in caught.value.problem


def test_names_are_the_same_whatever_the_options_are() -> None:
    cell = made(lambda depth: {f"W{n}": Param("I H", zeros) for n in range(depth)}, {"depth": 2})
    assert cell.parameter_names == ("W0", "W1")
    with pytest.raises(CharRNNError, match=r"has parameters W0 with options {'depth': 1}, and W0, W1 without"):
        cell.shapes(2, 3, depth=1)


# Every registered cell


def test_the_letters_of_every_cell_give_its_shapes(cell: Cell) -> None:
    assert list(letters(cell)) == list(cell.parameter_names) == list(cell.shapes(2, 3))
    for I, H, O in SIZES:
        sizes = {"I": I, "H": H, "O": O}
        for name, (shape, _) in cell.shapes(I, H, O).items():
            words = [axis.split() for axis in letters(cell)[name]]
            assert shape == tuple(math.prod(sizes[w] if w in sizes else int(w) for w in axis) for axis in words)


def test_every_cell_names_its_sizes(cell: Cell) -> None:
    """Both sizes of a layer stand in its letters, and H can be read off its parameters."""
    named = {axis.split()[-1] for axes in letters(cell).values() for axis in axes}
    assert {"I", "H"} <= named
    assert hidden_size(cell, cell.initial(np.random.default_rng(1), 6, 9, 4)) == 9


def test_the_older_form_gives_the_same(cell: Cell) -> None:
    same = older(cell)
    each = [{}, *({name: value} for name in cell.options for value in (1, 2, 5))]
    for options in each:
        assert letters(same, **options) == letters(cell, **options)
        for I, H, O in SIZES:
            assert told(same, I, H, O, **options) == told(cell, I, H, O, **options)
            assert same.count(I, H, O, **options) == cell.count(I, H, O, **options)
    assert same.parameter_names == cell.parameter_names
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    params, others = cell.initial(rng, 6, 9), same.initial(again, 6, 9)
    assert all((params[name] == others[name]).all() for name in cell.parameter_names)
    assert hidden_size(same, params) == 9


# The older form


def test_a_cell_of_the_older_form_is_registered_and_run() -> None:
    lstm = cells.get("lstm")

    def parameters(I: int, H: int, O: int) -> dict[str, Param]:  # type: ignore[type-arg]
        return {
            "W": Param((I, 4 * H), glorot(4, gain=3)),
            "U": Param((H, 4 * H), orthogonal(4)),
            "b": Param((4 * H,), zeros),
        }

    same = dataclasses.replace(lstm, name="older-lstm", parameters=parameters)
    cells.register(same)
    try:
        params = lstm.initial(np.random.default_rng(3), 5, 4)
        drawn = cells.get("older-lstm").initial(np.random.default_rng(3), 5, 4)
        assert all((params[name] == drawn[name]).all() for name in ("W", "U", "b"))
        x = np.random.default_rng(4).standard_normal((6, 2, 5))
        assert (cells.run("older-lstm", x, params)[0] == run_cell(lstm, x, params)[0]).all()
    finally:
        cells.unregister("older-lstm")


def test_the_older_form_may_say_what_letters_cannot() -> None:
    """A sum of sizes, a rule of the size, sizes that it refuses: only the sizes that are asked for are given to it."""

    def parameters(I: int, H: int, O: int, heads: int) -> Any:
        assert H % heads == 0
        return {"W": Param((I + H, H), uniform(H**-0.5)), "V": Param((heads, H // heads), constant(1))}

    cell = made(parameters, {"heads": 2})
    assert {name: shape for name, (shape, _) in cell.shapes(3, 8, heads=4).items()} == {"W": (11, 8), "V": (4, 2)}
    assert cell.count(3, 8) == 11 * 8 + 8
    W = cell.initial(np.random.default_rng(1), 3, 8)["W"]
    assert 0.3 < np.abs(W).max() <= 8**-0.5


@pytest.mark.parametrize("parameters", [lambda *sizes, **options: {}, lambda i, h, o, depth: {}])
def test_a_function_that_takes_three_sizes_is_of_the_older_form(parameters: Callable[..., Any]) -> None:
    assert read("mine", parameters, {"depth": 3}).names == ()


# The size that parameters have


def test_an_option_has_one_size_in_all_parameters() -> None:
    rhn = cells.get("rhn")
    params = rhn.initial(np.random.default_rng(1), 3, 4, depth=5)
    assert hidden_size(rhn, params) == 4
    with pytest.raises(CharRNNError, match=r"parameter b .*\(4, 8\), expected \(depth, 2 H\); where .* depth is 5"):
        run_cell(rhn, np.ones((2, 3)), {**params, "b": params["b"][:4]})


def test_a_number_is_held_where_no_option_can_have_set_it() -> None:
    fixed = made({"W": Param("3 H", zeros)})
    assert hidden_size(fixed, {"W": np.ones((3, 5))}) == 5
    with pytest.raises(CharRNNError, match=r"parameter W .* \(2, 5\), expected \(3, H\)"):
        hidden_size(fixed, {"W": np.ones((2, 5))})
    computed = made(lambda rounds: {"W": Param(f"{rounds // 2} H", zeros)}, {"rounds": 6})
    assert hidden_size(computed, {"W": np.ones((2, 5))}) == 5


def test_parameters_without_h_cannot_say_how_large_it_is() -> None:
    with pytest.raises(CharRNNError, match="says how large H is; give the state"):
        hidden_size(made({"W": Param("I 3", zeros)}), {"W": np.ones((2, 3))})
