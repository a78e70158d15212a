"""A corpus on its way to training: read once, split in order, encoded to disk, served as contiguous streams.

A private copy of the text is kept in the home folder, named by the SHA-256 of its UTF-8 (the fingerprint), and beside
it the ids of each part, memory-mapped: a text larger than memory trains, and the source may change or vanish.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charrnn import corpora
from charrnn.config import Config
from charrnn.errors import CharRNNError
from charrnn.tokenizer import Tokenizer, count_characters

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, Part, Part] = ("train", "val", "test")
CHUNK_CHARACTERS = 1 << 20
MIN_TRAIN_CHARACTERS = 20  # below it there is nothing to learn and every rule for sizes breaks down


def home() -> Path:
    """The folder that holds runs and private copies of corpora: CHARRNN_HOME, or ./checkpoints."""
    return Path(os.environ.get("CHARRNN_HOME") or "checkpoints")


@dataclass(frozen=True)
class Text:
    """A private copy of a corpus's text. characters: its length. source: what it was read from. notes: what to know."""

    path: Path
    fingerprint: str
    characters: int
    source: str
    notes: tuple[str, ...] = ()

    def chunks(self) -> Iterator[str]:
        """The text in pieces of CHUNK_CHARACTERS, the last one shorter."""
        with self.path.open(encoding="utf-8", newline="") as stream:
            while chunk := stream.read(CHUNK_CHARACTERS):
                yield chunk

    def boundaries(self, split: tuple[float, ...]) -> list[int]:
        """Where the parts begin and end: four character offsets, contiguous, nothing left out."""
        return [round(self.characters * share) for share in (0, split[0], split[0] + split[1])] + [self.characters]

    def part_chunks(self, split: tuple[float, ...]) -> Iterator[tuple[Part, str]]:
        """The text in order, in pieces that never cross the boundary of a part."""
        bounds = self.boundaries(split)
        position = 0
        for chunk in self.chunks():
            for part, begin, end in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
                piece = chunk[max(begin - position, 0) : max(end - position, 0)]
                if piece:
                    yield part, piece
            position += len(chunk)


