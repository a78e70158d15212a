"""What is decided about devices, with a GPU that is not there: tests/test_cuda.py has what only a real one can show."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config, decided
from torch import Tensor

from charrnn import api, cells, devices, engines
from charrnn.api import TextModel
from charrnn.engines import cuda, fused, mps
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate import decoders, fastest
from charrnn.model.architecture import Architecture, Weights
from charrnn.training import loop, pacing, resolve
from charrnn.training.config import Config
from charrnn.training.events import Finished, Started, Validated
from charrnn.training.optimizers import Optimizer, moment_shapes
from charrnn.training.pacing import Pace
from charrnn.training.run import Run
from charrnn.training.settings import Settings

TWINS = [name for name in cells.names() if cells.get(name).twin]


# The same bits every time


def switches() -> tuple[Any, ...]:
    """What torch was told about sums and precision."""
    backends: Any = torch.backends
    memory: Any = torch.utils.deterministic
    precisions = backends.cudnn.rnn.fp32_precision, backends.cuda.matmul.fp32_precision
    return *precisions, torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory


@pytest.fixture
def no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "refuse_late_preparation", lambda: None)
    monkeypatch.delenv(cuda.WORKSPACE, raising=False)


@pytest.mark.parametrize("matmul", ["highest", "high"])
def test_what_torch_is_told_lasts_as_long_as_the_work(matmul: str, no_product: None) -> None:
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(matmul)
        before = switches()
        with contextlib.suppress(ZeroDivisionError), cuda.repeatable("cuda"):
            assert switches()[0] == "ieee"
            assert switches()[1] != "tf32"
            assert switches()[2:] == (True, False)
            assert os.environ[cuda.WORKSPACE] == ":4096:8"
            with cuda.repeatable("cuda", "bf16"):
                assert switches()[0] == "tf32"
                assert switches()[1] != "tf32"
            assert switches()[0] == "ieee"
            with cuda.repeatable("cuda", "tf32"):
                assert switches()[:2] == ("tf32", "tf32")
                with cuda.repeatable("cuda"):  # as a validation does between two steps
                    assert switches()[0] == "ieee"
                    assert switches()[1] != "tf32"
                assert switches()[:2] == ("tf32", "tf32")
            assert switches()[0] == "ieee"
            assert switches()[1] != "tf32"
            raise ZeroDivisionError
        assert switches() == before
        with cuda.repeatable("cpu"):
            assert switches() == before
    finally:
        torch.set_float32_matmul_precision(precision)


def test_a_process_that_used_cublas_before_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError(f"not deterministic ... {cuda.WORKSPACE}=:4096:8")

    ones = torch.ones
    monkeypatch.setenv(cuda.WORKSPACE, ":0:0")
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    monkeypatch.setattr(torch, "mm", refuse)
    before = switches()
    with pytest.raises(CharRNNError, match=":0:0"), cuda.repeatable("cuda"):
        pytest.fail("the work has begun")
    assert switches() == before


# cuDNN's weights


def flatten(weights: list[Tensor], stride: int, I: int, mode: int, H: int, *rest: Any) -> Tensor:
    """What torch's own function does: moves the weights into one buffer."""
    assert (stride, I, H, rest) == (4, weights[0].shape[1], weights[1].shape[1], (0, 1, False, False))
    assert mode in cuda.MODES.values()
    buffer = torch.cat([w.reshape(-1) for w in weights])
    offset = 0
    for w in weights:
        w.set_(buffer.untyped_storage(), offset, w.shape)  # type: ignore[call-overload]
        offset += w.numel()
    return buffer


