"""The two notebooks: the same code in both, every numbered cell of the course, and they run from first to last."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_readme_sr import CELLS, numbers

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_PICTURE_BYTES = 60_000

RUN = """
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in all_cells(path) if cell["cell_type"] == kind]


def all_cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def without_words(code: str) -> str:
    """Code without comments, and with nothing in its strings: what must be the same in every language."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


def test_the_notebooks_have_the_same_code_in_the_same_places() -> None:
    assert [path.name for path in NOTEBOOKS] == ["recurrent.ipynb", "rekurentne.ipynb"]
    kinds = [
        [cell["cell_type"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]] for path in NOTEBOOKS
    ]
    assert kinds[0] == kinds[1]
    code = [[without_words(source(cell)) for cell in cells(path, "code")] for path in NOTEBOOKS]
    assert code[0] == code[1]
    assert len(code[0]) > 15


def test_code_without_words_keeps_what_it_does() -> None:
    assert without_words("print('a', 1)  # b") == without_words("print('c', 1)")
    assert without_words("print(f'{x}: a')") == without_words("print(f'{x}: b')")
    assert without_words("print('a', 1)") != without_words("print('a', 2)")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_numbered_cell_of_the_course_has_its_counterpart(path: Path) -> None:
    first_lines = [source(cell).splitlines()[0] for cell in cells(path, "code")]
    assert numbers("\n".join(line for line in first_lines if line.startswith("# In["))) == CELLS
    assert numbers("\n".join(source(cell) for cell in cells(path, "markdown"))) == CELLS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_outputs_are_small_pictures_alone(path: Path) -> None:
    pictures = 0
    for cell in cells(path, "code"):
        assert cell["execution_count"] is None
        for output in cell["outputs"]:
            assert set(output["data"]) == {"image/png"}
            assert len(base64.b64decode("".join(output["data"]["image/png"]))) < MOST_PICTURE_BYTES
            pictures += 1
    assert pictures == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    links = [link for cell in cells(path, "markdown") for link in re.findall(r"\]\(([^)\s]+)\)", source(cell))]
    assert len(links) > 2
    for link in links:
        assert (path.parent / link).is_file(), link


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_first_to_last(path: Path, tmp_path: Path) -> None:
    variables = {name: str(tmp_path / name) for name in ("CHARRNN_HOME", "IPYTHONDIR", "JUPYTER_DATA_DIR")}
    # Beside other tests threads would wait for each other.
    variables |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    code = cells(tmp_path / "out.ipynb", "code")
    assert all(cell["execution_count"] for cell in code)
    assert [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"] == []
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
