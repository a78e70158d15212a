"""Text to ids and back, lossless for any Unicode text, id for id as the Hugging Face `tokenizers` library does it.

Ids 0..255 are the bytes; id 256 + i is the i-th character of the vocabulary, in code point order. A character that is
not in the vocabulary is spelled in its UTF-8 bytes, so there is no unknown token. V is the number of ids; the start
token that precedes a text (id V) belongs to the model, not to the tokenizer.

tokenizer.json is read and written here as plain JSON. The same ids come from `tokenizers.Tokenizer.from_file`, at a
fraction of the speed: it searches for merges there are none of, while a table over code points needs one look-up.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn import strict_json
from charrnn.errors import CharRNNError

Ids = NDArray[np.unsignedinteger[Any]]  # what encode returns: 1-D, of the tokenizer's dtype
IdsLike = NDArray[np.integer[Any]] | Sequence[int]
Normalize = Literal["none", "nfc"]

BYTES = 256
CODE_POINTS = 0x110000
BLOCK = 1 << 15  # characters looked up at a time, so that the temporaries stay in cache
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(BYTES)]
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Well-formed UTF-8: the Unicode Standard, table 3-7. State 0 is between characters; states 1, 2 and 3 want that many
# more continuation bytes; states 4 to 7 want a second byte of a narrower range, which is what shuts out overlong forms
# (E0, F0), surrogates (ED) and everything past U+10FFFF (F4). C0, C1 and F5..FF lead nowhere.
STATES = 8
TRANSITIONS = (  # in state, the bytes from..to lead to state
    (0, 0x00, 0x7F, 0),
    (0, 0xC2, 0xDF, 1),
    (0, 0xE0, 0xE0, 4),
    (0, 0xE1, 0xEC, 2),
    (0, 0xED, 0xED, 5),
    (0, 0xEE, 0xEF, 2),
    (0, 0xF0, 0xF0, 6),
    (0, 0xF1, 0xF3, 3),
    (0, 0xF4, 0xF4, 7),
    (1, 0x80, 0xBF, 0),
    (2, 0x80, 0xBF, 1),
    (3, 0x80, 0xBF, 2),
    (4, 0xA0, 0xBF, 1),
    (5, 0x80, 0x9F, 1),
    (6, 0x90, 0xBF, 2),
    (7, 0x80, 0x8F, 2),
)


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
                raise _surrogate(text, error.start) from None
        blocks = [self._encode_block(text, start) for start in range(0, max(len(text), 1), BLOCK)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _encode_block(self, text: str, start: int) -> Ids:
        codes = _code_points(text, start)
        ids = self._id_of.take(codes)  # half the time of indexing
        absent = np.iinfo(self.dtype).max
        unknown = np.flatnonzero(ids == absent)
        if not len(unknown):
            return ids
        spelled = codes.take(unknown)
        more_bytes = np.searchsorted([0x80, 0x800, 0x10000], spelled, side="right")  # than one
        ids = np.insert(ids, np.repeat(unknown, more_bytes), absent)  # now one place for each byte
        ids[ids == absent] = np.frombuffer(_text(spelled).encode("utf-8"), np.uint8)
        return ids

    @cached_property
    def _id_of(self) -> Ids:
        """The id of each code point, (0x110000,); the largest value of dtype, which is no id, where there is none."""
        table = np.full(CODE_POINTS, np.iinfo(self.dtype).max, self.dtype)
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
            return _text(self._code_of.take(array))
        continues = _continues(array)
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
        return _text(codes)

    def _decode_runs(self, ids: NDArray[np.integer[Any]], is_byte: NDArray[np.bool_]) -> str:
        """`decode` of ids in which some run of bytes is not UTF-8: run by run, the slow way."""
        pieces = []
        cuts = np.flatnonzero(is_byte[1:] != is_byte[:-1]) + 1
        for run in np.split(ids, cuts):
            if run[0] >= BYTES:
                pieces.append(_text(self._code_of[run]))
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
        return len(array) - int(np.count_nonzero(_continues(array)))

    def spelled_in_bytes(self, ids: IdsLike) -> int:
        """Count the characters that valid ids (N,) spell in bytes."""
        array = self._checked(ids)
        return int(np.count_nonzero((array < BYTES) & ~_continues(array)))

    def character_index(self, ids: IdsLike) -> NDArray[np.int64]:
        """For each of valid ids (N,), the index of the character it belongs to: (N,), from 0, never decreasing.

        np.bincount(character_index(ids), weights=nats) sums the nats of ids to the nats of characters.
        """
        array = self._checked(ids)
        index = np.cumsum(~_continues(array), dtype=np.int64) - 1
        if len(index) and index[0] < 0:  # -1 would be added to the last character
            raise CharRNNError(
                f"the ids begin with byte 0x{array[0]:02X}, inside a character, where a whole one is expected",
                "begin at an id outside 128..191",
            )
        return index

    # The automaton that keeps a sampler inside UTF-8

    @cached_property
    def next_state(self) -> NDArray[np.int8]:
        """The state after id v in state s, (8, V); -1 where v may not follow. State 0 is between characters.

        Byte ids follow table 3-7 of the Unicode Standard (TRANSITIONS, above); character ids go from state 0 to
        state 0. At most three more ids return to state 0 from anywhere. Read-only.
        """
        table = np.full((STATES, self.size), -1, np.int8)
        for state, first, last, after in TRANSITIONS:
            table[state, first : last + 1] = after
        table[0, BYTES:] = 0
        table.flags.writeable = False
        return table

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """A table (8, V) that tells whether id v may follow in state s: next_state >= 0. Read-only."""
        table = self.next_state >= 0
        table.flags.writeable = False
        return table

    # tokenizer.json

    def to_json(self) -> str:
        """This tokenizer as the tokenizer.json of the Hugging Face `tokenizers` library."""
        return json.dumps(self._document(), ensure_ascii=False, indent=2) + "\n"

    def _document(self) -> dict[str, Any]:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "NFC"} if self.normalize == "nfc" else None,
            "pre_tokenizer": None,
            "post_processor": None,
            # Without a decoder the library puts spaces between characters.
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {token: id_ for id_, token in enumerate((*BYTE_TOKENS, *self.characters))},
                "merges": [],
            },
        }

    @classmethod
    def from_json(cls, text: str, source: str) -> "Tokenizer":
        """Read the tokenizer that `to_json` wrote; `source` names it in errors.

        Anything else that the `tokenizers` library could read, and that would encode differently, raises CharRNNError.
        """
        try:
            document = strict_json.loads(text)
            model = document["model"]
            tokens = _in_id_order(model.pop("vocab"))
            normalize: Normalize = "nfc" if document["normalizer"] == {"type": "NFC"} else "none"
            tokenizer = cls(tuple(tokens[BYTES:]), normalize)
            expected = tokenizer._document()
            del expected["model"]["vocab"]
            _same(document.pop("model"), expected.pop("model"), "model.")
            _same(document, expected, "")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, CharRNNError) as error:
            problem = error.problem if isinstance(error, CharRNNError) else f"{type(error).__name__}: {error}"
            raise CharRNNError(
                f"{source}: not a tokenizer.json that charrnn wrote: {problem}",
                "restore the file from a copy, or train again",
            ) from None
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json to `path`."""
        try:
            Path(path).write_bytes(self.to_json().encode("utf-8"))
        except OSError as error:
            raise CharRNNError(f"{path}: cannot be written: {error.strerror}", "choose another folder") from None

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read the tokenizer.json at `path`."""
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except OSError as error:
            raise CharRNNError(f"{path}: cannot be read: {error.strerror}", "check the path") from None
        except UnicodeDecodeError as error:
            raise CharRNNError(f"{path}: byte {error.start} is not UTF-8", "restore the file from a copy") from None
        return cls.from_json(text, str(path))


class TextStream:
    """Ids to text one at a time, for text that is shown while it is made.

    state: where in `tokenizer.next_state` the stream stands; 0 when no character is half made.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.state = 0
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """The bytes of the character that is half made."""
        return bytes(self._pending)

    def push(self, id_: int) -> str:
        """Return the character that this id ends, or "" while its bytes are incomplete.

        Raises CharRNNError, and stays as it was, for an id that may not follow.
        """
        known = 0 <= id_ < self.tokenizer.size
        after = int(self.tokenizer.next_state[self.state, id_]) if known else -1
        if after < 0:
            where = f"after byte 0x{self._pending[-1]:02X}" if self._pending else "between two characters"
            raise CharRNNError(
                f"id {id_} came {where}, where it is expected to begin or continue a character of valid UTF-8",
                "draw only ids that Tokenizer.allowed permits in this state",
            )
        self.state = after
        if id_ >= BYTES:
            return self.tokenizer.characters[id_ - BYTES]
        self._pending.append(id_)
        if after:
            return ""
        character = self._pending.decode("utf-8")
        self._pending.clear()
        return character


