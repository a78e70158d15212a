"""How much memory there is."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # control groups of Linux: a container is one


def total_bytes() -> int | None:
    """Return the memory that this process may have: the machine's, or the limit set for it where that is less.

    None where the system does not tell.
    """
    known = []
    if hasattr(os, "sysconf"):
        with suppress(ValueError, OSError):
            known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        known += [limit] if limit != resource.RLIM_INFINITY else []
    return min([*known, *_limits_of_groups()], default=None)


def _limits_of_groups() -> Iterator[int]:
    """Yield the limits of the control groups that this process is in, of version 1 or 2; none of other systems."""
    with suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, file = (GROUPS / "memory", "memory.limit_in_bytes") if controllers else (GROUPS, "memory.max")
            groups = Path(own.lstrip("/"))
            for group in (groups, *groups.parents):  # that of a container may not be seen from inside, only its root
                with suppress(OSError, ValueError):  # no limit is the word "max"
                    yield int((root / group / file).read_text(encoding="utf-8"))
