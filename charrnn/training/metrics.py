"""metrics.jsonl and timings.jsonl: a line for each validation. What repeats exactly is apart from what does not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charrnn import files, strict_json
from charrnn.errors import CharRNNError
from charrnn.training.json_fields import Check, first_wrong, is_count, is_number, or_null
from charrnn.training.run_files import RESTORE, opened

MOST_LINE_BYTES = 1 << 16
METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
FIELDS: dict[str, dict[str, Check]] = {
    METRICS: {
        "step": is_count,
        "characters": is_count,
        "lr": or_null(is_number),
        "train_nats": or_null(is_number),
        "val_nats": or_null(is_number),
    },
    TIMINGS: {"step": is_count, "seconds": is_number},
}


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a file."""
    files.append(path, (strict_json.dumps(row) + "\n").encode())


def rows(path: Path, checked: bool = True) -> list[dict[str, Any]]:
    """Read the lines of a file; one that was cut off in the middle, at the end, is none.

    path: its name is METRICS or TIMINGS. checked: whether every figure must be there, not only the step.
    Raises CharRNNError where the file is damaged.
    """
    if not path.exists():
        return []
    fields = FIELDS[path.name] if checked else {"step": is_count}
    found = []
    for number, line in enumerate(_lines(path), 1):
        source = f"line {number} of {path}"
        row = strict_json.loads_object(line, source, RESTORE)
        problem = first_wrong(row, fields)
        if problem:
            raise CharRNNError(f"{source} was changed or damaged: {problem}", RESTORE)
        found.append(row)
    return found


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file, one at a time: a stranger's file may be of any length."""
    with opened(path) as stream:
        while (line := stream.readline(MOST_LINE_BYTES)).endswith(b"\n"):
            yield line[:-1]
        if len(line) == MOST_LINE_BYTES:
            raise CharRNNError(f"{path} was changed or damaged: a line of it does not end", RESTORE)


def truncate(path: Path, step: int) -> None:
    """Forget lines past a step."""
    kept = [row for row in rows(path, checked=False) if row["step"] <= step]
    files.write_atomically(path, "".join(strict_json.dumps(row) + "\n" for row in kept).encode())
