"""Private copies of texts: read from their sources once, cleaned, and kept in the home folder by fingerprint.

The source may change, shrink or vanish afterwards. The fingerprint is the SHA-256 of the text as UTF-8; where files
are documents, with a byte 0xFF, which no text has, between them.
"""

import hashlib
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn import files, strict_json
from charrnn.errors import CharRNNError, command
from charrnn.home import home
from charrnn.progress import Progress, silent
from charrnn.text import corpora, documents
from charrnn.text.cleaning import Cleaning, Findings, text_of
from charrnn.text.documents import Starts
from charrnn.text.settings import TextSettings

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, Part, Part] = ("train", "val", "test")
CHUNK_CHARACTERS = 1 << 20
# A part that would begin inside a document begins with the next one instead, where that is within this share of it all.
SNAP_SHARE = 0.01

AS_IT_IS = Cleaning()
TEXT = "text.utf8"
# What a copy is made of, besides the folder that is called by its fingerprint; its ids are a folder.
OWN_FILES = re.compile(r"text\.utf8|text\.json|\w+-starts|ids-[0-9a-f]{16}")
LONG_LINE = 10_000  # characters
SHOWN = 60  # characters of a line


def let_go(mapped: NDArray[Any]) -> None:
    """Give the pages of a memory-mapped array back to the system, where it has a way to; they are read again at need.

    A system maps up to 2 MiB around what is read, and would in the end hold the whole file resident.
    """
    if isinstance(mapped.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Text:
    """A private copy of a corpus's text. characters: its length. source: what it was read from. notes: what to know.

    document: what stands alone in it, as in the settings.
    """

    path: Path
    fingerprint: str
    characters: int
    source: str
    notes: tuple[str, ...] = ()
    document: str = "none"

    def chunks(self) -> Iterator[str]:
        """Yield the text in pieces of CHUNK_CHARACTERS, the last one shorter."""
        with self.path.open(encoding="utf-8", newline="") as stream:
            while chunk := stream.read(CHUNK_CHARACTERS):
                yield chunk

    def starts(self) -> Starts:
        """Return the offsets at which documents begin, in characters, rising, memory-mapped; none without documents."""
        if self.document == "none":
            return documents.NONE
        path = self.path.with_name(f"{self.document}-starts")
        if not path.exists():
            with _unfinished(path.parent, path.name) as unfinished:
                for found in documents.starts(self.chunks(), self.document):
                    unfinished.write(found.astype(np.int64).tobytes())
                unfinished.finish(path)
        return np.memmap(path, np.int64, mode="r")

    def boundaries(self, split: tuple[float, ...]) -> list[int]:
        """Return where the parts begin and end: four character offsets, contiguous, nothing left out."""
        bounds = [round(self.characters * share) for share in (0, split[0], split[0] + split[1])] + [self.characters]
        starts = self.starts()
        for i, after in ((i, int(np.searchsorted(starts, bounds[i]))) for i in (1, 2)):
            if after < len(starts) and starts[after] - bounds[i] <= SNAP_SHARE * self.characters:
                bounds[i] = int(starts[after])
        return bounds

    def part_chunks(self, split: tuple[float, ...]) -> Iterator[tuple[Part, str]]:
        """Yield the text in order, in pieces that never cross the boundary of a part."""
        bounds = self.boundaries(split)
        position = 0
        for chunk in self.chunks():
            for part, begin, end in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
                piece = chunk[max(begin - position, 0) : max(end - position, 0)]
                if piece:
                    yield part, piece
            position += len(chunk)


def read(
    corpus: tuple[str, ...],
    folder: Path,
    cleaning: Cleaning = AS_IT_IS,
    document: str = "none",
    progress: Progress = silent,
) -> Text:
    """Copy a corpus's cleaned text into `folder`, once; raises CharRNNError where it is missing, empty or no text.

    Several sources follow each other; one that does not end its last line has that done, unless files are documents.
    """
    findings = Findings()
    found = sources(corpus, findings)
    sizes = [source.bytes for source in found]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    digest, characters, done, starts = hashlib.sha256(), 0, 0, []
    with _unfinished(folder, TEXT) as unfinished:
        last, has_lines = "\n", False
        for source in found:
            begun = False
            for piece in text_of(source, cleaning, findings):
                has_lines = has_lines or "\n" in piece
                if not begun and document == "line" and (first := documents.header(piece, source.name)):
                    findings.others.append(
                        f"the first line of {source.name} counts as a document like all others: {first[:SHOWN]!r}; "
                        "if it is the header of a table, leave it out of the text (tail -n +2)"
                    )
                if not begun and document == "file":
                    starts.append(characters)
                    digest.update(b"\xff" if characters else b"")
                elif not begun and last != "\n":
                    findings.joined += 1
                    piece = "\n" + piece
                begun, last = True, piece[-1]
                encoded = piece.encode("utf-8")
                digest.update(encoded)
                unfinished.write(encoded)
                characters, done = characters + len(piece), done + len(encoded)
                progress("reading", done, total)
        name = ", ".join("standard input" if part == corpora.STDIN else part for part in corpus)
        if characters == 0:
            raise CharRNNError(f"{name} is empty", "give a text to learn: some thousands of characters at least")
        path = folder / digest.hexdigest()[:16] / TEXT
        if not has_lines and characters > LONG_LINE and not findings.cr and document == "none":
            findings.others.append(
                f"the text is one line of {characters:,} characters: the model will never end a line"
            )
        text = Text(path, digest.hexdigest(), characters, name, findings.notes(cleaning), document)
        path.parent.mkdir(exist_ok=True)
        if document == "file":
            files.write_atomically(path.with_name("file-starts"), np.array(starts, np.int64).tobytes())
        unfinished.finish(path)
        odd = documents.notes(text.chunks(), text.starts(), characters, document)
        text = replace(text, notes=(*text.notes, *odd))
        about = {"source": name, "characters": characters, "notes": text.notes}
        # Last: a copy is whole when it has this.
        files.write_atomically(path.with_name("text.json"), strict_json.dumps(about).encode())
        return text


def sources(corpus: tuple[str, ...], findings: Findings) -> list[corpora.Source]:
    """List everything that the names of a corpus stand for, in order; notes about the choice go to `findings`."""
    if corpus.count(corpora.STDIN) > 1:
        raise CharRNNError("standard input is named twice", "it can be read once: give '-' one time")
    every: list[corpora.Source] = []
    for name in corpus:
        found = corpora.find(name)
        every.extend(found.sources)
        findings.others.extend(found.notes)
    return every


@contextmanager
def _unfinished(folder: Path, name: str) -> Iterator[files.Unfinished]:
    """Begin a file of a copy in `folder`, which is made; what dead processes left there is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder, OWN_FILES)
        with files.unfinished(folder, name) as unfinished:
            yield unfinished
    except OSError as error:
        raise CharRNNError(
            f"a copy of the text cannot be written in {folder}: {error.strerror or error}",
            "make room there, or name another folder in CHARRNN_HOME",
        ) from None


def copy_of(fingerprint: str, folder: Path, document: str = "none") -> Text | None:
    """Return the private copy with that fingerprint, 64 hexadecimal digits, if there is one and it is whole."""
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        return None
    path = folder / fingerprint[:16] / TEXT
    try:
        about = strict_json.loads(path.with_name("text.json").read_text(encoding="utf-8"))
        path.stat()
        if document == "file":  # where its files begin, the text alone does not say
            path.with_name("file-starts").stat()
        characters, source, notes = about["characters"], about["source"], tuple(about["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if type(characters) is not int or not isinstance(source, str) or not all(isinstance(n, str) for n in notes):
        return None
    return Text(path, fingerprint, characters, source, notes, document)


def private_copy(settings: TextSettings, *, beside: bool = False) -> Text:
    """Return the text a run was trained on, from its private copy alone: no path of the configuration is opened.

    A corpus that comes with the package needs no copy to be read. beside: something will be written beside the text,
    which is copied for that. Raises CharRNNError where the copy is gone.
    """
    text = copy_of(settings.fingerprint, home() / ".corpora", settings.document) if settings.fingerprint else None
    if text is None:
        text = _embedded(settings, beside)
    if text is None:
        raise CharRNNError(
            f"the private copy of the text this run was trained on is not in {home() / '.corpora'}",
            f"give the text itself as FILE to {command('eval')}; {command('train', '--resume')} and "
            f"{command('train', '--config')} read it again from its source",
        )
    return text


def _embedded(settings: TextSettings, beside: bool) -> Text | None:
    """Return a corpus that comes with the package, where it is what a run was trained on."""
    (name, *others), known = settings.corpus, corpora.embedded()
    if others or name not in known or settings.document == "file":
        return None
    content = known[name].read_bytes()
    if hashlib.sha256(content).hexdigest() != settings.fingerprint:  # cleaned, or another edition
        return None
    if beside or settings.document != "none":  # where documents begin is kept beside a text
        found = str(known[name]) if Path(name).exists() else name  # a file of that name would be read instead
        return read((found,), home() / ".corpora", AS_IT_IS, settings.document)
    return Text(known[name], settings.fingerprint, len(content.decode("utf-8")), name, document=settings.document)


def _refuse_what_never_ends(corpus: tuple[str, ...]) -> None:
    """Raise CharRNNError for a device or a pipe that a configuration names: it may be a stranger's."""
    for name in corpus:
        path = Path(name)
        with suppress(OSError, ValueError):  # too long for a name, or with a character that none has
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise CharRNNError(
                    f"the text of this configuration came from {name}, which is no file",
                    "save the text as a file, and train a new run on that",
                )


def open_text(settings: TextSettings, progress: Progress = silent) -> Text:
    """Return the text of a configuration: its private copy by fingerprint where there is one, else its sources.

    Raises CharRNNError where the copy is gone and the sources are too, or hold another text than the configuration was
    made for.
    """
    folder = home() / ".corpora"
    if settings.fingerprint:
        text = copy_of(settings.fingerprint, folder, settings.document)
        if text is not None:
            return text
        if corpora.STDIN in settings.corpus:
            raise CharRNNError(
                "the text came from standard input, and its private copy is gone",
                f"save the text whose SHA-256 is {settings.fingerprint} as a file, and train a new run on that",
            )
        _refuse_what_never_ends(settings.corpus)
    try:
        text = read(settings.corpus, folder, Cleaning.of(settings), settings.document, progress)
    except CharRNNError as error:
        if not settings.fingerprint:
            raise
        raise CharRNNError(
            f"the private copy of the text is not in {folder}, and its source cannot be read: {error.problem}",
            f"put the text back there, or copy {folder.name} from where the run was trained; {command('sample')}, "
            f"{command('score')} and {command('eval', 'RUN', 'FILE')} work without it",
        ) from error
    if settings.fingerprint not in (None, text.fingerprint):
        raise CharRNNError(
            f"{text.source} is not the text this configuration was made for: its SHA-256 is {text.fingerprint}",
            f"restore the text whose SHA-256 is {settings.fingerprint}, or train a new run on this one",
        )
    return text
