"""Comparisons over a Dask scheduler's workers, as on machines of their own. Skipped where Dask is not installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS
from hosts import Host, network
from waiting import until

from charrnn.training.run import Run

pytest.importorskip("distributed")

ROOT = Path(__file__).parent.parent
DASK_COMMAND = (sys.executable, "-m", "dask")
SMALL = ("--cells", "simple", "--lr-trials", "1", "--no-inspect", "--json", "--batch", "4", "--window", "16")
QUICK = (*SMALL, "--hidden", "12", "--embedding", "8", "--steps", "6", "--seeds", "1")
LONG = (*SMALL, "--hidden", "64", "--steps", "3000", "--validate-every", "50")
# A cable that is pulled is noticed after so long, the least that Dask takes; 30 s by default.
DASK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}


@contextmanager
def started(command: list[str], log: Path, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process, which is ended with its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **DASK, **variables}
    with log.open("a") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Lab:
    """A room of three computers. The first one has the scheduler, and the comparisons; each has a worker."""

    def __init__(self, hosts: list[Host], folder: Path) -> None:
        self.hosts, self.folder, self.own = hosts, folder, folder / "own"
        self.own.mkdir()
        text = CORPUS.read_text(encoding="utf-8")[:6000]
        (self.own / "text.txt").write_text(text, encoding="utf-8")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Start the scheduler and the workers. Hosts 2 and 3 do not see the folder of the first."""
        with ExitStack() as stack:
            scheduler = self.hosts[0].command(*DASK_COMMAND, "scheduler", "--host", self.address, "--no-dashboard")
            stack.enter_context(started(scheduler, self.folder / "scheduler.log"))
            for host in self.hosts:
                dask = f"{sys.executable} -m dask worker {self.address}:8786 --nthreads 1 --no-nanny --no-dashboard"
                dask += f" --local-directory {self.folder}/dask{host.number}"
                # A worker that has lost its scheduler ends: whoever looks after it starts it again.
                words = ["sh", "-c", f"while :; do {dask}; sleep 1; done"]
                command = host.command(*words, private=[] if host is self.hosts[0] else [self.own])
                home = {"CHARRNN_HOME": str(self.folder / f"home{host.number}")}
                stack.enter_context(started(command, self.folder / f"worker{host.number}.log", **home))
            yield

    @property
    def address(self) -> str:
        return self.hosts[0].address

    @contextmanager
    def compare(self, name: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
        """Start the command compare on the first host."""
        words = [sys.executable, str(ROOT / "cli.py"), "compare", str(self.own / "text.txt"), *options]
        words += ["--out", str(self.own / name), "--on", f"dask://{self.address}", "--insecure"]
        home = {"CHARRNN_HOME": str(self.own / "home")}
        with started(self.hosts[0].command(*words), self.folder / "compare.log", **home) as process:
            yield process

    def busy(self, host: Host) -> list[int]:
        """The processes that carry out jobs on a host."""
        inside = f"net:[{os.stat(f'/run/netns/{host.name}').st_ino}]"
        return [pid for pid in self.all_busy() if network_of(pid) == inside]

    def all_busy(self) -> list[int]:
        """The processes that carry out jobs on all hosts."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_job(path)]

    def _is_job(self, path: Path) -> bool:
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            return False
        return b"charrnn.compare.errand_process" in words and str(self.folder).encode() in words

    def learning(self) -> list[Path]:
        """The runs that have taken steps and are not complete, wherever they are."""
        found = {path.parent for path in self.folder.rglob("timings.jsonl")}
        return [path for path in found if Run(path).in_use() and Run(path).rows("timings.jsonl", checked=False)[1:]]

    def said(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


def network_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with network(3) as hosts:
        lab = Lab(hosts, tmp_path_factory.mktemp("lab"))
        with lab.open():
            yield lab


def finished(lab: Lab, process: "subprocess.Popen[str]") -> Any:
    """The result of a comparison that must go well."""
    told, _ = process.communicate(timeout=150)
    assert process.returncode == 0, lab.said()
    return json.loads(told.splitlines()[-1])


@pytest.mark.long
@pytest.mark.hosts
def test_what_a_worker_that_is_cut_off_had_goes_to_another_and_it_comes_back(lab: Lab) -> None:
    second = lab.hosts[1]
    with lab.compare("cut", *LONG, "--steps", "1200", "--seeds", "3") as process:
        until(lambda: all(lab.busy(host) for host in lab.hosts))
        second.cut_off()
        result = finished(lab, process)
    assert {machine["host"] for machine in result["machines"]} <= {host.name for host in lab.hosts if host != second}
    until(lambda: not lab.all_busy(), 60)
    left = [Run(lock.parent) for lock in (lab.folder / "home2" / ".errands").rglob(".lock")]
    assert not any(run.in_use() for run in left)
    second.join()
    until(lambda: "Registered to" in (lab.folder / "worker2.log").read_text().rpartition("End worker")[2])
    with lab.compare("back", *LONG, "--steps", "1200", "--seeds", "3") as process:
        until(lambda: lab.busy(second))
        result = finished(lab, process)
    assert {machine["host"] for machine in result["machines"]} == {host.name for host in lab.hosts}


@pytest.mark.long
@pytest.mark.hosts
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_comparison_that_is_stopped_or_killed_leaves_nothing_running(lab: Lab, number: int) -> None:
    name = f"stopped{number}"
    with lab.compare(name, *LONG, "--seeds", "3") as process:
        until(lambda: len(lab.learning()) == 3)
        process.send_signal(number)
        process.communicate(timeout=90)
        assert process.returncode == (130 if number == signal.SIGINT else -number), lab.said()
    until(lambda: not lab.all_busy())
    if number == signal.SIGINT:
        steps = [Run(path.parent).about()["step"] for path in (lab.own / name).rglob("run.json")]
        assert len(steps) == 3
        assert all(step > 0 for step in steps)


def certificates(folder: Path) -> dict[str, str]:
    """A certificate for all sides, as variables of Dask's configuration."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=charrnn"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    found = {f"{tls}CA_FILE": f"{folder}/cert.pem"}
    for side in ("CLIENT", "SCHEDULER", "WORKER"):
        found |= {f"{tls}{side}__CERT": f"{folder}/cert.pem", f"{tls}{side}__KEY": f"{folder}/key.pem"}
    return found


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="certificates are made by openssl")
def test_a_scheduler_with_tls_is_used_by_who_has_certificates(tmp_path: Path, corpus: str) -> None:
    tls = certificates(tmp_path)
    listen = ["scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard"]
    where = tmp_path / "scheduler.json"
    compare = [sys.executable, str(ROOT / "cli.py"), "compare", corpus, *QUICK, "--out", str(tmp_path / "c")]
    with started([*DASK_COMMAND, *listen, "--scheduler-file", str(where)], tmp_path / "scheduler.log", **tls):
        until(where.exists)
        address = json.loads(where.read_text())["address"]
        with started([*compare, "--on", address], tmp_path / "without.log") as process:
            process.communicate(timeout=60)
            assert process.returncode == 1
        assert "distributed.comm.tls" in (tmp_path / "without.log").read_text()
        worker = [*DASK_COMMAND, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        worker += ["--local-directory", str(tmp_path / "dask")]
        with_tls = [*compare, "--on", address]
        with (
            started(worker, tmp_path / "worker.log", **tls),
            started(with_tls, tmp_path / "with.log", **tls) as process,
        ):
            told, _ = process.communicate(timeout=120)
            assert process.returncode == 0, (tmp_path / "with.log").read_text()
    assert json.loads(told.splitlines()[-1])["cells"][0]["cell"] == "simple"
