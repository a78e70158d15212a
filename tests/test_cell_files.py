"""A faulty file among the cells costs its own cell alone: every command works, and says which file, where and why."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from charrnn import cells, cli
from charrnn.cells.cell import Cell
from charrnn.cli import options
from charrnn.errors import CharRNNError
from charrnn.text import named_corpora, python_corpora
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent
GRU = (ROOT / "charrnn" / "cells" / "gru.py").read_text(encoding="utf-8")
SMALL = ["--hidden", "8", "--embedding", "8", "--steps", "2", "--batch", "2", "--window", "8", "--device", "cpu"]
EQUATIONS = GRU.replace('"gru"', 'f"fault_{__name__[-2:]}"')  # a name of its own for each faulty file


def in_step(line: str) -> str:
    """The file of a cell, with one more line at the beginning of its step."""
    head, step = EQUATIONS.split("def step(", 1)
    signature, body = step.split("\n", 1)
    return f"{head}def step({signature}\n    {line}\n{body}"


FAULTS = {  # what is written into the file -> its reason, what to do
    "import os\nx = (\n": ("line 2: '(' was never closed", "correct the file"),
    "\nimport nosuchpackage.inner\n": ("line 2: it imports nosuchpackage", "pip install nosuchpackage,"),
    "from charrnn.nosuch import x\n": ("line 1: ModuleNotFoundError: No module named 'charrnn.nosuch'", "correct"),
    "from charrnn.cells.ops import sigmod\n": ("line 1: ImportError: cannot import name 'sigmod'", "correct the file"),
    "def f():\n    1 / 0\n\n\nf()\n": ("line 2: ZeroDivisionError: division by zero", "correct the file"),
    "raise SystemExit(3)\n": ("line 1: it ends the program", "correct the file"),
    "from charrnn.cells import register\nregister(None)\n": ("line 2: its `cell` is of type NoneType", "Cell"),
    "": ("it defines no `cell`", "cell = Cell(...)"),
    "cell = {'name': 'bad'}\n": ("its `cell` is of type dict", "give a charrnn.cells.cell.Cell"),
    GRU: ("it names its cell 'gru', and so does gru.py", "choose another name"),
    GRU.replace('"gru"', '"my bad"'): ("its cell is named 'my bad'", "without spaces"),
    GRU.replace('name="gru"', "name=7"): ("its cell is named 7", "give it a name"),
    re.sub(r"parameters=\{.*?\n    \}", "parameters={}", EQUATIONS, flags=re.DOTALL): (
        "inputs of cell 'fault_12' reads p.W, and its parameters are none: without inputs=..., z is x W + b",
        "add 'W' to the parameters",
    ),
    in_step("nosuchname"): ("NameError: name 'nosuchname' is not defined", "correct the equations"),
    in_step("return z, state"): (
        "step of cell 'fault_14' returns (array (1, 9), (array (1, 3),)), expected (y, (h,)), each an array (1, 3)",
        "what is wider belongs into z or the parameters",
    ),
    EQUATIONS.replace('"I 3H"', '"I 3h"'): (
        "parameter W of cell 'fault_15' has the axis '3h' in its shape 'I 3h', expected I, H, O",
        "did you mean 'H'?",
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, into which faulty files may be written."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("charrnn", "corpora"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "cli.py", folder)
    return folder


@pytest.fixture
def write(checkout: Path) -> Iterator[Callable[[str, str | bytes], Path]]:
    """Write files into the folder of cells, for one test."""
    written = []

    def one(name: str, content: str | bytes) -> Path:
        path = checkout / "charrnn" / "cells" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        written.append(path)
        return path

    yield one
    for path in written:
        shutil.rmtree(path.parent) if path.parent.name != "cells" else path.unlink()


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python cli.py ...` in the copy."""

    def one(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        # Without PYTHONPATH: the copy is what is meant.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [sys.executable, "-B", "cli.py", *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=checkout,
            env={**environment, "CHARRNN_HOME": str(tmp_path / "home"), **variables},
        )

    return one


