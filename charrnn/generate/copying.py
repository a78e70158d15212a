"""Copies in a completion: the longest passage that stands verbatim in the training text, and a limit on its length.

The private copy of the corpus is read through, or searched memory-mapped. Nothing is built beforehand, and a text that
is larger than memory is searched too.
"""

import mmap
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.text.settings import TextSettings
from charrnn.text.tokenizer import BYTES, Tokenizer

if TYPE_CHECKING:  # completing does without what reads texts
    from charrnn.text.corpus import Text

PIECE = 1 << 16  # characters compared at a time, so that they stay in cache
PAIRS = 1 << 20  # places compared at a time, so that a text that repeats itself does not fill the memory
GRAMS = (8, 3, 1)  # lengths by which places are found: all passages of 8 characters or more, else of 3, else of 1
MULTIPLIER = np.uint32(0x9E3779B1)  # odd, near 2^32 / golden ratio: the high bits of its products depend on every bit

Codes = NDArray[np.uint32]


class Passage(NamedTuple):
    """A passage that stands in the training text. offset: where, in characters from the beginning."""

    text: str
    offset: int


class TrainingText:
    """The training part of a corpus, to be searched."""

    def __init__(self, text: "Text", split: tuple[float, ...]) -> None:
        self._text, self._split = text, split
        self._known_followers: dict[bytes, frozenset[str]] = {}

    @classmethod
    def of(cls, settings: TextSettings) -> "TrainingText":
        """Return the text that a run was trained on, from its private copy. Raises CharRNNError where that is gone."""
        from charrnn.text.corpus import private_copy

        return cls(private_copy(settings), settings.split)

    def longest(self, text: str) -> Passage:
        """Return the longest part of `text` that stands in the training text; empty where not one character does."""
        needle = _codes(text)
        best, begin, offset = 0, 0, 0
        for gram in GRAMS:
            if best >= gram or len(needle) < gram:  # all that is as long as a gram was found by it
                continue
            wanted = _Wanted(needle, gram)
            for position, piece in self._pieces(len(needle)):
                found = wanted.longer(piece, best)
                if found is not None:
                    best, begin, offset = found[0], found[1], position + found[2]
                if best == len(needle):
                    break
        return Passage(text[begin : begin + best], offset)

    def _pieces(self, overlap: int) -> Iterator[tuple[int, Codes]]:
        """Yield the text with the offset of each piece, which begins with the last `overlap` characters before it."""
        position, tail = 0, ""
        for part, chunk in self._text.part_chunks(self._split):
            if part != "train":
                return
            for i in range(0, len(chunk), PIECE):
                piece = tail + chunk[i : i + PIECE]
                yield position - len(tail), _codes(piece)
                position += len(chunk[i : i + PIECE])
                tail = piece[-overlap:]

    def followers(self, context: bytes) -> frozenset[str]:
        """Return the characters that follow `context`, which is UTF-8, anywhere in the training text."""
        if context not in self._known_followers:
            found = set()
            at = self._utf8.find(context)
            while at >= 0:
                end = at + len(context)
                found.add(self._utf8[end : end + 4].decode("utf-8", "ignore")[:1])
                at = self._utf8.find(context, at + 1)
            self._known_followers[context] = frozenset(found - {""})
        return self._known_followers[context]

    def has(self, utf8: bytes) -> bool:
        """Tell whether these bytes stand in the training text."""
        return self._utf8.find(utf8) >= 0

    @cached_property
    def _utf8(self) -> mmap.mmap:
        pieces = self._text.part_chunks(self._split)
        length = sum(len(piece.encode("utf-8")) for part, piece in pieces if part == "train")
        with self._text.path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_READ)


