"""What single units follow: the properties of a text, the ranking, and the text coloured by one unit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import decided
from numpy.typing import NDArray

from charrnn import api, cells
from charrnn.__main__ import main
from charrnn.cells import ops
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.operation import Operation
from charrnn.cli import activation
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate import units
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("spaces", "a b\n", [0, 1, 0, 1]),
        ("case", "aB1Č", [0, 1, 0, 1]),
        ("brackets", "a(b[c)]d}", [0, 1, 1, 2, 2, 0, 0, 0, 0]),  # what was left open inside ends too
        ("quotes", 'a"b"c', [0, 1, 1, 0, 0]),
        ("quotes", "„a“b „c” “d” »e«", [1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]),
        ("quotes", '"a\n\nb', [1, 1, 1, 0, 0]),  # nobody closed it
        ("line position", "ab\ncd", np.log1p([1, 2, 0, 1, 2]).tolist()),
    ],
)
def test_a_property_of_a_text_is_what_its_name_says(name: str, text: str, expected: list[float]) -> None:
    assert units.PROPERTIES[name](text).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "nn.LSTM", "layers": 2},
        {"document": "line", "tokenizer": "byte"},
        {"layers": 2, "direct": 3, "direct_rows": 64},  # the ids that are remembered are no units
    ],
    ids=str,
)
def test_units_are_the_states_after_each_character(settings: dict[str, Any], trained: TrainedRun) -> None:
    model = api.load(trained(steps=2, **settings))
    text = "Mreža\nčita 漢 (sve)."
    found = model.units(text)
    states = model.architecture.definition.state
    assert len(found.units) == model.config.hidden * len(states) * model.config.layers
    assert found.activations.shape == (len(text), len(found.units))
    assert [unit.name for unit in found.units[:2]] == [f"1.{next(iter(states))}.1", f"1.{next(iter(states))}.2"]
    decoder = api.Decoder(model.architecture, model.weights, "numpy")
    state = decoder.start()
    begun = text[text.index("\n") + 1 :] if model.config.document == "line" else text
    _, state = decoder.step(np.array([model.tokenizer.size]), state)
    for id_ in model.tokenizer.encode(begun):
        _, state = decoder.step(np.array([id_]), state)
    last = np.concatenate([part[0] for layer in state[: model.architecture.layers] for part in layer])
    assert np.allclose(found.activations[-1], last, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"layers": 3, "residual": True}, {"one_hot": True}], ids=str)
def test_gates_are_the_sigmoids_of_the_equations(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[NDArray[Any]] = []
    original = Operation.__call__

    def noted(self: Operation, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if self.name == "sigmoid" and isinstance(result, np.ndarray):
            called.append(result[0])
        return result

    have_gates = set()
    tokenizer = Tokenizer.char("abc d")
    for name in cells.names():
        model_settings = decided(cell=name, **settings)
        architecture = Architecture.of(model_settings, tokenizer.size)
        model = api.TextModel(model_settings, tokenizer, architecture.initial(7))
        gates = model.units("bad cab").gates
        decoder = Decoder(architecture, model.weights, "numpy")
        state = decoder.read(np.array([tokenizer.size]), decoder.start())
        for i, id_ in enumerate(tokenizer.encode("bad cab")):
            called.clear()
            with monkeypatch.context() as changed:
                changed.setattr(Operation, "__call__", noted)
                state = decoder.read(np.array([id_]), state)
            expected = np.concatenate(called) if called else np.empty(0)
            assert np.allclose(gates.activations[i], expected, rtol=0, atol=1e-6), name
        have_gates |= {name} if gates.units else set()
    assert {"lstm", "gru", "mingru", "rhn", "nn.LSTM"} <= have_gates
    assert not {"simple", "nn.RNN"} & have_gates


def test_gates_have_the_letters_of_the_equations() -> None:
    def letters(cell: str) -> list[str]:
        tokenizer = Tokenizer.char("abc")
        settings = decided(cell=cell, hidden=2)
        model = api.TextModel(settings, tokenizer, Architecture.of(settings, tokenizer.size).initial(7))
        return [unit.name for unit in model.units("ab").gates.units][::2]

    assert letters("lstm") == ["1.f.1", "1.i.1", "1.o.1"]
    assert letters("gru") == ["1.z.1", "1.r.1"]
    assert letters("sru") == ["1.f.1", "1.r.1"]  # in two functions
    assert letters("rhn") == ["1.gate1.1", "1.gate2.1", "1.gate3.1"]  # in a loop


def test_a_gate_is_as_often_nearly_open_and_closed_as_it_is(trained: TrainedRun) -> None:
    found = api.load(trained(steps=2)).units("Mreža čita. " * 5)
    gates, last = found.gates, found.gates.units[-1].name
    values = found.of(last)
    assert gates.mean[-1] == pytest.approx(values.mean())
    openness = np.array([[0.05], [0.95], [0.5], [0.99]], np.float32)
    chosen = dataclasses.replace(gates, units=gates.units[:1], activations=openness)
    assert (chosen.open.tolist(), chosen.closed.tolist()) == ([0.5], [0.25])


def step_with_a_decision(z: Any, state: Any, p: Any) -> Any:
    (h,) = state
    h = ops.sigmoid(z) if float(z.sum()) > 0 else h
    return h, (h,)


def test_it_is_said_where_equations_cannot_be_recorded() -> None:
    cell = Cell(
        name="with-a-decision",
        summary="h = sigmoid(W x) sometimes",
        source="this test",
        parameters={"W": Param("I H", glorot()), "b": Param("H", zeros)},
        state={"h": 0},
        step=step_with_a_decision,
    )
    cells.register(cell)
    try:
        tokenizer, settings = Tokenizer.char("abc"), decided(cell=cell.name)
        model = api.TextModel(settings, tokenizer, Architecture.of(settings, tokenizer.size).initial(7))
        gates = model.units("ab").gates
        assert gates.units == ()
        assert gates.problem is not None
        assert "cannot be compiled" in gates.problem
    finally:
        cells.unregister(cell.name)


def test_units_are_ranked_by_how_well_they_follow(trained: TrainedRun) -> None:
    found = api.load(trained(steps=2)).units("Mreža čita SVE redom. " * 5)
    assert set(found.correlations) == {"line position", "spaces", "case"}  # the others do not vary
    spaces = units.PROPERTIES["spaces"](found.text)
    for unit, r in found.best("spaces", 3):
        assert r == pytest.approx(np.corrcoef(found.of(unit.name), spaces)[0, 1], abs=1e-6)
    ranks = [abs(r) for _, r in found.best("spaces", len(found.units))]
    assert ranks == sorted(ranks, reverse=True)
    with pytest.raises(OptionError, match=r"give one from 1\.h\.1 to 1\.h\.24"):
        found.of("1.c.1")
    with pytest.raises(CharRNNError, match="empty"):
        api.load("latest").units("")


def test_a_text_is_coloured_by_how_strong_a_unit_is() -> None:
    values = [0.0, 1.0, -1.0, 0.5, 0.1]
    assert activation.levels(values) == [0, 4, -4, 2, 0]
    assert activation.levels([0.0]) == [0]
    text = "a\nč<e"
    shown = "".join(activation.coloured(text, values))
    assert shown.replace(activation.RESET, "").count("\x1b[") == 3
    assert f"↵{activation.RESET}\n" in shown
    page = "".join(activation.page(text, values, "a & b", "about"))
    assert "<i class=p4>↵\n</i><i class=n4>č</i><i class=p2>&lt;</i>e</pre>" in page
    assert "a &amp; b" in page


def test_the_command_ranks_and_shows(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["charrnn", "inspect", "units", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    trained("r", steps=2)
    code, out, err = say("r", "--chars", "300")
    assert code == 0, err
    assert "r on its validation part: 300 characters" in err
    of_states, of_gates, followed = out.split("\n\n")
    for lines in (of_states.splitlines(), followed.splitlines()[1:]):
        assert [line.partition("  ")[0] for line in lines] == list(units.PROPERTIES)
    assert [line.split()[0] for line in of_gates.splitlines()] == ["gate", "1.r", "1.z"]
    code, out, _ = say("r", "Mreža (sve).", "--unit", "1.h.2")
    assert [line.split("\t")[1] for line in out.splitlines()] == list("Mreža␣(sve).")
    found = json.loads(say("r", "Mreža (sve).", "--unit", "1.h.2", "--json")[1])
    assert (len(found["units"]), len(found["gates"])) == (24, 48)
    assert all(0 <= row["closed"] <= 1 and 0 <= row["open"] <= 1 for row in found["gates"])
    coloured = say("r", "Mreža (sve).", "--unit", "1.z.2")
    assert (coloured[0], len(coloured[1].splitlines())) == (0, 12)
    assert "unit 1.z.2: " in coloured[2]
    assert [f"{value:+.3f}" for value in found["activations"]] == [line.split("\t")[0] for line in out.splitlines()]
    assert say("r", "Mreža", "--html", str(tmp_path / "page.html"))[0] == 0
    assert "unit 1.h." in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert say("r", "Mreža", "--unit", "9")[0] == 2
    assert say("r", "--chars", "0")[0] == 2
    trained("whole", steps=2, split=(1.0, 0.0, 0.0))
    assert "whole on its training part: 9 characters" in say("whole", "--chars", "9")[2]
