"""Bytes to text: decoded and checked, a byte order mark dropped, line ends and normal form as the settings say."""

import codecs
import gzip
import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from charrnn.errors import CharRNNError
from charrnn.text import encodings
from charrnn.text.corpora import Source
from charrnn.text.settings import TextSettings
from charrnn.text.utf8 import BYTE_ORDER_MARK as BYTE_ORDER_MARK

CHUNK_BYTES = 1 << 22
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MANY_NULS = 1 / 1000  # of the bytes: text has none, UTF-16 every second one, other binary formats many

# Before each of these a text may be cut and its pieces composed apart: none of them ever joins what precedes it.
# (Up to U+02FF; hiragana and ideographs, where there may be no others for a long time.)
_STANDS_ALONE = re.compile("[\\u0000-\\u02ff\\u3001-\\u3098\\u4e00-\\u9fff]")


@dataclass(frozen=True)
class Cleaning:
    """The way bytes become text; see the settings of the same names. binary: whether many NULs are let through.

    settable: whether these can still be chosen, so that advice may name them: in training, but not of a text that is
    read as an earlier one was. encodable: whether --encoding can be given, which belongs to every file.
    """

    newline: str = "keep"
    errors: str = "strict"
    normalize: str = "none"
    binary: bool = False
    settable: bool = False
    encoding: str = encodings.UTF8
    encodable: bool = False

    @classmethod
    def of(cls, settings: TextSettings) -> "Cleaning":
        """Return the cleaning that the settings of a run ask for."""
        binary = settings.tokenizer == "byte"
        return cls(
            settings.newline,
            settings.errors,
            settings.normalize,
            binary=binary,
            settable=True,
            encoding=settings.encoding,
            encodable=True,
        )


@dataclass
class Findings:
    """Findings while reading, to be told afterwards; the readers of several sources add to one."""

    marks: int = 0
    crlf: int = 0
    cr: int = 0
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
        if self.cr and cleaning.newline == "lf":
            notes.append(f"{self.cr:,} line ends of CR alone were turned into LF")
        elif self.cr:
            notes.append(
                f"{self.cr:,} times there is a CR alone, which ends neither line nor document; --newline lf makes it LF"
            )
        if self.replaced:
            notes.append(
                f"{self.replaced:,} times bytes that do not fit the encoding became U+FFFD, {self.first_replaced}"
            )
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

    Raises CharRNNError that names the first byte that does not fit the encoding, and for a source that is no text or
    cannot be read.
    """
    pieces = _without_mark(_decoded(source, cleaning, findings, chunk_bytes), findings)
    pieces = _line_ends(pieces, cleaning.newline == "lf", findings)
    return _composed(pieces) if cleaning.normalize == "nfc" else _watched(pieces, findings)


def decoded(source: Source, encoding: str) -> str:
    """Return all of the text of a source just as it is, decoded alone. Raises CharRNNError where it does not fit."""
    return "".join(_decoded(source, Cleaning(encoding=encoding, binary=True, encodable=True), Findings(), CHUNK_BYTES))


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


def _with_whole_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield bytes in pieces of which the first, where there are so many, has all of a byte order mark."""
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) >= encodings.MARK_BYTES:
            yield beginning
            break
    else:
        yield beginning
    yield from chunks


def _decoded(source: Source, cleaning: Cleaning, findings: Findings, chunk_bytes: int) -> Iterator[str]:
    encoding = source.encoding or cleaning.encoding
    reader = _Reader(source, encoding, cleaning, findings)
    chunks = _with_whole_mark(_chunks(source, chunk_bytes))
    beginning = next(chunks, b"")
    if encodings.lacks_mark(beginning, encoding):
        raise CharRNNError(
            f"{source.name} begins without the mark that says which byte of a character comes first",
            encodings.advice(encodings.Misfit(beginning, 0, len(beginning) == source.bytes), cleaning.encodable)
            or f"give {encoding}-le or {encoding}-be",
        )
    for chunk in itertools.chain([beginning] if beginning else [], chunks, [b""]):
        if text := reader.read(chunk):
            yield text
    reader.tell()


