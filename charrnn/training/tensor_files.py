"""Files of tensors: safetensors, written once and whole, and known by their SHA-256."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from charrnn import files, memory
from charrnn.errors import CharRNNError
from charrnn.training import tensor_header
from charrnn.training.run_files import RESTORE, TENSOR_FILES, DamageError, read

MOST_FILE_BYTES = 1 << 40  # where the system does not say how much memory there is
Tensors = dict[str, NDArray[Any]]


def digest(tensors: Tensors) -> str:
    """Return the SHA-256 of the file that `store` makes of tensors."""
    return hashlib.sha256(_written(tensors)).hexdigest()


def _written(tensors: Tensors) -> bytes:
    return save_tensors({key: np.ascontiguousarray(value) for key, value in tensors.items()})


def store(folder: Path, kind: str, step: int, tensors: Tensors) -> dict[str, str]:
    """Write tensors into a run's folder; return their entry in run.json: the file's name and SHA-256.

    kind: a key of TENSOR_FILES.
    """
    name = f"{TENSOR_FILES[kind]}-{step:08d}.safetensors"
    data = _written(tensors)
    files.write_atomically(folder / name, data)
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}


def load(
    folder: Path, entry: Mapping[str, str], check: Callable[[Mapping[str, tuple[int, ...]]], None] = lambda shapes: None
) -> Tensors:
    """Read the tensors of an entry of run.json. Raises DamageError where they are not what was written.

    check: raises CharRNNError where shapes, by name, are not what is expected; asked before a tensor is read.
    """
    path = folder / entry["name"]
    check({name: tensor.shape for name, tensor in tensor_header.load(path).items()})
    data = read(path, most=memory.total_bytes() or MOST_FILE_BYTES)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DamageError(f"{path} was changed or damaged", RESTORE)
    try:
        return dict(load_tensors(data))
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        # The hash is right, so that somebody made it so: a dtype that NumPy lacks is one reason.
        raise CharRNNError(f"{path} is not safetensors that charrnn wrote ({error})", RESTORE) from None
