"""A small learning curve as an SVG element, which grows while a run trains: no script, and the letters of the page."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from charrnn.pages.filling import fill

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 560, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 34  # room for the numbers of the axes
TICKS = 5
HIGHEST = 2.2  # times the lowest: what is above is before anything was learned, and is drawn at the edge


def drawn(curves: Mapping[str, Sequence[tuple[float, float]]], most: float, x: str, y: str) -> "Markup":
    """Return an SVG element of curves, by name, of (x, y) points. most: the end of the x axis. x, y: what they are.

    Points that are not finite are left out.
    """
    kept = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    low, high = _range([y for points in kept.values() for _, y in points])
    most = max([most, *(x for points in kept.values() for x, _ in points)]) or 1.0

    def at(point: tuple[float, float]) -> tuple[float, float]:
        share = (min(point[1], high) - low) / (high - low)
        across = LEFT + point[0] / most * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    return fill(
        "curve.svg",
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        lines=[(name, list(map(at, points))) for name, points in kept.items()],
        across=[(at((tick, low))[0], f"{tick:,.10g}") for tick in ticks(0, most)],
        upwards=[(at((0, tick))[1], f"{tick:.3g}") for tick in ticks(low, high)],
        x=x,
        y=y,
    )


def ticks(low: float, high: float) -> list[float]:
    """Return up to about TICKS round numbers from low to high."""
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step * (1 + 1e-9)) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of y, in which the lowest and what is learned after the first steps can be told apart."""
    low = min(values, default=0.0)
    high = max(low + 0.2, min(max(values, default=low), HIGHEST * low))
    return low - 0.05 * (high - low), high
