"""Which ranks are still there: each counts up a number in the store that torchrun keeps, and hears those of others.

A process that dies closes its connections, which is noticed at once. One that was stopped, or whose network is gone,
only falls silent.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

EVERY_SECONDS = 1.0
SILENT_LOOKS = 20  # in a row without a sign of life, EVERY_SECONDS apart, after which a rank is lost


class Store(Protocol):
    """What of torch's stores is used here."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...


class Heartbeat:
    """Signs of life: of this rank to the store, and of others from there, in a thread of its own.

    store: of this thread alone, since a call of it may wait. heard: the last sign of each watched rank.
    """

    def __init__(self, store: Store, rank: int, watched: Iterable[int], every: float = EVERY_SECONDS) -> None:
        self._store, self._rank, self._every = store, rank, every
        self.heard: dict[int, bytes] = dict.fromkeys(watched, b"")
        self._ends = threading.Event()
        store.set(f"alive/{rank}", "0")

    def start(self) -> None:
        """Begin, once every rank has given its first sign."""
        threading.Thread(target=self._beat, name="charrnn-heartbeat", daemon=True).start()

    def end(self) -> None:
        """Give no more signs."""
        self._ends.set()

    def _beat(self) -> None:
        beats = 0
        while not self._ends.wait(self._every):
            beats += 1
            try:
                self._store.set(f"alive/{self._rank}", str(beats))
                for rank in self.heard:
                    self.heard[rank] = self._store.get(f"alive/{rank}")
            except RuntimeError:  # the store is gone: nothing is heard any more
                return


class Watch:
    """Looks at signs of life while something is waited for. A look is made every EVERY_SECONDS.

    Looks are counted, not seconds: a machine that slept has lost nobody.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._last = dict(heartbeat.heard)
        self._silent = dict.fromkeys(self._last, 0)

    def look(self) -> Sequence[int]:
        """Return the ranks that have been silent for too long."""
        for rank, sign in list(self._heartbeat.heard.items()):
            self._silent[rank] = 0 if sign != self._last[rank] else self._silent[rank] + 1
            self._last[rank] = sign
        return [rank for rank, looks in self._silent.items() if looks >= SILENT_LOOKS]
