"""Waiting for what other processes and threads do."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.05


def until(told: Callable[[], object], seconds: float = 90) -> None:
    """Wait until something is so; fail where it is not within a generous time."""
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(LOOK_SECONDS)
