"""Where the runs of a comparison are trained: `--on`, read and opened."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from charrnn.compare import jobs, sending
from charrnn.compare.dask_pool import DaskPool
from charrnn.compare.jobs import Job, Progress
from charrnn.compare.pools import ExecutorPool, Pool
from charrnn.compare.slurm_pool import SlurmPool
from charrnn.errors import OptionError
from charrnn.hardware import processor

LOCAL = "local"
FORMS = "local, dask://HOST:8786, tls://HOST:8786 or slurm[:partition=NAME,...]"
On = str | Executor


@dataclass(frozen=True)
class Place:
    """Where runs are trained: by `side_by_side` processes of this machine, or by the workers of a pool.

    folder: the comparison's.
    """

    folder: Path
    side_by_side: int = 1
    pool: Pool | None = None

    @property
    def at_once(self) -> int:
        """How many runs are trained at once, as far as that is known."""
        return self.side_by_side if self.pool is None else self.pool.slots or 1

    @property
    def threads(self) -> int:
        """How many threads a run has there, if nobody asks for another number."""
        known = None if self.pool is None else self.pool.threads
        return known or max(1, torch.get_num_threads() // self.side_by_side)

    @property
    def processor(self) -> str | None:
        """The kind of processor of all runs there; None where nobody knows before."""
        return processor() if self.pool is None else None

    def carry_out(self, left: Sequence[Job], kind: str | None, stop: Callable[[], bool]) -> Iterator[Progress]:
        """Carry out jobs there, as `jobs.carry_out` does. kind: of processor, that all must be trained on."""
        if self.pool is None:
            return jobs.carry_out(left, self.side_by_side, stop)
        return sending.carry_out(left, self.folder, self.pool, kind, stop)


@contextmanager
def opened(on: On, folder: Path, side_by_side: int, timed: bool, insecure: bool) -> Iterator[Place]:
    """Open a place for as long as the context lasts.

    on: as `--on` has it, or an executor of `concurrent.futures`. folder: the comparison's. side_by_side: runs at once
    on this machine. timed: whether runs are matched by time. insecure: whether Dask is used without TLS.
    Raises CharRNNError where nobody is there, and OptionError for what cannot be.
    """
    if side_by_side < 1:
        raise OptionError(f"jobs is {side_by_side}", "expected a whole number of 1 or more")
    if on == LOCAL:
        if timed and side_by_side > 1:
            raise OptionError(
                "runs side by side slow each other down, and equal time was asked for", "leave out --jobs"
            )
        yield Place(folder, side_by_side)
        return
    if side_by_side > 1:
        raise OptionError("--jobs is of this machine, and --on of others", "leave out --jobs: every worker has its own")
    pool = pool_of(on, folder, insecure)
    try:
        if timed and pool.unequal:
            raise OptionError(f"equal time was asked for, and {pool.unequal}", "or leave out --match time")
        yield Place(folder, pool=pool)
    finally:
        pool.close()


def pool_of(on: On, folder: Path, insecure: bool) -> Pool:
    if isinstance(on, Executor):
        return ExecutorPool(on)
    kind, _, rest = on.partition(":")
    if kind in ("dask", "tls") and rest.startswith("//"):
        return DaskPool(on, insecure)
    if kind == "slurm" and os.name == "posix":
        return SlurmPool(folder, rest)
    raise OptionError(f"nothing can be trained on {on!r}", f"give {FORMS}")
