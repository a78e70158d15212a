"""The fastest of several ways to do the same here: found by a short measurement, once a process."""

import time
from collections.abc import Callable, Mapping

TURNS = 3  # of each way, after one that wakes it up; the fastest counts, since other work comes and goes

measured: dict[str, dict[str, float]] = {}  # seconds by way, by what was measured in this process


def seconds(what: str, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the seconds of every way by name, measured in turns; those of the same `what` are measured once."""
    if what not in measured:
        best = dict.fromkeys(ways, float("inf"))
        for turn in range(1 + TURNS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                if turn > 0:
                    best[name] = min(best[name], time.perf_counter() - began)
        measured[what] = best
    return measured[what]
