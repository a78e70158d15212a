"""How far long work has come, for whoever shows it."""

from collections.abc import Callable

# Called with what is done ('reading', 'counting', 'encoding', SCORING), how much of it was, and of how much, where that
# is known: reading in bytes, the others in characters or ids.
Progress = Callable[[str, int, int | None], None]
SCORING, ADAPTING = "scoring", "adapting"


def silent(what: str, done: int, total: int | None) -> None:
    """Show no progress."""
