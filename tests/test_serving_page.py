"""The examples of docs/serving.md are run, against a server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CORPUS, config
from serving import Server

from charrnn import api
from charrnn.api import TextModel
from charrnn.serve.models import Served
from charrnn.training import loop

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
PAGE = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    place = tmp_path_factory.mktemp("page")
    (place / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    asked = config(str(place / "text.txt"), steps=30)
    run = loop.open_run(asked, out=place / "mine")
    for _ in loop.new_run(asked, run):
        pass
    return api.load(run)


@pytest.fixture(scope="module")
def server(model: TextModel) -> Iterator[Server]:
    with Server([Served.of(model)], token=TOKEN) as server:
        yield server


def test_there_is_an_example_in_every_language() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "python", "python", "js"]


@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{n}-{block[0]}" for n, block in enumerate(BLOCKS)])
def test_an_example_gives_the_completion(server: Server, model: TextModel, language: str, code: str) -> None:
    code = code.replace("127.0.0.1:8765", f"127.0.0.1:{server.access.port}")
    if "openai" in code and find_spec("openai") is None:
        pytest.skip("openai is not installed")
    needed = {"sh": "curl", "js": "node"}.get(language)
    if needed and shutil.which(needed) is None:
        pytest.skip(f"there is no {needed}")
    words = {"sh": ["sh", "-c"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}
    ran = subprocess.run(
        [*words[language], code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "CHARRNN_TOKEN": TOKEN, "PYTHONIOENCODING": "utf-8"},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    top_k = 40 if "top_k" in code else None
    text = model.complete("Rekurentne", 50, temperature=0.7, seed=3, top_k=top_k)
    assert text[:20] in ran.stdout.replace("\\n", "\n")
