"""Other programs' forms of a model: ONNX Runtime and Node compute what the equations do, for every cell."""

import json
import shutil
import subprocess
from collections.abc import Sequence
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
from charrnn.text import contexts

EXAMPLES = ("lstm", "layernorm-lstm", "slstm")  # of one kind each: what they are made of, the table's tests try
CELLS = [name if name in EXAMPLES else pytest.param(name, marks=pytest.mark.slow) for name in cells.names()]
V, H, CHARACTERS = 30, 16, 500
IDS = np.random.default_rng(1).integers(0, V, CHARACTERS)
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")
RUN = """
import { readFileSync } from "node:fs";
import { start, startId, step, vocabulary } from "./step.mjs";
const { ids, weights } = JSON.parse(readFileSync("given.json", "utf8"));
for (const name in weights) {
  weights[name] = (name === "direct.rows" ? Int32Array : Float32Array).from(weights[name]);
}
const state = start(), logits = new Float32Array(vocabulary), all = [];
for (const id of [startId, ...ids]) { step(weights, state, id, logits); all.push(Array.from(logits)); }
console.log(JSON.stringify(all));
"""


def model(cell: str) -> tuple[Decoder, Any]:
    """A model of two residual layers. Its weights are small, so that roundings fade as they do in a trained one."""
    architecture = Architecture(cell=cell, vocabulary=V, hidden=H, layers=2, embedding=8, residual=True)
    weights = {name: value / 2 for name, value in architecture.initial(seed=3).items()}
    return Decoder(architecture, weights, "numpy"), weights


def with_tables(N: int, V: int = 270, R: int = 50) -> tuple[Decoder, Any]:
    """A model with direct connections, of whose tables every third row is zero, as rows are that no text has."""
    architecture = Architecture("simple", V, 5, embedding=4, direct=N, direct_rows=R)
    weights = dict(architecture.initial(seed=3))
    weights["direct"] = np.random.default_rng(4).normal(size=weights["direct"].shape).astype(np.float32)
    weights["direct"][::3] = 0
    return Decoder(architecture, weights, "numpy"), weights


def documents(V: int) -> list[int]:
    """Ids of two documents, each after a start token: what stands before one is forgotten by direct connections."""
    first, second = np.random.default_rng(2).integers(0, V, (2, 60)).tolist()
    return [V, *first, V, *second]


def expected(decoder: Decoder, ids: Sequence[int] = (V, *IDS)) -> NDArray[np.float32]:
    """Logits after every id, (T, V)."""
    return decoder.logits(np.array(ids), decoder.start())[0]


@pytest.mark.parametrize("cell", CELLS)
def test_onnx_runtime_computes_what_the_equations_do(cell: str) -> None:
    decoder, weights = model(cell)
    np.testing.assert_allclose(by_onnx(decoder, weights, (V, *IDS)), expected(decoder), atol=1e-5)


@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize("V", [30, 270])  # bytes have no columns where there are others
def test_onnx_runtime_adds_the_rows_of_direct_connections(N: int, V: int) -> None:
    decoder, weights = with_tables(N, V)
    found = by_onnx(decoder, weights, documents(V))
    np.testing.assert_allclose(found, expected(decoder, documents(V)), atol=1e-5)


def by_onnx(decoder: Decoder, weights: Any, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits after every id, by ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")
    pytest.importorskip("onnx", reason="the package that writes its graphs is an extra")
    text = onnx.write(decoder, weights).SerializeToString()
    session = runtime.InferenceSession(text, providers=["CPUExecutionProvider"])
    architecture = decoder.architecture
    cell, L, H, N = architecture.definition, architecture.layers, architecture.hidden, architecture.direct
    names = [f"{slot(name)}_{n}" for n in range(L) for name in cell.state]
    values = [np.full((1, H), v, np.float32) for _ in range(L) for v in cell.state.values()]
    if N > 1:
        names.append("ids_before")
        values.append(np.full((1, N - 1), architecture.start))
    rows = []
    for id_ in ids:
        given = {"id": np.array([id_]), **dict(zip(names, values, strict=True))}
        logits, *values = session.run(["logits", *(f"{name}_after" for name in names)], given)
        rows.append(logits[0])
    return np.stack(rows)


@needs_node
@pytest.mark.parametrize("cell", CELLS)
def test_javascript_computes_what_the_equations_do(cell: str, tmp_path: Path) -> None:
    decoder, weights = model(cell)
    np.testing.assert_allclose(by_node(decoder, weights, IDS, tmp_path), expected(decoder), atol=1e-5)


@needs_node
@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize("V", [30, 270])
def test_javascript_adds_the_rows_of_direct_connections(N: int, V: int, tmp_path: Path) -> None:
    decoder, weights = with_tables(N, V)
    first, *ids = documents(V)
    found = by_node(decoder, weights, ids, tmp_path)
    np.testing.assert_allclose(found, expected(decoder, [first, *ids]), atol=1e-5)
    assert len(javascript.weights(decoder, weights)["direct"]) == np.any(weights["direct"], axis=1).sum()


@needs_node
def test_javascript_finds_the_row_where_its_numbers_are_not_exact(tmp_path: Path) -> None:
    # R rows with h R = -1 modulo 2^31: a double of a product so large is that of the row that follows.
    V, modulus, P, Q = 257, contexts.MASK + 1, contexts.P, contexts.Q
    hashes = {(a, b): (P * (Q * (b + 1)) + Q * (a + 1)) % modulus for a in range(V) for b in range(V)}
    each = ((pow(-h, -1, modulus), h, ids) for ids, h in hashes.items() if h % 2)
    R, h, (before, last) = min((R, h, (a, b)) for R, h, (a, b) in each if h * R > 1 << 53)
    assert float(h * R) // modulus == h * R // modulus + 1
    architecture = Architecture("simple", V, 2, embedding=2, direct=2, direct_rows=R)
    weights = dict(Architecture("simple", V, 2, embedding=2).initial(seed=3))
    weights["direct"] = np.zeros((2 * R, 1), np.float32)
    weights["direct"][R + h * R // modulus] = 3
    decoder = Decoder(architecture, weights, "numpy")
    found, wanted = by_node(decoder, weights, [before, last], tmp_path), expected(decoder, [V, before, last])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted[2, 256] > 2


def by_node(decoder: Decoder, weights: Any, ids: Sequence[int], folder: Path) -> Any:
    """Logits after the start token and every id, by Node."""
    (folder / "step.mjs").write_text(javascript.write(decoder), encoding="utf-8")
    (folder / "run.mjs").write_text(RUN, encoding="utf-8")
    arrays = {name: array.ravel().tolist() for name, array in javascript.weights(decoder, weights).items()}
    (folder / "given.json").write_text(json.dumps({"ids": list(map(int, ids)), "weights": arrays}), encoding="utf-8")
    assert NODE is not None
    ran = subprocess.run([NODE, "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
