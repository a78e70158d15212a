"""Character-level text completion with recurrent networks: every cell is its equations, written once.

    import charrnn
    model = charrnn.train("corpus.txt", cell="gru", budget="3m")
    model = charrnn.load("checkpoints/NAME")
    model.complete("Rekurentne", chars=200, temperature=0.8, seed=7)
    both = charrnn.ensemble("checkpoints/NAME", "checkpoints/OTHER")

Everything is imported where it is first used, so that `import charrnn` and `--help` cost next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from charrnn import renamed

__version__ = "0.1.0"
renamed.install()

if TYPE_CHECKING:
    from charrnn import cells as cells
    from charrnn.api import Ensemble as Ensemble
    from charrnn.api import TextModel as TextModel
    from charrnn.api import ensemble as ensemble
    from charrnn.api import from_torch as from_torch
    from charrnn.api import load as load
    from charrnn.api import resume as resume
    from charrnn.api import train as train
    from charrnn.cells import run as run
    from charrnn.compare.results import Comparison as Comparison
    from charrnn.compare.results import compare_cells as compare_cells
    from charrnn.compare.results import load_comparison as load_comparison
    from charrnn.errors import CharRNNError as CharRNNError
    from charrnn.training.config import Config as Config
    from charrnn.training.settings import Settings as Settings

_HOME = {  # public name -> the module that defines it
    "CharRNNError": "charrnn.errors",
    "Comparison": "charrnn.compare.results",
    "Config": "charrnn.training.config",
    "Ensemble": "charrnn.api",
    "Settings": "charrnn.training.settings",
    "TextModel": "charrnn.api",
    "compare_cells": "charrnn.compare.results",
    "ensemble": "charrnn.api",
    "from_torch": "charrnn.api",
    "load": "charrnn.api",
    "load_comparison": "charrnn.compare.results",
    "resume": "charrnn.api",
    "run": "charrnn.cells",
    "train": "charrnn.api",
}


def __getattr__(name: str) -> Any:
    if name == "cells":
        return importlib.import_module("charrnn.cells")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'charrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "cells", *_HOME])
