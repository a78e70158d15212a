"""Writing and removing files, for all that is kept: what may fail on a disk fails in one place.

A file is written under an unfinished name beside where it will be, brought to the disk, and renamed. So it is whole or
absent at every moment, also after a power cut. An unfinished name tells which process writes it: what a dead one left
is swept away.
"""

import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from charrnn.patterns import pattern

# .model-00000040.safetensors.15577-3: the file it will be, the process that writes it, and a number in that process.
_UNFINISHED = pattern(r"\.(?P<name>.+)\.(?P<pid>\d+)(?:-\d+)?")
_numbers = itertools.count()
# What a file system answers that has no use for bringing a folder to the disk.
_NEEDLESS = (errno.EINVAL, errno.ENOTSUP)


class Disk:
    """What is asked of the file system. A test puts another one in its place, which fails where it is told to."""

    def create(self, path: Path, mode: int) -> IO[bytes]:
        """Make a file that is not there, and open it to write. mode: its rights, from which the umask takes."""
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode), "wb")

    def open_to_append(self, path: Path) -> IO[bytes]:
        """Open a file to add to its end, made if need be."""
        return path.open("ab")

    def write(self, stream: IO[bytes], data: bytes) -> None:
        """Write bytes, and hand them to the system."""
        stream.write(data)
        stream.flush()

    def sync(self, stream: IO[bytes]) -> None:
        """Wait until what was written to a file is on the disk."""
        os.fsync(stream.fileno())

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder are on the disk, where a system can do that."""
        if os.name == "nt":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NEEDLESS:
                raise
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file, or a folder; a file that has the new name is replaced."""
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(folder)


disk = Disk()


class Unfinished:
    """A file, or a folder, while it is written. path: where it is until it is finished. known: what errors name."""

    def __init__(self, path: Path, known: Path, stream: IO[bytes] | None) -> None:
        self.path, self._known, self._stream = path, known, stream

    def write(self, data: bytes) -> None:
        """Add bytes to the file."""
        assert self._stream is not None
        with _naming(self._known):
            disk.write(self._stream, data)

    def finish(self, path: Path) -> None:
        """Bring it to the disk and give it its name, in a folder of the same file system."""
        with _naming(path):
            if self._stream is not None:
                disk.sync(self._stream)
                self._stream.close()
            else:
                for file in sorted(self.path.iterdir()):
                    sync(file)
                disk.sync_folder(self.path)
            disk.rename(self.path, path)
            for folder in {path.parent, self.path.parent}:
                disk.sync_folder(folder)


@contextmanager
def unfinished(folder: Path, name: str, mode: int = 0o666) -> Iterator[Unfinished]:
    """Begin a file that will be in `folder`; it is removed at the end unless it was finished.

    name: what it is known by until then. mode: its rights, from which the umask takes.
    Raises OSError where the system refuses.
    """
    path = _unfinished_path(folder, name)
    with _naming(folder / name):
        stream = disk.create(path, mode)
    try:
        yield Unfinished(path, folder / name, stream)
    finally:
        with suppress(OSError):  # what there is to say was said when it was written
            stream.close()
        _remove_unfinished(path)


@contextmanager
def unfinished_folder(folder: Path, name: str) -> Iterator[Unfinished]:
    """Begin a folder of files that will be in `folder`; it is removed at the end unless it was finished."""
    path = _unfinished_path(folder, name)
    try:
        path.mkdir()
        yield Unfinished(path, folder / name, None)
    finally:
        with suppress(OSError):
            disk.remove_tree(path)


def write_atomically(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file so that at every moment either the old or the new one is there, whole, even after a power cut.

    mode: its rights, from which the umask takes. Raises OSError, which names the file, where the system refuses.
    """
    with unfinished(path.parent, path.name, mode) as file:
        file.write(data)
        file.finish(path)


def write(path: Path, text: str) -> None:
    """Write a file in place. A process that dies may leave a part of it, so nothing may depend on it."""
    with suppress(FileNotFoundError):
        disk.unlink(path)
    with _naming(path), disk.create(path, 0o666) as stream:
        disk.write(stream, text.encode("utf-8"))


def append(path: Path, data: bytes) -> None:
    """Add bytes to the end of a file, which is made if need be. A process that dies may leave a part of them."""
    with _naming(path), disk.open_to_append(path) as stream:
        disk.write(stream, data)


def sync(path: Path) -> None:
    """Wait until a file that was written by adding to it is on the disk."""
    with _naming(path), disk.open_to_append(path) as stream:
        disk.sync(stream)


def finish(path: Path, name: Path) -> None:
    """Bring a file that was written by adding to it to the disk, and give it its name, in the same folder."""
    sync(path)
    with _naming(name):
        disk.rename(path, name)
        disk.sync_folder(name.parent)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no error."""
    with _naming(path), suppress(FileNotFoundError):
        disk.unlink(path)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    disk.remove_tree(folder)


def is_unfinished(name: str, names: re.Pattern[str]) -> bool:
    """Tell whether a name is that of a file, or folder, of ours while it is written. names: what is ours."""
    known = _UNFINISHED.fullmatch(name)
    return known is not None and names.fullmatch(known["name"]) is not None


def sweep(folder: Path, names: re.Pattern[str], held: bool = False) -> None:
    """Remove what processes that are dead left unfinished in a folder. What cannot be removed stays.

    names: of the files and folders that are ours. held: whether this process holds the folder, so that none of its
    own files there is being written.
    """
    try:
        found = list(folder.iterdir())
    except OSError:
        return
    for path in found:
        known = _UNFINISHED.fullmatch(path.name)
        if known is None or not is_unfinished(path.name, names) or path.is_symlink():
            continue
        pid = int(known["pid"])
        if not (held if pid == os.getpid() else not is_alive(pid)):
            continue
        with suppress(OSError):
            if path.is_dir():
                disk.remove_tree(path)
            else:
                disk.unlink(path)


def _unfinished_path(folder: Path, name: str) -> Path:
    return folder / f".{name}.{os.getpid()}-{next(_numbers)}"


def _remove_unfinished(path: Path) -> None:
    """Remove what was not finished; a disk that refuses that too has said so before."""
    with suppress(OSError):
        disk.unlink(path)


def is_alive(pid: int) -> bool:
    """Tell whether there is a process of that number, or may be."""
    if os.name == "nt":  # where the question would be a signal
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let what the system refuses name the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise
