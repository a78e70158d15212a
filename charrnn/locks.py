"""One process at a time in a folder: a lock that the system lets go of when its holder dies, however it dies."""

import json
import os
import platform
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from charrnn import files
from charrnn.errors import CharRNNError

LOCK, HOLDER = ".lock", ".holder.json"
MOST_HOLDER_CHARACTERS = 10_000
FILES = (LOCK, HOLDER)  # what holding a folder leaves in it


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold an existing folder for as long as the context lasts.

    Raises CharRNNError, naming the holder, where another process or thread holds it.
    """
    _refuse_links(folder)
    from filelock import FileLock, Timeout  # takes a while to import, and only work that is kept needs it

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CharRNNError(
            f"{folder} is in use by {holder(folder)}", "wait for that to end, or choose another folder"
        ) from None
    except OSError as error:
        raise CharRNNError(f"{folder} cannot be locked: {error.strerror or error}", "choose another folder") from None
    try:
        about = {"pid": os.getpid(), "host": platform.node(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        about["program"] = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:3]])
        with suppress(OSError):  # a full disk: the lock holds all the same
            files.write(folder / HOLDER, json.dumps(about))
        yield
    finally:
        with suppress(OSError):
            files.remove(folder / HOLDER)
        lock.release()


def is_held(folder: Path) -> bool:
    """Tell whether somebody holds a folder at this moment."""
    if not _is_own_file(folder / LOCK):
        return False
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # it may not be written, so nobody here could hold it
        return False
    lock.release()
    return False


def holder(folder: Path) -> str:
    """Say in words who holds a folder."""
    try:
        if not _is_own_file(folder / HOLDER):
            return "another process"
        with (folder / HOLDER).open(encoding="utf-8") as stream:
            about = json.loads(stream.read(MOST_HOLDER_CHARACTERS))
        return f"process {about['pid']} on {about['host']} since {about['since']} ({about['program']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _is_own_file(path: Path) -> bool:
    """Tell whether a path is a file, and no link to one: a lock is written to, and a stranger's link leads anywhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _refuse_links(folder: Path) -> None:
    """Raise CharRNNError where something in a folder leads out of it: work there would write to where it leads."""
    try:
        links = sorted(path.name for path in folder.iterdir() if path.is_symlink())
    except OSError:
        return  # locking says what is wrong with it
    if links:
        raise CharRNNError(
            f"{folder} holds a link that leads elsewhere: {links[0]}", "remove the link, or put there what it leads to"
        )
