"""Seconds of a training step by two ranks of one thread, one process of two threads and one of one; bytes of a step.

    python tests/ranks_figures.py 512 2 5          # hidden size, layers, steps of each

Prints JSON: milliseconds a step, least and median, by ranks x threads, and bytes that one rank sends in a step, as the
system counted them on the loopback. Run it on a quiet machine.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "corpora" / "rekurentne.txt"
B = T = 64


def loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).partition(":")[2].split()[8])


def work(hidden: int, layers: int, steps: int, threads: int) -> None:
    """Time steps, as a rank or alone."""
    import torch

    from charrnn.text.corpus import prepare
    from charrnn.training import followers, ranks
    from charrnn.training.config import Config
    from charrnn.training.ranks import Ranks
    from charrnn.training.resolve import resolve
    from charrnn.training.settings import Settings
    from charrnn.training.speed import Machine
    from charrnn.training.threads import threads_of
    from charrnn.training.trainer import Trainer

    settings = Settings(
        corpus=(str(CORPUS),),
        cell="lstm",
        hidden=hidden,
        layers=layers,
        batch=B,
        window=T,
        engine="native",
        precision="float32",
        steps=1000,
        dropout=0.0,
        device="cpu",
        threads=threads,
    )
    corpus = prepare(settings)
    config: Config = resolve(settings, corpus, Machine(settings, corpus))

    def timed(group: Ranks | None) -> None:
        trainer = Trainer(config, corpus, ranks=group)
        with threads_of(config):
            if group is not None and not group.leads:
                followers.obey(trainer, group)
                return
            trainer.update()
            seconds, before = [], loopback_bytes()
            for _ in range(steps):
                began = time.perf_counter()
                trainer.update()
                seconds.append(time.perf_counter() - began)
            sent = (loopback_bytes() - before) / steps
        figures = {"least": min(seconds), "median": statistics.median(seconds), "bytes": sent}
        print(json.dumps({**figures, "parameters": trainer.architecture.count(), "threads": torch.get_num_threads()}))

    if not ranks.asked():
        timed(None)
        return
    with ranks.joined() as group:
        timed(group)


def measured(n: int, threads: int, *sizes: str) -> dict[str, float]:
    command = [sys.executable]
    if n > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    words = [*command, str(Path(__file__)), "--worker", *sizes, str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1] == "--worker":
        work(*map(int, sys.argv[2:]))
        return
    for n, threads in ((1, 1), (1, 2), (2, 1)):
        found = measured(n, threads, *sys.argv[1:4])
        ms = {f"{key} ms": round(1000 * found[key], 1) for key in ("least", "median")}
        line = {
            "ranks": n,
            "threads": threads,
            **ms,
            "parameters": found["parameters"],
            "bytes": round(found["bytes"] / n),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
