"""Compiled decoders on disk, in the user's cache folder, so that only the first use of a shape has to compile.

Numba keeps compiled code beside the file that a function comes from, and looks at that file alone to see whether it is
stale. So each driver is a file of its own, named by a hash of everything it depends on: its text, the arithmetic it
calls, the versions of what compiles it, and the processor. A name is written once, whole, and never changed.
"""

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent
SOURCES = ("native_math.py", "native_products.py", "native_weights.py")
STAMP = 1_000_000_000  # every driver's time of change: two processes that write the same file write the same stamp

_loaded: dict[str, ModuleType] = {}


def folder() -> Path:
    """Where this user's programs keep what they can make again: charrnn's part of it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "charrnn"


def load(text: str) -> tuple[ModuleType, str | None]:
    """The module of a driver's source, and what the user should know: that it will be compiled anew every time."""
    name = f"charrnn_native_{_key(text)}"
    if name in _loaded:
        return _loaded[name], None
    note = None
    try:
        path = _write(folder(), name, text)
    except OSError as error:
        path = _write(Path(tempfile.mkdtemp(prefix="charrnn-")), name, text)
        note = f"compiled code cannot be kept in {folder()} ({error.strerror}): it is in {path.parent} for now"
    _loaded[name] = _import(name, path)
    return _loaded[name], note


def _key(text: str) -> str:
    import llvmlite
    import llvmlite.binding
    import numba
    import numpy

    parts = [text, sys.version, numba.__version__, llvmlite.__version__, numpy.__version__, platform.machine()]
    parts += [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for source in SOURCES:
        digest.update((PACKAGE / source).read_bytes())
    return digest.hexdigest()[:16]


def _write(place: Path, name: str, text: str) -> Path:
    """The driver's file, written if it is not there; raises OSError where nothing can be kept beside it."""
    path = place / f"{name}.py"
    beside = place / "__pycache__"
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=beside):
        pass
    if not path.exists():
        handle, unfinished = tempfile.mkstemp(dir=place, prefix=f".{name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.utime(unfinished, (STAMP, STAMP))
        os.replace(unfinished, path)
    return path


def _import(name: str, path: Path) -> ModuleType:
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where Numba looks for it when it reads compiled code
    spec.loader.exec_module(module)
    return module
