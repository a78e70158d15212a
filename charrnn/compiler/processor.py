"""The processor that code is compiled for, as a value: what it is called and what it can do.

It is the one that runs this. The environment variable CHARRNN_PROCESSOR may name less than that, as compilers name
levels of x86-64: code is then compiled as if the processor had no more. So a newer machine tries what older ones run.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import llvmlite.binding as llvm

from charrnn.errors import CharRNNError

VARIABLE = "CHARRNN_PROCESSOR"
_V1 = frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"})
_V2 = _V1 | {"crc32", "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"}
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "invpcid", "lzcnt", "movbe", "xsave", "xsaveopt", "xsavec"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "evex512"}
LEVELS: Mapping[str, frozenset[str]] = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}


@dataclass(frozen=True)
class Processor:
    """A processor. name: as LLVM calls it. features: by LLVM's names, whether it has each. limited: it has more."""

    name: str
    features: Mapping[str, bool] = field(hash=False)
    limited: bool = False

    def has(self, feature: str) -> bool:
        """Tell whether it has a feature; not where LLVM does not know it."""
        return bool(self.features.get(feature))

    @property
    def vector_bytes(self) -> int:
        """The bytes of a vector register."""
        return 64 if self.has("avx512f") else 32 if self.has("avx") else 16

    @property
    def registers(self) -> int:
        """The vector registers that code may count on."""
        return 32 if self.vector_bytes == 64 else 16

    @property
    def multiplies_bf16(self) -> bool:
        """Tell whether it multiplies bf16 numbers faster than float32 ones."""
        return self.has("avx512bf16")

    @property
    def multiplies_tiles(self) -> bool:
        """Tell whether it multiplies tiles of bf16 numbers, with AMX."""
        return self.has("amx-bf16") and self.has("amx-tile") and self.vector_bytes == 64

    @property
    def fuses(self) -> bool:
        """Tell whether a product and a sum are one operation. x86-64 has that by a feature, others always."""
        return self.has("fma") or not self.has("sse2")

    @property
    def enabled(self) -> str:
        """All features, as LLVM takes them."""
        return ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(self.features.items()))


@cache
def processor() -> Processor:
    """Return the processor that code is compiled for. Raises CharRNNError for a level that it has not."""
    name, features = llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())
    if features.get("amx-tile") and not _tiles_are_granted():
        features |= dict.fromkeys((feature for feature in features if feature.startswith("amx")), False)
    level = os.environ.get(VARIABLE)
    if not level:
        return Processor(name, features)
    allowed = LEVELS.get(level)
    if allowed is None or not all(features.get(feature) for feature in allowed if feature in features):
        raise CharRNNError(
            f"{VARIABLE} is {level!r}, where this processor, {name}, has no such level",
            f"choose one of {', '.join(LEVELS)}, or unset it",
        )
    return Processor(level, {feature: on and feature in allowed for feature, on in features.items()}, limited=True)


def _tiles_are_granted() -> bool:
    """Ask the system for tile registers, which it lends to a process that asks; tell whether it does.

    Linux wants it (its documentation, "Using XSTATE features in user space applications"); no other system has been
    tried, and none is trusted.
    """
    if sys.platform != "linux":
        return False
    ask, request, tile_data = 158, 0x1023, 18  # arch_prctl of x86-64, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return bool(ctypes.CDLL(None).syscall(ask, request, tile_data) == 0)
