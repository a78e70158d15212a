"""Passages that occur more than once, word for word, in a text of any size and bounded memory.

A repeat is found by a seed, SEED_BYTES that stand in two places, and followed in both directions from there. Of a
large text only every n-th seed is looked at. A seed is chosen by its content and not by its place: so both ends of a
repeat choose the same ones, and a passage some hundred times longer than n is not missed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charrnn.progress import Progress, silent
from charrnn.text.copies import let_go

SEED_BYTES = 32
MAX_SEEDS = 1 << 21
CHUNK_BYTES = 1 << 20
LONGEST = 5
CANDIDATES = 200  # of the pairs of places with the most seeds, so many are followed
SHOWN_BYTES = 400

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Repeat:
    """A passage of so many characters that stands at byte `first` and again at byte `again`; text: its beginning."""

    characters: int
    text: str
    first: int
    again: int


def find(path: Path, progress: Progress = silent) -> tuple[float, list[Repeat]]:
    """Return the share of a UTF-8 file's seeds that occurred before, and its longest repeats, longest first."""
    size = path.stat().st_size
    if size < SEED_BYTES:
        return 0.0, []
    content: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
    spread = 1 << max(0, -(-size // MAX_SEEDS) - 1).bit_length()
    places, hashes = _seeds(content, spread, progress)
    order = np.argsort(hashes, kind="stable")  # equal ones stay in the order of their places
    hashes, places = hashes[order], places[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    share = len(same) / max(1, len(places))
    return share, _longest(content, places[same - 1], places[same], spread)


def _seeds(content: NDArray[np.uint8], spread: int, progress: Progress) -> tuple[Places, NDArray[np.uint64]]:
    """Return the places (N,) of every spread-th seed, and the hashes of the seeds there."""
    places, hashes = [], []
    for begin in range(0, len(content) - SEED_BYTES + 1, CHUNK_BYTES):
        end = min(begin + CHUNK_BYTES + SEED_BYTES - 1, len(content))
        hashed = _hashes(content[begin:end])
        chosen = np.flatnonzero(hashed & np.uint64(spread - 1) == 0)
        places.append(chosen + begin)
        hashes.append(hashed[chosen])
        progress("comparing", end, len(content))
        let_go(content)
    return np.concatenate(places), np.concatenate(hashes)


def _hashes(content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash the SEED_BYTES from every place on: the hashes of its two halves, and so on down to bytes."""
    hashed = content.astype(np.uint64) + np.uint64(1)
    length = 1
    while length < SEED_BYTES:
        hashed = hashed[:-length] * np.uint64(0x9E3779B97F4A7C15) + hashed[length:]
        hashed ^= hashed >> np.uint64(29)  # products alone never reach the low bits
        hashed *= np.uint64(0xBF58476D1CE4E5B9)
        hashed ^= hashed >> np.uint64(32)
        length *= 2
    return hashed


def _longest(content: NDArray[np.uint8], first: Places, again: Places, spread: int) -> list[Repeat]:
    """Find the longest passages among pairs of places of one seed."""
    if not len(first):
        return []
    order = np.lexsort((first, again - first))
    first, again = first[order], again[order]
    # Seeds at one distance from their pairs, one after the other, belong to one passage.
    near = 1 if spread == 1 else 16 * spread
    breaks = np.flatnonzero((np.diff(again - first) != 0) | (np.diff(first) > near)) + 1
    begins, ends = np.concatenate(([0], breaks)), np.concatenate((breaks, [len(first)])) - 1
    most = np.argsort(first[begins] - first[ends], kind="stable")[:CANDIDATES]
    spans = set()
    for pair in np.union1d(begins[most], ends[most]).tolist():
        a, b = int(first[pair]), int(again[pair])
        back = _common(content[:a][::-1], content[:b][::-1])
        spans.add((back + _common(content[a:], content[b:]), a - back, b - back))
    kept: list[tuple[int, int, int]] = []
    for length, a, b in sorted(spans, key=lambda span: (-span[0], span[1:])):
        # What another one holds tells nothing new: a part of it, or its third place.
        held = any(min(a + length, at + n) - max(a, at) > length / 2 for n, *both in kept for at in both)
        if length >= SEED_BYTES and not held and len(kept) < LONGEST:
            kept.append((length, a, b))
    found = [Repeat(*_decoded(content, a, length), a, b) for length, a, b in kept]
    return sorted(found, key=lambda repeat: -repeat.characters)  # of as many bytes, now by what a reader counts


def _common(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> int:
    """Count the bytes with which two rows begin alike."""
    length, step = 0, 64
    while True:
        a, b = left[length : length + step], right[length : length + step]
        n = min(len(a), len(b))
        differ = np.flatnonzero(a[:n] != b[:n])
        if len(differ):
            return length + int(differ[0])
        length += n
        if n < step:
            return length
        step = min(2 * step, CHUNK_BYTES)


def _decoded(content: NDArray[np.uint8], begin: int, length: int) -> tuple[int, str]:
    """Count the whole characters in a span of UTF-8, and return the first of them too."""
    characters = 0
    for at in range(begin, begin + length, CHUNK_BYTES):
        piece = content[at : min(at + CHUNK_BYTES, begin + length)]
        characters += int(np.count_nonzero((piece & 0xC0) != 0x80))
    shown = content[begin : begin + min(length, SHOWN_BYTES)].tobytes()
    return characters, shown.decode("utf-8", "ignore")
