"""Other programs' forms of a model: ONNX Runtime and Node compute what the equations do, for every cell."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charrnn import cells
from charrnn.compiler.targets import javascript, onnx
from charrnn.compiler.trace import slot
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture

EXAMPLES = ("lstm", "layernorm-lstm", "slstm")  # of one kind each: what they are made of, the table's tests try
CELLS = [name if name in EXAMPLES else pytest.param(name, marks=pytest.mark.slow) for name in cells.names()]
V, H, CHARACTERS = 30, 16, 500
IDS = np.random.default_rng(1).integers(0, V, CHARACTERS)
NODE = shutil.which("node")
RUN = """
import { readFileSync } from "node:fs";
import { start, startId, step, vocabulary } from "./step.mjs";
const { ids, weights } = JSON.parse(readFileSync("given.json", "utf8"));
for (const name in weights) weights[name] = Float32Array.from(weights[name]);
const state = start(), logits = new Float32Array(vocabulary), all = [];
for (const id of [startId, ...ids]) { step(weights, state, id, logits); all.push(Array.from(logits)); }
console.log(JSON.stringify(all));
"""


def model(cell: str) -> tuple[Decoder, Any]:
    """A model of two residual layers. Its weights are small, so that roundings fade as they do in a trained one."""
    architecture = Architecture(cell=cell, vocabulary=V, hidden=H, layers=2, embedding=8, residual=True)
    weights = {name: value / 2 for name, value in architecture.initial(seed=3).items()}
    return Decoder(architecture, weights, "numpy"), weights


def expected(decoder: Decoder) -> NDArray[np.float32]:
    """Logits after the start token and after every id, (CHARACTERS + 1, V)."""
    state, rows = decoder.start(), []
    for id_ in (V, *IDS):
        logits, state = decoder.step(np.array([id_]), state)
        rows.append(logits[0])
    return np.stack(rows)


@pytest.mark.parametrize("cell", CELLS)
def test_onnx_runtime_computes_what_the_equations_do(cell: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")
    pytest.importorskip("onnx", reason="the package that writes its graphs is an extra")
    decoder, weights = model(cell)
    text = onnx.write(decoder, weights).SerializeToString()
    session = runtime.InferenceSession(text, providers=["CPUExecutionProvider"])
    names = [f"{slot(name)}_{n}" for n in range(2) for name in decoder.architecture.definition.state]
    values = [np.full((1, H), v, np.float32) for _ in range(2) for v in decoder.architecture.definition.state.values()]
    rows = []
    for id_ in (V, *IDS):
        given = {"id": np.array([id_]), **dict(zip(names, values, strict=True))}
        logits, *values = session.run(["logits", *(f"{name}_after" for name in names)], given)
        rows.append(logits[0])
    np.testing.assert_allclose(np.stack(rows), expected(decoder), atol=1e-5)


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
@pytest.mark.parametrize("cell", CELLS)
def test_javascript_computes_what_the_equations_do(cell: str, tmp_path: Path) -> None:
    decoder, weights = model(cell)
    (tmp_path / "step.mjs").write_text(javascript.write(decoder), encoding="utf-8")
    (tmp_path / "run.mjs").write_text(RUN, encoding="utf-8")
    arrays = {name: array.ravel().tolist() for name, array in javascript.weights(decoder, weights).items()}
    (tmp_path / "given.json").write_text(json.dumps({"ids": IDS.tolist(), "weights": arrays}), encoding="utf-8")
    assert NODE is not None
    ran = subprocess.run([NODE, "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(json.loads(ran.stdout), expected(decoder), atol=1e-5)
