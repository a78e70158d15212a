"""The nodes of a SLURM cluster, by submitit: a job of the cluster for each run.

submitit pickles what it sends, and unpickles what it gets, in a folder that all nodes share: so that folder is this
user's alone.
"""

import logging
import os
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrnn import files
from charrnn.compare import errands
from charrnn.compare.pools import Parcel, Pending
from charrnn.errors import CharRNNError, OptionError, did_you_mean, how_to_install
from charrnn.patterns import pattern

FOLDER = ".submitit"
PRIVATE = 0o700
MINUTES = 60  # of one job; a run that takes longer is queued again, and goes on from its checkpoint
MOST_TIMES = 10_000  # that a run is queued again
SAID_CHARACTERS = 500
QUEUE_SECONDS = 10.0  # between two looks at the queue
LATE_SECONDS = 60.0  # for an answer after its job has left the queue: so long a network's file system may hide it
# Of sbatch, by its own names: with a number, with a text, with nothing.
NUMBERS = ("time", "cpus_per_task", "gpus_per_node")
TEXTS = ("partition", "account", "qos", "constraint", "gres", "mem", "mem_per_cpu", "nodelist", "exclude")
FLAGS = ("exclusive",)
TEXT = pattern(r"[\w.,:@%+*&|/\[\]-]+")  # what stands in a script of a shell as itself


