"""How bytes stand for characters: the name of an encoding checked, and what bytes that are not UTF-8 may be."""

import codecs
import re
import unicodedata
from typing import NamedTuple

from charrnn.errors import OptionError

UTF8 = "utf-8"
# Python counts these as encodings of text, but no file of text is written in them.
_NOT_OF_FILES = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined")
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MARK_BYTES = 4
# Encodings of so many bytes at a time.
UNITS = {"utf-16": 2, "utf-16-le": 2, "utf-16-be": 2, "utf-32": 4, "utf-32-le": 4, "utf-32-be": 4}

# What is tried, with how much more often it is met than the others, in the units of the detector's figures.
_TRIED = {
    UTF8: 0.5,
    **dict.fromkeys(("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"), 0.1),
    "cp1252": 0.17,
    **dict.fromkeys(("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "koi8-r"), 0.1),
    **dict.fromkeys(("shift_jis", "cp932", "euc_jp", "gb18030", "big5", "big5hkscs", "cp949"), 0.1),
    **dict.fromkeys(("cp1257", "cp1258", "iso8859-2", "mac-roman", "cp850", "iso8859-15"), 0.05),
    **dict.fromkeys(("cp437", "cp737", "cp852", "cp857", "cp862", "cp864", "cp866"), 0.0),
    **dict.fromkeys(("iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-13", "iso8859-16"), 0.0),
    **dict.fromkeys(("koi8-u", "mac-cyrillic", "mac-greek", "mac-latin2", "mac-turkish"), 0.0),
    **dict.fromkeys(("euc_jis_2004", "cp037", "cp500"), 0.0),
}
_MOST_CHAOS = 0.5  # share of what hardly belongs together, up to which a reading counts as one
_SAMPLE_BYTES = 1 << 13
_SHOWN = 60  # characters of a line
_OFFERED = 6
# A byte below it is a character of its own in every encoding of more than one byte but UTF-16 and UTF-32.
_NEVER_INSIDE = 0x30


class Misfit(NamedTuple):
    """Bytes that do not fit an encoding, from the beginning of the text or of a character.

    at: the byte whose line is shown. whole: whether they reach to the end of the text; else a character at their end
    may be cut off.
    """

    data: bytes
    at: int
    whole: bool = False


class Candidate(NamedTuple):
    """An encoding in which bytes may be written. line: the line in question as it reads in it, cut for one row."""

    encoding: str
    line: str


def text_encoding(name: str) -> str:
    """Return the name that Python gives to an encoding of text. Raises CharRNNError where it is none."""
    try:
        found = codecs.lookup(name).name
        " ".encode(name)  # refuses what turns bytes into bytes, or text into text
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError, TypeError):  # UnicodeError is a ValueError, as a name with a NUL is
        found = "undefined"
    found = {"utf_8": UTF8, "utf-8-sig": UTF8}.get(found, found)  # a byte order mark is dropped in any case
    if found in _NOT_OF_FILES:
        raise OptionError(
            f"encoding is {name!r}, which is no encoding of text that Python knows",
            "give one such as utf-8, latin-1, cp1250, cp1252, mac-roman, shift_jis, big5 or utf-16",
        )
    return found


def lacks_mark(beginning: bytes, encoding: str) -> bool:
    """Tell whether a text begins without the mark that its encoding needs to say which byte comes first.

    beginning: the first MARK_BYTES of it or more, or all that there are.
    """
    needed = encoding in ("utf-16", "utf-32") and bool(beginning)
    return needed and not any(beginning.startswith(mark) for mark, name in _MARKS if name == encoding)


def candidates(misfit: Misfit) -> list[Candidate]:
    """List the encodings that bytes may be in, the likeliest first; each takes all of them, and reads them its way."""
    found: list[Candidate] = []
    for encoding in [name for mark, name in _MARKS if misfit.data.startswith(mark)]:
        line = _line(misfit, encoding)
        if line is not None:
            return [Candidate(encoding, line)]
    for encoding in _ranked(misfit):
        line = _line(misfit, encoding)
        if line is not None and line not in [known.line for known in found]:
            found.append(Candidate(encoding, line))
        if len(found) == _OFFERED:
            break
    return found


def is_utf8(data: bytes) -> bool:
    """Tell whether these bytes, which may end in the middle of a character, are UTF-8."""
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def is_damaged_utf8(data: bytes) -> bool:
    """Tell whether bytes are UTF-8 but for a few: far more characters of several bytes than bytes that are none."""
    text = codecs.utf_8_decode(data, "replace", False)[0]
    bad = text.count("\N{REPLACEMENT CHARACTER}")
    return sum(c > "\x7f" for c in text) > 5 * bad


def _ranked(misfit: Misfit) -> list[str]:
    """List the encodings in which a sample makes sense, by the detector's figures and by how often they are met."""
    from charset_normalizer import from_bytes  # only bytes that are not UTF-8 pay for it

    data, sample = misfit.data, _sample(misfit.data, misfit.at)
    scores: dict[str, float] = {}
    for encoding, usual in _TRIED.items():
        unit = UNITS.get(encoding, 1)
        part = data[: _SAMPLE_BYTES // unit * unit][: len(data) // unit * unit] if unit > 1 else sample
        try:
            text = _read(part, encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text or not text:
            continue
        # Read and written again: the detector wants whole characters.
        for match in from_bytes(text.encode(encoding), cp_isolation=[encoding], threshold=_MOST_CHAOS):
            scores[encoding] = match.coherence - 2 * match.chaos - _strange(text) + usual
    return sorted(scores, key=lambda encoding: -scores[encoding])


def _strange(text: str) -> float:
    """Return the share of the characters outside ASCII that are signs, such as ¾ and ¹, beside a letter: misread ones.

    The detector lets them pass.
    """
    signs = re.findall(r"(?<=[^\W\d_])[^\x00-\x7f]|[^\x00-\x7f](?=[^\W\d_])", text)
    beside = sum(unicodedata.category(c) in ("No", "So", "Sm", "Sk", "Sc") for c in signs)
    return beside / max(1, sum(c > "\x7f" for c in text))


def _sample(data: bytes, at: int) -> bytes:
    """Return the lines that are not ASCII, from that of the byte `at` on; of a long line a part."""
    begin = max(data.rfind(b"\n", 0, at) + 1, at - _SAMPLE_BYTES // 2)
    while 0 < begin < at and data[begin - 1] >= _NEVER_INSIDE:
        begin += 1
    lines = [line for line in data[begin : begin + 64 * _SAMPLE_BYTES].splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:_SAMPLE_BYTES]
    end = len(sample)
    while end and sample[end - 1] >= _NEVER_INSIDE:
        end -= 1
    return sample[:end] or sample


def _read(data: bytes, encoding: str, whole: bool = False) -> str:
    """Read bytes that may, unless they are the whole text, end in the middle of a character.

    Raises UnicodeDecodeError where they do not fit.
    """
    return codecs.getincrementaldecoder(encoding)().decode(data, whole)


def _line(misfit: Misfit, encoding: str) -> str | None:
    """Return the line in question as it reads in an encoding, or None where not all bytes fit it."""
    try:
        text = _read(misfit.data, encoding, misfit.whole)
        before = len(_read(misfit.data[: misfit.at], encoding))
    except UnicodeDecodeError:
        return None
    begin = max(text.rfind("\n", 0, before) + 1, before - _SHOWN // 2)
    line = text[begin : begin + _SHOWN].strip("\r\n").partition("\n")[0]
    return "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in line.expandtabs(1)).strip()


def advice(misfit: Misfit, option: bool, otherwise: str = "") -> str:
    """Say in which encodings bytes make sense, for an error; empty where there is none.

    option: whether --encoding can be given. otherwise: what else can be done.
    """
    found = candidates(misfit)
    if not found:
        return ""
    likeliest = found[0].encoding
    kind = next((family for family in ("utf-32", "utf-16") if likeliest.startswith(family)), likeliest).upper()
    looks = f"it looks like {kind}; " if likeliest in UNITS or len(found) == 1 else ""
    todo = "give the encoding in which it reads right" if option else "convert it to UTF-8, from where it reads right"
    width = max(len(name) for name, _ in found)
    rows = [f"\n    {'--encoding ' * option}{name:<{width}}  {line}" for name, line in found]
    return f"{looks}{todo}{f', or {otherwise}' if otherwise else ''}:{''.join(rows)}"


def advice_on_nuls(misfit: Misfit, option: bool) -> str:
    """As `advice`, for bytes of which many are NUL: encodings of several bytes at a time alone explain them."""
    begins = misfit.data[:_SAMPLE_BYTES]
    at_places = [begins[place::4].count(0) for place in range(4)]
    # ASCII with NULs in it: written in so many bytes at a time, they stand in some places and not in others.
    if is_utf8(misfit.data) and min(at_places) > max(at_places) / 20:
        return ""
    found = candidates(misfit)
    return advice(misfit, option) if found and found[0].encoding in UNITS else ""
