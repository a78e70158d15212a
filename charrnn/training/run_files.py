"""The files of a run: which names are its own, and reading them. No other name is ever opened, or removed."""

import re
import stat
from pathlib import Path

from charrnn.errors import CharRNNError

# What a file of tensors is called, by what it is in run.json.
TENSOR_FILES = {"last": "model", "best": "model", "training": "training", "losses": "losses"}
OWN_FILES = re.compile(
    r"(run|config|tokenizer)\.json|(metrics|timings)\.jsonl|(model|training|losses)-\d{8,}\.safetensors"
    r"|\.(run|config|tokenizer|metrics|timings|model|training|losses|lock|holder)\b.*"
)
RESTORE = "restore the run from a copy, or remove it with rm"


def read(path: Path) -> bytes:
    """Read one of a run's own files. Raises CharRNNError where it cannot be read, or only leads elsewhere."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CharRNNError(f"{path} was changed or damaged: it is no file of its own", RESTORE)
        return path.read_bytes()
    except OSError as error:
        raise CharRNNError(
            f"{path} cannot be read: {error.strerror}", "train again, or restore the run from a copy"
        ) from None


def read_text(path: Path) -> str:
    """Read one of a run's own files as UTF-8. Raises CharRNNError as `read` does, and where it is not UTF-8."""
    try:
        return read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"{path} was changed or damaged: byte {error.start} is not UTF-8"
        raise CharRNNError(problem, RESTORE) from None
