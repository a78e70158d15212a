"""The tests, held by a test: they know what they test by its public names, which a change inside leaves alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "charrnn"
# Neither those of stored/, which belong to the code of an old commit, nor this one, for its examples.
FILES = sorted(path for path in TESTS.glob("*.py") if path.name != Path(__file__).name)
BY_NAME = ("setattr", "getattr", "delattr")
# Files of cells share such a file: its name is a part of what people may write. A notebook asks for the others.
PUBLIC = {"_shared", "_repr_html_", "_repr_latex_", "_repr_png_"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.AST) -> set[str]:
    """The private names that a file gives to something: functions, classes, variables, attributes."""
    found: set[object] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {str(name) for name in found if is_private(name)}


def touched(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that code takes from elsewhere: imported, after a dot, or named to be replaced."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "charrnn":
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) not in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_NAME:
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant) and is_private(arg.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "charrnn" in node.value:
            yield from touched(program_of(node.value))


def program_of(text: str) -> ast.AST:
    """The syntax tree of a program that a test runs in a process of its own; an empty one for any other text."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


PRIVATE = set().union(*(defined(ast.parse(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_touches_a_private_name(path: Path) -> None:
    names = set(touched(ast.parse(path.read_text(encoding="utf-8"))))
    assert names & PRIVATE - PUBLIC == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from charrnn.cli import _run", ["_run"]),
        ("from charrnn import cli\ncli._run([])", ["_run"]),
        ("monkeypatch.setattr(cli, '_run', run)", ["_run"]),
        ("code = 'from charrnn import cli; cli._run([])'", ["_run"]),
        ("self._run(); cli.run([]); cli.__doc__; from_elsewhere = '_run'", []),
        ("from elsewhere import _run", []),
    ],
)
def test_a_private_name_is_found(code: str, found: list[str]) -> None:
    assert list(touched(ast.parse(code))) == found