def count_characters(text: str) -> Counter[str]:
    """Count how often each character occurs in a text; add the counts of pieces to count a corpus."""
    counts: Counter[str] = Counter()
    for start in range(0, len(text), BLOCK * 32):
        of_code = np.bincount(_code_points(text, start, BLOCK * 32))
        seen = np.flatnonzero(of_code)
        counts.update(dict(zip(map(chr, seen.tolist()), of_code[seen].tolist(), strict=True)))
    return counts


def _code_points(text: str, start: int, length: int = BLOCK) -> NDArray[np.uint32]:
    """Return the code points of text[start : start + length]."""
    try:
        return np.frombuffer(text[start : start + length].encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as error:
        raise _surrogate(text, start + error.start) from None


def _text(codes: NDArray[np.uint32]) -> str:
    """Return the text of code points (N,)."""
    return str(codes.tobytes(), "utf-32-le")


def _surrogate(text: str, position: int) -> CharRNNError:
    return CharRNNError(
        f"character {position} of the text is U+{ord(text[position]):04X}, a lone surrogate, "
        "where whole Unicode characters are expected",
        'remove it, or replace it: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")',
    )


def _continues(ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which ids are UTF-8 continuation bytes, the ones that begin no character."""
    return (ids >= 0x80) & (ids < 0xC0)


def _in_id_order(vocab: dict[str, Any]) -> list[str]:
    """List the tokens of a vocabulary, whose ids must be 0..V-1 with the byte tokens first."""
    for token, id_ in vocab.items():
        if type(id_) is not int:  # True == 1 == 1.0, but none of them is written for another
            raise ValueError(f"token {token!r} has id {id_!r}, where an integer is expected")
    tokens = sorted(vocab, key=vocab.__getitem__)
    for expected, token in enumerate(tokens):
        if vocab[token] != expected:
            raise ValueError(f"token {token!r} has id {vocab[token]}, where {expected} is expected")
    for id_, expected_token in enumerate(BYTE_TOKENS):
        if id_ >= len(tokens) or tokens[id_] != expected_token:
            given = repr(tokens[id_]) if id_ < len(tokens) else "missing"
            raise ValueError(f"the token of id {id_} is {given}, where {expected_token!r} is expected")
    return tokens


def _same(given: dict[str, Any], expected: dict[str, Any], prefix: str) -> None:
    """Raise ValueError for the first key in which two JSON objects differ."""
    for key in {**expected, **given}:
        left, right = (
            json.dumps(side[key], sort_keys=True) if key in side else "missing" for side in (given, expected)
        )
        if left != right:
            raise ValueError(f"{prefix}{key} is {left[:80]}, where {right} is expected")