class Errand:
    """A job of the cluster. Where its time is over before it has ended, it is queued again."""

    def __call__(self, order: str, parcel: Mapping[str, bytes]) -> dict[str, Any]:
        """Carry out a job, or what is left of it."""
        return errands.carry_out(order, parcel)

    def checkpoint(self, *arguments: Any) -> Any:
        """Say what is to be queued again; the run saves itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class SlurmPool:
    """The nodes of a cluster. folder: the comparison's, which they share. options: of sbatch, NAME=VALUE,...

    cluster: 'slurm', or 'local' for processes of this machine, as submitit starts them.
    Raises CharRNNError where there is no SLURM, or the private folder is not private.
    """

    shared = True
    slots = None

    def __init__(self, folder: Path, options: str = "", cluster: str = "slurm") -> None:
        given = read_options(options)
        self.threads = given.get("cpus_per_task", 1)  # as sbatch has it
        self.unequal = (
            None if given.get("exclusive") else "jobs of others on a node slow a run down: give slurm:exclusive"
        )
        try:
            import submitit
        except ImportError:
            raise CharRNNError("--on slurm needs the package submitit", how_to_install("slurm")) from None
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it tells where it writes, and that there is no sacct
        self._folder = private_folder(folder / FOLDER)
        self._cluster = cluster
        try:
            if cluster == "slurm":
                self._executor: Any = submitit.SlurmExecutor(self._folder, max_num_timeout=MOST_TIMES)
                parameters = {"time": MINUTES, "job_name": "charrnn-compare", **given}
                self._executor.update_parameters(**parameters)
            else:
                self._executor = submitit.LocalExecutor(self._folder, max_num_timeout=MOST_TIMES)
                self._executor.update_parameters(timeout_min=given.get("time", MINUTES))
        except RuntimeError as error:
            self.close()
            raise CharRNNError(f"--on slurm: {error}", "give the command where sbatch and srun are") from None
        self._sent: list[_Submitted] = []
        self._queued: set[str] = set()
        self._looked = 0.0

    def submit(self, order: str, parcel: Parcel) -> Pending:
        """Send a job."""
        import submitit

        try:
            job = self._executor.submit(Errand(), order, parcel)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise CharRNNError(
                f"SLURM refuses a job: {error}", "give other options: slurm:partition=NAME,time=MINUTES"
            ) from None
        sent = _Submitted(job, self)
        self._sent.append(sent)
        return sent

    def ask_to_stop(self) -> None:
        """Take jobs out of the queue that were not begun; the others see that the sign of life is gone."""
        if self._cluster == "slurm":
            waiting = [each.job.job_id for each in self._sent]
            subprocess.run(["scancel", "--state=PENDING", *waiting], capture_output=True, check=False)

    def close(self) -> None:
        """Remove the private folder, with what was sent."""
        files.remove_folder(self._folder)

    def is_queued(self, number: str) -> bool:
        """Tell whether a job waits, runs or ends, or may."""
        if time.monotonic() - self._looked > QUEUE_SECONDS:
            asked = ["squeue", "--noheader", "--me", "--format", "%A"]
            found = subprocess.run(asked, capture_output=True, text=True, check=False)
            if found.returncode == 0:  # else the controller does not answer: nobody knows
                self._queued, self._looked = set(found.stdout.split()), time.monotonic()
        return number in self._queued or self._looked == 0.0


class _Submitted:
    """A job of the cluster that was sent. It has ended when it has answered, or no queue has known it for long."""

    def __init__(self, job: Any, pool: SlurmPool) -> None:
        self.job, self._pool = job, pool
        self._since = time.monotonic()
        self._gone: float | None = None  # since when no queue knows it

    def done(self) -> bool:
        """Tell whether it has ended."""
        if self.job.paths.result_pickle.exists():
            return True
        if self._pool._cluster == "local":
            return bool(self.job.done())
        now = time.monotonic()
        if now - self._since < 2 * QUEUE_SECONDS or self._pool.is_queued(self.job.job_id):
            self._gone = None
            return False
        self._gone = now if self._gone is None else self._gone
        return now - self._gone >= LATE_SECONDS

    def result(self) -> Any:
        """Return its answer; raise what submitit raises where it failed, and OSError where there is none."""
        if not self.job.paths.result_pickle.exists():  # submitit would wait for it, where the cluster counts nothing
            said = (self.job.stderr() or "nothing")[-SAID_CHARACTERS:]
            raise OSError(f"job {self.job.job_id} of the cluster ended without an answer, and said: {said}")
        return self.job.result()

    def cancel(self) -> None:
        """Take it out of the queue, or end it."""
        if not self.done():
            self.job.cancel(check=False)


def read_options(text: str) -> dict[str, Any]:
    """Read options of sbatch, NAME=VALUE with commas between them. Raises OptionError for any other."""
    found: dict[str, Any] = {}
    name = ""
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("=")
        if not sign and key not in FLAGS and name in TEXTS:  # a comma in a value
            found[name] += f",{part}"
            continue
        name = key.replace("-", "_")
        if name not in (*NUMBERS, *TEXTS, *FLAGS):
            raise OptionError(f"slurm has no option {key!r} here", did_you_mean(name, [*NUMBERS, *TEXTS, *FLAGS]))
        if not sign and name not in FLAGS:
            raise OptionError(f"slurm:{name} has no value", f"give slurm:{name}=VALUE")
        found[name] = value if sign else True
    for name, value in found.items():
        if name in NUMBERS:
            if not str(value).isdecimal() or int(value) < 1:
                raise OptionError(
                    f"slurm:{name} is {value}", "expected a whole number of 1 or more; time is in minutes"
                )
            found[name] = int(value)
        elif name in TEXTS and not TEXT.fullmatch(str(value)):
            raise OptionError(f"slurm:{name} is {value!r}", "expected a value as sbatch takes it, without spaces")
        elif name in FLAGS and value is not True:
            raise OptionError(f"slurm:{name} takes no value", f"give slurm:{name}")
    return found


def private_folder(folder: Path) -> Path:
    """Make a folder that this user alone can read and write. Raises CharRNNError where another one stands there."""
    try:
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise CharRNNError(f"{folder} cannot be made: {error.strerror}", "choose another --out") from None
    own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
    if not own:
        raise CharRNNError(
            f"{folder} is not this user's alone, and what is unpickled comes from there", "remove it, or chmod 700 it"
        )
    return folder
