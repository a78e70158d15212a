"""Docstrings and comments: a function's begins with a verb, and none of them holds a measurement.

Measurements stand in docs/results/, with their command, commit, machine and date. A figure in code is a bound or a
constant.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "charrnn"
NO_VERBS = {"What", "Whether", "How", "Where", "The", "A", "An", "That", "Those"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MEASUREMENT = re.compile(
    r"\b[1-9]\d*\.\d{3}\b"  # 1.609 nats
    r"|\b\d+\.\d+ (nats|bits)\b"
    r"|\b\d[\d,.]* ?(ms|us|G/s|GB/s|GFLOP/s)\b"
    r"|\b\d[\d,]* char(acter)?s(/s| a second)"
    r"|\bmeasured:"
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def docstrings(path: Path) -> Iterator[tuple[int, ast.AST, str]]:
    """Yield line, node and text of every docstring in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (*DEFINITIONS, ast.ClassDef, ast.Module)) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, node, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def is_property(node: ast.AST) -> bool:
    return isinstance(node, DEFINITIONS) and any(
        ast.unparse(decorator).endswith("property") for decorator in node.decorator_list
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_docstring_of_a_function_begins_with_a_verb(path: Path) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {text.splitlines()[0]}"
        for line, node, text in docstrings(path)
        if isinstance(node, DEFINITIONS) and not is_property(node) and re.split(r"\W", text, maxsplit=1)[0] in NO_VERBS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_measurement_stands_in_a_docstring_or_comment(path: Path) -> None:
    texts = [(line, text) for line, _, text in docstrings(path)] + list(comments(path))
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {match[0]}"
        for line, text in texts
        for match in MEASUREMENT.finditer(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["validates at 1.609 nats", "0.13 bits", "45,000 chars/s", "180 G/s", "19 ms"])
def test_a_measurement_is_recognised(text: str) -> None:
    assert MEASUREMENT.search(text)


@pytest.mark.parametrize("text", ["uniform from 0 to 0.999", "ln 2 = 0.693147180559945", "within 1e-6", "100,000 rows"])
def test_a_constant_is_no_measurement(text: str) -> None:
    assert not MEASUREMENT.search(text)