@pytest.mark.parametrize("name", TWINS)
def test_weights_in_one_buffer_give_the_same_numbers_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", flatten)
    cell, rng = cells.get(name), np.random.default_rng(0)
    values = [torch.tensor(v, requires_grad=True) for v in cell.initial(rng, 6, 10).values()]
    x = torch.tensor(rng.standard_normal((4, 3, 6)), requires_grad=True)
    state = tuple(torch.zeros(3, 10).double() for _ in cell.state)
    outcomes, addresses = [], []
    original = cuda.in_one_buffer

    def seen(layer: str, weights: list[Tensor]) -> list[Tensor]:
        weights = original(layer, weights)
        addresses.append({w.untyped_storage().data_ptr() for w in weights})
        return weights

    function = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[cell.twin.layer] if cell.twin else ""
    run = getattr(torch, function)
    for acceptable in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda _, answer=acceptable: answer)
        # As on a GPU, where alone the buffer is made.
        monkeypatch.setattr(torch, function, lambda x, h, w, *o: run(x, h, seen(cell.twin.layer, w), *o))  # type: ignore[union-attr]
        y, _ = engines.named("fused").run(cell, x, state, cell.pack(values))
        outcomes.append([y, *torch.autograd.grad(y.square().sum(), [x, *values], allow_unused=True)])
    assert [len(found) for found in addresses] == [4, 1]
    for a, b in zip(*outcomes, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_cudnns_layers_are_not_given_float16() -> None:
    for name in cells.names():
        assert fused.multiplies_bf16(cells.get(name), "cuda") == (name not in TWINS)


@pytest.mark.parametrize(("optimizer", "where"), [("adamw", "meta"), ("rmsprop", "cpu")])
def test_a_fused_optimizer_counts_its_steps_where_the_weights_are(optimizer: str, where: str) -> None:
    options: Any = Settings(optimizer=optimizer, lr=0.1)
    at_work = Optimizer(options, {"w": torch.empty(2, device="meta")})
    saved = {name: torch.zeros(shape) for name, shape in moment_shapes(options, {"w": (2,)}).items()}
    at_work.restore(saved)
    assert {name: value.device.type for name, value in at_work.moments.items()} == {
        name: where if name == "step/w" else "meta" for name in saved
    }


# What is not here


@pytest.mark.parametrize(
    ("built", "driver", "visible", "said", "problem", "hint"),
    [
        (None, True, None, "", "is built without CUDA", "install torch for CUDA"),
        ("13.0", False, None, "", "has no NVIDIA driver", "--device cpu"),
        (
            "13.0",
            True,
            "3",
            "The NVIDIA driver on your system is too old (found version 11040).",
            "its driver is too old for CUDA 13.0",
            "found version 11040",
        ),
        ("13.0", True, "7", "No CUDA GPUs are available", "CUDA_VISIBLE_DEVICES is '7'", "nvidia-smi"),
        ("13.0", True, None, "CUDA unknown error", "torch says: CUDA unknown error", "--device cpu"),
        ("13.0", True, None, "", "the driver shows no GPU", "nvidia-smi"),
    ],
)
def test_why_there_is_no_cuda_is_said(
    built: str | None,
    driver: bool,
    visible: str | None,
    said: str,
    problem: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin() -> None:
        if said:
            raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", begin)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(CharRNNError) as caught:
        devices.resolve("cuda")
    assert "there is no device 'cuda' here" in caught.value.problem
    assert problem in caught.value.problem
    assert hint in caught.value.hint


# A Mac's GPU


def test_a_macs_gpu_is_taken_if_it_computes_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CharRNNError, match="there is no device 'mps' here"):
        devices.resolve("mps")
    outcome, changed = mps.outcome_on, dict[str, float]()

    def on(name: str, device: str) -> dict[str, Tensor]:
        found = outcome(name, "cpu")
        return found if device == "cpu" else {what: value * changed.get(what, 1) for what, value in found.items()}

    whole_numbers = mps.whole_numbers_on("cpu")
    monkeypatch.setattr(mps, "outcome_on", on)
    monkeypatch.setattr(mps, "whole_numbers_on", lambda _: whole_numbers)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    mps.difference.cache_clear()
    assert devices.resolve("mps") == "mps"
    mps.difference.cache_clear()
    changed["the gradient of U"] = 1.01
    with pytest.raises(CharRNNError, match=r"the gradient of U of .* differs by 0\.01 of its norm; use --device cpu"):
        devices.resolve("mps")
    mps.difference.cache_clear()


def test_a_macs_gpu_that_has_whole_numbers_as_float32_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = mps.whole_numbers_on("cpu")
    assert int(exact.max()) > 1 << 61

    def on(device: str) -> Tensor:
        return exact if device == "cpu" else exact.float().long()

    monkeypatch.setattr(mps, "whole_numbers_on", on)
    mps.difference.cache_clear()
    assert mps.difference("mps") == "arithmetic of whole numbers of 64 bits differs"
    mps.difference.cache_clear()


def test_torchs_layers_are_not_used_on_a_macs_gpu() -> None:
    assert engines.names_for(cells.get("lstm"), "mps") == ["loop"]
    assert engines.names_for(cells.get("mingru"), "mps") == ["scan", "loop"]


# Going on elsewhere


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(cuda.WORKSPACE, "")


def on(device: str, engine: str, cell: str = "gru") -> Config:
    return decided(cell=cell, device=device, engine=engine, measured_us={"x y": 1})


@pytest.mark.parametrize(
    ("version", "capability", "has"), [("12.8", (7, 5), False), ("12.8", (8, 0), True), (None, (9, 0), False)]
)
def test_tf32_is_had_where_a_gpu_has_units_for_it(
    version: str | None, capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    if has:
        resolve.refuse_without_tf32("cuda")
        return
    with pytest.raises(OptionError, match="this GPU has no units"):
        resolve.refuse_without_tf32("cuda")


def test_a_run_stays_where_it_is_unless_asked(gpu: None) -> None:
    for asked in (None, "auto"):
        assert resolve.moved(on("cuda", "loop"), asked) == (on("cuda", "loop"), ())
        assert resolve.moved(on("cpu", "native"), asked) == (on("cpu", "native"), ())


def test_a_run_that_moves_takes_an_engine_that_is_there(gpu: None) -> None:
    there, (note,) = resolve.moved(on("cpu", "native"), "cuda")
    assert (there.device, there.engine, there.measured_us) == ("cuda", "loop", {})
    assert "loop engine" in note
    back, (note,) = resolve.moved(on("cuda", "fused", "lstm"), "cpu")
    assert (back.device, back.engine) == ("cpu", "fused")
    assert "last bits" in note


def test_a_run_of_a_gpu_goes_on_without_one_and_says_so(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = Run(tmp_path / "run")
    calls = iter(range(1, 100))
    list(loop.new_run(config(corpus), run, stop=lambda: next(calls) >= 7))
    written = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**written, "device": "cuda", "precision": "tf32"}))
    with pytest.raises(CharRNNError, match="there is no device 'cuda' here"):
        list(loop.resume(run, device="cuda"))
    told = list(loop.resume(run))
    (started,) = (event for event in told if isinstance(event, Started))
    assert any("no CUDA device here: goes on on cpu" in note for note in started.notes)
    assert any("products are float32 here" in note for note in started.notes)
    assert isinstance(told[-1], Finished)
    assert run.config().device == run.about()["result"]["device"] == "cpu"


