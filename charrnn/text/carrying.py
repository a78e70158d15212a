"""A private copy of a text on its way to another machine: its files as bytes, believed only by their fingerprint.

What comes along beside the text, its name and notes, is for people alone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from charrnn import files, strict_json
from charrnn.errors import CharRNNError
from charrnn.text.copies import TEXT, Text, copy_of

MOST_BYTES = 1 << 30  # of a text that is sent
ABOUT, STARTS = "text.json", "file-starts"
AGAIN = "give the same command again"


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
    if starts[:1].tolist() != [0] or _fingerprint(parcel[TEXT], starts) != fingerprint:
        raise CharRNNError("the text that was sent is not the one that was asked for", AGAIN)
    about = strict_json.loads_object(parcel[ABOUT], f"the {ABOUT} that was sent", AGAIN)
    about["characters"] = len(parcel[TEXT].decode("utf-8"))  # where the parts of a text begin depends on it
    place = folder / fingerprint[:16]
    place.mkdir(parents=True, exist_ok=True)
    files.write_atomically(place / TEXT, parcel[TEXT])
    if document == "file":
        files.write_atomically(place / STARTS, parcel[STARTS])
    files.write_atomically(place / ABOUT, strict_json.dumps(about).encode())  # says that the copy is whole
    text = copy_of(fingerprint, folder, document)
    if text is None:
        raise CharRNNError(f"the {ABOUT} that was sent is no description of a text", AGAIN)
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
