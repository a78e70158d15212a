"""Writing one file for somebody else: new, whole or not at all."""

from pathlib import Path

from charrnn import files
from charrnn.errors import CharRNNError


def refuse_taken(path: Path) -> None:
    """Raise CharRNNError where something has that name, or there is no folder for it: before any work is done."""
    if path.exists() or path.is_symlink():
        raise CharRNNError(f"{path} exists already", "choose another name, or delete that one")
    if not path.parent.is_dir():
        raise CharRNNError(f"there is no folder {path.parent}", "make it first, or choose another one")


def write(path: Path, content: bytes) -> None:
    """Write a file. Raises CharRNNError where it exists or cannot be written."""
    refuse_taken(path)
    try:
        files.write_atomically(path, content)
    except OSError as error:
        problem = f"{error.filename or path} cannot be written: {error.strerror or error}"
        raise CharRNNError(problem, "make room, or choose another folder") from error
