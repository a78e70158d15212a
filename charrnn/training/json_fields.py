"""What values read from JSON must be: checks that name the first wrong one."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63  # a larger one is no float
    return isinstance(value, float) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number from 0 that fits into 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def or_null(check: Check) -> Check:
    """Make a check that null passes too."""
    return lambda value: value is None or check(value)


def first_wrong(values: Mapping[str, Any], fields: Mapping[str, Check]) -> str | None:
    """Name the first field that is missing or of a wrong kind, with its value; None where all are right."""
    return next((shown(name, values.get(name)) for name, good in fields.items() if not good(values.get(name))), None)


def shown(name: str, value: Any) -> str:
    """Say what a field is, for an error."""
    return f"{name} is {repr(value)[:60]}"
