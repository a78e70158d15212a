"""A comparison that is begun again: what its folder holds, and what is new to it."""

import dataclasses

from charrnn.compare.grid import Folder, Grid, different, merged_cells, unrepeated
from charrnn.errors import CharRNNError
from charrnn.text.corpus import Corpus


def resumed(before: Grid, asked: Grid, folder: Folder, corpus: Corpus) -> Grid:
    """Return the grid of a folder with what is asked for now: more seeds, other cells, another prime.

    Raises CharRNNError where the two compare other things: other settings, another text, other sizes.
    """
    if name := different(before, asked):
        raise _holds(folder, f"with another {name.replace('_', '-')}")
    if before.config.fingerprint != corpus.text.fingerprint:
        raise _holds(folder, "on another text")
    if asked.entries and (name := unrepeated(before, asked)):
        raise _holds(folder, f"with {name}")
    return dataclasses.replace(
        before,
        seeds=max(before.seeds, asked.seeds),
        prime=asked.prime or before.prime,
        entries=merged_cells(before, asked.entries),
    )


def _holds(folder: Folder, what: str) -> CharRNNError:
    return CharRNNError(f"{folder.path} holds a comparison {what}", "give another --out")
