"""The linear algebra that NumPy computes with, by one thread where more only wait for each other."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDERS = ("../numpy.libs", ".dylibs", ".libs")  # of NumPy's wheels: Linux and Windows, macOS, older ones
NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy's OpenBLAS compute with one thread; then with as many as before.

    Its threads wait busily: beside other work a decomposition takes many times as long with them. Another library is
    left as it is.
    """
    found = functions()
    before = found[0]() if found else 1
    if found:
        found[1](1)
    try:
        yield
    finally:
        if found:
            found[1](before)


@cache
def functions() -> tuple[Any, Any] | None:
    """Find the functions of OpenBLAS that get and set its number of threads."""
    for folder in FOLDERS:
        for path in sorted((Path(np.__file__).parent / folder).glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for name in NAMES:
                if hasattr(library, name.format("set")) and hasattr(library, name.format("get")):
                    return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None
