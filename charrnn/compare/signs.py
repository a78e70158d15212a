"""A sign of life in a comparison's folder: who works for it elsewhere sees by it that the folder is shared, and goes on
for as long as it changes.

So nothing is left running where the comparison was stopped, killed, or cut off.
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from charrnn import files
from charrnn.patterns import pattern

EVERY_SECONDS = 5.0
SILENT_SECONDS = 60.0  # longer than a network's file system holds back what another machine has written
NAMES = pattern(r"working-[0-9a-f]{16}")


class Sign:
    """A sign of life in a folder, which a thread renews until it is taken back."""

    def __init__(self, folder: Path) -> None:
        for old in folder.iterdir():
            if NAMES.fullmatch(old.name):  # of a comparison that was killed: this process holds the folder
                files.remove(old)
        self.path = folder / f"working-{secrets.token_hex(8)}"
        files.write_atomically(self.path, b"0")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def take_back(self) -> None:
        """Let all who watch it save and end."""
        self._over.set()
        self._thread.join()
        files.remove(self.path)

    def _renew(self) -> None:
        count = 0
        while not self._over.wait(EVERY_SECONDS):
            count += 1
            with suppress(OSError):  # a disk that is full for a while
                files.write_atomically(self.path, str(count).encode())


class Watch:
    """Watches a sign of life. clock: gives seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._seen, self._changed = b"", clock()

    def is_over(self) -> bool:
        """Tell whether the sign is gone, was never seen, or has not changed for long."""
        try:
            seen = self._path.read_bytes()
        except FileNotFoundError:
            return True
        except OSError:  # a server of files that does not answer, or a path of this machine that leads elsewhere
            if not self._seen:
                return True
            seen = self._seen
        if seen != self._seen:
            self._seen, self._changed = seen, self._clock()
        return self._clock() - self._changed > SILENT_SECONDS
