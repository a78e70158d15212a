"""The OpenMP that torch computes with: its threads, and whether they spin while they wait.

A thread that waits for its next work spins for some milliseconds before it sleeps. On a quiet machine that is fastest.
Where other work wants the same cores, a spinning thread keeps a working one from them. OpenMP reads how long to spin
once, when it is loaded, so it is told otherwise: GNU's spins hardly at all while it has more threads than there are
cores, so more are held, asleep; LLVM's and Intel's have a function.
"""

import ctypes
import re
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch

from charrnn.hardware import cores as cores

OPENMP = re.compile(r"/lib(gomp|omp|iomp5)\b[^/]*$")


@cache
def library() -> Any:
    """Return the one OpenMP that torch loaded, as ctypes has it; None where it is not found."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        return _library_elsewhere()
    loaded = {line.split(maxsplit=5)[-1] for line in lines if OPENMP.search(line)}
    if len(loaded) > 1:  # another package may have brought its own
        loaded = {path for path in loaded if Path(torch.__file__).parent in Path(path).parents}
    if len(loaded) != 1:
        return None
    try:
        return ctypes.CDLL(loaded.pop())
    except OSError:
        return None


def _library_elsewhere() -> Any:
    name, folder = ("libiomp5md.dll", "lib") if sys.platform == "win32" else ("libomp.dylib", "lib")
    try:
        return ctypes.CDLL(str(Path(torch.__file__).parent / folder / name))
    except OSError:
        return None


@cache
def gomp_parallel() -> Any:
    """Return GOMP_parallel(function, its argument, threads, flags), which every OpenMP here has; None where not found.

    Windows: its OpenMP calls functions otherwise.
    """
    function = getattr(library(), "GOMP_parallel", None)
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return function


class Spinning:
    """Whether OpenMP's threads spin while they wait, for the thread that asks. They do until `stop`."""

    def __init__(self) -> None:
        self._team: _SleepingTeam | None = None
        self._blocktime: int | None = None

    def stop(self) -> None:
        """Let waiting threads sleep at once; nothing happens where OpenMP cannot be told."""
        if self._team is not None or self._blocktime is not None:
            return
        known = library()
        if hasattr(known, "kmp_set_blocktime"):
            self._blocktime = int(known.kmp_get_blocktime())
            known.kmp_set_blocktime(0)
        elif gomp_parallel() is not None:
            self._team = _SleepingTeam()

    def start(self) -> None:
        """Let waiting threads spin again, as they did before `stop`."""
        if self._blocktime is not None:
            library().kmp_set_blocktime(self._blocktime)
        if self._team is not None:
            self._team.end()
        self._team = self._blocktime = None


class _SleepingTeam:
    """A team of OpenMP's threads without work, so many that all its threads together are more than the cores."""

    def __init__(self) -> None:
        # All teams have one leader as OpenMP counts, and the team that works has as many threads as torch says.
        self._threads = max(2, cores() - torch.get_num_threads() + 2)
        self._ends, begun = threading.Event(), threading.Event()
        self._leader = threading.Thread(target=self._lead, args=(begun,), name="charrnn-sleeping", daemon=True)
        self._leader.start()
        begun.wait()

    def _lead(self, begun: threading.Event) -> None:
        gomp_parallel()(_nothing(), None, self._threads, 0)
        begun.set()
        self._ends.wait()  # its team lives as long as it does

    def end(self) -> None:
        self._ends.set()
        self._leader.join()


@cache
def _nothing() -> int:
    """Return the address of a function of one argument that does nothing: free(NULL)."""
    return ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p).value or 0
