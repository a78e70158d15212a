"""A private copy of a text on its way to another machine: its files as bytes, believed only by their fingerprint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from charrnn import files, strict_json
from charrnn.errors import CharRNNError
from charrnn.text.copies import TEXT, Text, copy_of

MOST_BYTES = 1 << 30  # of a text that is sent
ABOUT, STARTS = "text.json", "file-starts"


def packed(text: Text) -> dict[str, bytes]:
    """Return the files of a private copy, by name. Raises CharRNNError where it is longer than can be sent."""
    length = text.path.stat().st_size
    if length > MOST_BYTES:
        raise CharRNNError(
            f"the text has {length:,} bytes, and no more than {MOST_BYTES:,} are sent to another machine",
            "copy the folder .corpora to the CHARRNN_HOME of the workers, or share it with them",
        )
    about = {"source": text.source, "characters": text.characters, "notes": text.notes}
    found = {TEXT: text.path.read_bytes(), ABOUT: strict_json.dumps(about).encode()}
    if text.document == "file":  # what the text alone does not say
        found[STARTS] = np.asarray(text.starts(), np.int64).tobytes()
    return found


def unpacked(parcel: Mapping[str, bytes], fingerprint: str, folder: Path, document: str) -> Text:
    """Keep a text that was sent as a private copy in `folder`. document: what stands alone in it.

    Raises CharRNNError where it is not the text of that fingerprint.
    """
    starts = np.frombuffer(parcel[STARTS], np.int64) if document == "file" else np.zeros(1, np.int64)
    if _fingerprint(parcel[TEXT], starts) != fingerprint:
        raise CharRNNError("the text that was sent is not the one that was asked for", "give the same command again")
    place = folder / fingerprint[:16]
    place.mkdir(parents=True, exist_ok=True)
    for name in (TEXT, STARTS, ABOUT):  # the last one says that the copy is whole
        if name in parcel:
            files.write_atomically(place / name, parcel[name])
    text = copy_of(fingerprint, folder, document)
    assert text is not None
    return text


def _fingerprint(data: bytes, starts: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> str:
    """Return the fingerprint of a text as UTF-8 whose documents begin at these offsets, in characters."""
    if len(starts) == 1:
        return hashlib.sha256(data).hexdigest()
    text, digest = data.decode("utf-8"), hashlib.sha256()
    ends = (*starts[1:].tolist(), len(text))
    for begin, end in zip(starts.tolist(), ends, strict=True):
        digest.update(b"\xff" if begin else b"")
        digest.update(text[begin:end].encode("utf-8"))
    return digest.hexdigest()
