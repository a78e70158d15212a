"""On a GPU every cell computes by every engine what it computes on a CPU, and the same bits every time.

    python -m pytest -m gpu tests/test_cuda.py

runs it on one GPU and writes what it measures to gpu-figures.json and gpu-figures.md, or where CHARRNN_GPU_FIGURES
says. CHARRNN_TEST_DEVICE=cpu rehearses it on a machine without one.

Bounds are derived, not chosen: an error is measured against float64, and a GPU may have FACTOR times that of float32
on a CPU, since it adds in another order, and ROUNDINGS roundings more.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CORPUS, config
from gpu_figures import Figures
from numpy.typing import NDArray
from torch import Tensor

from charrnn import api, cells, engines
from charrnn.compiler.trace import state_matrices
from charrnn.engines import cuda
from charrnn.errors import CharRNNError
from charrnn.generate import fastest
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Sampling, generate, read_prime
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text import corpus as data
from charrnn.text.corpus import Corpus
from charrnn.training import loop, resolve, speed
from charrnn.training.events import Finished, Started, Stopped
from charrnn.training.optimizers import OPTIMIZERS
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of
from charrnn.training.trainer import Trainer

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parent.parent
DEVICE = os.environ.get("CHARRNN_TEST_DEVICE", "cuda")
# Products of float32 the on-chip engine leaves to the loop: tests/test_gpu_speed.py has its own, and KINDS its runs.
PAIRS = [
    (cell, engine)
    for cell in cells.names()
    for engine in engines.names_for(cells.get(cell), "cuda")
    if engine != "triton"
]
ONE_OF_EACH_KIND = {tuple(engines.names_for(cells.get(name), "cuda")): name for name in cells.names()}
KINDS = [(cell, engine) for engines, cell in ONE_OF_EACH_KIND.items() for engine in engines]

CHARS, STEPS, HALF = 3000, 10, 5
SETTINGS: dict[str, Any] = {
    "layers": 2,
    "steps": STEPS,
    "dropout": 0.0,
    "validate_every": 5,
    "split": (0.9, 0.1, 0),
}
TABLES: dict[str, Any] = {"direct": 4, "direct_rows": 512, "direct_rate": 3.0, "direct_dropout": 0.0}
EPS = float(torch.finfo(torch.float32).eps)
FACTOR, ROUNDINGS = 4, 8
SCORE_NATS = 1e-5
CUDNN_ROUNDING = 8 * EPS  # its tanh and sigmoid are not rounded correctly; a rounding of TF32 is 4096 EPS

Expected = Callable[..., tuple[NDArray[Any], float]]  # by cell, rounding and whether there are tables


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Figures:
    path = Path(os.environ.get("CHARRNN_GPU_FIGURES", "gpu-figures.json")).absolute()
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # each writes its own
        path = path.with_stem(f"{path.stem}-{worker}")
    return Figures(path, request.config.invocation_params.args, DEVICE)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A real text, ready to train on."""
    folder = tmp_path_factory.mktemp("text")
    path = folder / "text.txt"
    path.write_text(CORPUS.read_text(encoding="utf-8")[:CHARS], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settled = config(str(path), **SETTINGS)
        source = data.open_text(settled)
        return data.encode(source, data.learn_tokenizer(source, "char", settled.split), settled.split)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """The path of that text."""
    path = tmp_path / "text.txt"
    path.write_text(CORPUS.read_text(encoding="utf-8")[:CHARS], encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long look at the machine's speed before each of many short runs."""
    monkeypatch.setattr(speed, "PROBE_SECONDS", 0.0)


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions by torch on the CPU: compiling for every cell would take minutes."""
    native = pytest.importorskip("charrnn.generate.compiled")

    def refuse(*_: Any) -> None:
        raise CharRNNError("this test does not compile", "")

    monkeypatch.setattr(native, "CompiledDecoder", refuse)


# The same numbers


@pytest.mark.parametrize(("cell", "engine"), PAIRS)
def test_the_first_losses_are_those_of_a_cpu(
    cell: str, engine: str, text: Corpus, expected: Expected, figures: Figures
) -> None:
    began = time.monotonic()
    truth, bound = expected(cell, CUDNN_ROUNDING if engine == "fused" and DEVICE == "cuda" else EPS)
    difference = float(np.abs(losses(text, cell, engine, DEVICE) - truth).max())
    figures.add(cell, engine, time.monotonic() - began, loss_difference=difference, loss_bound=bound)
    assert difference <= bound


@pytest.mark.parametrize(("cell", "engine"), [("nn.GRU", "fused"), ("lstm", "loop"), ("mingru", "scan")])
def test_tables_learn_what_they_learn_on_a_cpu(cell: str, engine: str, text: Corpus, expected: Expected) -> None:
    rounding = CUDNN_ROUNDING if engine == "fused" and DEVICE == "cuda" else EPS
    truth, bound = expected(cell, rounding, True)
    without, _ = expected(cell, rounding)
    assert truth[-1] < without[-1] - 0.1  # they do something
    assert float(np.abs(losses(text, cell, engine, DEVICE, tables=True) - truth).max()) <= bound


def losses(
    text: Corpus,
    cell: str,
    engine: str,
    device: str,
    nudge: int = 0,
    rounding: float = EPS,
    double: bool = False,
    tables: bool = False,
) -> NDArray[Any]:
    """The losses of a run's steps in nats. nudge: a seed, by which every weight starts up to one rounding away."""
    changes = TABLES if tables else {}
    asked = config("unused", cell=cell, engine=engine, device=device, **SETTINGS, **changes)
    machine = Machine(asked, text)
    settled = resolve.resolve(asked, text, machine)
    trainer = Trainer(settled, text)
    if double:
        trainer.model.double()
    rng = np.random.default_rng(nudge)
    with torch.no_grad():
        for weight in trainer.model.weights.values() if nudge else ():
            weight *= torch.tensor(1 + rng.uniform(-rounding, rounding, weight.shape), dtype=weight.dtype)
    with threads_of(settled):
        return np.array([float(trainer.update()) for _ in range(STEPS)])


@pytest.fixture(scope="module")
def expected(text: Corpus) -> Expected:
    """By cell: the losses by the equations in float64, and how far from them float32 may be.

    Three runs on a CPU that begin a rounding apart say how much the steps make of roundings: AdamW divides small
    gradients by themselves. rounding: how inexact the other device is.
    """

    @cache
    def of(cell: str, rounding: float = EPS, tables: bool = False) -> tuple[NDArray[Any], float]:
        truth = losses(text, cell, "loop", "cpu", double=True, tables=tables)
        nudged = (losses(text, cell, "loop", "cpu", nudge, rounding, tables=tables) for nudge in range(3))
        own = max(float(np.abs(each - truth).max()) for each in nudged)
        return truth, FACTOR * own + ROUNDINGS * rounding * float(truth.max())

    return of


@pytest.mark.parametrize(("cell", "engine"), PAIRS)
def test_float32_is_float32(cell: str, engine: str, figures: Figures) -> None:
    """Logits, states and all gradients. Factors rounded to TF32 would be some thousand roundings away."""
    began = time.monotonic()
    truth, bound = exact(cell)
    if engine == "fused" and DEVICE == "cuda":
        bound = by_tf32(cell) / 8  # cuDNN's tanh and sigmoid are no correctly rounded ones; its factors must be
    error = largest_error(outcome(cell, engine, torch.float32, DEVICE), truth)
    figures.add(cell, engine, time.monotonic() - began, float32_error=error, float32_bound=bound)
    assert error <= bound


def test_tf32_rounds_the_factors_of_products_and_float32_does_not() -> None:
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    truth = a.double() @ b.double()
    for precision, least, most in (("float32", 0.0, 1e-6), ("tf32", 1e-5, 2e-3), ("bf16", 0.0, 1e-6)):
        with cuda.repeatable(DEVICE, precision):
            error = float(((a @ b).double() - truth).norm() / truth.norm())
        assert least <= error <= most, precision


@cache
def exact(cell: str) -> tuple[dict[str, Tensor], float]:
    """What `outcome` is in float64, and how far from it float32 may be."""
    truth = outcome(cell, "loop", torch.float64, "cpu")
    own = largest_error(outcome(cell, "loop", torch.float32, "cpu"), truth)
    return truth, FACTOR * own + ROUNDINGS * EPS


@cache
def by_tf32(cell: str) -> float:
    """Give the error that weights of TF32 alone make, 10 bits of a mantissa: products by TF32 make more."""
    rounded = outcome(cell, "loop", torch.float64, "cpu", weights=to_tf32)
    return largest_error(rounded, exact(cell)[0])


def to_tf32(weight: Tensor) -> Tensor:
    bits = weight.float().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32).to(weight.dtype)


def network(cell: str, engine: str, dtype: torch.dtype, device: str) -> CharRNN:
    architecture = Architecture(cell=cell, vocabulary=11, hidden=40, layers=2, embedding=12)
    return CharRNN(architecture, architecture.initial(5), engine).to(device, dtype)


def outcome(
    cell: str, engine: str, dtype: torch.dtype, device: str, weights: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Logits, last states and every gradient after two windows, the second with the state of the first.

    weights: what every weight goes through first.
    """
    model, rng, T = network(cell, engine, dtype, device), np.random.default_rng(1), 12
    if weights is not None:
        with torch.no_grad():
            for weight in model.weights.values():
                weight.copy_(weights(weight))
    ids = torch.tensor(rng.integers(0, 12, (2 * T, 9)), device=device)
    with cuda.repeatable(device):
        _, state = model(ids[:T], model.start(9))
        logits, state = model(ids[T:], tuple(tuple(s.detach() for s in layer) for layer in state))
        last = [s for layer in state for s in layer]
        scale = [torch.tensor(rng.standard_normal(t.shape), dtype=dtype, device=device) for t in (logits, *last)]
        torch.autograd.backward(torch.stack([(a * b).sum() for a, b in zip((logits, *last), scale, strict=True)]).sum())
    found = {"logits": logits.detach()} | {f"state {i}": s.detach() for i, s in enumerate(last)}
    found |= {name: w.grad for name, w in model.weights.items() if w.grad is not None}
    return {name: value.cpu().double() for name, value in found.items()}


def largest_error(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Of all tensors, relative to the norm of each. An engine may give zeros where another says: no gradient."""
    zero = torch.zeros((), dtype=torch.float64)
    pairs = [(found.get(name, zero), truth.get(name, zero)) for name in sorted(set(found) | set(truth))]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.parametrize(("cell", "engine"), PAIRS)
def test_splitting_a_window_changes_nothing_and_neither_do_documents_beside_each_other(
    cell: str, engine: str, figures: Figures
) -> None:
    began, T, B = time.monotonic(), 12, 3
    model = network(cell, engine, torch.float32, DEVICE)
    _, bound = exact(cell)
    ids = np.random.default_rng(2).integers(0, 11, (2 * T, B))
    begins = {0: (0, 7, 19), 1: (0,), 2: (0, 12, 13)}  # by row: where documents begin, with the start token
    for row, places in begins.items():
        ids[list(places), row] = model.architecture.start
    cuts = sorted({place for places in begins.values() for place in places})
    inputs = torch.tensor(ids, device=DEVICE)
    with cuda.repeatable(DEVICE), torch.no_grad():
        whole, last = model(inputs, model.start(B))
        first, state = model(inputs[:T], model.start(B))
        second, state = model(inputs[T:], state)
        together, _ = model(inputs, model.start(B), cuts=cuts)
        alone = torch.stack(
            [
                torch.cat(
                    [
                        model(inputs[a:b, row : row + 1], model.start(1))[0][:, 0]
                        for a, b in zip(places, [*places[1:], 2 * T], strict=True)
                    ]
                )
                for row, places in begins.items()
            ],
            dim=1,
        )
    split = {"logits": torch.cat([first, second])} | {f"{i}": s for i, s in enumerate(sum(state, ()))}
    at_once = {"logits": whole} | {f"{i}": s for i, s in enumerate(sum(last, ()))}
    carried = largest_error(split, at_once)
    documents = largest_error({"logits": together}, {"logits": alone})
    figures.add(cell, engine, time.monotonic() - began, carried_difference=carried, documents_difference=documents)
    assert not torch.allclose(whole, together, atol=1e-3)  # the cuts did something
    assert carried <= bound
    assert documents <= bound


# Runs


@pytest.mark.parametrize(("cell", "engine"), PAIRS)
def test_a_run_resumes_to_the_last_bit_and_moves_between_devices(
    cell: str, engine: str, expected: Expected, corpus: str, tmp_path: Path, figures: Figures, not_compiled: None
) -> None:
    began = time.monotonic()
    asked = config(corpus, cell=cell, engine=engine, device=DEVICE, **SETTINGS)
    whole, parts, moved, back = (Run(tmp_path / name) for name in ("whole", "parts", "moved", "back"))
    finish(loop.new_run(asked, whole))
    stopped(asked, parts)
    shutil.copytree(parts.path, moved.path)
    finish(loop.resume(parts))
    resumed_exactly = same(whole, parts)

    finish(loop.resume(moved, device="cpu"))
    stopped(asked.replace(device="cpu"), back)
    finish(loop.resume(back, device=DEVICE))
    assert (moved.config().device, back.config().device) == ("cpu", DEVICE)
    nats = [run.about()["result"]["val_nats"] for run in (whole, moved, back)]
    moved_difference = max(abs(nats[0] - n) for n in nats[1:])

    models = [api.load(whole, device) for device in ("cpu", DEVICE)]
    passage = CORPUS.read_text(encoding="utf-8")[6000:6400]
    score_difference = abs(models[0].score(passage).nats - models[1].score(passage).nats)
    completions = [model.complete("Re", 40, seed=8) for model in models]  # with 7 a u is 2e-9 from a border
    figures.add(
        cell,
        engine,
        time.monotonic() - began,
        resumed_exactly=resumed_exactly,
        moved_difference=moved_difference,
        score_difference=score_difference,
        same_completion=completions[0] == completions[1],
    )
    assert resumed_exactly
    assert moved_difference <= expected(cell)[1]
    assert score_difference <= SCORE_NATS
    assert completions[0] == completions[1]  # u would have to lie within a rounding of a border


@pytest.mark.parametrize(("cell", "engine"), KINDS)
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_with_dropout_and_any_precision_a_run_resumes_to_the_last_bit(
    cell: str, engine: str, precision: str, corpus: str, tmp_path: Path
) -> None:
    weights = 0.2 if state_matrices(cells.get(cell), {}) else 0.0
    changed = {**SETTINGS, "dropout": 0.3, "weight_dropout": weights, "residual": True, "precision": precision}
    asked = config(corpus, cell=cell, engine=engine, device=DEVICE, **changed)
    whole, parts = (Run(tmp_path / name) for name in ("whole", "parts"))
    finish(loop.new_run(asked, whole))
    stopped(asked, parts)
    finish(loop.resume(parts))
    assert same(whole, parts)
    assert {str(value.dtype) for value in whole.weights("last").values()} == {"float32"}


@pytest.mark.parametrize("orders", [1, 6])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_with_tables_resumes_to_the_last_bit(
    optimizer: str, orders: int, corpus: str, tmp_path: Path, not_compiled: None
) -> None:
    tables = {**TABLES, "direct": orders, "direct_dropout": 0.3}
    asked = config(corpus, device=DEVICE, optimizer=optimizer, **SETTINGS, **tables)
    whole, parts = (Run(tmp_path / name) for name in ("whole", "parts"))
    finish(loop.new_run(asked, whole))
    stopped(asked, parts)
    finish(loop.resume(parts))
    assert same(whole, parts)
    assert np.abs(whole.weights("last")["direct"]).max() > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_goes_on_with_its_moments(optimizer: str, corpus: str, tmp_path: Path) -> None:
    asked = config(corpus, device=DEVICE, optimizer=optimizer, **SETTINGS)
    whole, parts = (Run(tmp_path / name) for name in ("whole", "parts"))
    finish(loop.new_run(asked, whole))
    stopped(asked, parts)
    finish(loop.resume(parts))
    assert same(whole, parts)


@pytest.mark.parametrize(("cell", "engine"), KINDS)
def test_fewer_bits_end_near_float32(cell: str, engine: str, corpus: str, tmp_path: Path) -> None:
    nats = []
    for precision in ("float32", "tf32", "bf16"):
        run = Run(tmp_path / precision)
        changed = {**SETTINGS, "steps": 40, "lr": 1e-2, "validate_every": 40, "precision": precision}
        finish(loop.new_run(config(corpus, cell=cell, engine=engine, device=DEVICE, **changed), run))
        nats.append(run.about()["result"]["val_nats"])
    assert nats[0] == pytest.approx(nats[1], abs=0.01)  # 10 bits after the point
    assert nats[0] == pytest.approx(nats[2], abs=0.05)  # 7 bits: about 1 % of a loss of 3 nats


def test_a_run_of_the_cpus_own_engine_goes_on_with_one_that_a_gpu_has(corpus: str, tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    run = Run(tmp_path / "run")
    stopped(config(corpus, cell="gru", engine="native", device="cpu", **SETTINGS), run)
    told = list(loop.resume(run, device=DEVICE))
    assert isinstance(told[-1], Finished)
    if DEVICE == "cuda":
        (started,) = (report for report in told if isinstance(report, Started))
        assert any("loop engine" in note for note in started.notes)
        assert (run.config().device, run.config().engine) == ("cuda", "loop")


def stopped(asked: Settings, run: Run) -> None:
    """Train half of a run, and save it."""
    calls = iter(range(1, STEPS + 1))
    *_, last = loop.new_run(asked, run, stop=lambda: next(calls) >= HALF)
    assert isinstance(last, Stopped)


def finish(reports: Iterator[Any]) -> None:
    *_, last = reports
    assert isinstance(last, Finished)


def same(a: Run, b: Run) -> bool:
    """Whether two runs have the same files to the last bit: models, moments, carried state, metrics."""
    files = [{which: file["sha256"] for which, file in run.about()["files"].items()} for run in (a, b)]
    return files[0] == files[1] and a.rows("metrics.jsonl") == b.rows("metrics.jsonl")


# Commands, budgets, completions


def test_the_commands_do_it_in_a_process_of_their_own(corpus: str, home: Path, figures: Figures) -> None:
    """cuBLAS looks at its environment once: here nothing but the command itself has set it."""
    environment = {k: v for k, v in os.environ.items() if k != cuda.WORKSPACE}
    environment |= {"CHARRNN_HOME": str(home), "PYTHONIOENCODING": "utf-8"}

    def charrnn(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "cli.py"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)

    sizes = ["--hidden", "24", "--steps", "6", "--precision", "float32"]
    for arguments in (
        ["train", corpus, *sizes, "--device", DEVICE, "--name", "run"],
        ["train", "--resume", "run", "--steps", "8", "--device", "cpu"],
        ["train", "--resume", "run", "--steps", "10", "--device", DEVICE],
        ["sample", "--run", "run", "--prime", "Re", "--chars", "20"],
    ):
        done = charrnn(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    figures.note(commands="train, resume on the CPU and back, sample: ended well")


def test_a_budget_is_kept(corpus: str, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(Path(corpus).parent / "home"))
        began = time.monotonic()
        # So many small steps that no bound on passes through the text ends them sooner.
        model = api.train(CORPUS, hidden=64, batch=4, window=16, budget=10, device=DEVICE)
        took = time.monotonic() - began
    figures.note(seconds_of_a_budget_of_10=round(took, 2))
    assert 6 < took < 11
    assert model.run is not None
    assert model.config.plan[-1][1] == model.run.about()["step"]


@pytest.mark.parametrize("orders", [1, 6])
def test_a_model_with_tables_completes_and_scores_as_its_equations_say(
    orders: int, trained: Callable[..., Run], not_compiled: None
) -> None:
    """Letter for letter, in many rows: u would have to lie within a rounding of a border."""
    model = api.load(trained(device=DEVICE, steps=40, **{**TABLES, "direct": orders}), DEVICE)
    plain, how = Decoder(model.architecture, model.weights, "numpy"), Sampling(seed=8)
    primed = read_prime(plain, model.tokenizer, "Re")
    found = [stream.completion().text for stream in model.completions("Re", 40, how, 64)]
    for n in (0, 1, 40, 63):
        drawn = generate(plain, model.tokenizer, primed, how, n)
        assert "".join(next(drawn).character for _ in range(40)) == found[n], n
    passage = CORPUS.read_text(encoding="utf-8")[6000:6400]
    assert abs(model.score(passage).nats - api.load(model.run, "cpu").score(passage).nats) <= SCORE_NATS


def test_auto_completes_by_what_is_faster_and_gives_the_same_text(
    trained: Callable[..., Run], figures: Figures
) -> None:
    model = api.load(trained(device=DEVICE, hidden=32))
    engine = model.decoder().engine
    by_hand = api.load("run", DEVICE).complete("Re", 40)
    assert model.complete("Re", 40) == by_hand
    seconds = next((s for what, s in fastest.measured.items() if what.startswith("step")), None)
    if DEVICE == "cuda":
        assert seconds is not None
        assert model.decoder().is_compiled == (seconds["CPU"] <= seconds["GPU"])
        assert any("--device cuda" in note for note in model.decoder().notes) == model.decoder().is_compiled
    long = CORPUS.read_text(encoding="utf-8")[: api.COMPILE_IDS + 10]
    scores = [api.load("run", device).score(long).nats for device in ("auto", "cpu", DEVICE)]
    assert max(scores) - min(scores) <= SCORE_NATS
    figures.note(auto_completes_on=engine, seconds_of_32_steps=seconds)
