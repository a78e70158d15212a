"""The files of a run: which names are its own, and reading them. No other name is ever opened, or removed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import CharRNNError
from charrnn.patterns import pattern

# What a file of tensors is called, by what it is in run.json.
TENSOR_FILES = {"last": "model", "best": "model", "training": "training", "losses": "losses"}
OWN_FILES = pattern(
    r"(run|config|tokenizer)\.json|(metrics|timings)\.jsonl|(model|training|losses)-\d{8,}\.safetensors"
    r"|\.(run|config|tokenizer|metrics|timings|model|training|losses|lock|holder)\b.*"
)
TENSORS = pattern(r"(model|training|losses)-\d{8,}\.safetensors")
# Names under which a file is written before it has its own, without the process in it.
WRITTEN = pattern(rf"(run|config|tokenizer)\.json|(metrics|timings)\.jsonl|{TENSORS.pattern}")
MOST_BYTES = 1 << 20  # of run.json or config.json; a vocabulary of all characters there are is longer
MOST_TOKENIZER_BYTES = 1 << 25
RESTORE = "restore the run from a copy, or remove it with rm"


class DamageError(CharRNNError):
    """A file is not there, cannot be read, or has not the bytes that were written: what was saved before it may do."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open one of a run's own files. Raises DamageError where it is gone, CharRNNError where it leads elsewhere."""
    try:
        with open(path, "rb", opener=_opened_itself) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) or path.is_symlink():
                raise CharRNNError(f"{path} was changed or damaged: it is no file of its own", RESTORE)
            yield stream
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise CharRNNError(f"{path} was changed or damaged: it is no file of its own", RESTORE) from None
        raise DamageError(
            f"{path} cannot be read: {error.strerror}", "train again, or restore the run from a copy"
        ) from None


def _opened_itself(path: str, flags: int) -> int:
    """Open a file, and not what a link leads to; without waiting for a writer, as a FIFO would."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read one of a run's own files. Raises CharRNNError as `opened` does, and where it is longer than `most` bytes."""
    with opened(path) as stream:
        length = os.fstat(stream.fileno()).st_size
        if length > most:
            problem = f"it is {length:,} bytes long, and none such has more than {most:,}"
            raise CharRNNError(f"{path} was changed or damaged: {problem}", RESTORE)
        return stream.read()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Read one of a run's own files as UTF-8. Raises CharRNNError as `read` does, and where it is not UTF-8."""
    try:
        return read(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"{path} was changed or damaged: byte {error.start} is not UTF-8"
        raise CharRNNError(problem, RESTORE) from None