# The pace


class Device:
    """A clock, and a device that is behind: it does what it was given while it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self._left = 0.0, 0.0
        monkeypatch.setattr(pacing.time, "monotonic", lambda: self.now)

    def give(self, seconds: float) -> None:
        self._left += seconds

    def wait(self) -> None:
        self.now, self._left = self.now + self._left, 0.0


def test_steps_that_a_device_is_still_doing_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pace = Pace(0.0, device.wait)
    for _ in range(12):
        device.give(2.0)
        pace.stepped()
    assert (pace.step_seconds(), pace.timed_steps, pace.training_seconds) == (2.0, 12, 24.0)
    assert pace.steps_in(20.0, None) == 10


def test_a_device_is_waited_for_now_and_then_and_before_a_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pace = Pace(0.0, device.wait)
    for _ in range(4 + 4 + 2):  # the first four one by one, then four together; two are left
        device.give(3.0)
        pace.stepped(every=4)
    assert (pace.timed_steps, pace.seconds(), pace.step_seconds()) == (8, 24.0, 3.0)
    with pace.validating():  # and what it does itself
        assert (pace.timed_steps, pace.seconds()) == (10, 30.0)
        device.give(5.0)
    assert pace.steps_in(3 * 100 + 5 * 11, validate_every=10) == 100
    with pace.aside():
        device.give(7.0)
    device.give(3.0)
    pace.stepped()
    assert pace.training_seconds == 33.0


def test_a_first_step_in_which_work_is_recorded_does_not_shorten_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pace = Pace(0.0, device.wait)
    for seconds in (90.0, *[2.0] * 60):
        device.give(seconds)
        pace.stepped()
    assert pace.steps_in(200.0, None) == 100


def test_what_is_made_of_a_validation_is_not_counted_as_steps(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first passage may take seconds to write, on a GPU more than all steps between two validations."""
    took: list[float] = []
    stepped = Pace.stepped

    def noted(self: Pace, every: int = 1) -> None:
        stepped(self, every)
        took.append(self.last_step_seconds)

    monkeypatch.setattr(Pace, "stepped", noted)
    for event in loop.new_run(config(corpus, steps=4, validate_every=2), Run(Path(corpus).parent / "run")):
        if isinstance(event, Validated):
            time.sleep(1.0)
    assert len(took) == 4
    assert max(took) < 1.0


def test_without_a_device_to_wait_for_every_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pace = Pace(0.0)
    for seconds in (1.0, 2.0, 9.0):
        device.now += seconds
        pace.stepped(every=16)
    assert (pace.timed_steps, pace.step_seconds(), pace.training_seconds) == (3, 2.0, 12.0)


