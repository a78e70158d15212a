"""Which device computes: the one place that decides it."""

import os
import sys
from pathlib import Path
from typing import Literal

from charrnn.errors import CharRNNError, OptionError

Device = Literal["cpu", "cuda"]


def resolve(device: str) -> Device:
    """Return what 'auto', 'cpu' or 'cuda' means here; CUDA is made ready to be used.

    torch is imported only where there may be a GPU. Raises CharRNNError for a device that is not here.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"there is no device {device!r} here", "use --device cpu or auto")
    if device == "cpu" or (device == "auto" and not has_nvidia_driver()):
        return "cpu"
    import torch  # only CUDA needs it here

    from charrnn.engines import cuda

    there = torch.cuda.is_available()
    if device == "auto" and not there:
        return "cpu"
    if not there:
        raise CharRNNError(f"there is no device {device!r} here", "use --device cpu or auto")
    cuda.prepare()
    return "cuda"


def has_nvidia_driver() -> bool:
    """Say whether CUDA may be there: torch knows for certain, but takes a second or two to import."""
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu"))