class _Wanted:
    """The grams of a needle (N,), to be looked up in other texts."""

    def __init__(self, needle: Codes, gram: int) -> None:
        self._needle, self._gram = needle, gram
        hashes = _hashes(needle, gram)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._sieve = np.zeros(1 << 16, bool)  # which high halves of a hash are worth a closer look
        self._sieve[hashes >> 16] = True

    def longer(self, piece: Codes, best: int) -> tuple[int, int, int] | None:
        """Find the longest match of more than `best` characters: its length, its places in the needle and the piece."""
        if len(piece) < self._gram:
            return None
        hashes = _hashes(piece, self._gram)
        places = np.flatnonzero(self._sieve.take(hashes >> 16))
        first = np.searchsorted(self._hashes, hashes[places])
        counts = np.searchsorted(self._hashes, hashes[places], side="right") - first
        found = None
        for i in _slices(counts):
            repeated = np.repeat(np.arange(i.start, i.stop), counts[i])
            within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[i]) - counts[i], counts[i])
            p, n = places[repeated], self._order[first[repeated] + within]
            worth = (n + best < len(self._needle)) & (p + best < len(piece))
            p, n = p[worth], n[worth]
            worth = piece[p + best] == self._needle[n + best]  # what is longer has this in common too
            p, n = p[worth], n[worth]
            lengths = _common(piece, p, self._needle, n)
            if len(lengths) and lengths.max() > best:
                k = int(lengths.argmax())
                best = int(lengths[k])
                found = best, int(n[k]), int(p[k])
        return found


def _slices(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of an array whose counts sum to some PAIRS at the most, if none of them is larger."""
    begin = 0
    for i in [*np.flatnonzero(np.diff(np.cumsum(counts) // PAIRS, prepend=0)).tolist(), len(counts)]:
        if i > begin:
            yield slice(begin, i)
            begin = i


def _common(a: Codes, p: NDArray[np.int64], b: Codes, n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the characters that a[p:] and b[n:] have in common, for every pair of p and n (K,)."""
    lengths = np.zeros(len(p), np.int64)
    going = np.arange(len(p))
    length = 0
    while len(going):
        inside = (p[going] + length < len(a)) & (n[going] + length < len(b))
        going = going[inside]
        going = going[a[p[going] + length] == b[n[going] + length]]
        length += 1
        lengths[going] = length
    return lengths


def _hashes(codes: Codes, gram: int) -> Codes:
    """Hash each gram of codes (N,): (N - gram + 1,)."""
    count = len(codes) - gram + 1
    hashes = np.zeros(count, np.uint32)
    for i in range(gram):
        hashes = (hashes + codes[i : i + count]) * MULTIPLIER
    return hashes


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class CopyLimit:
    """A limit on copying: no completion has `limit` characters, 2 or more, in a row from the training text.

    One is made for each completion: it remembers where it looked.
    """

    def __init__(self, text: TrainingText, tokenizer: Tokenizer, limit: int) -> None:
        self._text, self._context = text, limit - 1
        self._absent = -1  # where something begins that was looked for in vain and ends where the completion then did
        self._tokenizer = tokenizer
        self._id_of = {c: i for i, c in enumerate(tokenizer.characters, BYTES)}

    def forbidden(self, drawn: str, pending: bytes) -> list[int]:
        """Return the ids that may not follow.

        drawn: the characters of the completion so far. pending: the bytes drawn of an unfinished one.
        """
        begin = len(drawn) - self._context
        if begin < 0 or begin <= self._absent:
            return []
        middle = len(drawn) - self._context // 2
        if middle < len(drawn) and not self._text.has(drawn[middle:].encode("utf-8")):
            self._absent = middle  # until that has left the context, there is no need to look again
            return []
        following = self._text.followers(drawn[begin:].encode("utf-8"))
        known = [] if pending else [self._id_of[c] for c in following if c in self._id_of]
        spelled = {c.encode("utf-8") for c in following if c not in self._id_of}
        return known + [begun[-1] for begun in self._with_dead_ends(spelled) if begun[:-1] == pending]

    def _with_dead_ends(self, spelled: set[bytes]) -> set[bytes]:
        """Add the bytes after which nothing but these characters may follow: who draws them could not go on."""
        dead, following = set(spelled), self._tokenizer.next_state
        for begun in sorted({s[:n] for s in spelled for n in range(1, len(s))}, key=len, reverse=True):
            position = 0
            for byte in begun:
                position = int(following[position, byte])
            if all(begun + bytes([byte]) in dead for byte in np.flatnonzero(following[position] >= 0)):
                dead.add(begun)
        return dead
