"""The machines that trained the runs of a comparison, by what each run says of itself."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from charrnn.errors import CharRNNError
from charrnn.training.run import Run


def used(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """List the machines of runs: host, processor, threads, and how many runs each has. None: an older run, unknown."""
    counts: Counter[tuple[Any, Any, Any]] = Counter()
    for run in runs:
        made_with = run.about().get("made_with") or {}
        counts[made_with.get("host"), made_with.get("processor"), made_with.get("threads")] += 1
    rows = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return [
        {"host": host, "processor": processor, "threads": threads, "runs": count}
        for (host, processor, threads), count in rows
    ]


def processors(runs: Iterable[Run]) -> set[str]:
    """Return the kinds of processors that runs were trained on, as far as they say so; those not begun say nothing."""
    return {row["processor"] for row in used(run for run in runs if run.exists()) if row["processor"]}


def refuse_unlike(found: set[str]) -> None:
    """Raise CharRNNError where machines of several kinds would be matched by time."""
    if len(found) > 1:
        raise unlike(found)


def unlike(found: set[str]) -> CharRNNError:
    """Make the error for machines of several kinds that were to be matched by time."""
    return CharRNNError(
        f"equal time was asked for, and these processors are not equally fast: {', '.join(sorted(found))}",
        "use machines of one kind, or --match parameters",
    )


def note(rows: Iterable[dict[str, Any]]) -> str | None:
    """Say that the seconds of a comparison were measured on unlike machines, or None. rows: as from `used`."""
    found = sorted({row["processor"] for row in rows if row["processor"]})
    if len(found) < 2:
        return None
    return f"trained on unlike processors, so its seconds and speeds do not compare: {', '.join(found)}"
