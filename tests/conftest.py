"""Shared by all tests: a home folder of their own, a small corpus, and runs that are quick to train."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from charrnn.interruption import SIGNALS
from charrnn.training import loop
from charrnn.training.config import NO_DIRECT, Config
from charrnn.training.run import Run
from charrnn.training.settings import Settings

CORPUS = Path(__file__).parent.parent / "corpora" / "rekurentne.txt"
# What is compiled for tests is kept from one run of them to the next, and apart from the user's.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parent.parent / ".pytest_cache")
# A job in the background is started with Ctrl-C ignored, and nohup ignores HUP: tests that wait for such a signal, here
# or in a process to which that is handed down, would wait for ever.
for _number in SIGNALS:
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
# Small models are fastest on one thread, and tests that run side by side do not fight over cores.
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels for a GPU run in Python here; Triton looks once, when it is imported
settings.register_profile("charrnn", deadline=None)  # the machine may be shared
settings.load_profile("charrnn")
SMALL = {
    "precision": "float32",
    "hidden": 24,
    "embedding": 12,
    "batch": 4,
    "window": 16,
    "steps": 12,
    "validate_every": 5,
    "warmup": 3,
}


TIERS = {"slow", "long", "timing", "gpu", "browser"}


# Compiling, or a process, for every cell: a few of each kind stand for these, which are known for long. A new cell is
# tried at once.
KNOWN_FOR_LONG = {
    "gru", "gru-after", "indrnn", "minimal-gated", "minlstm", "mogrifier-lstm", "multiplicative-lstm", "nn.LSTM",
    "nn.RNN", "rg-lru", "rnn", "simple", "slstm", "sru",
}  # fmt: skip
COSTLY_FOR_EVERY_CELL = {
    "test_llvm_computes_what_numpy_computes",
    "test_float32_stays_float32_and_within_its_rounding",
    "test_nothing_that_is_given_is_modified",
    "test_gradients_of_the_loop_are_the_numerical_ones",
    "test_scoring_documents_together_is_scoring_each_alone",
    "test_gradients_of_a_window_with_documents_are_the_sum_of_the_documents",
    "test_resuming_in_a_new_process_changes_nothing_at_all",
    "test_with_bf16_products_weights_and_state_stay_float32_and_resuming_stays_exact",
    "test_every_engine_gives_the_loops_gradients",
    "test_a_step_of_few_rows_or_more_is_what_the_equations_say",
    "test_a_score_is_the_same_whatever_the_window",
}


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give costly tests of cells their tier; refuse a test of two tiers, which one of them would run wrongly."""
    for item in items:
        given = getattr(item, "callspec", None)
        values = set() if given is None else {value for value in given.params.values() if isinstance(value, str)}
        if getattr(item, "originalname", None) in COSTLY_FOR_EVERY_CELL and values & KNOWN_FOR_LONG:
            item.add_marker(pytest.mark.long)
        tiers = {mark.name for mark in item.iter_markers()} & TIERS
        if len(tiers) > 1:
            raise pytest.UsageError(f"{item.nodeid} has the marks {', '.join(sorted(tiers))}; leave one")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder for the runs of one test."""
    monkeypatch.setenv("CHARRNN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """The path of a real text of 6,000 characters."""
    path = tmp_path / "text.txt"
    path.write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    return str(path)


@pytest.fixture
def trained(corpus: str, home: Path) -> Callable[..., Run]:
    """Train a small run, whose settings may be changed, to its end; gives the run."""

    def train(name: str = "run", **settings: Any) -> Run:
        settled = config(**{"corpus": corpus, **settings})
        run = loop.open_run(settled, name)
        for _ in loop.new_run(settled, run):
            pass
        return run

    return train


def config(corpus: str | tuple[str, ...], **settings: Any) -> Settings:
    """The configuration of a small run."""
    values = {**SMALL, **settings}
    if {"epochs", "budget"} & set(settings):
        values.pop("steps")
    return Settings(corpus=corpus, **values)  # type: ignore[arg-type]


def decided(**changes: Any) -> Config:
    """A configuration in which nothing is open, of no run in particular."""
    values: dict[str, Any] = {
        "fingerprint": "0" * 64,
        "hidden": 8,
        "layers": 1,
        "dropout": 0.0,
        "weight_dropout": 0.0,
        **NO_DIRECT,
        "bias_smoothing": 0.0,
        "unseen": "learned",
        "batch": 4,
        "window": 16,
    }
    values |= {"lr": 1e-2, "warmup": 3, "patience": 0, "threads": 1}
    values |= {"device": "cpu", "precision": "float32", "engine": "loop"}
    return Config(**{**values, **changes})
