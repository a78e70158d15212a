"""Regular expressions that are compiled when they are first used: a command needs few of those that a program has."""

import re
from typing import Any, cast


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return what `re.compile` returns, as far as its methods and `pattern` go."""
    return cast("re.Pattern[str]", _Pattern(text, flags))


class _Pattern:
    def __init__(self, text: str, flags: int) -> None:
        self.pattern, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        """Take a method from the compiled pattern, and keep it."""
        method = getattr(re.compile(self.pattern, self._flags), name)
        self.__dict__[name] = method
        return method
