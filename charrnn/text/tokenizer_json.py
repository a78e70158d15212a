"""tokenizer.json: made and written by the library `tokenizers`, read without it.

What is read is compared with what is written, field by field: a file that the library would encode differently by is
an error. So nothing that only completes a text imports the library.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from charrnn import files, strict_json
from charrnn.errors import CharRNNError
from charrnn.text.utf8 import BYTES

if TYPE_CHECKING:
    import tokenizers

Normalize = Literal["none", "nfc"]

BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(BYTES)]


def huggingface(characters: Sequence[str], normalize: Normalize) -> "tokenizers.Tokenizer":
    """Put the library's tokenizer together: single characters over the 256 bytes, without merges."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    made = Tokenizer(models.BPE(vocab=_vocabulary(characters), merges=[], byte_fallback=True))
    if normalize == "nfc":
        made.normalizer = normalizers.NFC()
    # Without a decoder the library puts spaces between characters.
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return made


def write(characters: Sequence[str], normalize: Normalize) -> str:
    """Return the tokenizer.json that the library writes; CharRNNError where its version writes what `read` refuses."""
    text = huggingface(characters, normalize).to_str(pretty=True) + "\n"
    try:
        read(text)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CharRNNError(
            f"the library tokenizers writes a tokenizer.json of another form here: {error}",
            "install a version that charrnn asks for: pip install charrnn, or see docs/compatibility.md",
        ) from None
    return text


def canonical(characters: Sequence[str], normalize: Normalize) -> str:
    """Return the text that `write` does, without the library."""
    document = _expected(normalize)
    merges = document["model"].pop("merges")  # the last key, after the vocabulary
    document["model"] |= {"vocab": _vocabulary(characters), "merges": merges}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def read(text: str) -> tuple[tuple[str, ...], Normalize]:
    """Return the characters and the normal form of a tokenizer.json; the characters are as they stand there.

    Raises ValueError, TypeError, AttributeError, KeyError or RecursionError for what `write` does not write.
    """
    document = strict_json.loads(text)
    model = document["model"]
    tokens = _in_id_order(model.pop("vocab"))
    normalize: Normalize = "nfc" if document["normalizer"] == {"type": "NFC"} else "none"
    expected = _expected(normalize)
    _same(document.pop("model"), expected.pop("model"), "model.")
    _same(document, expected, "")
    return tuple(tokens[BYTES:]), normalize


def save(text: str, path: Path) -> None:
    """Write a tokenizer.json to a file. Raises CharRNNError where that cannot be written."""
    try:
        files.write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise CharRNNError(f"{path}: cannot be written: {error.strerror}", "choose another folder") from None


def load(path: Path) -> str:
    """Return the text of a tokenizer.json. Raises CharRNNError where it cannot be read, or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise CharRNNError(f"{path}: cannot be read: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        raise CharRNNError(f"{path}: byte {error.start} is not UTF-8", "restore the file from a copy") from None


def _vocabulary(characters: Sequence[str]) -> dict[str, int]:
    return {token: id_ for id_, token in enumerate((*BYTE_TOKENS, *characters))}


def _expected(normalize: Normalize) -> dict[str, Any]:
    """All of a tokenizer.json but its vocabulary."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "NFC"} if normalize == "nfc" else None,
        "pre_tokenizer": None,
        "post_processor": None,
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
            "merges": [],
        },
    }


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
