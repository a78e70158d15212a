"""Settings as fields of dataclasses: each declared once, with its default, what it accepts and what it means."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import cache
from typing import Any

from charrnn.errors import CharRNNError, OptionError, did_you_mean

SHOWN = 200  # characters of a wrong value


def knob(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    parse: Callable[[Any], Any] | None = None,
    off: float | None = None,
) -> Any:
    """Declare a setting: a field of a dataclass that derives from `Knobs`.

    default: None means off, or by rule, as `help` says. low, high: inclusive bounds. parse: what a given value goes
    through first. off: a number that means None.
    """
    return _field(default, {"help": help, "choices": choices, "low": low, "high": high, "parse": parse, "off": off})


def recorded(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """Declare what no user sets: something decided or measured, kept so that it is never decided again."""
    return _field(default, {"help": help, "recorded": True, "low": low, "high": high})


def narrowed(base: type, name: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """Declare a setting of a base class anew, for a narrower type. choices: fewer of them."""
    (known,) = (each for each in dataclasses.fields(base) if each.name == name)
    metadata = {**known.metadata, **({} if choices is None else {"choices": choices})}
    return field(default=None, metadata=metadata)


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Knobs:
    """The base of frozen dataclasses of settings: each is converted to its declared type and checked when made."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        types_of = hints(kind)
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _checked(each, types_of[each.name], getattr(self, each.name))
            object.__setattr__(self, each.name, value)


@cache
def hints(kind: Any) -> dict[str, Any]:
    """Give the type of every field of a class."""
    return typing.get_type_hints(kind)


def is_optional(hint: Any) -> bool:
    """Tell whether None is a value of a type."""
    return type(None) in typing.get_args(hint)


def plain(hint: Any) -> Any:
    """Give a type without its None."""
    rest = [each for each in typing.get_args(hint) if each is not type(None)]
    return rest[0] if isinstance(hint, types.UnionType) and len(rest) == 1 else hint


def refuse_unknown(kind: type, names: Iterable[str], source: str = "the settings") -> None:
    """Raise CharRNNError, with the nearest name as a hint, for a name that is no field of a dataclass."""
    known = [each.name for each in dataclasses.fields(kind)]
    for name in names:
        if name not in known:
            raise CharRNNError(f"{source}: there is no setting {name!r}", did_you_mean(name, known))


def parse_seconds(text: str | float) -> float:
    """Read seconds from 90, '90', '90s', '3m' or '1h30m'. Raises CharRNNError for anything else."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    given = str(text).strip()
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", given)
    if match is None or not any(match.groups()):
        raise OptionError(f"{text!r} is not a length of time", "give seconds or a unit: 90, 90s, 3m, 1h30m")
    if match[1] and match[3] and not match[2] and not given.endswith("s"):
        raise OptionError(f"{text!r} does not say of what it has {match[3]}", f"give {given}m or {given}s")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _checked(each: "dataclasses.Field[Any]", hint: Any, value: Any) -> Any:
    """Convert a value to its declared type; CharRNNError says what was given and what is expected."""
    name, data = each.name, each.metadata
    off = data.get("off")
    if value is None or (off is not None and type(value) in (int, float) and value == off):
        if is_optional(hint):
            return None
        raise OptionError(f"{name} is null", f"expected {_described(hint, data)}")
    try:
        if data.get("parse"):
            value = data["parse"](value)
        value = _converted(plain(hint), value)
    except OverflowError:
        raise OptionError(f"{name} is {_short(value)}", f"expected {_described(hint, data)}, below 2^63") from None
    except (TypeError, ValueError):
        raise OptionError(f"{name} is {_short(value)}", f"expected {_described(hint, data)}") from None
    if data.get("choices") and value not in data["choices"]:
        raise OptionError(f"{name} is {_short(value)}", did_you_mean(str(value)[:SHOWN], list(data["choices"])))
    low, high = data.get("low"), data.get("high")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not ((low is None or value >= low) and (high is None or value <= high) and math.isfinite(value)):
        raise OptionError(f"{name} is {value}", f"expected {_described(hint, data)}")
    return value


def _short(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= SHOWN else written[:SHOWN] + " ..."


def _converted(kind: Any, value: Any) -> Any:
    """Convert a value to a type; raises TypeError, ValueError or OverflowError where it is no such thing."""
    if kind in (int, float, bool, str):
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError
        if isinstance(value, int) and abs(value) >= 2**63:
            raise OverflowError
        if isinstance(value, str):
            value.encode("utf-8", "surrogateescape")  # half a character cannot be written down
        return value
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        items = (value,) if isinstance(value, str) else value
        return tuple(_converted(inner[0], item) for item in items)
    if origin is not None:  # a mapping
        return {str(key): _converted(inner[1], item) for key, item in dict(value).items()}
    return kind(*(_converted(hint, item) for hint, item in zip(hints(kind).values(), value, strict=True)))


def _described(hint: Any, data: Mapping[str, Any]) -> str:
    kind = plain(hint)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a list")
    low, high = data.get("low"), data.get("high")
    if low is not None and high is not None:
        return f"{words} from {low} to {high}"
    return f"{words} of {low} or more" if low is not None else words
