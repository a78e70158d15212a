"""Modules under the names they had before they moved, for programs and files of cells that import them so."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "charrnn.cell": "charrnn.cells.cell",
    "charrnn.ops": "charrnn.cells.ops",
    "charrnn.initialisation": "charrnn.cells.initialisation",
    "charrnn.tokenizer": "charrnn.text.tokenizer",
    "charrnn.data": "charrnn.text.corpus",
    "charrnn.architecture": "charrnn.model.architecture",
    "charrnn.evaluation": "charrnn.model.evaluation",
    "charrnn.torch_layers": "charrnn.model.torch_layers",
    "charrnn.config": "charrnn.training.config",
    "charrnn.reports": "charrnn.training.events",
    "charrnn.checkpoint": "charrnn.training.checkpoint",
    "charrnn.text_model": "charrnn.api",
    "charrnn.completing": "charrnn.generate",
    "charrnn.completing.sampling": "charrnn.generate.sampling",
    "charrnn.completing.candidates": "charrnn.generate.candidates",
    "charrnn.completing.primes": "charrnn.generate.primes",
    "charrnn.completing.transliteration": "charrnn.generate.transliteration",
    "charrnn.cli.terminal": "charrnn.terminal",
    "charrnn.cli.progress": "charrnn.reporting.bars",
    "charrnn.compare.ngram": "charrnn.text.ngram",
}


class _Finder:
    """A finder of renamed modules under their former names: the same object, imported once."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave a placeholder to Python, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        name = module.__spec__.name
        sys.modules[name] = importlib.import_module(MODULES[name])


def install() -> None:
    """Let the former names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
