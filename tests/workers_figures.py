"""Seconds of one comparison over one, two and four Dask workers of this machine, and without Dask.

    python tests/workers_figures.py                # extras compare and dask

Prints JSON, a line for each: workers, seconds of the command, and those beside its first, which has the same runs one
after the other. Every run has one thread. Run it on a quiet machine, and say how many cores that has.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "corpora" / "rekurentne.txt"
ASKED = ("--cells", "simple,gru,lstm,mingru", "--seeds", "1", "--lr-trials", "1", "--no-inspect", "--json")
SIZES = ("--hidden", "128", "--embedding", "32", "--batch", "32", "--window", "64", "--steps", "800")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seconds_of(workers: int, folder: Path) -> float:
    """Compare over so many workers; 0: by this machine's own processes, without Dask."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHARRNN_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    with ExitStack() as stack:
        command = [sys.executable, str(ROOT / "cli.py"), "compare", str(CORPUS), *ASKED, *SIZES]
        command += ["--out", str(folder / f"with{workers}")]
        if workers:
            port, dask = free_port(), [sys.executable, "-m", "dask"]
            begun = [[*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
            worker = [*dask, "worker", f"127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            begun += [[*worker, "--local-directory", str(folder / f"dask{n}")] for n in range(workers)]
            for words in begun:
                process = subprocess.Popen(words, **quiet)  # type: ignore[call-overload]
                stack.callback(process.wait)
                stack.callback(process.terminate)
            time.sleep(10)  # until all workers are there: a comparison begins with those that it finds
            command += ["--on", f"dask://127.0.0.1:{port}"]
        began = time.perf_counter()
        subprocess.run(command, check=True, **quiet)  # type: ignore[call-overload]
        return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for workers in (0, 1, 2, 4):
            seconds = seconds_of(workers, Path(folder))
            first = first or seconds
            print(json.dumps({"workers": workers, "seconds": round(seconds, 1), "times": round(first / seconds, 2)}))


if __name__ == "__main__":
    main()
