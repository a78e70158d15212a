"""The Serbian README is run, not believed."""

import re
from pathlib import Path

import pytest

from charrnn import cells, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.sr.md").read_text(encoding="utf-8")


def test_its_code_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        block = block.replace("steps=150", "steps=15")
        exec(compile(block, "README.sr.md", "exec"), names)
    out = capsys.readouterr().out
    assert out.startswith("Rekurentne")
    assert "bita po znaku" in out


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
