"""Bytes to text: UTF-8 that is checked, a byte order mark dropped, line ends and normal form as the settings say."""

import codecs
import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from charrnn.errors import CharRNNError
from charrnn.text.corpora import Source
from charrnn.text.settings import TextSettings

CHUNK_BYTES = 1 << 22
BYTE_ORDER_MARK = "\ufeff"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MANY_NULS = 1 / 1000  # of the bytes: text has none, UTF-16 every second one, other binary formats many

# Before each of these a text may be cut and its pieces composed apart: none of them ever joins what precedes it.
# (Up to U+02FF; hiragana and ideographs, where there may be no others for a long time.)
_STANDS_ALONE = re.compile("[\\u0000-\\u02ff\\u3001-\\u3098\\u4e00-\\u9fff]")


@dataclass(frozen=True)
class Cleaning:
    """The way bytes become text; see the settings of the same names. binary: whether many NULs are let through.

    settable: whether these can still be chosen, so that advice may name them: in training, but not of a text that is
    read as an earlier one was.
    """

    newline: str = "keep"
    errors: str = "strict"
    normalize: str = "none"
    binary: bool = False
    settable: bool = False

    @classmethod
    def of(cls, settings: TextSettings) -> "Cleaning":
        """Return the cleaning that the settings of a run ask for."""
        binary = settings.tokenizer == "byte"
        return cls(settings.newline, settings.errors, settings.normalize, binary=binary, settable=True)


@dataclass
class Findings:
    """Findings while reading, to be told afterwards; the readers of several sources add to one."""

    marks: int = 0
    crlf: int = 0
    replaced: int = 0
    first_replaced: str = ""
    nuls: int = 0
    decomposed: bool = False
    joined: int = 0
    others: list[str] = field(default_factory=list)

    def notes(self, cleaning: Cleaning) -> tuple[str, ...]:
        """List a sentence for everything a user should know."""
        notes = list(self.others)
        if self.marks:
            notes.append("a byte order mark at the beginning was dropped")
        if self.crlf and cleaning.newline == "lf":
            notes.append(f"{self.crlf:,} line ends of CR LF were turned into LF")
        elif self.crlf:
            notes.append(
                f"{self.crlf:,} lines end in CR LF: the model will learn to write them so; --newline lf converts them"
            )
        if self.replaced:
            notes.append(f"{self.replaced:,} times bytes that are not UTF-8 became U+FFFD, {self.first_replaced}")
        if self.nuls:
            notes.append(f"the text holds {self.nuls:,} NUL characters, which are kept")
        if self.decomposed and cleaning.normalize == "none":
            notes.append(
                "the text is not in normal form NFC: one letter may be spelled in two ways; --normalize nfc composes it"
            )
        if self.joined:
            files = "a file" if self.joined == 1 else f"{self.joined:,} files"
            notes.append(f"a line end was added to {files} whose last line had none")
        return tuple(notes)


def text_of(source: Source, cleaning: Cleaning, findings: Findings, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """Yield the cleaned text of a source, in pieces; what is met on the way is added to `findings`.

    Raises CharRNNError that names the first byte that is not UTF-8, or for a source that is not text or cannot be read.
    """
    pieces = _without_mark(_decoded(source, cleaning, findings, chunk_bytes), findings)
    pieces = _line_ends(pieces, cleaning.newline == "lf", findings)
    return _composed(pieces) if cleaning.normalize == "nfc" else _watched(pieces, findings)


def _chunks(source: Source, chunk_bytes: int) -> Iterator[bytes]:
    try:
        with source.open() as stream:
            # Not read(), which waits for all of it without a look at signals: a pipe may stay open for long.
            while chunk := stream.read1(chunk_bytes):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CharRNNError(f"{source.name} is a damaged gzip file ({error})", "restore it from a copy") from None
    except OSError as error:
        reason = error.strerror or error
        raise CharRNNError(f"{source.name} cannot be read: {reason}", "check the path and its rights") from None


def _decoded(source: Source, cleaning: Cleaning, findings: Findings, chunk_bytes: int) -> Iterator[str]:
    pending = b""  # the bytes of a character whose end has not come yet
    offset = nuls = 0
    chunks = _chunks(source, chunk_bytes)
    while True:
        chunk = next(chunks, b"")
        data = pending + chunk
        nuls += chunk.count(0)
        if nuls > MANY_NULS * (offset + len(data)) and not cleaning.binary:
            learnable = cleaning.settable and _is_utf8(data)
            hint = "name a text" + (", or learn the bytes themselves with --tokenizer byte" if learnable else "")
            raise CharRNNError(f"{source.name} is not text: it is full of NUL bytes", _hint(data, hint))
        try:
            text, used = codecs.utf_8_decode(data, "strict", not chunk)
        except UnicodeDecodeError as error:
            if cleaning.errors != "replace":
                convert = "convert the file, for instance with iconv -f WINDOWS-1250 -t UTF-8 FILE"
                otherwise = ", or pass --errors replace" if cleaning.settable else ""
                raise CharRNNError(
                    f"{source.name}: byte {offset + error.start} is not UTF-8 ({error.reason})",
                    _hint(data, convert + otherwise),
                ) from None
            text, used = codecs.utf_8_decode(data, "replace", not chunk)
            if not findings.first_replaced:
                findings.first_replaced = f"first at byte {offset + error.start} of {source.name}"
            findings.replaced += text.count(REPLACEMENT) - data[:used].count(REPLACEMENT.encode())
        pending, offset = data[used:], offset + used
        if text:
            yield text
        if not chunk:
            findings.nuls += nuls
            return


def _is_utf8(data: bytes) -> bool:
    """Tell whether these bytes, which may end in the middle of a character, are UTF-8."""
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _hint(data: bytes, otherwise: str) -> str:
    """Say what to do about a source that does not begin like text: UTF-16 is the usual reason."""
    even, odd = data[:1024:2], data[1:1024:2]
    halved = min(even.count(0), odd.count(0)) < 0.05 * len(even) and max(even.count(0), odd.count(0)) > 0.6 * len(even)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or halved:
        return "it looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE"
    return otherwise


def _without_mark(pieces: Iterable[str], findings: Findings) -> Iterator[str]:
    begins = True
    for piece in pieces:
        if begins and piece.startswith(BYTE_ORDER_MARK):
            findings.marks += 1
            piece = piece[1:]
        begins = False
        if piece:
            yield piece


def _line_ends(pieces: Iterable[str], convert: bool, findings: Findings) -> Iterator[str]:
    """Count CR LF, and with `convert` turn it and a lone CR into LF; a CR at the end of a piece waits for the next."""
    held = ""
    for piece in pieces:
        piece = held + piece
        held = "\r" if piece.endswith("\r") else ""
        piece = piece[: len(piece) - len(held)]
        findings.crlf += piece.count("\r\n")
        if convert:
            piece = piece.replace("\r\n", "\n").replace("\r", "\n")
        if piece:
            yield piece
    if held:
        yield "\n" if convert else held


def _watched(pieces: Iterable[str], findings: Findings) -> Iterator[str]:
    for piece in pieces:
        if not findings.decomposed and not piece.isascii():
            findings.decomposed = not unicodedata.is_normalized("NFC", piece)
        yield piece


def _composed(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the text in normal form NFC; the end of a piece waits until no later character can join it."""
    held = ""
    for piece in pieces:
        held += piece
        cut = next((i for i in range(len(held) - 1, 0, -1) if _STANDS_ALONE.match(held, i)), 0)
        if cut:
            yield unicodedata.normalize("NFC", held[:cut])
            held = held[cut:]
    if held:
        yield unicodedata.normalize("NFC", held)
