"""Where a comparison's jobs can be sent: what any pool of workers does, and a pool of Python's own kind."""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

from charrnn.compare import errands

Parcel = Mapping[str, bytes]


class Pending(Protocol):
    """A job that was sent: the part of a future that Python, Dask and submitit have in common."""

    def done(self) -> bool:
        """Tell whether it has ended."""

    def result(self) -> Any:
        """Return its answer; raise anything where it was lost."""

    def cancel(self) -> Any:
        """Let it not begin, or end."""


class Pool(Protocol):
    """Workers, here or on other machines."""

    @property
    def slots(self) -> int | None:
        """How many jobs they do at once; None: nobody knows."""

    @property
    def threads(self) -> int | None:
        """How many threads one job has there; None: nobody knows."""

    @property
    def shared(self) -> bool:
        """Whether they must see the comparison's folder."""

    @property
    def unequal(self) -> str | None:
        """Why runs there take no equal time, if they do not."""

    def submit(self, order: str, parcel: Parcel) -> Pending:
        """Send a job: `errands.carry_out` with these arguments. Raises CharRNNError where nobody takes it."""

    def ask_to_stop(self) -> None:
        """Let jobs save and end, those that were not begun end at once; the sign of life says so too."""

    def close(self) -> None:
        """Leave nothing behind."""


class ExecutorPool:
    """The workers of an executor of `concurrent.futures`, which is not closed here."""

    threads = None
    shared = True  # nothing else tells a job to stop
    unequal = "nobody knows on which machines an executor runs what"

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.slots: int | None = getattr(executor, "_max_workers", None)

    def submit(self, order: str, parcel: Parcel) -> Pending:
        """Send a job."""
        return self._executor.submit(errands.carry_out, order, parcel)

    def ask_to_stop(self) -> None:
        """Do nothing: the sign of life says it where the folder is shared, and futures that wait are cancelled."""

    def close(self) -> None:
        """Do nothing: the executor is its owner's."""
