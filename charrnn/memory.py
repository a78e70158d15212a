"""How much memory there is."""

import os
from contextlib import suppress


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
    return min(known, default=None)
