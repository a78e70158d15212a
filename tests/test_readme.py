"""The README is run, not believed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import charrnn
from charrnn import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """The indented command lines, comments cut."""
    lines = re.findall(r"^    ((?:python|pip) .*)$", README, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


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


def test_every_option_of_the_readme_exists() -> None:
    for line in commands():
        for command, rest in re.findall(r"cli\.py ((?:inspect |corpora )?[a-z]+)([^&]*)", line):
            text = subprocess.run(
                [sys.executable, str(ROOT / "cli.py"), *command.split(), "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            ).stdout
            for option in re.findall(r"--[a-z-]+", rest):
                assert option in text, (command, option)


def test_the_two_set_up_commands_are_plain_pip() -> None:
    first, second, *extras = (line for line in commands() if line.startswith("pip "))
    assert extras == ["pip install -e '.[compare,plot,ppmd]'"]
    assert "cli.py train" in first
    assert 'cli.py sample --prime "Rekurentne"' in first
    assert second.endswith("python -m pytest -n auto")


def test_the_file_tree_names_every_module_and_package_and_nothing_else() -> None:
    tree = README.split("## What is where")[1].split("\n## ")[0].split("    corpora/")[0]
    named = set(re.findall(r"^      (\S+)", tree, re.MULTILINE))
    package = ROOT / "charrnn"
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == modules | packages
