"""The usual slips of someone who writes a cell: an error names the cell, the function, the line, and what to do."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config

from charrnn import cells, engines
from charrnn.cells.cell import Cell, Param
from charrnn.cells.cell_files import Broken, CellFile
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import concat, tanh
from charrnn.errors import CharRNNError
from charrnn.training import loop
from charrnn.training.events import Started

STEP = """import math
import numpy as np
import torch
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import constant, glorot, orthogonal, zeros
from charrnn.cells.ops import concat, matmul, sigmoid, split, tanh


def step(z, state, p):
    (h,) = state
    f, g = split(z + matmul(h, p.U), 2)
    f = sigmoid(f)
    h = f * h + (1 - f) * tanh(g)
    return h, (h,)


cell = Cell(
    name="mine",
    summary="",
    source="",
    parameters={
        "W": Param("I 2H", glorot(2)),
        "U": Param("H 2H", orthogonal(2)),
        "b": Param("2H", constant(1, 0)),
    },
    state={"h": 0},
    step=step,
)
"""
LINEAR = """import numpy as np
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import glorot, zeros
from charrnn.cells.ops import sigmoid, split


def gates(z, p):
    z, g = split(z, 2)
    z = sigmoid(z)
    return 1 - z, z * g


def readout(z, h, p):
    return h


cell = Cell(
    name="mine",
    summary="",
    source="",
    parameters={"W": Param("I 2H", glorot(2)), "b": Param("2H", zeros)},
    state={"h": 0},
    gates=gates,
    readout=readout,
)
"""
OLDER = re.sub(r"parameters=\{.*?\n    \}", "parameters=parameters", STEP, flags=re.DOTALL).replace(
    "cell = Cell(",
    """def parameters(I, H, O):
    return {
        "W": Param((I, 2 * H), glorot(2)),
        "U": Param((H, 2 * H), orthogonal(2)),
        "b": Param((2 * H,), zeros),
    }


