"""The processor of this machine, without waking anything that computes."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name the processor of this machine, so that others that compute otherwise or faster have other names."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name", "")
    if name and not any(c.isdigit() for c in name) and "cpu family" in told:  # a virtual machine may hide the model
        return f"{name}, family {told['cpu family']}, model {told.get('model', '?')}"
    return name or platform.processor() or platform.machine()
