"""Memory that does not suffice for training: recognised, and told with the batch that would fit."""

from collections.abc import Iterator
from contextlib import contextmanager

from charrnn.errors import CharRNNError
from charrnn.model.architecture import Architecture
from charrnn.text.corpus import Corpus
from charrnn.training import sizing
from charrnn.training.config import Config
from charrnn.training.speed import memory_bytes

# What torch says where an allocation fails, apart from CUDA's own exception: of the CPU's memory, and of libraries'.
SIGNS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")


@contextmanager
def explained(config: Config, corpus: Corpus, is_new: bool = True) -> Iterator[None]:
    """Around training: say what to do where the memory does not suffice, as a CharRNNError.

    is_new: whether its settings can still be chosen; a run that is resumed, or begins again, cannot have another batch.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sizes = f"hidden {config.hidden} x {config.layers}, batch {config.batch}, window {config.window}"
        where = "" if config.device == "cpu" else f" of the {config.device.upper()} device"
        raise CharRNNError(
            f"the memory{where} does not suffice to train {sizes}", _hint(config, corpus, is_new)
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that an allocation failed."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)


def _hint(config: Config, corpus: Corpus, is_new: bool) -> str:
    architecture = Architecture.of(config, corpus.tokenizer.size)
    batch = fitting_batch(config, architecture, memory_bytes(config.device))
    narrower = sizing.smaller(config, architecture, "choose a smaller --hidden or --window")
    less = narrower if batch is None else f"--batch {batch} would fit"
    if is_new:
        return less
    return f"end other programs, or resume it where there is more memory; in a new run, {less}"


def fitting_batch(config: Config, architecture: Architecture, there: int | None) -> int | None:
    """Return the largest halved batch whose training fits into so many bytes by the estimate; None where none does.

    The batch itself did not fit, whatever the estimate says. there: None where the system does not tell.
    """
    batch = config.batch // 2
    while batch and there is not None and sizing.memory_bytes(config.replace(batch=batch), architecture) > there:
        batch //= 2
    return batch or None
