"""The design, held by tests: imports point downwards, the library never prints, pickles or wakes torch needlessly."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn import renamed
from charrnn.cells import registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "charrnn"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """The charrnn modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES and MODULES[name] != path} - {"charrnn"}


def test_there_are_no_circles() -> None:
    graph = {name: imports(path) for name, path in MODULES.items() if name != "charrnn"}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_cells_know_the_ops_and_the_protocol_alone() -> None:
    allowed = {"charrnn.cells.cell", "charrnn.cells.ops", "charrnn.cells.initialisation"}
    for name, path in MODULES.items():
        if name.startswith("charrnn.cells.") and name.rpartition(".")[2] not in registry.NO_CELLS:
            assert imports(path) <= allowed, name


def test_no_module_but_a_cells_own_names_a_cell() -> None:
    from charrnn import cells

    for name, path in MODULES.items():
        # The default cell is a setting, and presets are lists of cells.
        if not name.startswith("charrnn.cells") and name not in ("charrnn.training.config", "charrnn.compare.presets"):
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & set(cells.names()), name


def test_the_library_neither_prints_nor_imports_click_nor_unpickles() -> None:
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not imported & {"pickle", "shelve", "marshal", "dill", "joblib"}, name
        assert "torch.load" not in path.read_text(encoding="utf-8"), name
        if not name.startswith("charrnn.cli"):
            assert "print" not in called, name
            assert "click" not in imported, name


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import charrnn, charrnn.cli", ["torch", "numpy", "numba"]),
        ("from charrnn import cells; cells.names()", ["torch", "numba"]),
        ("from charrnn import devices; devices._has_nvidia_driver = bool; devices.resolve('auto')", ["torch"]),
        (
            "import charrnn.training.checkpoint, charrnn.text.corpus, charrnn.generate.sampling",
            ["torch", "numba"],
        ),
    ],
)
def test_what_is_not_used_is_not_imported(code: str, absent: list[str]) -> None:
    check = f"{code}; import sys; print([m for m in {absent} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", renamed.MODULES)
def test_a_former_name_of_a_module_gives_the_module_itself(name: str) -> None:
    code = f"import {name} as old, {renamed.MODULES[name]} as new; assert old is new; from {name} import __doc__"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_help_is_instant() -> None:
    def seconds() -> float:
        """Of the processor, which a busy machine lengthens less than those of the clock."""
        before = os.times()
        subprocess.run([sys.executable, "cli.py", "--help"], check=True, capture_output=True, cwd=ROOT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.2
