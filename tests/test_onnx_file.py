"""A model as an ONNX file: checked before it is written, complete in itself, and never in the way of another file."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import charrnn
from charrnn.cli import group
from charrnn.errors import CharRNNError
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Sampling, generate, read_prime
from charrnn.sharing import onnx_file
from charrnn.training.run import Run

pytest.importorskip("onnx", reason="an extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="an extra")
TrainedRun = Callable[..., Run]
PAGE = Path(__file__).parent.parent / "docs" / "sharing.md"


def program() -> str:
    """The program that docs/sharing.md shows."""
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return found


def test_the_documented_program_completes_without_this_package(trained: TrainedRun, tmp_path: Path) -> None:
    model = charrnn.load(trained(layers=2))
    file = onnx_file.write(model, tmp_path / "model.onnx")
    text = program()
    assert "charrnn" not in text
    # Nearly cold, so that what is likeliest is drawn, as by --top-k 1.
    (tmp_path / "complete.py").write_text(text.replace("/ 0.7)", "/ 1e-4)"), encoding="utf-8")
    prime = "the quick \N{GREEK SMALL LETTER ALPHA} "  # with a character that the model spells in bytes
    arguments = [sys.executable, "complete.py", file.name, prime, "40"]
    done = subprocess.run(arguments, capture_output=True, cwd=tmp_path, timeout=60, env={"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().rstrip("\r\n") == prime + model.complete(prime, 40, top_k=1)


def test_the_documented_program_knows_of_direct_connections(trained: TrainedRun, tmp_path: Path) -> None:
    model = charrnn.load(trained(direct=4, direct_rows=500))
    file = onnx_file.write(model, tmp_path / "model.onnx")
    (tmp_path / "complete.py").write_text(program().replace("/ 0.7)", "/ 1e-4)"), encoding="utf-8")
    prime = "the quick \N{GREEK SMALL LETTER ALPHA} "
    done = subprocess.run(
        [sys.executable, "complete.py", file.name, prime, "40"],
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
        env={"PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    decoder = Decoder(model.architecture, model.weights, "numpy")
    source = generate(decoder, model.tokenizer, read_prime(decoder, model.tokenizer, prime), Sampling(temperature=0))
    expected = "".join(next(source).character for _ in range(40))
    assert done.stdout.decode().rstrip("\r\n") == prime + expected


def test_the_program_has_no_more_than_thirty_lines() -> None:
    assert len([line for line in program().splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "slstm"},  # of whose states one does not start at zero
        {"direct": 3, "direct_rows": 300},
    ],
    ids=str,
)
def test_the_file_computes_what_the_model_does_from_its_metadata_alone(
    settings: dict[str, Any], trained: TrainedRun, tmp_path: Path
) -> None:
    model = charrnn.load(trained(**settings))
    content = onnx_file.write(model, tmp_path / "model.onnx").read_bytes()
    ids = model.tokenizer.encode("over the lazy dog")
    decoder = Decoder(model.architecture, model.weights, "numpy")
    state, rows = decoder.start(), []
    for id_ in (decoder.architecture.start, *ids):
        row, state = decoder.step(np.array([id_]), state)
        rows.append(row[0])
    np.testing.assert_allclose(onnx_file.logits(content, decoder, ids), np.stack(rows), atol=1e-5)


def test_what_computes_something_else_is_not_written(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = charrnn.load(trained())
    real = onnx_file.logits
    monkeypatch.setattr(onnx_file, "logits", lambda *given: real(*given) + 0.01)
    with pytest.raises(CharRNNError, match=r"differ by 0\.01"):
        onnx_file.write(model, tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_file, "logits", lambda *given: real(*given) * np.nan)
    with pytest.raises(CharRNNError, match="differ by nan"):
        onnx_file.write(model, tmp_path / "model.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_no_file_is_written_over(trained: TrainedRun, tmp_path: Path) -> None:
    model = charrnn.load(trained())
    (tmp_path / "mine.onnx").write_text("something of mine")
    with pytest.raises(CharRNNError, match="exists already"):
        onnx_file.write(model, tmp_path / "mine.onnx")
    with pytest.raises(CharRNNError, match="there is no folder"):
        onnx_file.write(model, tmp_path / "nowhere" / "mine.onnx")
    assert (tmp_path / "mine.onnx").read_text() == "something of mine"


def test_without_its_packages_it_says_which(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = charrnn.load(trained())
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CharRNNError, match=r"the packages onnx and onnxruntime; pip install 'charrnn\[onnx\]'"):
        onnx_file.write(model, tmp_path / "model.onnx")


def test_the_command_writes_it(trained: TrainedRun, tmp_path: Path) -> None:
    trained()
    arguments = ["export", "run", "--to", str(tmp_path / "model.onnx"), "--json"]
    done: Any = CliRunner().invoke(group, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bytes"] == (tmp_path / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    options = json.loads(session.get_modelmeta().custom_metadata_map["options"])
    assert (options["first_character"], options["hidden"]) == (256, charrnn.load("run").config.hidden)
