"""Lines on stderr, and on a terminal a bar below them."""

import sys
from typing import Any

from charrnn.terminal import harmless


class Controls:
    """A stream for colours and bars, which are the program's own: a terminal obeys what is written here."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        # The command line's streams make harmless whatever is written otherwise.
        self.write = getattr(stream, "write_controls", stream.write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Lines:
    """Lines on stderr, as it is when they come; the bar is made with the first use."""

    def __init__(self) -> None:
        self._bar: Any = None  # tqdm's, which has no types
        self._controls: Any = None  # the stream of the bar

    def say(self, text: str) -> None:
        """Write a line. A terminal is given nothing in it that it would obey."""
        stream = sys.stderr
        if self._bar is not None:
            self._bar.write(harmless(text), file=self._controls)
        elif stream is not None:  # a program without a console has none
            stream.write((harmless(text) if stream.isatty() else text) + "\n")
            stream.flush()

    def bar(self, **options: Any) -> Any:
        """Return the bar, made with tqdm's options where there is none yet; None where stderr is no terminal."""
        if self._bar is None and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._controls = Controls(sys.stderr)
            self._bar = tqdm(leave=False, dynamic_ncols=True, file=self._controls, **options)
        return self._bar

    @property
    def shown_bar(self) -> Any:
        """The bar, where there is one by now."""
        return self._bar

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
