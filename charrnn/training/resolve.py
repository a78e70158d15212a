"""What was asked becomes what is decided: by rule, or by what was measured of this machine, and then written down."""

import math

import numpy as np
import torch

from charrnn import cells, devices, engines
from charrnn.compiler.trace import state_matrices
from charrnn.engines import cuda
from charrnn.errors import CharRNNError, OptionError
from charrnn.model import evaluation
from charrnn.model.architecture import Architecture
from charrnn.text.corpus import Corpus, Streams
from charrnn.training import sizing, unseen
from charrnn.training.config import Config
from charrnn.training.settings import Plan, Settings
from charrnn.training.speed import Machine, fastest

DEFAULT_BUDGET_SECONDS = 180.0
VALIDATIONS = 20  # in a run, unless that would cost more than 1 / VALIDATION_SHARE of it
VALIDATION_SHARE = 25
PATIENCE = 5
BIAS_SHARE = 0.002  # of the training part, added to its counts for all ids together: docs/results/starts.md
WORTH_MEASURING_SECONDS = 20.0  # a run this long repays the seconds that comparing engines takes


def resolve(settings: Settings, corpus: Corpus, machine: Machine) -> Config:
    """Decide everything that settings leave open, but the steps of a budget, which the run itself will time.

    machine: what this machine can do; it measures only what is asked of it.
    Raises CharRNNError for a model that does not fit into memory, an engine that cannot run the cell, a precision that
    the device has not, and weights to be dropped that the cell has not.
    """
    if settings.precision == "tf32":
        refuse_without_tf32(machine.device)
    if settings.weight_dropout and not state_matrices(cells.get(settings.cell), settings.cell_options):
        problem = f"cell {settings.cell!r} multiplies its state by no matrix, and weight-dropout is for those"
        raise OptionError(problem, "leave out --weight-dropout, or use --dropout")
    asked = settings = with_length(settings)
    settings = settings.replace(
        fingerprint=corpus.text.fingerprint,
        device=machine.device,
        precision=machine.precision,
        engine=machine.engine,
        threads=machine.threads,
    )
    if settings.bias_smoothing is None:
        smoothing = BIAS_SHARE * len(corpus.ids("train")) / corpus.tokenizer.size if settings.uniform is None else 0.0
        settings = settings.replace(bias_smoothing=float(f"{smoothing:.3g}"))
    settings = settings.replace(unseen=unseen.rule(settings))
    if not settings.plan:
        settings = sizing.decide(settings, extent(settings, corpus), lambda: machine.quiet_products_per_s)
    elif settings.direct and not settings.direct_rows:  # asked for beside a plan that was made without any
        epochs = settings.plan[-1].steps / steps_per_epoch(settings, corpus)
        settings = sizing.with_direct(settings, extent(settings, corpus), epochs)
    if settings.patience is None:
        settings = settings.replace(patience=PATIENCE if settings.budget else 0)
    config = Config.decided(settings)
    refuse_what_does_not_fit(config, corpus, machine)
    if config.plan:
        return config
    config = _with_fastest_engine(config, asked, corpus, machine)
    if config.budget:
        return config
    steps = config.steps
    if config.epochs is not None:
        steps = max(1, round(config.epochs * steps_per_epoch(config, corpus)))
    assert steps is not None
    return planned(config, corpus, since=0, steps=steps)


def extent(settings: Settings, corpus: Corpus) -> sizing.Extent:
    """Measure what the rule has to know of a corpus."""
    counts = corpus.counts("train")
    shares = counts[counts > 0] / counts.sum()
    variety = math.exp(-float((shares * np.log(shares)).sum()))
    learned = unseen.learned_ids(settings, corpus)
    return sizing.Extent(corpus.characters("train"), corpus.tokenizer.size, learned, variety)


def refuse_without_tf32(device: str) -> None:
    """Raise OptionError for a device that has no units for TF32."""
    if device != "cuda" or not cuda.has_tf32():
        where = "this GPU has no units for it" if device == "cuda" else f"this trains on {device}"
        raise OptionError(f"precision is tf32, and {where}", "TF32 is NVIDIA's, since Ampere; use float32 or auto")


def with_length(settings: Settings) -> Settings:
    """Give settings the default budget where they set no length. Raises OptionError for a length of nothing."""
    if settings.epochs == 0:  # a config.json may say so, from before it was refused
        raise OptionError("epochs is 0", "expected a number above 0; 0.5 is half of the text")
    if settings.plan or (settings.budget, settings.steps, settings.epochs) != (None, None, None):
        return settings
    return settings.replace(budget=DEFAULT_BUDGET_SECONDS)


