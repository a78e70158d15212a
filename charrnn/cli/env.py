"""env: what somebody needs to know who is told of a problem."""

import locale
import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from charrnn import __version__, hardware
from charrnn.cli import options

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
VARIABLES = ("CHARRNN_HOME", "LANG", "LC_ALL", "TERM", "NO_COLOR", "CUDA_VISIBLE_DEVICES", *THREADS)
# Numba compiled once what llvmlite compiles now; who reads the JSON may ask for it.
PACKAGES = ("torch", "numpy", "llvmlite", "numba", "tokenizers", "safetensors", "click", "tqdm")


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """Show versions, processor, threads and paths, for a report of a problem."""
    facts = _facts()
    if as_json:
        options.print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name:<16}{value}")


def _facts() -> dict[str, Any]:
    from charrnn import cells
    from charrnn.home import home
    from charrnn.text import corpora
    from charrnn.training.runs import runs

    return {
        "charrnn": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        "system": platform.platform(),
        "processor": f"{hardware.processor()}, {os.cpu_count()} threads, {hardware.cores()} available",
        **{name: _version(name) for name in PACKAGES},
        **_torch(),
        "package": str(Path(options.__file__).parent.parent),
        "home": str(home().absolute()),
        "runs": len(runs()),
        "corpora": ", ".join(corpora.names()),
        "broken cells": "; ".join(f"{file}: {each.reason}" for file, each in cells.broken().items()) or "none",
        "locale": f"{locale.setlocale(locale.LC_CTYPE)}, file names {sys.getfilesystemencoding()}",
        "output": f"{sys.stdout.encoding}, {'a terminal' if sys.stdout.isatty() else 'no terminal'}",
        "environment": ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "none",
    }


def _torch() -> dict[str, Any]:
    """Return what torch says of itself; where it cannot be imported, that is the problem to report."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of its own that the system cannot load
        return {"torch problem": str(error)}
    cuda = torch.cuda.is_available()
    return {
        "torch threads": torch.get_num_threads(),
        "torch cpu": torch.backends.cpu.get_cpu_capability(),
        "torch libraries": ", ".join(name for name in ("mkl", "mkldnn", "openmp") if _has(torch, name)) or "none",
        "cuda": f"{torch.version.cuda}, {torch.cuda.get_device_name()}" if cuda else "none",
    }


def _has(torch: Any, library: str) -> bool:
    return bool(getattr(torch.backends, library).is_available())


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
