"""Writing and removing files. All that a run keeps is written here: what may fail on a disk fails in one place."""

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there, whole, even after a power cut.

    Raises OSError where the system refuses; then the old file is there.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:  # a full disk, an interrupt
        unfinished.unlink(missing_ok=True)
        raise


def write(path: Path, text: str) -> None:
    """Write a file in place. A process that dies may leave a part of it, so nothing may depend on it."""
    path.write_text(text, encoding="utf-8")


def append(path: Path, text: str) -> None:
    """Add text to the end of a file, which is made if need be. A process that dies may leave a part of it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no error."""
    path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder)
