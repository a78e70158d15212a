"""The Serbian README, and the page of first steps, are run, not believed."""

import re
from pathlib import Path

import pytest

from charrnn import cells, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.sr.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CELLS = {1, *range(14, 18), *range(19, 25), *range(26, 29), 31, 36, 38, 41, 43}  # of the notebook; 43 is its last


def numbers(text: str) -> set[int]:
    """List the numbers of the notebook's cells that a text names, each of In[14]-In[17] too."""
    found = set()
    for first, last in re.findall(r"In\[(\d+)](?:[-–]In\[(\d+)])?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_numbered_cell_of_the_notebook_has_code_that_runs() -> None:
    first_lines = [block.splitlines()[0] for block in BLOCKS]
    assert numbers("\n".join(line for line in first_lines if line.startswith("# In["))) == CELLS


def test_its_table_lists_every_numbered_cell() -> None:
    assert numbers("\n".join(re.findall(r"^\| (In\[[^|]*) \|", README, re.MULTILINE))) == CELLS
    assert numbers(README) <= CELLS


def test_its_code_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        block = block.replace("steps=150", "steps=15")
        exec(compile(block, "README.sr.md", "exec"), names)
    out = capsys.readouterr().out
    assert out.startswith("Rekurentne")
    assert "bita po znaku" in out


def test_the_code_of_the_first_steps_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "sr" / "uvod.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block, "uvod.md", "exec"), {})
    *_, likeliest, bits = capsys.readouterr().out.splitlines()
    assert "'e'" in likeliest
    assert float(bits) < 8


def test_it_names_the_file_of_every_cell_it_shows() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| .* \| \[([^]]+)\]\(([^)]+)\) \|$", README, re.MULTILINE)
    assert len(rows) == 7
    for name, label, link in rows:
        assert label == link
        assert f'name="{cells.get(name).name}"' in (ROOT / link).read_text(encoding="utf-8")


def test_its_commands_exist() -> None:
    commands = re.findall(r"python cli\.py (\w+)", README)
    assert len(commands) > 8
    assert set(commands) <= set(cli.COMMANDS)
