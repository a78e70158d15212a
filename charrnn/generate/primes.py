"""A prime that the model cannot read well, recognised: another normal form, another script, other letters.

A character outside the vocabulary is spelled in bytes, which the model has hardly seen: it completes such a text too,
but badly. A change that Unicode calls the same text is made; any other change is only suggested.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from charrnn.text.tokenizer import Tokenizer
from charrnn.text.utf8 import BYTE_ORDER_MARK

NAMED_AT_MOST = 8  # characters in a note
Form = Literal["NFC", "NFD"]

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\t", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        "…": "...",
    }
)
_CURLED = str.maketrans({"'": "’", '"': "”", "-": "–"})
_BARRED = str.maketrans("đĐłŁøØ", "dDlLoO")  # letters that no normal form takes apart


@dataclass(frozen=True)
class Prime:
    """A prime as examined.

    text: to be read: as it was given, without a byte order mark, in the normal form that the model knows.
    notes: what was found, in words.
    suggestion: the nearest spelling of `text` the model knows, or None. unknown: the characters of `text` it does not.
    """

    text: str
    notes: tuple[str, ...] = ()
    suggestion: str | None = None
    unknown: tuple[str, ...] = ()


def examine(text: str, tokenizer: Tokenizer) -> Prime:
    """Compare a prime with a vocabulary. A byte tokenizer has none, and takes any text as it is."""
    if tokenizer.kind == "byte":
        return Prime(text)
    known = frozenset(tokenizer.characters)
    marked = text.startswith(BYTE_ORDER_MARK) and BYTE_ORDER_MARK not in known
    read, notes = _in_known_form(text[marked:], known)
    if marked:
        notes = ("a byte order mark at the beginning was dropped", *notes)
    unknown = tuple(dict.fromkeys(c for c in read if c not in known))
    if not unknown:
        return Prime(read, notes)
    spelling, changes = _nearest(read, known)
    left = tuple(dict.fromkeys(c for c in spelling if c not in known))
    notes = (*notes, f"the model has not learned {_named(unknown)}{''.join(f'; {change}' for change in changes)}")
    if left and spelling != read:
        notes = (*notes, f"for {_named(left)} it knows nothing near")
    return Prime(read, notes, spelling if spelling != read else None, unknown)


def _in_known_form(text: str, known: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """Return the text in NFC or NFD where that has fewer unknown characters (to Unicode the same), and a note."""
    forms: dict[Form, str] = {"NFC": "composed", "NFD": "decomposed"}
    for form, word in forms.items():
        other = unicodedata.normalize(form, text)
        if _misses(other, known) < _misses(text, known):
            letters = (c for c in unicodedata.normalize("NFC", text) if unicodedata.normalize("NFD", c) != c)
            if (example := next(letters, None)) is not None:
                what = f"{word} letters like {example}, as the model learned them"
            else:  # nothing is composed, but a sign is to Unicode the same as a letter, as that of kelvins is as K
                sign = next(c for c in text if c not in known and unicodedata.normalize(form, c) != c)
                what = f"with {_named(tuple(unicodedata.normalize(form, sign)))} for {_number(sign)}"
            return other, (f"the prime is read in {form}, {what}",)
    return text, ()


def _nearest(text: str, known: frozenset[str]) -> tuple[str, list[str]]:
    """Return the text after every change that leaves fewer unknown characters, and those changes in words."""
    changes = []
    for words, change in _CHANGES:
        other = change(text, known)
        if _misses(other, known) < _misses(text, known):
            text = other
            changes.append(words)
    return text, changes


def _misses(text: str, known: frozenset[str]) -> int:
    return sum(c not in known for c in text)


def _each(change: Callable[[str], str]) -> Callable[[str, frozenset[str]], str]:
    """Make a change of the unknown characters alone, each by itself, where the model knows all that it becomes."""

    def apply(text: str, known: frozenset[str]) -> str:
        new = ((c, c if c in known else change(c)) for c in text)
        return "".join(after if set(after) <= known else before for before, after in new)

    return apply


def _without_accents(character: str) -> str:
    apart = unicodedata.normalize("NFD", character.translate(_BARRED))
    return "".join(c for c in apart if not unicodedata.combining(c))


def _in_latin(text: str, known: frozenset[str]) -> str:
    from charrnn.generate.transliteration import to_latin  # few primes need it

    return to_latin(text)


def _in_cyrillic(text: str, known: frozenset[str]) -> str:
    from charrnn.generate.transliteration import to_cyrillic

    return to_cyrillic(text)


_CHANGES: list[tuple[str, Callable[[str, frozenset[str]], str]]] = [
    ("it knows the text in Latin script", _in_latin),
    ("it knows the text in Cyrillic script", _in_cyrillic),
    ("it knows plainer punctuation", _each(lambda c: c.translate(_PLAIN))),
    ("it knows typographic punctuation", _each(lambda c: c.translate(_CURLED))),
    ("it knows a plainer form", _each(lambda c: unicodedata.normalize("NFKC", c))),
    ("it knows these letters in the other case", _each(str.swapcase)),
    ("it knows the letters without accents", _each(_without_accents)),
    ("it knows them without accents, in the other case", _each(lambda c: _without_accents(c).swapcase())),
]


def _named(characters: tuple[str, ...]) -> str:
    """Write characters for a sentence; one that cannot be seen by its number and name."""
    shown = [
        c if c.isprintable() and not c.isspace() and not unicodedata.combining(c) else _number(c) for c in characters
    ]
    more = f" and {len(shown) - NAMED_AT_MOST} more" if len(shown) > NAMED_AT_MOST else ""
    return " ".join(shown[:NAMED_AT_MOST]) + more


def _number(character: str) -> str:
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'unnamed').lower()})"
