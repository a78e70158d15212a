"""What a body of the page may hold: each value is taken by name, checked and bounded; no other may be there."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from charrnn.serve.errors import bad


class Body:
    """The object that a body is. A value that is null counts as missing."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in values.items() if value is not None}

    def text(self, name: str, most: int, default: str | None = None) -> str:
        """Take a string of up to so many characters. Raises RequestError where there is none, without a default."""
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise bad(f"{name} is no string", name)
        if len(value) > most:
            raise bad(f"{name} has {len(value):,} characters; up to {most:,} are read: give a shorter one", name)
        if not _is_text(value):
            raise bad(f"{name} holds half a surrogate pair, which is no character", name)
        return value

    def one_of(self, name: str, known: Collection[str], default: str | None = None) -> str:
        """Take one of some names. Raises RequestError, which lists them, for any other."""
        value = self.text(name, 1000, default)
        if value not in known:
            raise bad(f"{name} is none of: {', '.join(known) or 'nothing'}", name)
        return value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Take a whole number. Raises RequestError for any other value, and for one out of bounds."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise bad(f"{name}: expected a whole number from {least} to {most:,}", name)
        return value

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float:
        """Take a number. Raises RequestError for any other value, and for one out of bounds."""
        value = self._left.pop(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise bad(f"{name}: expected a number from {least:g} to {most:g}", name)
        return float(value)

    def has(self, name: str) -> bool:
        """Tell whether a value is there that was not taken yet."""
        return name in self._left

    def end(self) -> None:
        """Raise RequestError for what nobody took."""
        for name in self._left:
            raise bad(f"{name[:40]!r} is no parameter of this route: leave it out", name[:40], "unsupported_parameter")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