def listed(process: subprocess.CompletedProcess[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of cells and the broken files that `cells --json` prints."""
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    return [row["cell"] for row in found["cells"]], found["broken"]


@pytest.fixture(scope="module")
def whole(checkout: Path) -> list[str]:
    """The names of the cells that come with the package."""
    names = subprocess.run(
        [sys.executable, "-B", "-c", "from charrnn import cells; print(*cells.names())"],
        capture_output=True,
        text=True,
        cwd=checkout,
        check=True,
    )
    return names.stdout.split()


@pytest.mark.slow
def test_a_faulty_file_costs_its_own_cell_alone(run: Any, write: Any, whole: list[str], checkout: Path) -> None:
    paths = [write(f"fault_{number:02}.py", content) for number, content in enumerate(FAULTS)]
    names, broken = listed(run("cells", "--json"))
    assert names == whole
    assert [each["file"] for each in broken] == [str(path) for path in paths]
    for each, (reason, hint) in zip(broken, FAULTS.values(), strict=True):
        assert reason in each["reason"]
        assert hint in each["hint"]
        assert "\n" not in each["reason"]
    code = (
        "import sys\nfrom charrnn import cells, errors\n"
        "for name in sys.argv[1:]:\n"
        "    try: cells.get(name)\n"
        "    except errors.CharRNNError as error: print(error.problem, error.hint, sep='|')\n"
    )
    asked = subprocess.run(
        [sys.executable, "-B", "-c", code, *(path.stem for path in paths)], capture_output=True, text=True, cwd=checkout
    )
    assert asked.stdout.splitlines() == [
        f"the cell {path.stem!r} cannot be used: {path}: {each['reason']}|{each['hint']}"
        for path, each in zip(paths, broken, strict=True)
    ]
    for arguments in (["cells", "fault_00"], ["train", "--cell", "fault_01", *SMALL]):
        process = run(*arguments)
        assert process.returncode == 1
        assert process.stdout == ""
        assert "error: the cell 'fault_0" in process.stderr
        assert "\nhint: " in process.stderr
        assert "defect" not in process.stderr


@pytest.mark.slow
def test_other_cells_are_trained(run: Any, write: Any, corpus: str) -> None:
    write("bad.py", "import os\nx = (\n")
    write("mine.py", GRU.replace('"gru"', '"my-gate"'))
    trained = run("train", corpus, "--cell", "my-gate", "--name", "r", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert "bad.py" not in trained.stderr
    assert run("sample", "--run", "r").returncode == 0


def test_other_commands_work_and_a_run_whose_cell_broke_is_listed(
    run: Any, write: Any, trained: Callable[..., Run]
) -> None:
    path = write("bad.py", "import os\nx = (\n")
    mine = write("mine.py", GRU.replace('"gru"', '"my-gate"'))
    config = trained("r", cell="gru", steps=2).path / "config.json"  # as my-gate would have trained it
    config.write_text(json.dumps({**json.loads(config.read_text()), "cell": "my-gate"}))
    mine.write_text(mine.read_text(encoding="utf-8") + "x = (\n", encoding="utf-8")
    for arguments in (["cells", "lstm"], ["runs"], ["completion", "bash"]):
        process = run(*arguments)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        assert ("my-gate" in process.stdout) == (arguments == ["runs"])
    sampled = run("sample", "--run", "r")
    assert sampled.returncode == 1
    assert f"the cell 'my-gate' cannot be used: {mine}: line" in sampled.stderr  # though the file is called otherwise
    table = run("cells")
    assert table.returncode == 0
    assert table.stderr.count(str(path)) == 1
    assert "is left out: line 2" in table.stderr


def test_the_nearest_name_is_still_a_hint(run: Any, write: Any) -> None:
    write("bad.py", "x = (")
    unknown = run("cells", "lsmt")
    assert unknown.returncode == 1
    assert "did you mean 'lstm'?" in unknown.stderr
    assert "cannot be used are named by `cells`" in unknown.stderr


def test_debug_shows_what_python_says_of_the_file(run: Any, write: Any) -> None:
    path = write("bad.py", "def f():\n    1 / 0\n\n\nf()\n")
    shown = run("--debug", "cells", "bad").stderr
    assert f'File "{path}", line 2, in f' in shown
    assert "ZeroDivisionError" in shown
    assert "direct cause" in shown


def test_a_shell_completes_the_other_cells(run: Any, write: Any) -> None:
    write("bad.py", "x = (")
    write("chatty.py", "print('hello')\n" + GRU.replace('"gru"', '"gru-chatty"'))
    asked = {"_CHARRNN_COMPLETE": "bash_complete", "COMP_WORDS": "charrnn cells gru", "COMP_CWORD": "2"}
    process = run(**asked)
    assert process.returncode == 0
    assert process.stdout.splitlines() == ["plain,gru", "plain,gru-after", "plain,gru-chatty"]
    assert process.stderr == ""


def test_files_of_odd_names(run: Any, write: Any, whole: list[str]) -> None:
    """A hyphen, a digit, a folder: cells. An underscore in front: none. A point, a name of the registry: broken."""
    shared = "from charrnn.cells._shared import cell_named\n\ncell = cell_named({!r})\n"
    write("_shared.py", GRU.replace("cell = Cell(", "def cell_named(name):\n  return Cell(").replace('"gru"', "name"))
    good = {"my-cell.py": "my-cell", "2nd.py": "2nd", "folder/__init__.py": "folder", "any_name.py": "else"}
    for file, name in good.items():
        write(file, shared.format(name))
    bad = [write("my.cell.py", shared.format("pointed")), write("names.py", shared.format("names"))]
    write(".hidden.py", "x = (")
    names, broken = listed(run("cells", "--json"))
    assert set(names) == {*whole, *good.values()}
    assert [each["file"] for each in broken] == [str(path) for path in bad]
    assert all(name in each["reason"] for name, each in zip(("point", "'names'"), broken, strict=True))


def test_a_fault_in_a_shared_file_is_told_of_that_file(run: Any, write: Any) -> None:
    write("_shared.py", "\n\n1 / 0\n")
    write("bad.py", "from charrnn.cells import _shared\n")
    _, (broken,) = listed(run("cells", "--json"))
    assert broken["file"].endswith("bad.py")
    assert broken["reason"].startswith("_shared.py, line 3: ZeroDivisionError")


def test_a_file_that_is_no_text_is_told(run: Any, write: Any) -> None:
    write("bad.py", b"cell = '\xff'\n")
    _, (broken,) = listed(run("cells", "--json"))
    assert "utf-8" in broken["reason"]


def test_a_name_belongs_to_the_file_that_is_called_like_it(run: Any, write: Any, whole: list[str]) -> None:
    """Not to the first one of the alphabet: what a run was trained with must not change when a file is added."""
    write("a_copy.py", GRU)
    other = GRU.replace('"gru"', '"twice"')
    write("one.py", other), write("two.py", other)
    names, broken = listed(run("cells", "--json"))
    assert names == whole
    assert [Path(each["file"]).name for each in broken] == ["a_copy.py", "one.py", "two.py"]
    assert broken[1]["reason"] == "it names its cell 'twice', and so does two.py"
    assert "def step" in run("cells", "gru").stdout
    assert "two.py" in run("cells", "twice").stderr


def test_a_file_may_register_its_cell_itself(run: Any, write: Any, whole: list[str]) -> None:
    ending = "\nfrom charrnn import cells\n\ncells.register(cell)\n"
    write("own.py", GRU.replace('"gru"', '"own"') + ending)
    write("bad.py", EQUATIONS + ending + "1 / 0\n")  # registered, and faulty after that
    names, broken = listed(run("cells", "--json"))
    assert set(names) == {*whole, "own"}
    assert len(broken) == 1


def test_python_is_told_the_same(checkout: Path, write: Any, whole: list[str]) -> None:
    """From several threads at once, and again after the first call."""
    write("bad.py", "import os\nx = (\n")
    code = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from charrnn import cells\n"
        "with Pool(8) as pool: found = list(pool.map(lambda _: cells.names(), range(8)))\n"
        "assert all(names == found[0] for names in found)\n"
        "(file, broken), = cells.broken().items()\n"
        "print(file, broken.reason, *found[0], sep='|')\n"
    )
    ran = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, cwd=checkout)
    assert ran.stdout.strip().split("|") == ["bad.py", "line 2: '(' was never closed", *whole], ran.stderr


def test_an_interruption_leaves_no_half_of_the_registry() -> None:
    code = (
        "from charrnn import cells\n"
        "from charrnn.cells.cell_files import CellFile\n"
        "load, calls = CellFile.load, iter(range(100))\n"
        "def interrupted(file, taken):\n"
        "    if next(calls) == 3: raise KeyboardInterrupt\n"
        "    return load(file, taken)\n"
        "CellFile.load = interrupted\n"
        "try: cells.names()\n"
        "except KeyboardInterrupt: print(*cells.names())\n"
    )
    ran = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.split() == cells.names(), ran.stderr


def test_one_cell_does_not_cost_importing_all() -> None:
    """And it is the same cell, whoever asks first."""
    code = (
        "import sys\n"
        "from charrnn import cells\n"
        "found = cells.get('nn.GRU')\n"
        "others = {'charrnn.cells.rhn', 'charrnn.cells.gru_after'} & set(sys.modules)\n"
        "print(len(others), len(cells.names()), cells.get('nn.GRU') is found, cells.get('gru-after').name)\n"
    )
    ran = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.split() == ["0", str(len(cells.names())), "True", "gru-after"], ran.stderr


def test_what_is_no_cell_is_not_registered() -> None:
    gru = cells.get("gru")
    for what, message in (
        ({}, "of type dict"),
        (Cell("a b", "", "", gru.parameters, {"h": 0}, gru.step), "'a b'"),
        (Cell("c", "", "", lambda I, H, O: {"W": (I, H)}, {"h": 0}, gru.step), "not what the library reads"),
        (Cell("d", "", "", lambda I, H: {}, {"h": 0}, gru.step), "cannot be told: TypeError"),
    ):
        with pytest.raises(CharRNNError, match=message):
            cells.register(what)  # type: ignore[arg-type]
    assert not {"a b", "c", "d"} & set(cells.names())


def test_runs_that_cannot_be_read_leave_completion_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("charrnn.training.runs.runs", refuse)
    context = click.Context(click.Command("x"))
    assert options.complete_runs(context, click.Argument(["run"]), "la") == ["latest"]


def test_a_corpus_that_cannot_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = named_corpora.describe()

    def missing() -> python_corpora.Documents:
        raise CharRNNError("this Python has no pydoc_data", "install it")

    monkeypatch.setitem(python_corpora.READERS, "python-docs", missing)
    after = named_corpora.describe()
    assert [row.name for row in after] == [row.name for row in before]
    assert {row.name: row.problem for row in after if row.problem} == {"python-docs": "this Python has no pydoc_data"}


@pytest.mark.parametrize(
    ("blocked", "arguments", "hint"),
    [
        ("scipy.special", ["compare", "--cells", "gru", "--steps", "2"], "pip install 'charrnn[compare]'"),
        ("matplotlib.figure", ["inspect", "gradients", "--out", "x.html"], "pip install -e '.[plot]'"),
        ("tqdm", ["train", "--cell", "gru", *SMALL], "hint: pip install tqdm, or all that charrnn needs"),
        ("pydoc_data.topics", ["train", "python-docs"], "install Python's complete standard library"),
    ],
)
def test_a_missing_package_is_named(
    blocked: str,
    arguments: list[str],
    hint: str,
    corpus: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    monkeypatch.chdir(Path(corpus).parent)
    assert cli.run([*arguments, corpus] if arguments[-1] != "python-docs" else arguments) == 1
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [(["train", *SMALL], 1), (["env"], 0)])
def test_a_missing_torch_is_named(arguments: list[str], code: int) -> None:
    script = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['cli.py', *{arguments!r}]\n"
        "from charrnn.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == code, ran.stderr
    if code == 0:
        assert "torch problem" in ran.stdout
    else:
        assert "error: this needs torch, which is not installed\nhint: pip install torch" in ran.stderr


def test_bench_says_that_onnx_runtime_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("charrnn.bench.bench.run", lambda *given, **sizes: iter(()))
    assert cli.run(["bench", "decode"]) == 0
    assert "ONNX Runtime is not measured, since it is missing: pip install 'charrnn[bench]'" in capsys.readouterr().err
