"""The jobs of a comparison, carried out by a pool of workers: sent, watched, tried again where they are lost.

How far a run is, its own files say where the folder is shared; else its answer brings the run. Stopped, everything is
saved, and nothing goes on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import charrnn
from charrnn import strict_json
from charrnn.compare import errands, parcels
from charrnn.compare.errands import Order
from charrnn.compare.jobs import Job, Progress
from charrnn.compare.pools import Pending, Pool
from charrnn.compare.signs import Sign
from charrnn.errors import CharRNNError
from charrnn.home import home
from charrnn.text import carrying, copies
from charrnn.training import identity
from charrnn.training.config import FORMAT, Config, values_of
from charrnn.training.metrics import TIMINGS

LOOK_SECONDS = 0.5
TRIES = 3  # of a job that is lost, before the comparison ends
STOP_SECONDS = errands.SAVING_SECONDS + 30.0  # that all workers have for saving


@dataclass
class Sent:
    """A job with a worker. lost: how often it was lost before. step: the last one that was told."""

    job: Job
    order: Order
    pending: Pending
    lost: int = 0
    step: int = 0


def carry_out(
    jobs: Sequence[Job], folder: Path, pool: Pool, processor: str | None, stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Carry out what is left of the jobs; yield their progress. End early, with all saved, when stop() is true.

    folder: the comparison's. processor: the kind that all must be trained on, if that matters.
    Raises CharRNNError where a worker refuses a job, or one was lost TRIES times.
    """
    left = [job for job in jobs if not job.done()]
    if not left:
        return
    sign = Sign(folder)
    try:
        yield from _Sending(folder, pool, sign, processor, stop).carry_out(left)
    finally:
        sign.take_back()


class _Sending:
    """Jobs on their way."""

    def __init__(self, folder: Path, pool: Pool, sign: Sign, processor: str | None, stop: Callable[[], bool]) -> None:
        self._folder, self._pool, self._sign = folder, pool, sign
        self._processor, self._asked = processor, stop
        self._sent: list[Sent] = []

    def carry_out(self, jobs: Sequence[Job]) -> Iterator[Progress]:
        try:
            yield from self._watched(jobs)
            if self._sent:
                yield from self._stopped()
        except CharRNNError:
            for _ in self._stopped():  # what the others have done is not lost with the one that failed
                pass
            raise
        finally:  # also when something failed
            for sent in self._sent:
                sent.pending.cancel()

    def _watched(self, jobs: Sequence[Job]) -> Iterator[Progress]:
        """Send all jobs, and take their answers, until none is left or the comparison is asked to stop."""
        for job in jobs:
            order = self._order(job)
            self._sent.append(Sent(job, order, self._pool.submit(order.to_json(), {})))
            yield Progress(job, order.begun or 0)  # from now on there is something to save
        while self._sent and not self._asked():
            yield from self._ended()
            yield from self._begun()
            time.sleep(LOOK_SECONDS)

    def _order(self, job: Job) -> Order:
        config, decided = {"format": FORMAT, **values_of(job.config)}, Config.decided(job.config)
        return Order(
            folder=str(self._folder.resolve()),
            sign=str(self._sign.path.resolve()),
            place=job.run.path.relative_to(self._folder).as_posix(),
            home=str(home().resolve()),
            config=strict_json.loads(strict_json.dumps(config)),
            scored=job.scored,
            begun=job.run.about()["step"] if job.run.exists() else None,
            shared=self._pool.shared,
            charrnn=charrnn.__version__,
            equations=identity.equations(decided),
            processor=self._processor,
        )

    def _begun(self) -> Iterator[Progress]:
        """Yield how far runs are, as far as their files say it here."""
        for sent in self._sent:
            try:
                rows = sent.job.run.rows(TIMINGS, checked=False)
            except CharRNNError:  # not there yet, or just being replaced
                continue
            if rows and rows[-1]["step"] > sent.step:
                sent.step = rows[-1]["step"]
                yield Progress(sent.job, sent.step)

    def _ended(self) -> Iterator[Progress]:
        """Take the answers that have come; yield those that are complete, and send again what is to be."""
        for sent in [each for each in self._sent if each.pending.done()]:
            answer = _answer_of(sent.pending)
            match answer["ended"]:
                case errands.DONE:
                    yield self._done(sent, answer)
                case errands.NEEDS:
                    self._again(sent, self._parcel(sent.job, answer["needs"]))
                case errands.REFUSED:
                    self._sent.remove(sent)
                    raise CharRNNError(answer["problem"], answer["hint"])
                case _:  # it died, its worker did, or that was told to stop by somebody else
                    _keep(sent.job, answer)
                    sent.lost += 1
                    if sent.lost == TRIES:
                        self._sent.remove(sent)
                        problem = answer.get("problem", "its worker was stopped")
                        raise CharRNNError(
                            f"{sent.job.run.path} was lost {TRIES} times: {problem}",
                            "look at the workers; the same command goes on",
                        )
                    self._again(sent, {})

    def _done(self, sent: Sent, answer: dict[str, Any]) -> Progress:
        self._sent.remove(sent)
        _keep(sent.job, answer)
        return Progress(sent.job, sent.job.steps, done=True)

    def _again(self, sent: Sent, parcel: dict[str, bytes]) -> None:
        begun = sent.job.run.about()["step"] if sent.job.run.exists() else None
        sent.order = replace(sent.order, begun=begun)
        sent.pending = self._pool.submit(sent.order.to_json(), parcel)

    def _parcel(self, job: Job, needs: Sequence[str]) -> dict[str, bytes]:
        """Return what a worker lacks."""
        parcel: dict[str, bytes] = {}
        if errands.TEXT in needs:
            text = copies.private_copy(job.config)
            parcel |= {f"{errands.TEXT}/{name}": data for name, data in carrying.packed(text).items()}
        if errands.RUN in needs:
            parcel |= {f"{errands.RUN}/{name}": data for name, data in parcels.packed(job.run).items()}
        return parcel

    def _stopped(self) -> Iterator[Progress]:
        """Let all workers save; keep what they bring, within a time."""
        self._sign.take_back()
        self._pool.ask_to_stop()
        until = time.monotonic() + STOP_SECONDS
        while self._sent and time.monotonic() < until:
            for sent in [each for each in self._sent if each.pending.done()]:
                answer = _answer_of(sent.pending)
                if answer["ended"] == errands.DONE:
                    yield self._done(sent, answer)
                else:
                    self._sent.remove(sent)
                    _keep(sent.job, answer)
            time.sleep(LOOK_SECONDS)


def _keep(job: Job, answer: dict[str, Any]) -> None:
    """Write the run that came with an answer into its folder."""
    if answer.get("files"):
        parcels.unpacked(answer["files"], job.run)


def _answer_of(pending: Pending) -> dict[str, Any]:
    """Return how a job ended; one whose worker is gone died too, whatever its pool says then."""
    try:
        answer = pending.result()
    except (Exception, CancelledError) as error:  # of the pool's own kinds
        return {"ended": errands.DIED, "problem": f"{type(error).__name__}: {error}"}
    assert isinstance(answer, dict)
    return answer
