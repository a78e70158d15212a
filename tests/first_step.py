"""Measure what a training costs before its first step is done, where everything is decided already.

    python tests/first_step.py CHECKOUT... [--engine native] [--times 5] [--open]

Each time is a process of its own, the checkouts in turns: seconds by the clock and of the processor, least of all, from
when torch is imported until the first step of a run of the embedded corpus (nn.GRU, hidden 256, two layers) was taken.
What a checkout keeps on disk, it keeps in a folder of its own, so that all but its first time are warm. --open: engine,
precision and number of threads are left open, in a run of a minute, so that they are measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, sys, time
import torch
began, processor = time.perf_counter(), time.process_time()
import charrnn
from charrnn.training import loop
from charrnn.training.events import Stepped
decided = dict(precision="float32", engine=sys.argv[1], threads=2, steps=3)
settings = charrnn.Settings.of(dict(
    cell="nn.GRU", hidden=256, layers=2, embedding=64, batch=16, window=64, lr=0.003, warmup=1, dropout=0.0,
    patience=0, bias_smoothing=0.5, device="cpu", **(dict(budget=60.0) if sys.argv[1] == "open" else decided),
))
events = loop.new_run(settings, loop.open_run(settings, None, sys.argv[2]))
next(event for event in events if isinstance(event, Stepped))
print(json.dumps([time.perf_counter() - began, time.process_time() - processor]))
events.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--engine", default="native")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--open", action="store_const", const="open", dest="engine")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[Path, list[list[float]]] = {checkout: [] for checkout in asked.checkouts}
        for turn in range(asked.times):
            for k, checkout in enumerate(asked.checkouts):
                own = Path(folder) / str(k)
                environment = {
                    **os.environ,
                    "PYTHONPATH": str(checkout.resolve()),
                    "XDG_CACHE_HOME": str(own),
                    "CHARRNN_HOME": str(own / "home"),
                }
                command = [sys.executable, "-c", CHILD, asked.engine, str(own / f"run{turn}")]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=folder)
                found[checkout].append(json.loads(done.stdout))
        for checkout, times in found.items():
            first, warm = times[0], [min(column) for column in zip(*times[1:], strict=True)]
            print(f"{checkout}: first {first[0]:.2f} s ({first[1]:.2f} of the processor)")
            print(f"{checkout}: then {warm[0]:.2f} s ({warm[1]:.2f} of the processor)")


if __name__ == "__main__":
    main()
