"""The model: its shape, its computation under autograd, and how well it predicts a text."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "CharRNN":
        from charrnn.model.rnn import CharRNN  # wakes torch, which completing does without

        return CharRNN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