def read(corpus: tuple[str, ...], folder: Path) -> Text:
    """Copy a corpus's text into `folder`, once; raises CharRNNError where it is missing, empty or not UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    digest, characters, notes = hashlib.sha256(), 0, set()
    with tempfile.NamedTemporaryFile(dir=folder, prefix="reading-", delete=False) as spool:
        try:
            for name in corpus:
                begins = True
                for piece in corpora.read_text(corpora.find(name)):
                    if begins and piece.startswith("\ufeff"):
                        notes.add("a byte order mark at the beginning was dropped")
                        piece = piece[1:]
                    if "\r\n" in piece:
                        notes.add("lines end in CR LF: the model will learn to write them so")
                    begins = False
                    encoded = piece.encode("utf-8")
                    digest.update(encoded)
                    characters += len(piece)
                    spool.write(encoded)
            spool.close()
            source = ", ".join(corpus)
            if characters == 0:
                raise CharRNNError(f"{source} is empty", "give a text to learn: some thousands of characters at least")
            text = Text(folder / digest.hexdigest()[:16] / "text.utf8", digest.hexdigest(), characters, source)
            text = dataclasses.replace(text, notes=tuple(sorted(notes)))
            text.path.parent.mkdir(exist_ok=True)
            os.replace(spool.name, text.path)
            about = {"source": source, "characters": characters, "notes": text.notes}
            text.path.with_name("text.json").write_text(json.dumps(about))
            return text
        finally:
            Path(spool.name).unlink(missing_ok=True)


def copy_of(fingerprint: str, folder: Path) -> Text | None:
    """The private copy with that fingerprint, if there is one."""
    path = folder / fingerprint[:16] / "text.utf8"
    try:
        about = json.loads(path.with_name("text.json").read_text())
        path.stat()
    except (OSError, ValueError):
        return None
    return Text(path, fingerprint, about["characters"], about["source"], tuple(about["notes"]))


def open_text(config: Config) -> Text:
    """The text of a configuration: its private copy by fingerprint where there is one, else read from its sources.

    Raises CharRNNError where the sources now hold another text than the configuration was made for.
    """
    folder = home() / ".corpora"
    text = copy_of(config.fingerprint, folder) if config.fingerprint else None
    text = text or read(config.corpus, folder)
    if config.fingerprint not in (None, text.fingerprint):
        raise CharRNNError(
            f"{text.source} is not the text this configuration was made for: its SHA-256 is {text.fingerprint}",
            f"restore the text whose SHA-256 is {config.fingerprint}, or train a new run on this one",
        )
    return text


def reopen(config: Config, tokenizer: Tokenizer) -> "Corpus":
    """The encoded corpus of a run, with the tokenizer it was trained with."""
    return encode(open_text(config), tokenizer, config.split)


def learn_tokenizer(text: Text, kind: str, split: tuple[float, ...]) -> Tokenizer:
    """The tokenizer of a text: its vocabulary comes from the training part alone."""
    if kind == "byte":
        return Tokenizer.byte()
    counts: Counter[str] = Counter()
    for part, piece in text.part_chunks(split):
        if part == "train":
            counts.update(count_characters(piece))
    return Tokenizer.from_counts(counts)


@dataclass(frozen=True)
class Corpus:
    """An encoded corpus. parts: the ids of each part, memory-mapped, in order; a part may be empty."""

    text: Text
    tokenizer: Tokenizer
    parts: dict[Part, NDArray[Any]]

    def ids(self, part: Part) -> NDArray[Any]:
        """The ids of a part; raises CharRNNError where the split left it empty."""
        ids = self.parts[part]
        if len(ids) == 0:
            raise CharRNNError(f"{self.text.source} has no {part} part", "its share of the split is 0: choose another")
        return ids


def encode(text: Text, tokenizer: Tokenizer, split: tuple[float, ...]) -> Corpus:
    """Encode every part to disk beside the text, once per tokenizer and split, and map it into memory.

    Raises CharRNNError where the training part is too short to learn from.
    """
    begin, end = text.boundaries(split)[:2]
    if end - begin < MIN_TRAIN_CHARACTERS:
        raise CharRNNError(
            f"{text.source} leaves {end - begin} characters to train on, at least {MIN_TRAIN_CHARACTERS} are needed",
            "give a longer text, or a larger training share with --split",
        )
    key = hashlib.sha256(f"{tokenizer.to_json()}{split}".encode()).hexdigest()[:16]
    folder = text.path.parent / f"ids-{key}"
    if not folder.is_dir():
        unfinished = Path(tempfile.mkdtemp(dir=text.path.parent, prefix="encoding-"))
        try:
            with (
                (unfinished / "train").open("wb") as train,
                (unfinished / "val").open("wb") as val,
                (unfinished / "test").open("wb") as test,
            ):
                files = {"train": train, "val": val, "test": test}
                for part, piece in text.part_chunks(split):
                    files[part].write(tokenizer.encode(piece).tobytes())
            os.replace(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster with the same ids
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Corpus(text, tokenizer, {part: _mapped(folder / part, tokenizer.dtype) for part in PARTS})


def _mapped(path: Path, dtype: Any) -> NDArray[Any]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")


class Streams:
    """B contiguous streams over a part, cut into windows: the batch of step k is a pure function of k.

    Every stream has ceil(N / B) ids and starts at its B-th of the part, so that together they cover all of it; an
    epoch is cut into windows that differ by at most one id, none longer than `window`, nothing dropped. All streams
    end together: the next epoch begins anew.
    """

    def __init__(self, ids: NDArray[Any], batch: int, window: int, start: int) -> None:
        """ids: (N,). batch: B, lowered to N where there are fewer ids. start: the id of the start row."""
        self._ids, self._start = ids, start
        self.batch = min(batch, len(ids))
        self._length = -(-len(ids) // self.batch)
        self._begins = np.arange(self.batch) * len(ids) // self.batch
        self.steps_per_epoch = -(-self._length // window)

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """The inputs (T, B) and targets (T, B) of a step, and whether the streams begin anew with it.

        An input is the id before its target; the part's first target is preceded by the start row.
        """
        index = step % self.steps_per_epoch
        begin = index * self._length // self.steps_per_epoch
        end = (index + 1) * self._length // self.steps_per_epoch
        positions = np.arange(begin, end)[:, None] + self._begins[None, :]
        targets = self._ids[positions].astype(np.int64)
        inputs = np.where(positions == 0, self._start, self._ids[np.maximum(positions - 1, 0)]).astype(np.int64)
        return inputs, targets, index == 0
