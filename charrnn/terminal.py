"""Text that a terminal shows and does not obey: what it would obey is made visible."""

import unicodedata

from charrnn.patterns import pattern

# Besides control characters, a terminal obeys what turns the direction of a line, and bytes that are no UTF-8: those of
# a file's name, half a surrogate pair in Python, may be controls of eight bits. Line ends and tabs stay.
_OBEYED = pattern("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPECIAL = {" ": "␣", "\n": "↵", "\t": "⇥", "\x7f": "␡"}


def visible(character: str) -> str:
    """Write a character as something to see, that does nothing to a terminal."""
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    if character.isprintable():
        return ("◌" if unicodedata.combining(character) else "") + character
    return f"<{ord(character):04X}>"


def harmless(text: str) -> str:
    """Write a text for a terminal: what it would obey becomes something to see; line ends (LF) and tabs stay."""
    return _OBEYED.sub(lambda found: visible(found[0]), text)


def one_line(text: str) -> str:
    """Write a text on one line, with nothing in it that a terminal would obey."""
    return "".join(c if c == " " or unicodedata.combining(c) else visible(c) for c in text)
