"""What may be set about a text: where it comes from, how it is cleaned, split and spelled."""

import math
from dataclasses import dataclass

from charrnn.errors import OptionError
from charrnn.knobs import Knobs, knob, recorded
from charrnn.text.encodings import UTF8, text_encoding


@dataclass(frozen=True, eq=False, repr=False)  # Settings has both
class TextSettings(Knobs):
    """The settings of a text. Raises CharRNNError for a value that is out of range or contradicts another."""

    corpus: tuple[str, ...] = knob(
        ("rekurentne",), "what to learn: files, folders, patterns, - for standard input, or a named corpus"
    )
    split: tuple[float, ...] = knob((0.8, 0.1, 0.1), "shares of the text for training, validation and test, in order")
    tokenizer: str = knob("char", "characters as they come, or the bytes of UTF-8", choices=("char", "byte"))
    encoding: str = knob(
        UTF8, "how the files are encoded, as Python names it: cp1252, shift_jis, utf-16 ...", parse=text_encoding
    )
    newline: str = knob("keep", "line ends: as they are, or CR LF and CR turned into LF", choices=("keep", "lf"))
    errors: str = knob(
        "strict",
        "bytes that do not fit: refuse the text, or put U+FFFD instead",
        choices=("strict", "replace"),
    )
    normalize: str = knob("none", "Unicode normal form of the text, and of primes", choices=("none", "nfc"))
    document: str = knob(
        "none",
        "what stands alone: the model forgets before each line, each paragraph after blank lines, or each file",
        choices=("none", "line", "blank", "file"),
    )
    fingerprint: str | None = recorded(None, "SHA-256 of the corpus's text, as UTF-8")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpus:
            raise OptionError("no corpus was named", "give a file, or leave it out for the embedded one")
        if len(self.split) != 3 or min(self.split) < 0 or self.split[0] <= 0 or not math.isclose(sum(self.split), 1):
            raise OptionError(
                f"split {','.join(map(str, self.split))} is not three shares that sum to 1",
                "give training,validation,test, for instance 0.8,0.1,0.1 or 0.9,0.1,0",
            )


# What the fingerprint depends on: where one of them changes, it is another text.
DEFINING = ("corpus", "encoding", "newline", "errors", "normalize", "document")
