"""Pictures by matplotlib, which is an extra, without its global state. A notebook shows the figure that is returned."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

from charrnn.errors import CharRNNError, how_to_install

# Okabe and Ito's (2008), which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text
}
INCHES = (7.2, 3.2)
PIXELS_PER_INCH, SHARPNESS = 90, 2  # in a notebook, and how many dots each pixel has


def available() -> bool:
    """Tell whether matplotlib is there."""
    try:
        import matplotlib.figure  # noqa: F401  # an extra
    except ImportError:
        return False
    return True


def missing() -> CharRNNError:
    """Make the error for a picture where there is no matplotlib."""
    return CharRNNError("pictures need matplotlib", how_to_install("plot"))


def drawn(draw: Callable[[Any], None], inches: tuple[float, float] = INCHES) -> Any:
    """Return a matplotlib Figure that draw(figure) has filled. Raises CharRNNError where matplotlib is missing."""
    if not available():
        raise missing()
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = _picture()(figsize=inches, layout="constrained")
        draw(figure)
    return figure


@cache
def _picture() -> Any:
    """Return matplotlib's Figure, made to show itself: notebooks ask pyplot otherwise, which never saw it."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=SHARPNESS * PIXELS_PER_INCH)
            width, height = (round(inches * PIXELS_PER_INCH) for inches in self.get_size_inches())
            return out.getvalue(), {"width": width, "height": height}

    return Picture
