"""The figures of a comparison as a table of text."""

from typing import Any

COLUMNS = (  # heading, width; the first is aligned to the left
    ("cell", 0),
    ("hidden", 6),
    ("parameters", 10),
    ("bits/char", 9),
    ("95 % interval", 15),
    ("sd", 6),
    ("perplexity", 10),
    ("behind the best", 28),
    ("char/s", 9),
    ("seconds", 7),
    ("diverged", 8),
)


def table(result: dict[str, Any]) -> str:
    """Return a table of every cell, best first, then of the baselines."""
    from charrnn.compare.outcome import ties

    tied = ties(result)
    behind = {d["b"]: d for d in result["differences"]}
    rows = [
        (
            row["label"],
            f"{row['hidden']:,}",
            f"{row['parameters']:,}",
            f"{row['bits_per_char']:.4f}",
            f"{row['low']:.4f}-{row['high']:.4f}",
            f"{row['sd']:.4f}",
            f"{row['perplexity']:.3f}",
            _behind(behind.get(row["label"]), row["label"] in tied),
            f"{row['chars_per_s']:,}",
            f"{row['seconds']:.1f}",
            f"{row['diverged']} of {row['seeds']}",
        )
        for row in result["cells"]
    ]
    references = [
        (
            reference["name"],
            "",
            "",
            "-" if reference["bits_per_char"] is None else f"{reference['bits_per_char']:.4f}",
            "",
            "",
            "-" if reference["perplexity"] is None else f"{reference['perplexity']:.3f}",
            reference["note"],
        )
        for reference in result["baselines"]
    ]
    first = max(len(row[0]) for row in [*rows, *references])
    widths = [first, *(width for _, width in COLUMNS[1:])]
    heading = _line([name for name, _ in COLUMNS], widths)
    rule = "-" * len(heading)
    lines = [heading, rule, *(_line(row, widths) for row in rows), rule]
    lines += [_line(row[:7], widths) + (f"  {row[7]}" if row[7] else "") for row in references]
    if result["differences"]:
        lines.append(
            "±: 95 % of each difference alone. p, and so what is called a tie: corrected for being several (Holm)."
        )
    return "\n".join(lines)


def _behind(difference: dict[str, Any] | None, tied: bool) -> str:
    if difference is None:
        return "the best"
    p = difference["p_holm"]
    chance = f"p {p:.3f}" if p >= 0.001 else "p < 0.001"
    half = (difference["high"] - difference["low"]) / 2
    return f"{'tie ' if tied else ''}{difference['mean']:+.4f} ±{half:.4f}, {chance}"


def _line(cells: Any, widths: list[int]) -> str:
    first, *rest = cells
    aligned = [f"{first:<{widths[0]}}"] + [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=False)]
    return "  ".join(aligned).rstrip()
