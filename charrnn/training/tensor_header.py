"""The header of a file of safetensors, checked before a byte of its tensors is read.

A file is the header's length (8 bytes, little-endian), the header in JSON, and the tensors' bytes one after the other.
Whoever wrote the file wrote its SHA-256 too, so that a right SHA-256 says nothing of what the header asks for.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from charrnn import strict_json
from charrnn.errors import CharRNNError
from charrnn.training.json_fields import is_count, shown
from charrnn.training.run_files import RESTORE, DamageError, opened

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 1 << 24
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
ZIPPED = b"PK\x03\x04"  # what torch.save writes
PICKLED = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


class Entry(NamedTuple):
    """A tensor as a header declares it. dtype: as NumPy names it."""

    dtype: str
    shape: tuple[int, ...]


def is_pickled(beginning: bytes) -> bool:
    """Tell whether a file begins as torch.save or pickle write them: reading it would run what its writer wished."""
    # A header of some length begins like a pickle, but for the zeros of a length that is never so large.
    return beginning.startswith(ZIPPED) or (beginning.startswith(PICKLED) and any(beginning[3:LENGTH_BYTES]))


def load(path: Path) -> dict[str, Entry]:
    """Read what a file of tensors declares to hold, by name. Raises DamageError, naming the file, where it is wrong.

    The tensors lie as the header says, without gaps, and the file ends with them.
    """
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        beginning = stream.read(LENGTH_BYTES)
        length = int.from_bytes(beginning, "little")
        if is_pickled(beginning):
            raise _damaged(path, "it is a file of torch.save or pickle, which could run any program and is never read")
        if not 2 <= length <= min(size - LENGTH_BYTES, MOST_HEADER_BYTES):
            raise _damaged(path, f"it is {size:,} bytes long, and its header should be {length:,}")
        header = stream.read(length)
    try:
        entries = strict_json.loads_object(header, str(path), RESTORE)
    except CharRNNError as error:
        raise DamageError(error.problem, error.hint) from None
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not _is_of_texts(metadata):
        raise _damaged(path, shown("__metadata__", metadata))
    spans = []
    for name, entry in entries.items():
        if wrong := _wrong_in(entry):
            raise _damaged(path, f"tensor {name!r}: {wrong}")
        spans.append((*entry["data_offsets"], name))
    end = 0
    for begin, until, name in sorted(spans):
        if begin != end:
            raise _damaged(path, f"tensor {name!r} begins at byte {begin:,}, where {end:,} is expected")
        end = until
    if LENGTH_BYTES + length + end != size:
        raise _damaged(path, f"it is {size:,} bytes long, where {LENGTH_BYTES + length + end:,} are expected")
    return {
        name: Entry(NAMES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"])) for name, entry in entries.items()
    }


def _wrong_in(entry: Any) -> str | None:
    """Say what is wrong with what a header says of one tensor, or None."""
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return shown("its entry", entry)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return shown("dtype", dtype)
    if not isinstance(shape, list) or not all(map(is_count, shape)):
        return shown("shape", shape)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        return shown("data_offsets", offsets)
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        return f"shape {shape} of {dtype} does not fill bytes {offsets[0]:,} to {offsets[1]:,}"
    return None


def _is_of_texts(metadata: Any) -> bool:
    return isinstance(metadata, Mapping) and all(isinstance(value, str) for value in metadata.values())


def _damaged(path: Path, problem: str) -> DamageError:
    return DamageError(f"{path} was changed or damaged: {problem}", RESTORE)