# Which completes


@pytest.fixture
def race(trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., TextModel]:
    """A model on a machine with a CPU and a GPU that take so many seconds for a step."""
    run = trained()

    def start(cpu: float, gpu: float, engine: str = "native", kept: Any = "float32") -> TextModel:
        clock = SimpleNamespace(now=0.0, steps=0)

        def make(architecture: Architecture, weights: Weights, device: str, kept: str) -> Any:
            def step(ids: Any, state: Any) -> tuple[Any, Any]:
                clock.now += cpu if device == "cpu" else gpu
                clock.steps += 1
                return None, state

            return SimpleNamespace(
                device=device,
                engine=engine if device == "cpu" else "torch",
                is_compiled=device == "cpu" and engine == "native",
                step=step,
                start=lambda: None,
                architecture=architecture,
                notes=(),
            )

        monkeypatch.setattr(fastest, "measured", {})
        monkeypatch.setattr(fastest.time, "perf_counter", lambda: clock.now)
        monkeypatch.setattr(decoders, "make", make)
        model = TextModel(run.config(), run.tokenizer(), run.weights(), run, "auto", kept)
        model.decoder()
        assert clock.steps in (0, 2 * decoders.STEPS * (1 + fastest.TURNS))
        taken = clock.steps
        TextModel(run.config(), run.tokenizer(), run.weights(), run, "auto", kept).decoder()
        assert clock.steps == taken  # measured once a process
        return model

    return start


def device_of(model: TextModel) -> str:
    """The device of the stand-in that completes."""
    device: str = vars(model.decoder())["device"]
    return device


def test_auto_completes_by_the_faster_of_cpu_and_gpu(race: Callable[..., TextModel]) -> None:
    slow = race(cpu=0.001, gpu=0.004)
    assert slow.decoder().engine == "native"
    (note,) = slow.decoder().notes
    assert "1 ms a character, the GPU 4 ms" in note
    fast = race(cpu=0.004, gpu=0.001)
    assert (fast.decoder().engine, fast.decoder().notes) == ("torch", ())


def test_auto_does_not_race_where_there_is_no_choice(race: Callable[..., TextModel]) -> None:
    model = race(cpu=0.001, gpu=0.004, engine="torch")  # nothing compiled: torch on a CPU is no match
    assert device_of(model) == "cuda"
    model = race(cpu=0.004, gpu=0.001, kept="int8")
    assert device_of(model) == "cpu"


def test_a_device_that_was_asked_for_is_taken(trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()
    monkeypatch.setattr(decoders, "make", lambda architecture, weights, device, kept: SimpleNamespace(device=device))
    for asked, found in (("cuda", "cuda"), ("cpu", "cpu"), ("auto", "auto")):
        monkeypatch.setattr(api, "resolve_device", lambda asked: "cpu" if asked == "cpu" else "cuda")
        model = api.load(run, asked)
        assert model.device == found
        if asked != "auto":
            assert device_of(model) == asked


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("asked", ["auto", "cpu", "cuda", "tpu"])
def test_a_device_is_what_is_there_or_an_error(asked: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(cuda, "prepare", lambda: prepared.append(True))
    if asked == "tpu" or (asked == "cuda" and not there):
        with pytest.raises(CharRNNError, match=f"there is no device '{asked}' here") as caught:
            devices.resolve(asked)
        assert "--device" in caught.value.hint
    else:
        expected = "cuda" if there and asked != "cpu" else "cpu"
        assert devices.resolve(asked) == expected
        assert bool(prepared) == (expected == "cuda")


@pytest.mark.parametrize("faster", ["CPU", "GPU"])
def test_a_long_text_is_scored_by_what_reads_faster(
    faster: str, trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained()
    asked: list[str] = []

    def seconds(what: str, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
        asked.append(what.split()[0])
        for way in ways.values():
            way()
        return {way: 1.0 if way == faster else 2.0 for way in ways}

    moved_to: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, device: moved_to.append(device) or model)
    monkeypatch.setattr(fastest, "seconds", seconds)
    model = TextModel(run.config(), run.tokenizer(), run.weights(), run, "auto")
    text = "Rekurentne mreže " * 300
    score = model.score(text)
    assert asked == ["score"]
    assert moved_to == ["cuda"] * (1 if faster == "CPU" else 2)
    expected = TextModel(run.config(), run.tokenizer(), run.weights(), run, "cpu").score(text)
    assert score.nats == pytest.approx(expected.nats, abs=1e-5)
