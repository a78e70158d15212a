"""Beginning a run and resuming one: stateful truncated back-propagation through time, as a generator of events.

The batch, the rate and the randomness of step k are pure functions of (configuration, its plan, k), and whatever was
decided by timing is written into the configuration before a step depends on it: a run can be repeated from its
config.json to the last byte, and one that was cut off goes on as if it had not been.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator

from charrnn.errors import CharRNNError
from charrnn.text.copies import Progress, silent
from charrnn.text.corpus import prepare
from charrnn.training import resolve, training_state
from charrnn.training.events import Event
from charrnn.training.run import Run
from charrnn.training.runs import open_run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of
from charrnn.training.trainer import Trainer
from charrnn.training.training_loop import TrainingLoop

# What stood here before it had a module of its own is imported from here too.
__all__ = ["Trainer", "diverged", "new_run", "open_run", "resume", "threads_of"]

DIVERGED_HINT = "train a new run with a lower --lr"


def new_run(
    settings: Settings,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
) -> Generator[Event, None, None]:
    """Train from the beginning into an empty folder, yielding events.

    stop() is asked after every step: when it is true the run is saved, and `resume` continues it. began: a reading
    of time.monotonic() from which the budget counts, now when None. progress: called while the corpus is prepared.
    Where it ends before anything was saved, the folder is removed.
    Raises CharRNNError for a corpus that cannot be read or is too short, and a folder that is taken.
    """
    began = time.monotonic() if began is None else began
    run.refuse_taken()
    corpus = prepare(settings, progress=progress)
    settings = resolve.with_length(settings)
    machine = Machine(settings, corpus)
    config = resolve.resolve(settings, corpus, machine)
    loop = TrainingLoop(run, Trainer(config, corpus), machine, began)
    with run.held():
        run.create(config, corpus.tokenizer)
        try:
            with threads_of(config):
                yield from loop.events(stop)
        finally:
            if not run.exists():
                run.abandon()


def resume(
    run: Run,
    steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
    device: str | None = None,
) -> Generator[Event, None, None]:
    """Go on with a run exactly where its last checkpoint is; `steps` lengthens (or shortens) it to that many in all.

    device: 'cpu' or 'cuda'; that of the run, where it is here, when None. On another one the last bits differ.
    Raises CharRNNError where the run is complete, damaged, in use or diverged, its corpus is gone, or there is no
    such device.
    """
    began = time.monotonic() if began is None else began
    run.about()  # before anything is locked: it must be a run
    with run.held():
        yield from _resumed(run, steps, stop, began, progress, device)


def _resumed(
    run: Run,
    steps: int | None,
    stop: Callable[[], bool],
    began: float,
    progress: Progress,
    device: str | None,
) -> Iterator[Event]:
    about, config = run.about(), run.config()
    if about.get("diverged") is not None and (steps is not None or about["result"]):
        raise CharRNNError(f"{run.name} diverged at step {about['diverged']}, and would again", DIVERGED_HINT)
    step = about["step"]
    if steps is not None:
        if steps <= step:
            raise CharRNNError(f"{run.name} has {step} steps already", f"give --steps more than {step}")
        config = dataclasses.replace(config, steps=steps, epochs=None, budget=None)
    elif about.get("result"):
        raise CharRNNError(
            f"{run.name} is complete after {step} steps", "give --steps for how many it shall have in all"
        )
    run.check("last")  # before anything is made as large as the configuration says
    config, moved = resolve.moved(config, device)
    corpus = prepare(config, run.tokenizer(), progress=progress)
    if steps is not None:
        config = resolve.planned(config, corpus, since=step, steps=steps)
    machine = Machine(config, corpus)
    resolve.refuse_what_does_not_fit(config, corpus, machine)
    trainer = Trainer(config, corpus)
    training_state.restore(trainer, about, run.weights("last"), run.training_state(), run.name)
    loop = TrainingLoop(run, trainer, machine, began, about["seconds"], moved)
    loop.record.resume(about)
    if loop.record.diverged is None:
        run.truncate(step)
    run.write_config(config)
    with threads_of(config):
        yield from loop.events(stop)


def diverged(run: Run, step: int) -> CharRNNError:
    """Make the error for a run that diverged at a step."""
    return CharRNNError(f"training diverged at step {step:,} of {run.path}", DIVERGED_HINT)
