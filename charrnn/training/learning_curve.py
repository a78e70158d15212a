"""The learning curve of a run, from its history: as a figure, and as the points of a small picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from charrnn import figures
from charrnn.errors import CharRNNError

Points = list[tuple[float, float]]
PARTS = {"train_nats": "training", "val_nats": "validation"}


def points(history: Sequence[Mapping[str, Any]], by: str = "characters") -> dict[str, Points]:
    """Return (x, bits per character) of every part that has figures. by: what x is."""
    found = {
        name: [(float(row[by]), row[part] / math.log(2)) for row in history if row[part] is not None and row["step"]]
        for part, name in PARTS.items()
    }
    return {name: pairs for name, pairs in found.items() if pairs}


def drawn(history: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Return a matplotlib Figure of a history.

    Raises CharRNNError where nothing was validated, and where matplotlib is missing.
    """
    curves = points(history)
    if not curves:
        raise CharRNNError(f"{title} has no learning curve", "train it for some steps; runs of weights alone have none")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for i, (name, pairs) in enumerate(curves.items()):
            mark = {"marker": "os"[i], "markersize": 3.5, "linewidth": 1.5}
            x, y = zip(*pairs, strict=True)
            axes.plot([each / 1e6 for each in x], y, label=name, color=figures.COLOURS[i], **mark)
        axes.set(xlabel="million characters read", ylabel="bits per character", title=title)
        axes.legend()

    return figures.drawn(draw)
