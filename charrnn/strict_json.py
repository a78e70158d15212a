"""JSON as the standard has it, for every file and line that is written here: no NaN, no infinity, no key twice."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from charrnn.errors import CharRNNError
from charrnn.patterns import pattern

_SURROGATE = pattern("[\ud800-\udfff]")
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def dumps(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON; a number that is not finite becomes null.

    A byte of a file's name that is not UTF-8, half a surrogate pair in Python, is written as an escape.
    """
    encoder = _COMPACT if indent is None else json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        written = encoder.encode(value)
    except (TypeError, ValueError):  # a number that is not finite, or a mapping that is no dict
        written = encoder.encode(_finite(value))
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def loads(text: str, lenient: bool = True) -> Any:
    """Read JSON. Raises ValueError for what is none, and for a key that comes twice.

    lenient: NaN and infinities, which older versions wrote into runs that diverged, are read as None; else refused.
    """
    try:
        return (_LENIENT if lenient else _STRICT).decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def loads_object(data: bytes, source: str, hint: str) -> dict[str, Any]:
    """Read a JSON object from UTF-8; raises CharRNNError that names `source` for anything else."""
    try:
        value = loads(data.decode("utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise CharRNNError(f"{source} was changed or damaged: {error}", hint) from None
    if not isinstance(value, dict):
        raise CharRNNError(f"{source} was changed or damaged: it holds no object", hint)
    return value


def _as_none(name: str) -> None:
    """Read NaN or an infinity."""


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, in which no key may come twice: the last one would win unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        raise ValueError(f"{keys.most_common(1)[0][0]!r} comes twice")
    return found


_LENIENT, _STRICT = (
    json.JSONDecoder(object_pairs_hook=_without_repetition, parse_constant=constant)
    for constant in (_as_none, _refused)
)
