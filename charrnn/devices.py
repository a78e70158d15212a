"""Which device computes: the one place that decides it."""

import os
import sys
from pathlib import Path
from typing import Literal

from charrnn.errors import CharRNNError, OptionError
from charrnn.patterns import pattern

Device = Literal["cpu", "cuda", "mps"]
KNOWN = ("auto", "cpu", "cuda", "mps")
OTHERWISE = "use --device cpu or auto"
NUMBERED = pattern(r"cuda:([0-9]{1,3})")  # as torch names one GPU of several


def resolve(device: str) -> Device:
    """Return what 'auto', 'cpu', 'cuda' or 'mps' means here; CUDA is made ready to be used.

    MPS, the GPU of a Mac, is taken where it is asked for, and only if it computes what a CPU does.
    torch is imported only where there may be a GPU. Raises CharRNNError for a device that is not here, with the reason.
    """
    if device not in KNOWN:
        raise OptionError(f"there is no device {device!r} here", one_of_several(device) or OTHERWISE)
    if device == "cpu" or (device == "auto" and not has_nvidia_driver()):
        return "cpu"
    import torch  # only a GPU needs it here

    if device == "mps":
        return _mps()
    from charrnn.engines import cuda

    there = torch.cuda.is_available()
    if device == "auto" and not there:
        return "cpu"
    if not there:
        why, hint = why_no_cuda()
        raise CharRNNError(f"there is no device {device!r} here: {why}", hint)
    cuda.prepare()
    return "cuda"


def one_of_several(device: str) -> str | None:
    """Say how one GPU of several is chosen, where a device is named as torch names it: cuda:1."""
    found = NUMBERED.fullmatch(device)
    return f"give --device cuda, with CUDA_VISIBLE_DEVICES={found[1]} before the command" if found else None


def why_no_cuda() -> tuple[str, str]:
    """Say why torch finds no CUDA device, and what to do about it."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA", f"install torch for CUDA, or {OTHERWISE}"
    if not has_nvidia_driver():
        return "this machine has no NVIDIA driver", OTHERWISE
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        if "driver" in said and "too old" in said:
            version = torch.version.cuda
            return f"its driver is too old for CUDA {version}", f"update the driver, or install an older torch: {said}"
        if visible is None:
            return f"torch says: {said}", OTHERWISE
    if visible is not None:
        hint = f"name one that nvidia-smi lists, or unset it; or {OTHERWISE}"
        return f"CUDA_VISIBLE_DEVICES is {visible!r}, which names no GPU of this machine", hint
    return "the driver shows no GPU", f"look what nvidia-smi says, or {OTHERWISE}"


def _mps() -> Device:
    import torch

    if not torch.backends.mps.is_available():
        why = "macOS is too old, or this is no Mac" if torch.backends.mps.is_built() else "torch is built without MPS"
        raise CharRNNError(f"there is no device 'mps' here: {why}", OTHERWISE)
    from charrnn.engines import mps

    if (wrong := mps.difference()) is not None:
        raise CharRNNError(
            f"this Mac's GPU does not compute what its CPU does: {wrong}",
            "use --device cpu; a newer macOS or torch may compute it right",
        )
    return "mps"


def has_nvidia_driver() -> bool:
    """Say whether CUDA may be there: torch knows for certain, but takes a second or two to import."""
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu"))
