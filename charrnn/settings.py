"""What a configuration leaves open, decided once: by rule or by a short measurement, and then written down."""

import math
import time

import torch

from charrnn import checkpoint, evaluation, layers
from charrnn.config import Config
from charrnn.data import Corpus, Streams
from charrnn.errors import CharRNNError

DEFAULT_BUDGET_SECONDS = 180.0
VALIDATIONS = 20  # in a run, unless that would cost more than 1 / VALIDATION_SHARE of it
VALIDATION_SHARE = 25


def resolve(config: Config, corpus: Corpus) -> Config:
    """The same configuration with device, precision, engine, threads and, unless there is a budget, length decided.

    Raises CharRNNError for a device that is not there or an engine that cannot run the cell.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise CharRNNError("there is no CUDA device here", "use --device cpu or auto")
    cell = checkpoint.architecture(config, corpus.tokenizer).definition
    config = config.replace(
        fingerprint=corpus.text.fingerprint,
        device=device,
        precision=_precision(device) if config.precision == "auto" else config.precision,
        engine=layers.choose(cell, config.engine),
        threads=config.threads or torch.get_num_threads(),
    )
    if config.plan:
        return config
    steps = config.steps
    if config.epochs is not None:
        steps = max(1, round(config.epochs * steps_per_epoch(config, corpus)))
    if steps is None:
        return config if config.budget else config.replace(budget=DEFAULT_BUDGET_SECONDS)
    return planned(config, corpus, since=0, steps=steps)


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
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(64, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return "bf16" if seconds[torch.bfloat16] < 0.7 * seconds[torch.float32] else "float32"
