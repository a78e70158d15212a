"""Serbian in its two scripts: Vuk's alphabet, letter by letter, with lj, nj and dž as the single letters they are."""

import re

_DIGRAPHS = {"љ": "lj", "њ": "nj", "џ": "dž"}
_PAIRS = dict(zip("абвгдђежзијклмнопрстћуфхцчш", "abvgdđežzijklmnoprstćufhcčš", strict=True)) | _DIGRAPHS
_LATIN_OF = {**_PAIRS, **{cyrillic.upper(): latin.capitalize() for cyrillic, latin in _PAIRS.items()}}
_CYRILLIC_OF = {latin: cyrillic for cyrillic, latin in _LATIN_OF.items()}
_CYRILLIC_OF |= {latin.upper(): cyrillic.upper() for cyrillic, latin in _PAIRS.items()}  # LJ, NJ, DŽ
_CYRILLIC_OF |= {"ǆ": "џ", "ǅ": "Џ", "Ǆ": "Џ", "ǉ": "љ", "ǈ": "Љ", "Ǉ": "Љ", "ǌ": "њ", "ǋ": "Њ", "Ǌ": "Њ"}

# Beginnings of words in which n + j and d + ž are two letters that only meet.
_MEETING = re.compile(
    r"(?i)\b(?:in(?=jekcij|jektor)|kon(?=jug|junk)|tan(?=jug)|nad(?=živ|žnj)|od(?=žal|živ)|pod(?=žanr))"
)
_LATIN_LETTER = re.compile("|".join(sorted(_CYRILLIC_OF, key=len, reverse=True)))


def to_latin(text: str) -> str:
    """Write Serbian Cyrillic as Latin; everything else stays. A capital digraph is Lj in a word, LJ among capitals."""
    pieces = []
    for i, character in enumerate(text):
        latin = _LATIN_OF.get(character, character)
        if len(latin) == 2 and character.isupper():
            following = text[i + 1 : i + 2]
            neighbour = following if following.isalpha() else text[max(0, i - 1) : i]  # at a word's end the one before
            latin = latin.upper() if neighbour.isupper() else latin
        pieces.append(latin)
    return "".join(pieces)


def to_cyrillic(text: str) -> str:
    """Write Serbian Latin as Cyrillic; everything else stays, q, w, x and y too.

    lj, nj and dž are read as one letter, but for the common words in which two letters meet (injekcija, nadživeti).
    """
    pieces, begin = [], 0
    for meeting in _MEETING.finditer(text):  # ends between the two letters
        pieces.append(text[begin : meeting.end()])
        begin = meeting.end()
    pieces.append(text[begin:])
    return "".join(_LATIN_LETTER.sub(lambda found: _CYRILLIC_OF[found.group()], piece) for piece in pieces)
