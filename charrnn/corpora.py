"""Where a corpus comes from: a file, or the text embedded in the package. The one place that knows about sources."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import CharRNNError, did_you_mean

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Source:
    """Something that can be read as bytes: how errors and runs name it, and how it is opened."""

    name: str
    open: Callable[[], BinaryIO]


def embedded() -> dict[str, Path]:
    """The corpora that come with the package, by name."""
    package = Path(__file__).parent
    folders = [package / "corpora", package.parent / "corpora"]  # in a wheel; in a checkout
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.txt"))}


def find(corpus: str) -> Source:
    """The source a user means: an existing file first, else an embedded corpus of that name."""
    path = Path(corpus)
    if path.is_dir():
        raise CharRNNError(f"{corpus} is a folder, a text file is expected", "name a file in it")
    known = embedded()
    if not path.exists() and corpus in known:
        path = known[corpus]
    if not path.exists():
        hint = did_you_mean(corpus, sorted(known)) if path.suffix == "" and "/" not in corpus else "check the path"
        raise CharRNNError(f"there is no file {corpus}", hint)
    return Source(corpus, lambda: path.open("rb"))


def stem(corpus: str) -> str:
    """A short name for runs on this corpus."""
    return Path(corpus).stem or "corpus"


def read_text(source: Source, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """The text of a source in pieces, as it is.

    Raises CharRNNError that names the offset of the first byte that is not UTF-8, or why the source cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0  # of the first byte the decoder still holds back
    try:
        with source.open() as stream:
            while True:
                chunk = stream.read(chunk_bytes)
                held = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as error:
                    raise CharRNNError(
                        f"{source.name}: byte {offset - held + error.start} is not UTF-8 ({error.reason})",
                        "convert the file to UTF-8, for instance with: iconv -f WINDOWS-1250 -t UTF-8 FILE",
                    ) from None
                offset += len(chunk)
                if text:
                    yield text
                if not chunk:
                    return
    except OSError as error:
        raise CharRNNError(f"{source.name} cannot be read: {error.strerror}", "check the path and its rights") from None
