"""What a configuration leaves open, decided once: by rule or by a short measurement, and then written down."""

import math
import os
import time

import torch

from charrnn import cells, engines
from charrnn.engines import cuda
from charrnn.errors import CharRNNError
from charrnn.model import evaluation
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Corpus, Streams
from charrnn.training import checkpoint, sizing
from charrnn.training import speed as engine_choice
from charrnn.training.config import Config

DEFAULT_BUDGET_SECONDS = 180.0
VALIDATIONS = 20  # in a run, unless that would cost more than 1 / VALIDATION_SHARE of it
VALIDATION_SHARE = 25
PATIENCE = 5
PROBE_SECONDS = 0.5
WORTH_MEASURING_SECONDS = 20.0  # a run this long repays the seconds that comparing engines takes


def resolve(config: Config, corpus: Corpus) -> Config:
    """The same configuration with everything decided but the steps of a budget, which the run itself will time.

    Raises CharRNNError for a device that is not there or an engine that cannot run the cell.
    """
    device = _device(config.device)
    if not config.plan and config.budget is None and config.steps is None and config.epochs is None:
        config = config.replace(budget=DEFAULT_BUDGET_SECONDS)
    asked = config
    config = config.replace(
        fingerprint=corpus.text.fingerprint,
        device=device,
        precision=_precision(device) if config.precision == "auto" else config.precision,
        engine=_likely_engine(config, device),
        threads=config.threads or torch.get_num_threads(),
    )
    if config.plan:
        return config
    characters = corpus.characters("train")
    speed = products_per_s(config, corpus)
    config = sizing.decide(config, corpus.tokenizer, characters, speed)
    _refuse_what_does_not_fit(config, corpus)
    config = _with_fastest_engine(config, asked, corpus, speed)
    if config.patience is None:
        config = config.replace(patience=PATIENCE if config.budget else 0)
    if config.budget:
        return config
    steps = config.steps
    if config.epochs is not None:
        steps = max(1, round(config.epochs * steps_per_epoch(config, corpus)))
    assert steps is not None
    return planned(config, corpus, since=0, steps=steps)


def moved(config: Config, device: str | None = None) -> tuple[Config, tuple[str, ...]]:
    """The configuration that goes on with a resolved one on a device, and what the user should know about it.

    device: 'cpu', 'cuda' or 'auto'; the configuration's own, where it is here, when None or 'auto'.
    Raises CharRNNError for a device that was asked for and is not here.
    """
    asked = None if device == "auto" else device
    here = config.device == "cpu" or torch.cuda.is_available()
    device = _device(asked or (config.device if here else "cpu"))
    if device == config.device:
        return config, ()
    cell = cells.get(config.cell)
    known = engines.names_for(cell, device)
    engine = config.engine if config.engine in known else known[0]
    why = "" if asked else f"there is no {config.device.upper()} device here: "
    note = f"{why}goes on on {device} with the {engine} engine, where the last bits of the results differ"
    return config.replace(device=device, engine=engine, measured_us={}), (note,)


