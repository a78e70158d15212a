"""A corpus on its way to training: read once, split in order, encoded to disk; `streams` serves it from there.

The ids of each part lie beside the private copy of the text, memory-mapped: a text larger than memory trains.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import files
from charrnn.errors import CharRNNError
from charrnn.home import home as home
from charrnn.progress import Progress, silent
from charrnn.text import documents
from charrnn.text.cleaning import Cleaning, Findings, text_of
from charrnn.text.copies import OWN_FILES, sources
from charrnn.text.copies import PARTS as PARTS
from charrnn.text.copies import Part as Part
from charrnn.text.copies import Text as Text
from charrnn.text.copies import open_text as open_text
from charrnn.text.copies import private_copy as private_copy
from charrnn.text.copies import read as read
from charrnn.text.corpora import Source
from charrnn.text.documents import Starts
from charrnn.text.settings import TextSettings
from charrnn.text.streams import Streams as Streams
from charrnn.text.tokenizer import Normalize, Tokenizer, count_characters

COUNTED_IDS = 1 << 22  # at a time
MIN_TRAIN_CHARACTERS = 20  # below it there is nothing to learn and every rule for sizes breaks down


def prepare(
    settings: TextSettings,
    tokenizer: Tokenizer | None = None,
    *,
    private: bool = False,
    progress: Progress = silent,
    known: Iterable[str] = (),
) -> "Corpus":
    """Read, clean, split and encode a corpus: the one way from settings to streams.

    tokenizer: of the run whose corpus it is; learned from the training part when None. private: read the private copy
    alone, and open no path that the settings name: they may be a stranger's. progress: called on the way. known:
    characters that a tokenizer which is learned has in any case.
    Raises CharRNNError for a text that is missing, empty, too short, no text, or not the one of the fingerprint.
    """
    text = private_copy(settings, beside=True) if private else open_text(settings, progress)
    if tokenizer is None:
        tokenizer = learn_tokenizer(text, settings.tokenizer, settings.split, settings.normalize, progress)
        if known := tuple(known):
            tokenizer = Tokenizer.char((*tokenizer.characters, *known), tokenizer.normalize)
    return encode(text, tokenizer, settings.split, progress)


def learn_tokenizer(
    text: Text, kind: str, split: tuple[float, ...], normalize: str = "none", progress: Progress = silent
) -> Tokenizer:
    """Make the tokenizer of a text: its vocabulary comes from the training part alone. normalize: for primes."""
    form: Normalize = "nfc" if normalize == "nfc" else "none"
    if kind == "byte":
        return Tokenizer.byte(form)
    counts: Counter[str] = Counter()
    done = 0
    for part, piece in text.part_chunks(split):
        if part == "train":
            counts.update(count_characters(piece))
        done += len(piece)
        progress("counting", done, text.characters)
    return Tokenizer.from_counts(counts, normalize=form)


@dataclass(frozen=True)
class Corpus:
    """An encoded corpus. parts: the ids of each part, memory-mapped, in order; a part may be empty.

    starts: the positions in a part's ids at which documents begin, rising; none where the text is one.
    """

    text: Text
    tokenizer: Tokenizer
    split: tuple[float, ...]
    parts: dict[Part, NDArray[Any]]
    starts: dict[Part, Starts]
    _counts: dict[Part, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def characters(self, part: Part) -> int:
        """Count the characters of a part; of a long one that is far sooner said than counted."""
        bounds = self.text.boundaries(self.split)
        return bounds[PARTS.index(part) + 1] - bounds[PARTS.index(part)]

    def counts(self, part: Part) -> NDArray[np.int64]:
        """Count how often each id comes in a part: (V,)."""
        if part not in self._counts:
            ids, counts = self.parts[part], np.zeros(self.tokenizer.size, np.int64)
            for i in range(0, len(ids), COUNTED_IDS):  # a long part does not fit into memory as int64
                counts += np.bincount(ids[i : i + COUNTED_IDS], minlength=len(counts))
            self._counts[part] = counts
        return self._counts[part]

    def ids(self, part: Part) -> NDArray[Any]:
        """Return the ids of a part; raises CharRNNError where the split left it empty."""
        ids = self.parts[part]
        if len(ids) == 0:
            raise CharRNNError(f"{self.text.source} has no {part} part", "its share of the split is 0: choose another")
        return ids


def encode(text: Text, tokenizer: Tokenizer, split: tuple[float, ...], progress: Progress = silent) -> Corpus:
    """Encode every part to disk beside the text, once per tokenizer and split, and map it into memory.

    Raises CharRNNError where the training part is too short to learn from.
    """
    begin, end = text.boundaries(split)[:2]
    if end - begin < MIN_TRAIN_CHARACTERS:
        raise CharRNNError(
            f"{text.source} leaves too little to train on: {end - begin} of at least {MIN_TRAIN_CHARACTERS} characters",
            "give a longer text, or a larger training share with --split",
        )
    key = hashlib.sha256(f"{tokenizer.canonical_json()}{split}{text.document}".encode()).hexdigest()[:16]
    folder = text.path.parent / f"ids-{key}"
    if not folder.is_dir():
        files.sweep(folder.parent, OWN_FILES)
        try:
            with files.unfinished_folder(folder.parent, folder.name) as unfinished:
                _encode_into(unfinished.path, text, tokenizer, split, progress)
                unfinished.finish(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster with the same ids
                raise CharRNNError(
                    f"the encoded text cannot be written in {text.path.parent}: {error.strerror or error}",
                    "make room there, or name another folder in CHARRNN_HOME",
                ) from None
    parts = {part: _mapped(folder / part, tokenizer.dtype) for part in PARTS}
    starts = {part: _mapped(folder / f"{part}-starts", np.int64) for part in PARTS}
    return Corpus(text, tokenizer, split, parts, starts)


def _encode_into(folder: Path, text: Text, tokenizer: Tokenizer, split: tuple[float, ...], progress: Progress) -> None:
    starts, position, written = text.starts(), 0, dict.fromkeys(PARTS, 0)
    for part in PARTS:  # all of them are there, also where nothing is in them
        files.append(folder / part, b"")
        files.append(folder / f"{part}-starts", b"")
    for part, piece in text.part_chunks(split):
        ids = tokenizer.encode(piece)
        files.append(folder / part, ids.tobytes())
        if len(starts):
            inside = documents.in_span(starts, position, position + len(piece))
            if written[part] == 0:
                inside = np.union1d([0], inside)  # a part begins anew, even inside a document
            begins = _id_positions(inside, ids, len(piece), tokenizer) + written[part]
            files.append(folder / f"{part}-starts", begins.tobytes())
        written[part] += len(ids)
        position += len(piece)
        progress("encoding", position, text.characters)


def read_part(
    settings: TextSettings,
    tokenizer: Tokenizer,
    file: str | None = None,
    part: Part | None = None,
    findings: Findings | None = None,
) -> tuple[str, NDArray[Any], Starts]:
    """Read the ids of a file, or of a part of a run's own corpus: test, or val where there is none, by default.

    findings: what is met while reading a file is added to them.
    Returns what was read, in words, its ids, and where documents begin in them. Raises CharRNNError where that text is
    missing or empty, and where both are given.
    """
    if file is not None:
        if part is not None:
            raise CharRNNError(f"both the file {file} and the part {part} are given", "give one of them")
        return file, *read_whole(file, settings, tokenizer, findings)
    corpus = prepare(settings, tokenizer, private=True)
    if part is None:
        part = "test" if len(corpus.parts["test"]) else "val"
    return f"the {part} part of {corpus.text.source}", corpus.ids(part), corpus.starts[part]


def read_whole(
    file: str, settings: TextSettings, tokenizer: Tokenizer, findings: Findings | None = None
) -> tuple[NDArray[Any], Starts]:
    """Read the ids of a text other than a run's corpus, cleaned as that was, and where documents begin in them.

    findings: what is met on the way is added to them. Raises CharRNNError where it is missing, empty or no text.
    """
    findings = Findings() if findings is None else findings
    whole = [text for source in sources((file,), findings) if (text := cleaned(source, settings, findings))]
    if not whole:
        raise CharRNNError(f"{file} is empty", "give a text of at least one character")
    if settings.document != "file":
        lines = [text if text.endswith("\n") else text + "\n" for text in whole[:-1]]  # as `copies.read` joins files
        return encode_whole("".join([*lines, whole[-1]]), settings.document, tokenizer)
    ids = [tokenizer.encode(text) for text in whole]
    lengths = [len(of_file) for of_file in ids]
    return np.concatenate(ids), np.cumsum([0, *lengths[:-1]])


def cleaned(source: Source, settings: TextSettings, findings: Findings) -> str:
    """Read the text of a source other than a run's corpus, cleaned as that was; CharRNNError for what is no text.

    findings: what is met on the way is added to them.
    """
    return "".join(text_of(source, replace(Cleaning.of(settings), settable=False), findings))


def encode_whole(text: str, document: str, tokenizer: Tokenizer) -> tuple[NDArray[Any], Starts]:
    """Return the ids of a text, and the positions in them at which documents of that kind begin."""
    ids = tokenizer.encode(text)
    return ids, _id_positions(documents.all_starts(text, document), ids, len(text), tokenizer)


def _id_positions(offsets: Starts, ids: NDArray[Any], characters: int, tokenizer: Tokenizer) -> Starts:
    """Return where in ids (N,) the characters at these offsets of their text begin."""
    if len(ids) == characters or not len(offsets):
        return offsets
    return np.searchsorted(tokenizer.character_index(ids), offsets).astype(np.int64)


def _mapped(path: Path, dtype: Any) -> NDArray[Any]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")
