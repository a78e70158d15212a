"""The bench says what it measured, for any cell; how fast this machine is, is not the tests' business."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from charrnn import cells
from charrnn.bench import bench, bench_decode, bench_encode, bench_machine, bench_onnx, bench_train
from charrnn.errors import CharRNNError
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture
from charrnn.training.settings import Settings

ROOT = Path(__file__).parent.parent
DEFAULT = Settings().cell


@pytest.mark.slow
def test_every_way_to_decode_is_measured_with_its_share_of_the_limit() -> None:
    rows = bench_decode.measure(DEFAULT, 24, 2, 0.1, ("float32", "bf16"))
    engines = [row["engine"] for row in rows]
    at_once = [row["weights"] for row in rows if row["engine"] == "native, 64 at once"]
    assert at_once == ["float32", "bf16"]
    assert {"nn module", "cell loop", "native", "native, 64 at once"} <= set(engines)
    assert any(name.startswith("eager") for name in engines)
    for row in rows:
        assert row["microseconds_per_char"] > 0
        assert (row["share_of_bandwidth"] is not None) == (row["engine"] == "native")
        assert row["ratio_to_plain"] == pytest.approx(rows[0]["microseconds_per_char"] / row["microseconds_per_char"])


def test_plain_loops_compute_what_the_equations_do() -> None:
    """A comparison with loops that compute something else would be worth nothing."""
    import torch

    architecture = Architecture("lstm", 300, 16, 2, 8)
    weights = architecture.initial(seed=3)
    exact, state = Decoder(architecture, weights, "numpy"), None
    ids = np.random.default_rng(0).integers(0, 300, 12)
    state = exact.start()
    expected = []
    for id_ in [0, *ids[:-1]]:
        logits, state = exact.step(np.array([id_]), state)
        expected.append(logits[0])
    with torch.inference_mode():
        model = bench_decode.TorchModel(architecture, weights)
        for make in (bench_decode.module_loop, bench_decode.cell_loop, *bench_decode.eager_loops()):
            seen: list[np.ndarray] = []
            fed = iter(ids)

            def draw(logits: torch.Tensor, seen: list[np.ndarray] = seen, fed: object = fed) -> torch.Tensor:
                seen.append(logits.numpy().ravel().copy())
                return torch.full((*logits.shape[:-1], 1), int(next(fed)))  # type: ignore[call-overload]

            model.draw = draw  # type: ignore[method-assign, assignment]
            make(model)(len(ids))
            np.testing.assert_allclose(seen, expected, atol=1e-5)


@pytest.mark.skipif(not bench_onnx.available(), reason="ONNX Runtime is an extra")
def test_the_onnx_graph_computes_what_the_equations_do() -> None:
    architecture = Architecture(DEFAULT, 300, 16, 2, 8)
    weights = architecture.initial(seed=3)
    session = bench_onnx.session(architecture, weights, 1)
    exact = Decoder(architecture, weights, "numpy")
    logits, _ = exact.step(np.array([5]), exact.start())
    given = {each.name: np.zeros((1, 16), np.float32) for each in session.get_inputs()[1:]}
    found = session.run(["logits"], {"id": np.array([5]), **given})[0]
    np.testing.assert_allclose(found, logits, atol=1e-5)


def test_training_and_encoding_are_measured() -> None:
    rows = bench_train.measure(DEFAULT, 8, 1, 2, 4, 0.01, {"float32": 100.0, "bf16": 100.0})
    assert {row["engine"] for row in rows} >= {"nn module", "fused", "loop"}
    assert all(row["chars_per_s"] > 0 for row in rows)
    assert {row["engine"] for row in bench_encode.measure(0.01)} == {"charrnn", "tokenizers", "dictionary"}


def test_a_cell_that_is_no_torch_layer_is_measured_against_the_nearest_one() -> None:
    gru = bench_train.nearest_torch_layer(cells.get("gru")).twin
    assert gru is not None
    assert gru.layer == "GRU"
    for name in cells.names():
        module = bench_train.nearest_torch_layer(cells.get(name))
        assert module.twin is not None
        assert module.name == name or cells.get(name).twin is None
    rows = bench_train.measure("gru", 8, 1, 2, 4, 0.01, {"float32": 100.0, "bf16": 1.0})
    assert {row["precision"] for row in rows} == {"float32"}
    assert [row["ratio_to_plain"] for row in rows if row["engine"] == "nn module"] == [1.0]


def test_turns_are_taken() -> None:
    order: list[str] = []
    bench_machine.seconds_of({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0, at_least=3)
    assert "".join(order) == "abababab"


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(CharRNNError, match="hidden is 0"):
        next(bench.run("decode", DEFAULT, hidden=0))
    with pytest.raises(CharRNNError, match="no cell"):
        next(bench.run("decode", "lstn"))


def test_a_gpu_is_measured_in_training_and_decoding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here others stand in for it: tests/on_gpu.py measures a real one."""
    from charrnn.bench import bench_cuda

    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(bench.devices, "resolve", lambda device: device)
    monkeypatch.setattr(bench_cuda, "machine", lambda: {"gpu": "one"})
    for name in ("train", "decode"):
        monkeypatch.setattr(bench_cuda, name, lambda *sizes, name=name: asked.append((name, *sizes)) or [])
    assert [kind for kind, _ in bench.run("all", "lstm", layers=3, device="cuda")] == ["machine", "train", "decode"]
    assert asked == [("train", "lstm", 512, 3, 64, 128), ("decode", "lstm", 512, 3)]
    with pytest.raises(CharRNNError, match="serve is not measured on a GPU"):
        next(bench.run("serve", "lstm", device="cuda"))


def test_the_figures_of_a_gpu_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from charrnn.bench import bench_cuda
    from charrnn.cli.bench import command

    row = {"cell": "lstm", "engine": "fused", "milliseconds": 5.7, "ratio_to_bare": 0.97, "problem": None}
    refused = {**dict.fromkeys(row), "cell": "lstm", "engine": "scan", "problem": "it cannot be recorded"}
    monkeypatch.setattr(bench.devices, "resolve", lambda device: device)
    limits = {"gpu": "one", "torch": "2", "tflops": {"bf16": 893.1}, "read_gb_per_s": 4189.4}
    monkeypatch.setattr(bench_cuda, "machine", lambda: limits)
    monkeypatch.setattr(bench_cuda, "train", lambda *_: [row, refused])
    said = CliRunner().invoke(command, ["train", "--device", "cuda"], catch_exceptions=False).output
    assert "one, torch 2: products bf16 893 TFLOP/s; reading 4,189 GB/s" in said
    assert "0.97x" in said
    assert "it cannot be recorded" in said


@pytest.mark.timing
def test_a_quick_bench_takes_less_than_a_minute_and_is_read_by_programs() -> None:
    command = [sys.executable, "cli.py", "bench", "--quick", "--json"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)  # compiles
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=60)
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"machine", "train", "decode", "encode", "serve"}
    assert all(result.values())


@pytest.mark.slow
def test_a_server_is_measured_for_few_clients_and_many() -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from charrnn.bench import bench_serve

    rows = bench_serve.measure(DEFAULT, 24, 1, 0.5)
    assert [(row["clients"], row["answers"]) for row in rows] == [
        (clients, answers) for clients in (1, 8, 64) for answers in ("whole", "streamed")
    ]
    for row in rows:
        assert 128 <= row["chars_per_s"] / row["completions_per_s"] < 385
        assert (row["first_char_ms"] is not None) == (row["answers"] == "streamed")
        assert 0 < row["share_of_rows"] < 2
