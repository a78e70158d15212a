"""A job that came from another machine: this configuration, into that folder, by a process with threads of its own.

What comes and goes is text, numbers and bytes. Where the comparison's folder is seen here, the run is trained in it;
else in a folder of this machine's own, from which it is sent back with the answer.
"""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import charrnn
from charrnn import files, strict_json
from charrnn.compare import parcels
from charrnn.compare.signs import Watch
from charrnn.errors import CharRNNError
from charrnn.hardware import cores, processor
from charrnn.home import home
from charrnn.text import carrying, copies
from charrnn.training.run import Run

LOOK_SECONDS = 0.5  # between two looks at a run that is trained
SAVING_SECONDS = 120.0  # that a run has for saving, once it is to end
BUSY_SECONDS = 120.0  # that another process has for leaving a run: a worker that was cut off may be slow to notice
SAID_CHARACTERS = 2000  # of what a process said before it died
# How many threads libraries start, by the variables that they read.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

DONE, STOPPED, NEEDS, REFUSED, DIED = "done", "stopped", "needs", "refused", "died"
TEXT, RUN = "text", "run"  # what may have to be sent


@dataclass(frozen=True)
class Order:
    """What another machine is asked for.

    folder: the comparison's, and sign: its sign of life, by their paths where it was asked. place: of the run in the
    folder. home: where the text lies there. config: as config.json has it. begun: the step of the run's checkpoint
    there, if any. shared: whether the folder must be seen. charrnn, equations, processor: what must be the same; None:
    whatever it is.
    """

    folder: str
    sign: str
    place: str
    home: str
    config: Mapping[str, Any]
    scored: bool
    begun: int | None
    shared: bool
    charrnn: str
    equations: str | None
    processor: str | None

    def to_json(self) -> str:
        """Write the order as one line of JSON."""
        return strict_json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> "Order":
        """Read what `to_json` wrote."""
        return cls(**strict_json.loads(text))


def facts() -> dict[str, Any]:
    """Say what machine this is."""
    return {
        "host": platform.node(),
        "processor": processor(),
        "cores": cores(),
        "charrnn": charrnn.__version__,
    }


def carry_out(
    order: str,
    parcel: Mapping[str, bytes],
    stop: Callable[[], bool] = lambda: False,
    awaited: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """Carry out a job here, or what is left of it; end it, saved, when stop() is true or nobody waits for it any more.

    parcel: files that were sent along: 'text/...' and 'run/...'. awaited: tells whether anybody gets the answer; where
    nobody does, what was trained stays here.
    Returns how it ended, and in `files` the run, where it was not trained in the comparison's folder; or in `needs`
    what has to be sent first.
    """
    asked = Order.of(order)
    watch = Watch(Path(asked.sign))
    shared = not watch.is_over()
    if asked.shared and not shared:
        if os.path.isdir(asked.folder):  # Path's own raises where somebody may not look
            return {"ended": STOPPED}
        return _refused(f"{asked.folder} is not seen on {platform.node()}", "give an --out that all machines share")
    try:
        own = Run(Path(asked.folder) / asked.place) if shared else Run(place_of(asked))
        needs = _prepared(asked, parcel, None if shared else own)
        if needs:
            return {"ended": NEEDS, "needs": needs}
        answer = _trained(asked, own, lambda: stop() or (shared and watch.is_over()))
        if not shared and answer["ended"] in (DONE, STOPPED) and awaited():
            answer["files"] = parcels.packed(own) if own.exists() else {}
            files.remove_folder(own.path.parent)
        return answer
    except CharRNNError as error:
        return _refused(f"{error.problem} (on {platform.node()})", error.hint)


def place_of(asked: Order) -> Path:
    """Return where a run is trained that is sent back; the same job finds there what it left when it was cut off."""
    config = strict_json.dumps(dict(asked.config))
    key = hashlib.sha256("\0".join((asked.folder, asked.place, config)).encode("utf-8", "surrogatepass")).hexdigest()
    return home() / ".errands" / key[:16] / Path(asked.place).name


def _prepared(asked: Order, parcel: Mapping[str, bytes], own: Run | None) -> list[str]:
    """Put in place what was sent; return what is lacking. own: the run, where its folder is not the comparison's."""
    needs = []
    if _text_in(asked) is None:
        sent = _part_of(parcel, TEXT)
        if sent:
            carrying.unpacked(sent, asked.config["fingerprint"], home() / ".corpora", asked.config["document"])
        else:
            needs.append(TEXT)
    if own is not None and asked.begun is not None and (not own.exists() or own.about()["step"] < asked.begun):
        sent = _part_of(parcel, RUN)
        if sent:
            own.path.parent.mkdir(parents=True, exist_ok=True)
            parcels.unpacked(sent, own)
        else:
            needs.append(RUN)
    return needs


def _text_in(asked: Order) -> Path | None:
    """Return the home folder in which there is a private copy of the text: that of who asks, or this machine's."""
    for folder in (Path(asked.home), home()):
        if copies.copy_of(asked.config["fingerprint"], folder / ".corpora", asked.config["document"]) is not None:
            return folder
    return None


def _part_of(parcel: Mapping[str, bytes], kind: str) -> dict[str, bytes]:
    return {name.partition("/")[2]: data for name, data in parcel.items() if name.startswith(f"{kind}/")}


def _trained(asked: Order, run: Run, stop: Callable[[], bool]) -> dict[str, Any]:
    """Train a run in a process of its own, until it is complete or is to stop. Returns how it ended."""
    busy_until = time.monotonic() + BUSY_SECONDS
    while run.path.is_dir() and run.in_use() and time.monotonic() < busy_until:
        if stop():
            return {"ended": STOPPED}
        time.sleep(LOOK_SECONDS)
    folder = _text_in(asked)
    assert folder is not None
    threads = str(asked.config["threads"])
    path = os.pathsep.join([str(Path(charrnn.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, threads),
        "PYTHONPATH": path,
        "CHARRNN_HOME": str(folder.resolve()),
    }
    command = [sys.executable, "-m", "charrnn.compare.errand_process", str(run.path.absolute())]
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=told, stderr=said, env=environment)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # what it said tells why
                process.stdin.write(asked.to_json().encode() + b"\n")
                process.stdin.flush()
            while process.poll() is None and not stop():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
        finally:  # also where this process is told to end
            _ended(process)
        for stream in (told, said):
            stream.seek(0)
        try:
            answer: dict[str, Any] = strict_json.loads_object(told.read(), "the answer of a process", "")
        except CharRNNError:
            last = said.read().decode("utf-8", "replace")[-SAID_CHARACTERS:]
            return {
                "ended": DIED,
                "problem": f"the process on {platform.node()} ended with {process.returncode}: {last}",
            }
    return answer


def _ended(process: "subprocess.Popen[bytes]") -> None:
    """Let a process save and end: it does when its input ends."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(SAVING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _refused(problem: str, hint: str) -> dict[str, Any]:
    return {"ended": REFUSED, "problem": problem, "hint": hint}
