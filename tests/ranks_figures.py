"""Seconds of a training step by two ranks of one thread, one process of two threads and one of one; bytes of a step.

    python tests/ranks_figures.py 512 2 5          # hidden size, layers, steps of each

Prints JSON: milliseconds a step, least and median, by ranks x threads, and bytes that one rank sends in a step, as the
system counted them on the loopback. Then of half a batch: by one process alone, and by two at once that know nothing of
each other, which is the least that two ranks could take. Run it on a quiet machine.
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


def work(hidden: int, layers: int, steps: int, threads: int, batch: int = B) -> None:
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
        batch=batch,
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


def started(command: list[str], *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*command, str(Path(__file__)), "--worker", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def figures(process: "subprocess.Popen[str]") -> dict[str, float]:
    found: dict[str, float] = json.loads(process.communicate()[0].splitlines()[-1])
    return found


def measured(n: int, threads: int, *sizes: str) -> dict[str, float]:
    command = [sys.executable]
    if n > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return figures(started(command, *sizes, str(threads)))


def apart(n: int, *sizes: str) -> float:
    """Milliseconds, at least, of half a batch by one thread, while n processes do the same."""
    begun = [started([sys.executable], *sizes, "1", str(B // 2)) for _ in range(n)]
    return max(round(1000 * figures(process)["least"], 1) for process in begun)


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
    print(json.dumps({"half a batch": {"alone": apart(1, *sys.argv[1:4]), "two at once": apart(2, *sys.argv[1:4])}}))


if __name__ == "__main__":
    main()