class _Reader:
    """Bytes of one source on their way to text: decoded, checked, counted."""

    def __init__(self, source: Source, encoding: str, cleaning: Cleaning, findings: Findings) -> None:
        self._name, self._size, self._encoding = source.name, source.bytes, encoding
        self._cleaning, self._findings = cleaning, findings
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._is_utf8 = encoding == encodings.UTF8
        self._bytes = self._characters = self._nuls = 0
        # Reads the same bytes as UTF-8 as long as they are, where another encoding was asked for.
        self._witness = None if encoding in encodings.UNITS else codecs.getincrementaldecoder(encodings.UTF8)()
        self._seen = False  # a byte outside ASCII
        self._controls = False  # U+0080 to U+009F, of which a text has none

    def read(self, chunk: bytes) -> str:
        """Return the characters that end in a chunk; an empty one is the end of the source."""
        self._bytes += len(chunk)
        if self._is_utf8:  # before they are decoded: NULs say most about what is no text
            self._nuls += chunk.count(0)
            self._refuse_nuls(self._bytes, chunk)
        else:
            self._look_for_utf8(chunk)
        held = self._decoder.getstate()
        try:
            text = self._decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            if self._cleaning.errors != "replace":
                raise self._refusal(error) from None
            first = f"first at byte {self._at(error)} of {self._name}"
            self._findings.first_replaced = self._findings.first_replaced or first
            self._decoder.errors = "replace"
            self._decoder.setstate(held)
            text = self._decoder.decode(chunk, not chunk)
        if self._decoder.errors == "replace":
            self._findings.replaced += text.count(REPLACEMENT)
            if self._is_utf8:  # what the source itself spells replaces nothing
                taken = held[0] + chunk
                taken = taken[: len(taken) - len(self._decoder.getstate()[0])]
                self._findings.replaced -= taken.count(REPLACEMENT.encode())
        if not self._is_utf8:
            self._characters += len(text)
            self._nuls += text.count("\0")
            self._refuse_nuls(self._characters, chunk)
            self._controls = self._controls or any("\x7f" < c < "\xa0" for c in set(text))
        return text

    def tell(self) -> None:
        """Add what was found to the findings, at the end of the source."""
        self._findings.nuls += self._nuls
        if self._witness is not None and self._seen and not self._is_utf8:
            self._findings.others.append(
                f"{self._name} is UTF-8 too, and was read as {self._encoding}: where letters come out wrong, "
                "leave out --encoding, or give --encoding utf-8"
            )

        if self._controls and self._encoding.startswith("iso8859"):
            self._findings.others.append(
                f"{self._name}, read as {self._encoding}, holds control characters where Windows has quotes: "
                "an encoding such as cp1252 may be meant"
            )

    def _look_for_utf8(self, chunk: bytes) -> None:
        if self._witness is None:
            return
        self._seen = self._seen or not chunk.isascii()
        try:
            self._witness.decode(chunk, not chunk)
        except UnicodeDecodeError:
            self._witness = None

    def _refuse_nuls(self, of: int, chunk: bytes) -> None:
        if self._nuls <= MANY_NULS * of or self._cleaning.binary:
            return
        data = (self._decoder.getstate()[0] if self._is_utf8 else b"") + chunk
        learnable = self._cleaning.settable and self._is_utf8 and encodings.is_utf8(data)
        otherwise = "name a text" + (", or learn the bytes themselves with --tokenizer byte" if learnable else "")
        advice = encodings.advice_on_nuls(self._misfit(data, 0), self._cleaning.encodable)
        raise CharRNNError(f"{self._name} is not text: it is full of NUL bytes", advice or otherwise)

    def _at(self, error: UnicodeDecodeError) -> int:
        """Return the offset of an error in the source: its object ends where the last chunk does."""
        return self._bytes - len(error.object) + error.start

    def _misfit(self, data: bytes, at: int) -> encodings.Misfit:
        return encodings.Misfit(data, at, whole=self._bytes == self._size)

    def _refusal(self, error: UnicodeDecodeError) -> CharRNNError:
        """Return the error for bytes that do not fit the encoding, with those that they may be in."""
        name = "UTF-8" if self._is_utf8 else self._encoding
        problem = f"{self._name}: byte {self._at(error)} is not {name} ({error.reason})"
        otherwise = "pass --errors replace, which puts U+FFFD there" if self._cleaning.settable else ""
        if self._is_utf8 and encodings.is_damaged_utf8(error.object):
            restore = "all else is UTF-8, so it was damaged there: restore the file"
            return CharRNNError(problem, f"{restore}, or {otherwise}" if otherwise else restore)
        advice = encodings.advice(self._misfit(error.object, error.start), self._cleaning.encodable, otherwise)
        return CharRNNError(problem, advice or otherwise or "convert it to UTF-8")


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
    """Count CR LF and CR alone, and with `convert` turn them into LF; a CR at a piece's end waits for the next."""
    held = ""
    for piece in pieces:
        piece = held + piece
        held = "\r" if piece.endswith("\r") else ""
        piece = piece[: len(piece) - len(held)]
        together = piece.count("\r\n")
        findings.crlf += together
        findings.cr += piece.count("\r") - together
        if convert:
            piece = with_lf(piece)
        if piece:
            yield piece
    if held:
        findings.cr += 1
        yield "\n" if convert else held


def with_lf(text: str) -> str:
    """Return a text whose lines end in LF, where they ended in CR LF or CR."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
