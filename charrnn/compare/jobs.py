"""Many runs carried out, one after the other or several side by side; those that were begun before are resumed.

A process that works beside others hears no signals: the first process hears them, and asks it to stop. Where the first
one is gone, it saves and ends by itself.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any

from charrnn import files
from charrnn.errors import CharRNNError
from charrnn.interruption import SIGNALS, held
from charrnn.training import loop
from charrnn.training.events import Diverged, Stepped, Stopped, Validated
from charrnn.training.run import Run
from charrnn.training.settings import Settings

PROGRESS_SECONDS = 0.2  # how often, at the most, a run beside others says how far it is
# The system kills one where memory is short. One that finds a script without this line begins that script again.
DIED_HINT = (
    "the same command goes on; give fewer --jobs where memory is short, and in a script call it below "
    "`if __name__ == '__main__':`"
)


@dataclass(frozen=True)
class Job:
    """A run to carry out. scored: whether to its end; if not, the test part is left alone."""

    run: Run
    config: Settings
    scored: bool

    @property
    def steps(self) -> int:
        assert self.config.steps is not None
        return self.config.steps

    def done(self) -> bool:
        """Tell whether nothing is left to do."""
        if not self.run.exists():
            return False
        about = self.run.about()
        if self.scored:
            return about["result"] is not None
        return about["step"] == self.steps or about.get("diverged") is not None


@dataclass(frozen=True)
class Progress:
    """The step that a job is at. done: whether this is its last event."""

    job: Job
    step: int
    done: bool = False


def carry_out(jobs: Sequence[Job], workers: int, stop: Callable[[], bool]) -> Iterator[Progress]:
    """Carry out what is left of the jobs; yield their progress. End early, with all saved, when stop() is true.

    Raises CharRNNError where a process of several side by side dies.
    """
    left = [job for job in jobs if not job.done()]
    if workers > 1 and len(left) > 1:
        try:
            yield from _side_by_side(left, workers, stop)
        except BrokenProcessPool:
            raise CharRNNError("a process that trained runs beside others died", DIED_HINT) from None
        return
    for job in left:
        if stop():
            return
        yield from one(job, stop)


def one(job: Job, stop: Callable[[], bool]) -> Iterator[Progress]:
    """Carry out a job, or what is left of it; yield its progress. End early, saved, when stop() is true."""
    if job.run.path.exists() and not job.run.exists():
        files.remove_folder(job.run.path)  # cut off before its first checkpoint
    begun = job.run.exists()
    events = loop.resume(job.run, stop=stop) if begun else loop.new_run(job.config, job.run, stop)
    for event in events:
        if isinstance(event, Stepped):
            yield Progress(job, event.step)
        elif isinstance(event, Validated) and event.step == job.steps and not job.scored:
            break  # what comes now is the score
        elif isinstance(event, Diverged) and not job.scored:
            break
        elif isinstance(event, Stopped):
            return
    yield Progress(job, job.steps, done=True)


def _side_by_side(jobs: list[Job], workers: int, stop: Callable[[], bool]) -> Iterator[Progress]:
    context = multiprocessing.get_context("spawn")  # a forked process would share torch's threads with this one
    with held():  # multiprocessing starts a process of its own for these
        news: Any = context.Queue()
        asked = context.Event()
    with ProcessPoolExecutor(workers, context, _enter, (news, asked)) as pool:
        with held():
            waiting: set[Future[None]] = {pool.submit(_work, job) for job in jobs}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=PROGRESS_SECONDS, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                if stop():
                    asked.set()
                yield from _pending(news)
        finally:
            asked.set()  # also when something failed: the others save what they have
    yield from _pending(news)


def _pending(news: Any) -> Iterator[Progress]:
    while True:
        try:
            yield news.get(timeout=0.05)
        except queue.Empty:
            return


class Worker:
    """A process that works beside others.

    news: the queue that its progress goes to. asked: set when it is to stop. orphaned: set when the first process is
    gone.
    """

    def __init__(self, news: Any, asked: Any) -> None:
        self.news, self.asked = news, asked
        self.orphaned = threading.Event()
        self._working = threading.Lock()

    def must_stop(self) -> bool:
        """Tell whether it is to save and end."""
        return self.orphaned.is_set() or bool(self.asked.is_set())

    def work(self, job: Job) -> None:
        """Carry out a job, or what is left of it."""
        with self._working:
            if self.must_stop():
                return
            told = 0.0
            for progress in one(job, self.must_stop):
                if progress.done or time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    self.news.put(progress)

    def end_with_parent(self) -> None:
        """Wait until the process that started this one is gone; then end, once what is being done is saved."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait_for([parent.sentinel])
        self.orphaned.set()
        with self._working:
            os._exit(1)


_worker: Worker | None = None  # this process, if it is one: a pool has no other way to hand it to its jobs


def _enter(news: Any, asked: Any) -> None:
    global _worker
    _worker = Worker(news, asked)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # where they could not be held back before
    threading.Thread(target=_worker.end_with_parent, daemon=True).start()


def _work(job: Job) -> None:
    assert _worker is not None
    _worker.work(job)
