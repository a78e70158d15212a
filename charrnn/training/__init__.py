"""Training: what was asked, what was decided, the one loop, and the run on disk."""

from typing import Any

_OF_THE_LOOP = ("new_run", "open_run", "resume")


def __getattr__(name: str) -> Any:
    if name in _OF_THE_LOOP:
        from charrnn.training import loop  # wakes torch, which reading a run does without

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