def _device(device: str) -> str:
    """'cpu' or 'cuda' for 'auto', by what is there; raises CharRNNError for one that is not."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise CharRNNError("there is no CUDA device here", "use --device cpu or auto")
        cuda.prepare()
    return device


def _likely_engine(config: Config, device: str) -> str:
    """The engine asked for; else what will probably be chosen, so that the sizes fit the speed there will be."""
    cell = cells.get(config.cell)
    if config.engine == "auto" and (config.budget or 0) >= WORTH_MEASURING_SECONDS:
        for engine in engines.engines(cell, device):
            if engine.compiles:
                return engine.name
    return engines.choose(cell, config.engine, device).name


def _with_fastest_engine(config: Config, asked: Config, corpus: Corpus, speed: float) -> Config:
    """The configuration with engine and precision measured, where they were left open and the run is long enough.

    speed: multiply-adds a second, as from `products_per_s`.
    """
    if config.device != "cpu" or "auto" not in (asked.engine, asked.precision):
        return config
    architecture = checkpoint.architecture(config, corpus.tokenizer)
    steps = config.steps or (config.epochs or 0) * steps_per_epoch(config, corpus)
    characters = steps * config.batch * config.window
    if (config.budget or characters / sizing.chars_per_s(architecture, speed)) < WORTH_MEASURING_SECONDS:
        return config
    weights = architecture.initial(config.seed, config.uniform)
    precision = asked.precision
    if precision == "auto" and _bf16_share() > 1:  # without bf16 units, each of its products takes ten times as long
        precision = "float32"
    seconds = engine_choice.measure(architecture, weights, config.batch, config.window, asked.engine, precision)
    engine, precision = engine_choice.fastest(seconds)
    measured = {" ".join(candidate): round(1e6 * s) for candidate, s in seconds.items()}
    return config.replace(engine=engine, precision=precision, measured_us=measured)


def _refuse_what_does_not_fit(config: Config, corpus: Corpus) -> None:
    """Raise CharRNNError for a model that this machine's memory cannot hold while it is trained."""
    needed = sizing.memory_bytes(config, checkpoint.architecture(config, corpus.tokenizer))
    if config.device == "cuda":
        there = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()  # what other processes leave
    elif hasattr(os, "sysconf"):
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    if needed > there:
        raise CharRNNError(
            f"training hidden {config.hidden} x {config.layers}, batch {config.batch}, window {config.window} needs "
            f"about {needed / 2**30:,.0f} GB of memory; there are {there / 2**30:,.0f} GB",
            "choose a smaller --hidden, --batch or --window",
        )


def products_per_s(config: Config, corpus: Corpus) -> float:
    """Multiply-adds a second of this machine in training, by a few small steps of the cell in question."""
    small = config.replace(hidden=min(config.hidden or 256, 512), layers=1, embedding=None, tie=False)
    architecture = checkpoint.architecture(small, corpus.tokenizer)
    model = CharRNN(architecture, architecture.initial(config.seed), config.engine).to(config.device)
    ids = torch.zeros((16, 32), dtype=torch.int64, device=config.device)
    times: list[float] = []
    until = time.perf_counter() + PROBE_SECONDS
    with cuda.repeatable(config.device, tf32=config.precision == "bf16"):  # as fast as training, not faster
        # The least: other work comes and goes.
        while len(times) < 3 or (time.perf_counter() < until and len(times) < 20):
            cuda.wait(config.device)
            began = time.perf_counter()
            with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
                logits, _ = model(ids, model.start(32))
            torch.autograd.backward(logits.float().sum())
            cuda.wait(config.device)
            times.append(time.perf_counter() - began)
    return 3 * architecture.count() * ids.numel() / min(times)


def steps_per_epoch(config: Config, corpus: Corpus) -> int:
    """Updates in one pass over the training part."""
    return Streams(corpus.ids("train"), config.batch, config.window, corpus.tokenizer.size).steps_per_epoch


def planned(config: Config, corpus: Corpus, since: int, steps: int) -> Config:
    """The configuration with `steps` in all, decided when `since` were done, and with validations spread over them.

    Validation stays under 1 / VALIDATION_SHARE of the run; reading an id costs about a third of learning from it.
    """
    config = config.with_plan(since, steps)
    if config.validate_every is not None:
        return config
    ids = min(len(corpus.parts["val"]), evaluation.ESTIMATE_IDS)
    cost_in_steps = ids / (3 * config.batch * config.window)
    every = max(math.ceil(steps / VALIDATIONS), math.ceil(cost_in_steps * VALIDATION_SHARE))
    return config.replace(validate_every=max(1, min(steps, every)))


def _precision(device: str) -> str:
    """bf16 where its products are clearly faster than float32's, by a short measurement."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if _bf16_share() < 0.7 else "float32"


def _bf16_share() -> float:
    """How long a bf16 product takes on this CPU, as a share of the float32 one's time."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(64, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] / seconds[torch.float32]
