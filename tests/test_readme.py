"""The README and the pages beside it are run, not believed."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import charrnn
from charrnn import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.sr.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_blocks(text: str = README) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def commands(text: str = README) -> list[str]:
    """The indented command lines, comments cut."""
    lines = re.findall(r"^ {4,}((?:python|pip) .*)$", text, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


@cache
def usage(command: str) -> str:
    """What a command says with --help."""
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    ).stdout


def test_the_cell_of_the_readme_is_registered_trained_sampled_and_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = (b for b in python_blocks() if "Cell(" in b)
    names: dict[str, object] = {}
    try:
        exec(compile(block, "README.md", "exec"), names)
        assert "one-gate" in charrnn.cells.names()
        completion, bits = capsys.readouterr().out.rsplit("\n", 2)[:2]
        assert len(completion) == 100
        assert 1 < float(bits) < 8
    finally:
        charrnn.cells.unregister("one-gate")


def test_the_python_of_the_readme_does_what_it_says(
    monkeypatch: pytest.MonkeyPatch, corpus: str, home: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(Path(corpus).read_text(encoding="utf-8"), encoding="utf-8")
    (block,) = (b for b in python_blocks() if "charrnn.load(" in b)
    block = block.replace('budget="3m"', "hidden=8, steps=3").replace("checkpoints/NAME", str(home / "corpus-gru-8x1"))
    exec(compile(block, "README.md", "exec"), {})


def test_every_command_of_the_readme_exists() -> None:
    used = {match[1] for line in commands() for match in re.finditer(r"cli\.py ([a-z]+)", line)}
    assert used <= set(cli.COMMANDS)
    assert {"train", "sample", "eval", "runs", "compare", "cells"} <= used


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_of_a_page_exists(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        for command, rest in re.findall(r"cli\.py ((?:(?:inspect|corpora) )?[a-z]+)([^&]*)", line):
            assert command.split()[0] in cli.COMMANDS, line
            for option in re.findall(r"(?<=[\s\[])--[a-z][a-z0-9-]*", rest):
                assert option in re.findall(r"--[a-z][a-z0-9-]*", usage(command)), (command, option)


def test_the_examples_of_the_pages_are_those_of_the_readme() -> None:
    examples = {python_blocks()[0]: "completing.md", python_blocks()[1]: "add-a-cell.md"}
    for example, page in examples.items():
        first, *_ = python_blocks((ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert first.startswith(example)


def test_the_two_set_up_commands_are_plain_pip() -> None:
    first, second, *extras = (line for line in commands() if line.startswith("pip "))
    assert extras == ["pip install -e '.[compare,plot,ppmd]'"]
    assert "cli.py train" in first
    assert 'cli.py sample --prime "Rekurentne"' in first
    assert second.endswith("python -m pytest -n auto")


def test_what_is_where_names_every_folder_and_no_other() -> None:
    tree = README.split("## What is where")[1].split("\n## ")[0]
    named = set(re.findall(r"charrnn/(\w+)/ ", tree))
    assert named == {path.parent.name for path in (ROOT / "charrnn").glob("*/__init__.py")}