cell = Cell(""",
)
INPUTS = STEP.replace("def step(", "def inputs(x, p):\n    return matmul(x, p.W) + p.b\n\n\ndef step(").replace(
    "step=step", "inputs=inputs,\n    step=step"
)
END = "return h, (h,)"
GATES = "return 1 - z, z * g"
SLIPS = [  # a file, what is written in it, what instead; the problem, what to do
    (STEP, END, "return h, h", "line 9: step of cell 'mine' returns (array (1, 3), array (1, 3))", "`return y, (h,)`"),
    (STEP, END, "return h", "line 9: step of cell 'mine' returns array (1, 3), expected (y, (h,))", "`return y, (h,)`"),
    (STEP, END, "return (h,), h", "returns ((array (1, 3),), array (1, 3)), expected (y, (h,))", "`return y, (h,)`"),
    (STEP, END, "return h, (h, h)", "returns (array (1, 3), (array (1, 3), array (1, 3)))", "`return y, (h,)`"),
    (STEP, END, "pass", "line 9: step of cell 'mine' returns nothing, expected (y, (h,))", "`return y, (h,)`"),
    (
        STEP,
        END,
        "return h, (concat(h, h),)",
        "returns (array (1, 3), (array (1, 6),))",
        "have H features",
    ),
    (
        STEP,
        END,
        "return concat(h, h), (h,)",
        "returns (array (1, 6), (array (1, 3),))",
        "have H features",
    ),
    (STEP, "(h,) = state", "h, c = state", "line 10: step of cell 'mine' fails: ValueError", "state has 1 (h)"),
    (STEP, "p.U", "p.V", "line 11: step of cell 'mine' reads p.V, expected one of its parameters: W, U, b", "add 'V'"),
    (INPUTS, "p.W)", "p.Wx)", "line 10: inputs of cell 'mine' reads p.Wx", "did you mean 'W'?"),
    (
        INPUTS,
        "p.W) + p.b",
        "p.W), p.b",
        "line 9: inputs of cell 'mine' returns (array (2, 1, 6), array (6,))",
        "T and B",
    ),
    (STEP, '        "b": Param("2H", constant(1, 0)),\n', "", "inputs of cell 'mine' reads p.b", "add 'b'"),
    (STEP, "tanh(g)", "np.tanh(g)", "line 13: step of cell 'mine' calls np.tanh", "use charrnn.cells.ops.tanh"),
    (STEP, "tanh(g)", "math.tanh(g)", "line 13: step of cell 'mine' calls math.tanh", "use charrnn.cells.ops.tanh"),
    (STEP, "tanh(g)", "torch.tanh(g)", "line 13: step of cell 'mine' calls torch.tanh", "use charrnn.cells.ops.tanh"),
    (STEP, "tanh(g)", "g.tanh()", "line 13: step of cell 'mine' uses .tanh of an array", "use charrnn.cells.ops.tanh"),
    (STEP, "tanh(g)", "np.concatenate((g, g))[:1]", "calls np.concatenate", "use charrnn.cells.ops.concat"),
    (STEP, "tanh(g)", "np.ones_like(g)", "calls np.ones_like", "numbers and charrnn.cells.ops: matmul, split"),
    (STEP, "ops import concat, matmul,", "ops import concat,", "NameError: name 'matmul'", "ops import matmul"),
    (STEP, "f = sigmoid(f)", "f = sigmoid(f) if f > 0 else f", "line 12: step of cell 'mine' decides by the", "relu"),
    (STEP, "def step(z, state, p)", "def step(z, state)", "step of cell 'mine' cannot be called", "step(z, state, p)"),
    (STEP, "step=step", "step=3", "step of cell 'mine' is of type int, expected a function", "step(z, state, p)"),
    (STEP, '{"h": 0}', '["h"]', "the state of cell 'mine' is ['h'], expected the start value", '{"h": 0}'),
    (STEP, 'Param("2H", constant(1, 0))', '("2H", zeros)', "parameter b of cell 'mine' is of type tuple", "Param("),
    (
        STEP,
        "constant(1, 0)",
        "constant(1, 0, 0)",
        "parameter b of cell 'mine' has shape (16,): its rule is for 3",
        "gates",
    ),
    (
        STEP,
        "constant(1, 0)",
        "glorot(2)",
        "parameter b of cell 'mine' has shape (16,): its rule is for a matrix",
        "zeros",
    ),
    (
        STEP,
        "constant(1, 0)",
        "lambda rng, n: np.ones((3, 3))",
        "the rule of parameter b of cell 'mine' gives shape",
        "rule",
    ),
    (
        STEP,
        "constant(1, 0)",
        "np.zeros",
        "the rule of parameter b of cell 'mine' fails for shape (16,)",
        "a generator and",
    ),
    (OLDER, "(2 * H,)", "(2 * H)", "parameter b of cell 'mine' has shape 6, a number", "write (H,)"),
    (
        OLDER,
        "(2 * H,)",
        "(H / 2,)",
        "parameter b of cell 'mine' has shape (1.5,), expected a tuple of whole",
        "(I, 4 * H)",
    ),
    (OLDER, "Param((2 * H,), zeros)", "((2 * H,), zeros)", "parameter b of cell 'mine' is of type tuple", "Param("),
    (OLDER, "zeros)", "0)", "parameter b of cell 'mine' starts by 0, expected a rule", "such as zeros"),
    (
        LINEAR,
        GATES,
        "return z * g",
        "line 7: gates of cell 'mine' returns array (1, 3), expected (a, b)",
        "return a, b",
    ),
    (LINEAR, "z, g = split(z, 2)", "g = z", "gates of cell 'mine' returns (array (1, 6), array (1, 6))", "return a, b"),
    (LINEAR, "return h", "return h, (h,)", "line 13: readout of cell 'mine' returns (array (1, 3), (", "`return y`"),
    (
        LINEAR,
        "sigmoid(z)",
        "1 / (1 + np.exp(-z))",
        "line 9: gates of cell 'mine' calls np.exp",
        "charrnn.cells.ops.exp",
    ),
]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Cell | Broken]]:
    """Read a cell from the text of its file."""
    folder = tmp_path / "slips_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def one(text: str) -> Cell | Broken:
        path = folder / "mine.py"
        path.write_text(text, encoding="utf-8")
        return CellFile(folder.name, folder, "mine", path).load(frozenset())

    yield one
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


@pytest.mark.parametrize(("text", "written", "instead", "problem", "hint"), SLIPS)
def test_a_slip_is_told_with_cell_function_line_and_what_to_do(
    load: Callable[[str], Cell | Broken], text: str, written: str, instead: str, problem: str, hint: str
) -> None:
    assert text.count(written) >= 1
    found = load(text[: (at := text.rindex(written))] + instead + text[at + len(written) :])
    assert isinstance(found, Broken)
    assert problem in found.reason
    assert hint in found.hint


@pytest.mark.parametrize("text", [STEP, LINEAR, OLDER, INPUTS])
def test_a_cell_without_a_slip_is_taken(load: Callable[[str], Cell | Broken], text: str) -> None:
    assert isinstance(load(text), Cell)


def test_numbers_and_powers_are_no_slip(load: Callable[[str], Cell | Broken]) -> None:
    text = STEP.replace("tanh(g)", "tanh(g) * np.sqrt(2.0) + g**2 - abs(g) ** 0.5 / np.shape(g)[-1]")
    assert isinstance(load(text), Cell)


def test_what_only_torch_can_show_is_told_in_the_same_way(load: Callable[[str], Cell | Broken]) -> None:
    """NumPy has no copy of its operators under another name that could be told apart."""
    cell = load(STEP.replace("z + matmul(h, p.U)", "np.add(z, matmul(h, p.U))"))
    assert isinstance(cell, Cell)
    drawn = cell.initial(np.random.default_rng(1), 4, 5)
    p = cell.pack({name: torch.tensor(value).requires_grad_() for name, value in drawn.items()})
    x, state = torch.ones(3, 2, 4, dtype=torch.float64), (torch.zeros(2, 5, dtype=torch.float64),)
    with pytest.raises(
        CharRNNError, match=r"^mine.py, line 11: step of cell 'mine' calls np.add on an array"
    ) as caught:
        engines.named("loop").run(cell, x, state, p)
    assert "charrnn.cells.ops" in caught.value.hint


def test_a_rule_that_does_not_fit_a_size_is_told_when_weights_are_drawn() -> None:
    lstm = cells.get("lstm")
    odd = Cell("mine", "", "", {"W": lstm.shapes(2, 3)["W"]._replace(shape="I 3H")}, {"h": 0}, lstm.step)
    assert odd.initial(np.random.default_rng(1), 2, 8)["W"].shape == (2, 24)
    with pytest.raises(CharRNNError, match=r"parameter W of cell 'mine' has shape \(2, 15\): its rule is for 4 blocks"):
        odd.initial(np.random.default_rng(1), 2, 5)


def test_training_says_why_it_is_not_compiled(corpus: str, home: Path) -> None:
    """Once, and of a cell that has no compiled form alone."""

    def rotating(z: Any, state: Any, p: Any) -> Any:
        h = tanh(z + concat(state[0][..., 1:], state[0][..., :1]))
        return h, (h,)

    gru = cells.get("gru")
    cells.register(Cell("rotating", "", "", {"W": Param("I H", glorot()), "b": Param("H", zeros)}, {"h": 0}, rotating))
    try:
        for cell in ("rotating", gru.name):
            settings = config(corpus, cell=cell, steps=1)
            events = loop.new_run(settings, loop.open_run(settings, cell))
            started = next(event for event in events if isinstance(event, Started))
            events.close()
            reason = engines.why_not_compiled(cells.get(cell))
            said = [f"training of {cell} is not compiled: {reason}; the loop engine runs it"]
            assert [note for note in started.notes if "not compiled" in note] == (said if cell == "rotating" else [])
            assert reason == ("a slice that cuts blocks of H features" if cell == "rotating" else None)
    finally:
        cells.unregister("rotating")