def moved(config: Config, device: str | None = None) -> tuple[Config, tuple[str, ...]]:
    """Give the configuration that resumes a run on a device, and what the user should know about it.

    device: 'cpu', 'cuda' or 'auto'; the configuration's own, where it is here, when None or 'auto'.
    Raises CharRNNError for a device that was asked for and is not here.
    """
    asked = None if device == "auto" else device
    here = config.device == "cpu" or getattr(torch, config.device).is_available()
    where = devices.resolve(asked or (config.device if here else "cpu"))
    if where == config.device:
        return config, ()
    cell = cells.get(config.cell)
    known = engines.names_for(cell, where)
    engine = config.engine if config.engine in known else known[0]
    why = "" if asked else f"there is no {config.device.upper()} device here: "
    note = f"{why}goes on on {where} with the {engine} engine, where the last bits of the results differ"
    rounded = config.precision == "tf32" and where != "cuda"
    more = ("TF32 is of NVIDIA's GPUs: products are float32 here",) if rounded else ()
    return config.replace(device=where, engine=engine, measured_us={}), (note, *more)


def planned(config: Config, corpus: Corpus, since: int, steps: int) -> Config:
    """Add a plan: `steps` in all, decided when `since` were done, with validations spread over them.

    Validation stays under 1 / VALIDATION_SHARE of the run; reading an id costs about a third of learning from it.
    How validations are spaced is decided once.
    """
    every = config.validate_every or (config.plan[-1].validate_every if config.plan else None)
    if every is None:
        ids = min(len(corpus.parts["val"]), evaluation.ESTIMATE_IDS)
        cost_in_steps = ids / (3 * config.batch * config.window)
        every = max(math.ceil(steps / VALIDATIONS), math.ceil(cost_in_steps * VALIDATION_SHARE))
        every = max(1, min(steps, every))
    return config.planned(Plan(since, steps, every))


def steps_per_epoch(settings: Settings, corpus: Corpus) -> int:
    """Count the steps of one pass over the training part; batch and window must be decided."""
    return _streams(settings, corpus).steps_per_epoch


def rows(settings: Settings, corpus: Corpus) -> int:
    """Count the rows that the training part is read in; batch and window must be decided."""
    return _streams(settings, corpus).batch


def _streams(settings: Settings, corpus: Corpus) -> Streams:
    assert settings.batch is not None
    assert settings.window is not None
    return Streams(corpus.ids("train"), settings.batch, settings.window, corpus.tokenizer.size)


def _with_fastest_engine(config: Config, asked: Settings, corpus: Corpus, machine: Machine) -> Config:
    """Take the fastest engine, precision and number of threads of those left open, where the run is long enough."""
    if config.device == "mps" or len(machine.candidates(asked)) == 1:
        return config
    architecture = Architecture.of(config, corpus.tokenizer.size)
    steps = config.steps or (config.epochs or 0) * steps_per_epoch(config, corpus)
    characters = steps * config.batch * config.window
    learned = unseen.learned_ids(config, corpus)
    seconds = config.budget or characters / sizing.chars_per_s(architecture, learned, machine.expected_products_per_s)
    if seconds < WORTH_MEASURING_SECONDS:
        return config
    compared = machine.compared(machine.own(config), corpus, asked, seconds)
    engine, precision, threads = fastest(compared)
    measured = {str(candidate): round(1e6 * s) for candidate, s in compared.items()}
    return config.replace(engine=engine, precision=precision, threads=threads, measured_us=measured)


def refuse_what_does_not_fit(config: Config, corpus: Corpus, machine: Machine) -> None:
    """Raise CharRNNError for a model that this machine's memory cannot hold while it is trained."""
    needed = machine.needed_bytes(config)
    there = machine.memory_bytes()
    if there is not None and needed > there:
        raise CharRNNError(
            f"training hidden {config.hidden} x {config.layers}, batch {config.batch}, window {config.window} needs "
            f"about {needed / 2**30:,.0f} GB of memory; there are {there / 2**30:,.0f} GB",
            sizing.smaller(
                config,
                Architecture.of(config, corpus.tokenizer.size),
                "choose a smaller --hidden, --batch or --window",
            ),
        )
