"""Text to ids and back, lossless for any Unicode text, id for id as the Hugging Face `tokenizers` library does it.

Ids 0..255 are the bytes; id 256 + i is the i-th character of the vocabulary, in code point order. A character that is
not in the vocabulary is spelled in its UTF-8 bytes, so there is no unknown token. V is the number of ids; the start
token that precedes a text (id V) belongs to the model, not to the tokenizer.

The library makes and writes tokenizer.json, and `huggingface` hands its tokenizer out. It gives the same ids at a
fraction of the speed: it searches for merges there are none of, while a table over code points needs one look-up.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError
from charrnn.text import tokenizer_json, utf8
from charrnn.text.code_points import BLOCK, code_points, surrogate, text_of
from charrnn.text.code_points import count_characters as count_characters
from charrnn.text.text_stream import TextStream as TextStream
from charrnn.text.tokenizer_json import Normalize as Normalize
from charrnn.text.utf8 import BYTES as BYTES
from charrnn.text.utf8 import is_continuation

if TYPE_CHECKING:  # making and writing a tokenizer.json need the library, reading one does not
    import tokenizers

Ids = NDArray[np.unsignedinteger[Any]]  # what encode returns: 1-D, of the tokenizer's dtype
IdsLike = NDArray[np.integer[Any]] | Sequence[int]

CODE_POINTS = 0x110000
SHORT = 64  # characters, up to which they are looked up one by one: that is faster
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A vocabulary of single characters over the 256 bytes; make one with `char`, `byte`, `from_counts` or `load`.

    characters: sorted by code point, without repetition; none at all makes it a byte tokenizer.
    normalize: what `clean` does to a text. `encode` never changes the text it is given.
    """

    characters: tuple[str, ...] = ()
    normalize: Normalize = "none"

    def __post_init__(self) -> None:
        for character in self.characters:
            if len(character) != 1 or "\ud800" <= character <= "\udfff":
                raise CharRNNError(
                    f"{character!r} is in the vocabulary, where single characters other than surrogates are expected",
                    "leave it out, or give its characters one by one",
                )
        for left, right in zip(self.characters, self.characters[1:], strict=False):
            if left >= right:
                raise CharRNNError(
                    f"{right!r} follows {left!r} in the vocabulary, where each character is expected once, "
                    "in code point order",
                    "make it with Tokenizer.char, which sorts them",
                )
        if self.normalize not in ("none", "nfc"):
            raise CharRNNError(f"normalize is {self.normalize!r}", "choose from: none, nfc")

    @classmethod
    def char(cls, characters: Iterable[str], normalize: Normalize = "none") -> "Tokenizer":
        """Make the tokenizer of these characters, in any order; one that is given twice counts once."""
        return cls(tuple(sorted(set(characters))), normalize)

    @classmethod
    def byte(cls, normalize: Normalize = "none") -> "Tokenizer":
        """Make the tokenizer that spells every character in UTF-8."""
        return cls((), normalize)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], minimum: int = 3, normalize: Normalize = "none") -> "Tokenizer":
        """Make it of the characters that occur `minimum` times or more in text counted by `count_characters`.

        The rarer ones are spelled in bytes in training too: otherwise the byte rows would never be trained.
        """
        return cls.char((character for character, count in counts.items() if count >= minimum), normalize)

    @property
    def kind(self) -> Literal["char", "byte"]:
        """ "byte" where every character is spelled in bytes, else "char"."""
        return "char" if self.characters else "byte"

    @property
    def size(self) -> int:
        """V, the number of ids."""
        return BYTES + len(self.characters)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type, from 16 bits up, that holds every id, the start token V, and one value more."""
        return np.dtype(np.uint16 if self.size < 65535 else np.uint32)

    def __repr__(self) -> str:
        normalize = "" if self.normalize == "none" else f", {self.normalize}"
        return f"Tokenizer({self.kind}, {len(self.characters)} characters, V = {self.size}{normalize})"

    # Text to ids

    def clean(self, text: str) -> str:
        """Return the text in this tokenizer's normal form; corpora and primes go through it before `encode`.

        Give it whole texts: the normal form of a text is not that of its pieces. Unicode's NFC is Python's own; the
        `tokenizers` library carries older tables, which order some 50 rare combining marks differently.
        """
        return unicodedata.normalize("NFC", text) if self.normalize == "nfc" else text

    def encode(self, text: str) -> Ids:
        """Return the ids of a text: (N,) of `dtype`, with N at least the number of characters.

        Raises CharRNNError for a lone surrogate, which is half a character and has no UTF-8 form.
        """
        if not self.characters:
            try:
                return np.frombuffer(text.encode("utf-8"), np.uint8).astype(self.dtype)
            except UnicodeEncodeError as error:
                raise surrogate(text, error.start) from None
        blocks = [self._encode_block(text, start) for start in range(0, max(len(text), 1), BLOCK)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _encode_block(self, text: str, start: int) -> Ids:
        codes = code_points(text, start)
        ids = self._id_of.take(codes)  # half the time of indexing
        absent = self._absent
        unknown = np.flatnonzero(ids == absent)
        if not len(unknown):
            return ids
        spelled = codes.take(unknown)
        more_bytes = np.searchsorted([0x80, 0x800, 0x10000], spelled, side="right")  # than one
        ids = np.insert(ids, np.repeat(unknown, more_bytes), absent)  # now one place for each byte
        ids[ids == absent] = np.frombuffer(text_of(spelled).encode("utf-8"), np.uint8)
        return ids

    @cached_property
    def _absent(self) -> int:
        """The largest value of dtype, which is no id."""
        return int(np.iinfo(self.dtype).max)

    @cached_property
    def _id_of(self) -> Ids:
        """The id of each code point, (0x110000,); `_absent` where there is none."""
        table = np.full(CODE_POINTS, self._absent, self.dtype)
        table[self._code_of[BYTES:]] = np.arange(BYTES, self.size)
        return table

    # Ids to text

    @cached_property
    def _code_of(self) -> NDArray[np.uint32]:
        """The code point of each id, (V,); right for the ASCII bytes, meaningless for the other 128."""
        bytes_ = np.arange(BYTES, dtype=np.uint32)
        return np.concatenate((bytes_, np.frombuffer("".join(self.characters).encode("utf-32-le"), "<u4")))

    def decode(self, ids: IdsLike) -> str:
        """Return the text that ids (N,) spell: decode(encode(text)) == text, for every text.

        A run of bytes that is not valid UTF-8 becomes U+FFFD throughout, once for each byte of it, as in `tokenizers`.
        A character can be spelled in bytes that has an id too, so encode(decode(ids)) need not be ids.
        """
        array = self._checked(ids)
        is_byte = array < BYTES
        if not (is_byte & (array >= 0x80)).any():
            return text_of(self._code_of.take(array))
        continues = is_continuation(array)
        run_starts = is_byte & ~np.concatenate(([False], is_byte[:-1]))
        if (continues & run_starts).any():  # two runs must not be taken for one character
            return self._decode_runs(array, is_byte)
        try:
            spelled = array[is_byte].astype(np.uint8).tobytes().decode("utf-8")
        except UnicodeDecodeError:
            return self._decode_runs(array, is_byte)
        whole = array[~continues]
        codes = self._code_of.take(whole)
        codes[whole < BYTES] = np.frombuffer(spelled.encode("utf-32-le"), "<u4")
        return text_of(codes)

    def _decode_runs(self, ids: NDArray[np.integer[Any]], is_byte: NDArray[np.bool_]) -> str:
        """`decode` of ids in which some run of bytes is not UTF-8: run by run, the slow way."""
        pieces = []
        cuts = np.flatnonzero(is_byte[1:] != is_byte[:-1]) + 1
        for run in np.split(ids, cuts):
            if run[0] >= BYTES:
                pieces.append(text_of(self._code_of[run]))
                continue
            spelled = run.astype(np.uint8).tobytes()
            try:
                pieces.append(spelled.decode("utf-8"))
            except UnicodeDecodeError:
                pieces.append(REPLACEMENT * len(spelled))
        return "".join(pieces)

    def _checked(self, ids: IdsLike) -> NDArray[np.integer[Any]]:
        """Ids as an array (N,), every one of them in 0..V-1."""
        array = np.asarray(ids)
        if array.ndim == 1 and array.size == 0:
            return array.astype(self.dtype)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise CharRNNError(
                f"ids of shape {array.shape} and type {array.dtype} were given, where a row of integers is expected",
                "give one text's ids at a time",
            )
        if array.min() < 0 or array.max() >= self.size:
            position = int(np.flatnonzero((array < 0) | (array >= self.size))[0])
            raise CharRNNError(
                f"id {array[position]} at position {position} is not in 0..{self.size - 1}, the ids of this tokenizer",
                "use the tokenizer.json of the model that made the ids, and leave out the start token",
            )
        return array

    # Characters of an id sequence

    def characters_in(self, ids: IdsLike) -> int:
        """Count the characters that valid ids (N,) spell; one of 3 bytes is one character."""
        array = self._checked(ids)
        return len(array) - int(np.count_nonzero(is_continuation(array)))

    def spelled_in_bytes(self, ids: IdsLike) -> int:
        """Count the characters that valid ids (N,) spell in bytes."""
        array = self._checked(ids)
        return int(np.count_nonzero((array < BYTES) & ~is_continuation(array)))

    def character_index(self, ids: IdsLike) -> NDArray[np.int64]:
        """Return, for each of valid ids (N,), the index of its character: (N,), from 0, never decreasing.

        np.bincount(character_index(ids), weights=nats) sums the nats of ids to the nats of characters.
        """
        array = self._checked(ids)
        index = np.cumsum(~is_continuation(array), dtype=np.int64) - 1
        if len(index) and index[0] < 0:  # -1 would be added to the last character
            raise CharRNNError(
                f"the ids begin with byte 0x{array[0]:02X}, inside a character, where a whole one is expected",
                "begin at an id outside 128..191",
            )
        return index

    # The automaton that keeps a sampler inside the spelling that `encode` gives

    @cached_property
    def next_state(self) -> NDArray[np.int16]:
        """The state after id v in state s, (S, V), as `utf8.next_state` gives it: -1 where v may not follow."""
        return utf8.next_state(self.characters)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """A table (S, V) that tells whether id v may follow in state s: next_state >= 0. Read-only."""
        table = self.next_state >= 0
        table.flags.writeable = False
        return table

    # tokenizer.json

    def huggingface(self) -> "tokenizers.Tokenizer":
        """Return the tokenizer of the Hugging Face library `tokenizers` that gives the same ids and the same text."""
        return tokenizer_json.huggingface(self.characters, self.normalize)

    def to_json(self) -> str:
        """Return the tokenizer.json that the library `tokenizers` writes of this tokenizer."""
        return tokenizer_json.write(self.characters, self.normalize)

    def canonical_json(self) -> str:
        """Return what `to_json` does, put together without the library: a name for what the tokenizer does."""
        return tokenizer_json.canonical(self.characters, self.normalize)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Tokenizer":
        """Return the tokenizer that `to_json` wrote; `source` names it in errors.

        Anything else that the `tokenizers` library could read, and that would encode differently, raises CharRNNError.
        """
        try:
            return cls(*tokenizer_json.read(text))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, CharRNNError) as error:
            problem = error.problem if isinstance(error, CharRNNError) else f"{type(error).__name__}: {error}"
            raise CharRNNError(
                f"{source}: not a tokenizer.json that charrnn wrote: {problem}",
                "restore the file from a copy, or train again",
            ) from None

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json to `path`."""
        tokenizer_json.save(self.to_json(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read the tokenizer.json at `path`."""
        return cls.from_json(tokenizer_json.load(Path(path)), str(path))
