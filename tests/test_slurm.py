"""Comparisons by submitit: its processes of this machine, and a real SLURM of one node. Skipped where they are not."""

import dataclasses
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_comparison import compared, grid, timeless
from waiting import until

from charrnn.compare import comparison, pictures, places, slurm_pool
from charrnn.compare.grid import Folder, Grid
from charrnn.compare.slurm_pool import SlurmPool
from charrnn.training.run import Run

pytest.importorskip("submitit")
# submitit leaves files open that it writes logs to.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ROOT = Path(__file__).parent.parent
DAEMONS = ("munged", "slurmctld", "slurmd")
NAME = "n1"
CONFIGURATION = """
ClusterName=charrnn
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes={name} Default=YES
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def small(corpus: str, **changes: Any) -> Grid:
    asked = grid(corpus, **{"seeds": 1, "lr_trials": 1, **changes})
    return dataclasses.replace(asked, config=asked.config.replace(threads=1))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let submitit start processes of this machine in place of jobs of a cluster."""
    monkeypatch.setattr(places, "pool_of", lambda on, folder, insecure: SlurmPool(folder, cluster="local"))


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_submitits_processes_give_the_figures_of_this_machine(corpus: str, tmp_path: Path) -> None:
    asked, folder = small(corpus), tmp_path / "there"
    modes = []
    events = []
    for event in comparison.compare(asked, ["simple"], Folder(folder), on="slurm"):
        events.append(event)
        modes += [path.stat().st_mode & 0o777 for path in folder.glob(slurm_pool.FOLDER)]
    assert isinstance(events[-1], comparison.Compared)
    assert set(modes) == {0o700}
    assert timeless(events[-1].result) == timeless(compared(asked, ["simple"], tmp_path / "here").result)
    assert not list(folder.glob(".submitit")) + list(folder.glob("working-*"))


def ports(count: int) -> list[int]:
    """Ports that are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def daemon(log: Path, *command: str) -> Iterator[None]:
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM of one node with two processors."""
    found = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in DAEMONS}
    if os.geteuid() or None in found.values():
        pytest.skip("a SLURM is started by root, with munged, slurmctld and slurmd")
    munged, slurmctld, slurmd = (str(found[name]) for name in DAEMONS)
    folder = tmp_path_factory.mktemp("slurm")
    key, conf = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONFIGURATION.format(host=host, ports=ports(2), folder=folder, name=NAME))
    names = {"key-file": key, **{name: folder / f"munge.{name}" for name in ("socket", "pid-file", "seed-file")}}
    munge = [munged, "--foreground", "--force", *(f"--{name}={path}" for name, path in names.items())]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(conf))
        stack.enter_context(daemon(folder / "munged.log", *munge))
        until((folder / "munge.socket").exists)
        stack.enter_context(daemon(folder / "slurmctld.log", slurmctld, "-D", "-f", str(conf)))
        stack.enter_context(daemon(folder / "slurmd.log", slurmd, "-D", "-N", NAME, "-f", str(conf)))
        until(lambda: b"idle" in subprocess.run(["sinfo"], capture_output=True).stdout)
        yield


def test_an_answer_that_comes_late_over_a_network_is_no_lost_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in (("sbatch", "Submitted batch job $$"), ("srun", ""), ("squeue", ""), ("scancel", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm_pool, "QUEUE_SECONDS", 0.0)
    pool = SlurmPool(tmp_path)
    late, lost = pool.submit("", {}), pool.submit("", {})
    assert not late.done()
    late.job.paths.result_pickle.touch()  # type: ignore[attr-defined]
    assert late.done()
    assert not lost.done()
    monkeypatch.setattr(slurm_pool, "LATE_SECONDS", 0.0)
    assert lost.done()


def queued() -> list[str]:
    asked = ["squeue", "--noheader", "--format", "%A"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_a_cluster_trains_what_it_lost_again(corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_pool, "QUEUE_SECONDS", 2.0)
    monkeypatch.setattr(slurm_pool, "LATE_SECONDS", 2.0)
    asked, killed = small(corpus, steps=300), []

    def watch() -> bool:
        run = next((tmp_path / "there" / "runs").glob("*/*/.holder.json"), None)
        if run is not None and not killed:
            killed.extend(queued())
            subprocess.run(["scancel", "--signal=KILL", "--full", *killed], check=True)
        return False

    there = compared(asked, ["simple"], tmp_path / "there", on="slurm:cpus_per_task=1,time=5", stop=watch)
    assert len(killed) == 1
    assert timeless(there.result) == timeless(compared(asked, ["simple"], tmp_path / "here").result)
    assert queued() == []


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_a_comparison_that_is_stopped_takes_its_jobs_out_of_the_queue(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_pool, "QUEUE_SECONDS", 2.0)
    monkeypatch.setattr(slurm_pool, "LATE_SECONDS", 2.0)
    asked = small(corpus, steps=100_000, seeds=3)
    asked = dataclasses.replace(asked, config=asked.config.replace(validate_every=10))

    def begun() -> bool:
        found = [path.parent for path in (tmp_path / "c").rglob("timings.jsonl")]
        return any(Run(path).rows("timings.jsonl", checked=False)[1:] for path in found)

    events = comparison.compare(
        asked, ["simple"], Folder(tmp_path / "c"), stop=begun, on="slurm:cpus_per_task=2,time=5"
    )
    assert isinstance(list(events)[-1], comparison.Stopped)
    until(lambda: queued() == [])
    (run,) = [Run(path.parent) for path in (tmp_path / "c").rglob("run.json")]
    assert run.about()["step"] > 0
    assert not run.in_use()
