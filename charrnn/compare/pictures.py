"""The pictures of a report, as SVG: told apart by colour, by line and by mark, so that they survive grey printing.

matplotlib is an extra, and is used without its global state. Letters: S seeds, P points of a curve, K steps back.
"""

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compare.outcome import Curve
from charrnn.figures import COLOURS, STYLE, drawn, missing
from charrnn.figures import available as available

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1)))
MARKS = "osD^vP*Xh<>"
WIDE_INCHES = (10.2, 4.2)
LABELS_BESIDE, LEGEND_COLUMNS = 12, 4  # of a legend
WIDE = 8  # times from the lowest to the highest: beyond, an axis is logarithmic
FLOOR = 1e-12  # of a logarithmic scale: what is below is as good as nothing
Series = Mapping[str, NDArray[np.float64]]


def require() -> None:
    """Raise CharRNNError where matplotlib is missing."""
    if not available():
        raise missing()


def learning_curves(curves: Mapping[str, Curve]) -> str:
    """Draw validation by characters read and by seconds: the mean over seeds, and a band from lowest to highest."""
    return _svg("curves", WIDE_INCHES, _learning(curves))


def figure_of_learning(curves: Mapping[str, Curve]) -> Any:
    """Return the same picture as a matplotlib Figure."""
    return drawn(_learning(curves), WIDE_INCHES)


def _learning(curves: Mapping[str, Curve]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        bottom, top = _learned([curve.bits for curve in curves.values()])
        for i, (label, curve) in enumerate(curves.items()):
            label += " (above)" if not np.any(curve.bits <= top) else ""
            with warnings.catch_warnings():  # a point that no seed reached has none, and is not drawn
                warnings.simplefilter("ignore", RuntimeWarning)
                middle, low, high = (f(curve.bits, axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
            for axes, x in ((left, curve.characters / 1e6), (right, curve.seconds)):
                axes.plot(x, middle, label=label, **line_style(i, len(x)))
                axes.fill_between(x, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.15, linewidth=0)
        left.set_ylim(bottom, top)
        left.set(xlabel="million characters read", ylabel="validation, bits per character")
        right.set(xlabel="seconds of training")
        _perplexity(right)
        _legend(figure, left)

    return draw


def costs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw bits per character, with their intervals, against parameters and against speed."""
    return _svg("costs", WIDE_INCHES, _costs(rows))


def figure_of_costs(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the same picture as a matplotlib Figure."""
    return drawn(_costs(rows), WIDE_INCHES)


def _costs(rows: Sequence[Mapping[str, Any]]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, name, text in ((left, "parameters", "parameters"), (right, "chars_per_s", "characters per second")):
            for i, row in enumerate(rows):
                bits = row["bits_per_char"]
                error = [[bits - row["low"]], [row["high"] - bits]]
                mark = {"marker": MARKS[i % len(MARKS)], "color": COLOURS[i % len(COLOURS)]}
                axes.errorbar(
                    row[name], bits, error, label=row["label"], linestyle="none", capsize=3, elinewidth=1, **mark
                )
            axes.set_xlabel(text)
            _readable_numbers(axes, [row[name] for row in rows])
        left.set_ylabel("test, bits per character")
        _perplexity(right)
        _legend(figure, left)

    return draw


def gradient_reach(at_start: Series, trained: Series) -> str:
    """Draw the share (K + 1,) of the loss gradient that reaches the state k steps earlier, untrained and trained."""

    def draw(figure: Any) -> None:
        from matplotlib.ticker import FuncFormatter

        left, right = figure.subplots(1, 2, sharey=True)
        for axes, series, title in ((left, at_start, "at initialisation"), (right, trained, "after training")):
            for i, (label, share) in enumerate(series.items()):
                axes.plot(np.where(share < FLOOR, np.nan, share), label=label, **line_style(i, len(share)))
            axes.set(title=title, xlabel="k, steps back", yscale="log", xlim=(-5, len(share) + 4))
        shares = np.concatenate([*at_start.values(), *trained.values()])
        top = float(np.max(shares[np.isfinite(shares)], initial=1.0))  # a diverged model's are not numbers
        left.set_ylim(FLOOR, max(3.0, 2 * top))
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))
        left.set_ylabel("gradient reaching the state k steps back")
        _legend(figure, left)

    return _svg("gradients", (9.5, 4.2), draw)


def copy_reach(reach: Mapping[str, int], longest: int) -> str:
    """Draw the longest gap over which each cell learned to copy; longest: of those that were tried."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        labels = list(reach)[::-1]
        gaps = [reach[label] for label in labels]
        axes.barh(labels, gaps, height=0.6, color=COLOURS[0])
        for i, gap in enumerate(gaps):
            text = f"{gap} or more" if gap == longest else str(gap) if gap else "none"
            axes.text(gap + longest * 0.01, i, text, va="center")
        axes.set(xlabel="longest gap copied over, steps", xlim=(0, 1.15 * longest))
        axes.grid(visible=False, axis="y")

    return _svg("copying", (6.5, 1.2 + 0.3 * len(reach)), draw)


def _perplexity(axes: Any) -> None:
    """Write perplexity on the right of a picture whose height is bits, on the same lines of the grid."""
    from matplotlib.ticker import FuncFormatter

    beside = axes.secondary_yaxis("right")
    beside.yaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"{2**bits:.2f}"))
    beside.set_ylabel("perplexity")


def _learned(curves: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the range of bits in which curves (S, P) differ once something is learned.

    The first third of a curve, and runs that diverged, would hide it: what costs more than twice the least lies
    outside.
    """
    late = [value for bits in curves for value in bits[:, bits.shape[1] // 3 :].ravel() if np.isfinite(value)]
    low = min(late, default=1.0)  # none where every run diverged at once
    high = max(low + 0.1, min(max(late, default=low), 2 * low))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def line_style(i: int, points: int) -> dict[str, Any]:
    """Return how the i-th line looks, with about eight marks along it."""
    every = max(1, points // 8)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[i % len(DASHES)],
        "marker": MARKS[i % len(MARKS)],
        "markevery": (i * every // 8 % every if every > 1 else 0, every),
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def _readable_numbers(axes: Any, values: Sequence[float]) -> None:
    """Write ticks as plain numbers with thousands marked, and do not let an axis blow up a tiny difference."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if max(values) > WIDE * min(values) > 0:
        axes.set(xscale="log", xlim=(min(values) / 1.3, max(values) * 1.3))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    middle, spread = (min(values) + max(values)) / 2, max(values) - min(values)
    spread = max(spread, 0.1 * middle)
    axes.set_xlim(max(0, middle - 0.6 * spread), middle + 0.6 * spread)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _short(value: float) -> str:
    """Write 30 k and 10 M, which stand beside each other where 30,000 and 10,000,000 would not."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _power_of_ten(value: float) -> str:
    """Write 10⁻⁴ as text, which a page shows in its own letters; matplotlib's own way needs shapes."""
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _legend(figure: Any, axes: Any) -> None:
    """Put the legend beside the pictures; one of many lines stands below them, in room that is added for it."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= LABELS_BESIDE:
        figure.legend(handles, labels, loc="outside right upper", handlelength=3.6)
        return
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.22 * math.ceil(len(labels) / LEGEND_COLUMNS))
    figure.legend(handles, labels, loc="outside lower center", handlelength=3.6, ncols=LEGEND_COLUMNS)


def _svg(name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Make an SVG element, the same for the same figures."""
    require()
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}  # ids must differ within a page
    with matplotlib.rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
