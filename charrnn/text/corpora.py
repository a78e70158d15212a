"""The meaning of a corpus's name: files, folders, patterns, standard input, corpora known by name. Bytes, not text."""

import glob
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from charrnn.errors import CharRNNError, did_you_mean
from charrnn.text import catalogue, python_corpora
from charrnn.text.encodings import UTF8

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"  # no UTF-8 text begins so
SNIFFED_BYTES = 1 << 13


@dataclass(frozen=True)
class Source:
    """Something that can be read as bytes: how errors and runs name it, how it is opened, its size where known.

    encoding: that of corpora known by name, whatever the settings say of files.
    """

    name: str
    open: Callable[[], AbstractContextManager[io.BufferedIOBase]]
    bytes: int | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Found:
    """The sources that a name stands for, in the order they are read, and what to know about the choice."""

    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()


def embedded() -> dict[str, Path]:
    """Return the corpora that come with the package as files, by name."""
    package = Path(__file__).parent.parent
    folders = [package / "corpora", package.parent / "corpora"]  # in a wheel; in a checkout
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.txt"))}


def names() -> list[str]:
    """List every corpus that has a name of its own: embedded, made of Python's own files, or in the catalogue."""
    return sorted({*embedded(), *python_corpora.READERS, *catalogue.ENTRIES})


def find(corpus: str) -> Found:
    """List the sources a user means: '-', an existing file or folder, a pattern, else a corpus of that name.

    A folder stands for the text files in it, however deep, in the order of their paths, without hidden ones. Binary
    files in a folder, or among what a pattern matches, are left out, and a note says so. Files compressed by gzip are
    read as what they hold.
    Raises CharRNNError where there is none, with the nearest name as a hint.
    """
    if not corpus:  # a variable of a shell that is not set; to a system it is the folder in which we are
        raise CharRNNError("the name of a text is empty", "give a file, a folder or a named corpus; '.' is this folder")
    if corpus == STDIN:
        return Found((Source("standard input", _open_stdin),))
    path = Path(corpus)
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            return Found((_file(path),))
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise CharRNNError(f"{corpus[:80]} cannot be read: {error.strerror}", "give the path of a text") from None
    if corpus in embedded():
        return Found((_known(_file(embedded()[corpus], corpus)),))
    if corpus in python_corpora.READERS:
        return Found(tuple(_known(memory(name, content)) for name, content in python_corpora.READERS[corpus]()))
    if corpus in catalogue.ENTRIES:
        return Found((_known(_file(catalogue.fetched(corpus), corpus)),))
    if glob.has_magic(corpus):
        matches = [Path(match) for match in sorted(glob.glob(corpus, recursive=True)) if Path(match).is_file()]
        if not matches:
            raise CharRNNError(f"no file matches {corpus}", "check the pattern; '**' stands for folders of any depth")
        return _text_among(matches, f"the pattern {corpus} stands for")
    hint = did_you_mean(corpus, names()) if path.suffix == "" and "/" not in corpus else "check the path"
    raise CharRNNError(f"there is no file {corpus}", hint)


def stem(corpus: str) -> str:
    """Make a short name for runs on this corpus."""
    if corpus == STDIN:
        return "stdin"
    path = Path(corpus)
    while glob.has_magic(path.name):
        path = path.parent
    name = path.name or path.resolve().name  # '.' and '..' are folders with names of their own
    name = path.resolve().name if name in (".", "..") else name
    return name.removesuffix(".gz").partition(".")[0] or name.strip(".") or "corpus"


def _file(path: Path, name: str | None = None) -> Source:
    size = None  # of a pipe, and of what a compressed file holds
    if path.is_file():
        try:
            with path.open("rb") as stream:
                size = path.stat().st_size if stream.read(2) != GZIP_MAGIC else None
        except OSError:
            pass  # reading it will say what is wrong with it
    return Source(name or str(path), lambda: _decompressed(path.open("rb")), size)


def _known(source: Source) -> Source:
    """Return a source of a corpus known by name, all of which are UTF-8."""
    return replace(source, encoding=UTF8)


def memory(name: str, content: bytes) -> Source:
    """Make a source of bytes that are here already."""
    return Source(name, lambda: io.BytesIO(content), len(content))


def _open_stdin() -> AbstractContextManager[io.BufferedIOBase]:
    # Not sys.stdin, so that closing it leaves the process its standard input.
    return _decompressed(open(sys.stdin.fileno(), "rb", closefd=False))


@contextmanager
def _decompressed(stream: io.BufferedReader) -> Iterator[io.BufferedIOBase]:
    with stream:
        if stream.peek(2)[:2] != GZIP_MAGIC:
            yield stream
            return
        with gzip.GzipFile(fileobj=stream) as inside:
            yield inside


def _in_folder(folder: Path) -> Found:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise CharRNNError(
            f"the folder {folder} holds no files", "name a folder of text files, or the files themselves"
        )
    return _text_among(files, f"the folder {folder} holds")


def _text_among(files: list[Path], whose: str) -> Found:
    """List the files that are text, with a note where others are left out. whose: for the error where none is."""
    binary = list(map(_looks_binary, files))
    text, skipped = ([path for path, b in zip(files, binary, strict=True) if b == kind] for kind in (False, True))
    if not text:
        what = "one file, which is no text" if len(files) == 1 else f"{len(files):,} files, none of them text"
        raise CharRNNError(f"{whose} {what}", "name a folder of text files, or the files themselves")
    if not skipped:
        return Found(tuple(map(_file, text)))
    several = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
    note = f"left out because it is not text: {skipped[0]}{several}"
    return Found(tuple(map(_file, text)), (note,))


def _looks_binary(path: Path) -> bool:
    try:
        with _decompressed(path.open("rb")) as stream:
            return b"\0" in stream.read(SNIFFED_BYTES)
    except (OSError, EOFError):
        return False  # reading it will say what is wrong with it
