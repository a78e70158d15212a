"""Machine code on disk, in the user's cache folder, so that only the first use of a shape has to compile.

A file's name is a hash of everything its content depends on: the source, the version of what compiles it, and the
processor. A file is written once, whole, and never changed. So processes that start together may compile the same code
twice, but they never see half a file. A file holds the SHA-256 of what follows, a line break and an object file.

What was compiled is kept once it was tried (`code`, then `keep`): a process that ends in between leaves nothing behind
that nobody looked at.

A file that is loaded is marked as used. Where all are too large together, those that were not used for longest go.

Code that is loaded is run. So a file must be this user's own, where nobody else may write, and damage is found by the
SHA-256: a damaged object file would end the process. It is compiled anew, and that is said.
"""

import ctypes
import errno
import hashlib
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from charrnn import files
from charrnn.compiler.processor import processor
from charrnn.patterns import pattern

OWN_FILES = pattern(r"native-[0-9a-f]{24}\.o")
FORMAT = "3"  # of a file: another one has other names
MOST_BYTES = 256 * 2**20  # of all files together

loaded: dict[str, "Code"] = {}
_engines: list[Any] = []
_loading = threading.Lock()  # so that no code is linked twice; that new code is tried once, who asks for it sees to


@dataclass(frozen=True)
class Code:
    """Code in this process.

    engine: of llvmlite. key: of the file that keeps it. note: for the user, or None. content: the object file, where it
    was compiled just now, and is to be tried.
    """

    engine: Any
    key: str
    note: str | None
    content: bytes | None = field(default=None, repr=False)

    @property
    def is_new(self) -> bool:
        """Whether it is to be tried, and then kept."""
        return self.content is not None

    def address(self, function: str) -> int:
        """Return where a function begins."""
        return int(self.engine.get_function_address(function))

    def function(self, name: str, whole: int, real: int = 0) -> Callable[..., None]:
        """Return a function of so many whole numbers, and then of so many float32 ones, as Python calls it."""
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * whole, *[ctypes.c_float] * real)(self.address(name))


def folder() -> Path:
    """Return charrnn's part of the folder where this user's programs keep what they can recompute."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "charrnn"


def code(source: str, made_by: str, compiled: Callable[[], bytes]) -> Code:
    """Return some code, which is compiled only the first time; then it is new, and kept by `keep` alone.

    source: what it is made of. made_by: all else that it depends on, but the processor. compiled: gives an object file.
    """
    key = _key(source, made_by)
    with _loading:
        if key in loaded:
            return loaded[key]
        content, note = _found(key)
        if content is not None:
            loaded[key] = Code(_linked(content), key, None)
            return replace(loaded[key], note=note)
        content = compiled()
        return Code(_linked(content), key, note, content)


def keep(code: Code) -> Code:
    """Keep new code, which was found to compute what it should, on disk and in this process; return it."""
    assert code.content is not None
    unkept = write(f"native-{code.key}.o", hashlib.sha256(code.content).hexdigest().encode() + b"\n" + code.content)
    loaded[code.key] = Code(code.engine, code.key, None)
    return replace(loaded[code.key], note="; ".join(filter(None, (code.note, unkept))) or None)


def is_kept(source: str, made_by: str) -> bool:
    """Tell whether `code` of this would find a file, whole or not, and so need not compile before it looks."""
    key = _key(source, made_by)
    return key in loaded or any(path.is_file() for path in _paths(key))


def _paths(key: str) -> list[Path]:
    return [where / f"native-{key}.o" for where in (folder(), spare_folder())]


def _found(key: str) -> tuple[bytes | None, str | None]:
    """Return what a file keeps, None where there is none, and a note for the user or None."""
    notes: list[str] = []
    content = None
    for path in _paths(key):
        found = read(path)
        content = None if found is None else _whole(found)
        if content is not None:
            with suppress(OSError):  # it cannot be written to
                os.utime(path)
            break
        if found is not None:
            notes.append(f"{path} was damaged, and is compiled anew")
    return content, "; ".join(notes) or None


def _key(source: str, made_by: str) -> str:
    here = processor()
    parts = [FORMAT, llvmlite.__version__, sys.platform, here.name, here.enabled, source, made_by]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def spare_folder() -> Path:
    """Return where code is kept when `folder` cannot be written: this user's own folder among the temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"charrnn-{user}"


def read(path: Path) -> bytes | None:
    """Read a file of ours; None for one that somebody else may have written, since what it holds will be run."""
    try:
        # The file that was opened is asked, not its name, which may stand for another by now. A FIFO is not waited for.
        at_once = getattr(os, "O_NONBLOCK", 0)
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | at_once)) as stream:
            if not (_is_ours(os.fstat(stream.fileno()), stat.S_ISREG) and _is_ours(path.parent.stat(), stat.S_ISDIR)):
                return None
            return stream.read()
    except OSError:
        return None


def _is_ours(status: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Tell whether something of this kind is the user's own, and nobody else may write to it."""
    is_own = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return kind(status.st_mode) and is_own


def _whole(content: bytes) -> bytes | None:
    """Return what a file keeps; None where it is damaged."""
    digest, _, kept = content.partition(b"\n")
    return kept if hashlib.sha256(kept).hexdigest().encode() == digest else None


def write(name: str, content: bytes) -> str | None:
    """Write a file so that it is whole at every moment; return a note where it is not in the user's cache folder."""
    try:
        _write(folder() / name, content)
    except OSError as error:
        note = f"compiled code cannot be kept in {folder()} ({error.strerror})"
        try:
            _write(spare_folder() / name, content)
        except OSError:
            return f"{note}; it will be compiled anew next time"
        return f"{note}; it is in {spare_folder()}"
    return None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(path.parent.stat(), stat.S_ISDIR):
        raise PermissionError(errno.EPERM, "others may write there")
    files.sweep(path.parent, OWN_FILES)
    # Whatever the umask, nobody else may write it: `read` would refuse it.
    files.write_atomically(path, content, mode=0o644)
    _make_room(path)


def _make_room(newest: Path) -> None:
    """Remove the files that were not used for longest, where all together are too large; not the newest one."""
    known = []
    for path in newest.parent.iterdir():
        if OWN_FILES.fullmatch(path.name) and path != newest:
            with suppress(OSError):  # another process has removed it
                status = path.stat()
                known.append((status.st_mtime, status.st_size, path))
    room = MOST_BYTES - newest.stat().st_size
    for _, size, path in sorted(known, reverse=True):
        room -= size
        if room < 0:
            with suppress(OSError):
                files.remove(path)


def _linked(code: bytes) -> Any:
    """Load an object file into this process; return the engine that knows its functions."""
    if not _engines:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    # An engine for each: files from different processes may define the same symbols, and only the first would count.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    _engines.append(engine)  # the code lives as long as its engine
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine
