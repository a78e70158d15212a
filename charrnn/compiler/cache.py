"""Machine code on disk, in the user's cache folder, so that only the first use of a shape has to compile.

A file's name is a hash of everything its content depends on: the source, the arithmetic it calls, the versions of what
compiles it, and the processor. A file is written once, whole, and never changed. So processes that start together may
compile the same code twice, but they never see half a file. A file holds the SHA-256 of what follows, the function's
symbol (for training: nothing) and an object file, with a line break after each of the first two. llvmlite loads it;
Numba, which is slow to import, is needed only to compile for completing.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from charrnn import files
from charrnn.compiler.processor import processor
from charrnn.patterns import pattern

PACKAGE = Path(__file__).parent
SOURCES = ["arithmetic.py", "products.py", "../cells/ops.py"]
SOURCES += [f"decoding/{part}.py" for part in ("compiling", "arithmetic", "products", "views", "weights")]
OWN_FILES = pattern(r"native-[0-9a-f]{24}\.o")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

FORMAT = "2"  # of a file: another one has other names
MOST_BYTES = 256 * 2**20  # of all files together

loaded: dict[str, "Function"] = {}
_engines: list[Any] = []
_loading = threading.Lock()  # of threads that need the same code at once, one compiles it and the others wait


@dataclass(frozen=True)
class Code:
    """Code in this process. engine: of llvmlite. key: of the file that keeps it. is_new: compiled now, not loaded."""

    engine: Any
    key: str
    is_new: bool


class Function:
    """A compiled function: `function(*arguments)` with addresses and whole numbers gives an int64."""

    def __init__(self, address: int, signature: tuple[str, ...], key: str, is_new: bool):
        """key: of the file that keeps it. is_new: whether it was compiled just now, and not loaded."""
        self.address, self.key, self.is_new = address, key, is_new
        kinds = [ctypes.c_double if kind == "float64" else ctypes.c_int64 for kind in signature]
        # Numba's own convention: where the result goes, where an exception would go, the arguments; 0 is success.
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)(address)

    def __call__(self, *arguments: float) -> int:
        result, trouble = ctypes.c_int64(), ctypes.c_void_p()
        status = self._call(ctypes.addressof(result), ctypes.addressof(trouble), *arguments)
        assert status == 0
        return result.value


def folder() -> Path:
    """Return charrnn's part of the folder where this user's programs keep what they can recompute."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "charrnn"


def load(text: str, function: str, signature: tuple[str, ...]) -> tuple[Function, str | None]:
    """Return a function of some source, and a note for the user or None. Compile it only the first time.

    text: Python source. function: its name in `text`. signature: as for `compile_source`.
    Raises ImportError where it must be compiled and there is no Numba, and CharRNNError where Numba cannot compile it.
    """
    key = _key(text, signature)
    if key in loaded:
        return loaded[key], None
    with _loading:
        return (loaded[key], None) if key in loaded else _load(key, text, function, signature)


def is_kept(text: str, signature: tuple[str, ...]) -> bool:
    """Tell whether `load` of this would find a file, whole or not, and so need not compile before it looks."""
    key = _key(text, signature)
    name = f"native-{key}.o"
    return key in loaded or any((where / name).is_file() for where in (folder(), spare_folder()))


def _load(key: str, text: str, function: str, signature: tuple[str, ...]) -> tuple[Function, str | None]:
    def compiled() -> bytes:
        from charrnn.compiler.decoding.compiling import compile_source

        symbol, code = compile_source(text, function, signature)
        return symbol.encode() + b"\n" + code

    content, note, is_new = _kept(key, compiled)
    symbol, code = content.split(b"\n", 1)
    address = _linked(code).get_function_address(symbol.decode())
    loaded[key] = Function(address, signature, key, is_new)
    return loaded[key], note


def code(source: str, made_by: str, compiled: Callable[[], bytes]) -> Code:
    """Return the code of some LLVM source, which is compiled only the first time.

    made_by: all else that the code depends on, but the processor. compiled: gives the object file.
    """
    with _loading:
        key = _digest(source, made_by).hexdigest()[:24]
        content, _, is_new = _kept(key, lambda: b"\n" + compiled())
        return Code(_linked(content.split(b"\n", 1)[1]), key, is_new)


def forget(key: str) -> None:
    """Remove the file of some code, which computes what it should not: it is never loaded again."""
    loaded.pop(key, None)
    for where in (folder(), spare_folder()):
        with suppress(OSError):
            files.remove(where / f"native-{key}.o")


def _kept(key: str, compiled: Callable[[], bytes]) -> tuple[bytes, str | None, bool]:
    """Return what a file keeps, or else what is compiled, which is kept; a note for the user or None; which of both."""
    name = f"native-{key}.o"
    notes: list[str] = []
    for path in (folder() / name, spare_folder() / name):
        found = read(path)
        content = None if found is None else _whole(found)
        if content is not None:
            with suppress(OSError):  # it cannot be written to
                os.utime(path)
            return content, None if not notes else "; ".join(notes), False
        if found is not None:
            notes.append(f"{path} was damaged, and is compiled anew")
    content = compiled()
    unkept = keep(name, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    notes += [unkept] if unkept else []
    return content, "; ".join(notes) or None, True


def _key(text: str, signature: tuple[str, ...]) -> str:
    digest = _digest(text, *signature, PYTHON)
    for source in SOURCES:
        digest.update((PACKAGE / source).read_bytes())
    return digest.hexdigest()[:24]


def _digest(*parts: str) -> "hashlib._Hash":
    # Every release of Numba goes with one of llvmlite.
    here = processor()
    where = [FORMAT, llvmlite.__version__, sys.platform, here.name, here.enabled]
    return hashlib.sha256("\0".join([*where, *parts]).encode())


def spare_folder() -> Path:
    """Return where code is kept when `folder` cannot be written: this user's own folder among the temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"charrnn-{user}"


def read(path: Path) -> bytes | None:
    """Read a file of ours; None for one that somebody else may have written, since what it holds will be run."""
    try:
        # The file that was opened is asked, not its name, which may stand for another by now.
        with open(path, "rb", opener=_opened_at_once) as stream:
            if not (_is_ours(os.fstat(stream.fileno()), stat.S_ISREG) and _is_ours(path.parent.stat(), stat.S_ISDIR)):
                return None
            return stream.read()
    except OSError:
        return None


def _opened_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for anybody to write to it, as a FIFO would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_ours(status: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Tell whether something of this kind is the user's own, and nobody else may write to it."""
    if not hasattr(os, "getuid"):
        return kind(status.st_mode)
    return kind(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _whole(content: bytes) -> bytes | None:
    """Return what a file keeps; None where it is damaged."""
    digest, _, kept = content.partition(b"\n")
    return kept if hashlib.sha256(kept).hexdigest().encode() == digest else None


def keep(name: str, content: bytes) -> str | None:
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
    # Whatever the umask, nobody else may write it: `_read` would refuse it.
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
        # Numba's code could free arrays of its own; it owns none here, so this is never called.
        llvm.add_symbol("NRT_MemInfo_call_dtor", ctypes.cast(_never, ctypes.c_void_p).value)
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    # An engine for each: files from different processes may define the same symbols, and only the first would count.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    _engines.append(engine)  # the code lives as long as its engine
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _freed(memory: int) -> None:
    raise AssertionError("compiled code freed an array")


_never = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_freed)
