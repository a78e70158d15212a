"""The standard streams of the command line: what a terminal is shown, and what happens to text that is not taken."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charrnn.reporting.lines import Controls as Controls
from charrnn.terminal import harmless

STDOUT = "standard output"


class ReaderGoneError(BrokenPipeError):
    """Whoever read a result has closed the pipe: enough was read."""


class _Layer(io.RawIOBase):
    """The lowest layer of a stream, with another way to write."""

    def __init__(self, raw: Any, kept: Any = None) -> None:
        self._raw, self._kept = raw, kept  # a stream that is forgotten would close its file

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def fileno(self) -> int:
        return int(self._raw.fileno())


class Lossy(_Layer):
    """A stream whose text may get lost: a closed pipe, a terminal that is gone or a full disk ends no work."""

    def write(self, data: Any) -> int:
        try:
            return self._raw.write(data) or len(data)  # None: it would have to wait
        except OSError:
            return len(data)


class Result(_Layer):
    """A stream that a result is written to: an error names it, and a reader that has gone is told from other pipes."""

    name = STDOUT

    def write(self, data: Any) -> int | None:
        try:
            written: int | None = self._raw.write(data)
            return written
        except BrokenPipeError as error:
            raise ReaderGoneError(error.errno, error.strerror, self.name) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None


class ResultFile(Result):
    """A file that a result is written to. path: as the user named it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("wb", buffering=0))
        self.name = str(path)

    def fileno(self) -> int:
        """Refuse: what is written past this layer would have errors without a name."""
        raise io.UnsupportedOperation

    def close(self) -> None:
        super().close()
        self._raw.close()


class Shown(io.TextIOWrapper):
    """A stream of text. To a terminal it gives nothing that would be obeyed; to files and pipes the text as it is.

    So whatever is printed is safe, wherever it came from; `Controls` (in `charrnn.reporting.lines`) alone lets through
    what the program itself says to a terminal.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_terminal = self.isatty()

    def write(self, text: str) -> int:
        super().write(harmless(text) if self._is_terminal else text)
        return len(text)

    def write_controls(self, text: str) -> int:
        """Write what a terminal shall obey."""
        return super().write(text)


def relayered(stream: Any, layer: Callable[[Any, Any], _Layer]) -> Any:
    """Give a standard stream another lowest layer, in UTF-8 whatever the locale says; leave one of another kind."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # none below the buffer: `python -u`
    lowest = layer(raw, stream)
    return Shown(
        lowest if raw is stream.buffer else io.BufferedWriter(lowest),
        "utf-8",
        "surrogateescape",  # names of files need not be UTF-8: they come out as the bytes they went in
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
