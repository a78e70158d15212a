"""Texts as arrays of code points, and how often each occurs."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError

BLOCK = 1 << 15  # characters looked up at a time, so that the temporaries stay in cache


def count_characters(text: str) -> Counter[str]:
    """Count how often each character occurs in a text; add the counts of pieces to count a corpus."""
    counts: Counter[str] = Counter()
    for start in range(0, len(text), BLOCK * 32):
        of_code = np.bincount(code_points(text, start, BLOCK * 32))
        seen = np.flatnonzero(of_code)
        counts.update(dict(zip(map(chr, seen.tolist()), of_code[seen].tolist(), strict=True)))
    return counts


def code_points(text: str, start: int, length: int = BLOCK) -> NDArray[np.uint32]:
    """Return the code points of text[start : start + length]."""
    try:
        return np.frombuffer(text[start : start + length].encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as error:
        raise surrogate(text, start + error.start) from None


def text_of(codes: NDArray[np.uint32]) -> str:
    """Return the text of code points (N,)."""
    return str(codes.tobytes(), "utf-32-le")


def surrogate(text: str, position: int) -> CharRNNError:
    """Return the error for half a character in a text."""
    return CharRNNError(
        f"character {position} of the text is U+{ord(text[position]):04X}, a lone surrogate, "
        "where whole Unicode characters are expected",
        'remove it, or replace it: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")',
    )
