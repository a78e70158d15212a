"""Computing so that sums repeat to the last bit: with a run's own number of threads, in one order on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from charrnn.engines import cuda
from charrnn.training.settings import Settings


@contextmanager
def threads_of(config: Settings) -> Iterator[None]:
    """Compute with the threads of the configuration, for sums that repeat to the last bit; then as before.

    On a GPU they repeat too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or before)
    try:
        with cuda.repeatable(config.device, config.precision or "float32"):
            yield
    finally:
        torch.set_num_threads(before)
