"""A run on its way to another machine and back: its files as bytes, each with its SHA-256.

Whoever takes a parcel believes no name and no size in it: only the files of a run are written, whole and as they were
packed, and run.json last.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from charrnn import files
from charrnn.errors import CharRNNError
from charrnn.training import run_json
from charrnn.training.metrics import METRICS, TIMINGS
from charrnn.training.run import Run
from charrnn.training.run_files import MOST_TOKENIZER_BYTES, read

Parcel = Mapping[str, bytes]
SMALL_FILES = ("config.json", "tokenizer.json", METRICS, TIMINGS)
MOST_BYTES = 1 << 31  # of all files of a run
SUMS = "SHA256"  # the SHA-256 of every file, as `sha256sum` writes them
AGAIN = "give the same command again; if that does not help, share the folder with the workers"


def packed(run: Run) -> dict[str, bytes]:
    """Return the files of a saved run, by name. Raises CharRNNError where they are damaged or too long."""
    about, left, parcel = run.about(), MOST_BYTES, {}
    for name in (run_json.NAME, *SMALL_FILES, *sorted(_entries(about))):
        most = MOST_TOKENIZER_BYTES if name == "tokenizer.json" else left
        parcel[name] = read(run.path / name, min(most, left))
        left -= len(parcel[name])
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parcel.items()]
    return {**parcel, SUMS: "".join(sums).encode()}


def unpacked(parcel: Parcel, run: Run) -> None:
    """Write the files of a run that were sent into its folder, in place of an older checkpoint there.

    Raises CharRNNError for anything but a whole run.
    """
    try:
        about = run_json.of_bytes(parcel[run_json.NAME], run.path)
        entries = _entries(about)
        if set(parcel) != {SUMS, run_json.NAME, *SMALL_FILES, *entries}:
            raise _damaged(run, "it has other files")
        if sum(map(len, parcel.values())) > MOST_BYTES:
            raise _damaged(run, f"it is longer than {MOST_BYTES:,} bytes")
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in _lines(parcel[SUMS]))}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(run, repr(error)) from None
    for name, data in parcel.items():
        digest = None if name == SUMS else hashlib.sha256(data).hexdigest()
        if digest != sums.get(name) or entries.get(name, digest) != digest:
            raise _damaged(run, f"{name} has not its SHA-256")
    if about["result"] is not None and "run" in about["result"]:
        about["result"]["run"] = str(run.path)
    with run.held():
        for name in (*entries, *SMALL_FILES):
            files.write_atomically(run.path / name, parcel[name])
        run.rewrite(about)
        run.sweep()


def _entries(about: Mapping[str, Any]) -> dict[str, str]:
    """List the files of tensors that run.json names, with their SHA-256."""
    sides = (about, about.get("before"))
    return {entry["name"]: entry["sha256"] for side in sides if side for entry in side["files"].values()}


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8").splitlines()


def _damaged(run: Run, what: str) -> CharRNNError:
    return CharRNNError(f"the run that was sent for {run.path} is damaged: {what}", AGAIN)
