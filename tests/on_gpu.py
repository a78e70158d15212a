"""All that needs a GPU, in one command of under ten minutes that writes its figures to a file.

    python tests/on_gpu.py --out figures.json --text tinyshakespeare.txt

In this order: speed (limits, training and completing against plain loops), what tables of direct connections cost and
bring in a training with defaults, a minute and three minutes of training on a text, and the tests marked gpu, some
beside each other. The file is written after each part, so that what was
found stays. A part that does not end in time is stopped and said to be so. --parts chooses; 'ten' is ten minutes of
training, which is a command of its own. Two GPUs are needed for ranks: python -m pytest -m gpu tests/test_ranks.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS, WORKERS = ("tests/test_gpu_kernels.py", "tests/test_cuda.py"), 12
BUDGETS = {"one": 60, "three": 180, "ten": 600}  # seconds of training
MORE = 60  # that a training may take beside its budget: to start, and to score
SPEED_SECONDS, TABLES_SECONDS, SECONDS = 150, 120, 570
STEPS = 500  # of a training with tables, and of one without
KEPT = 6000  # characters at the end of what a part said

SPEED = """
import json, sys
from charrnn.bench import bench_cuda
from charrnn.errors import CharRNNError
found = {"machine": bench_cuda.machine()}
print(json.dumps(found), flush=True)
for cell in ("lstm", "gru-after", "gru", "mingru"):
    for name, measure in (("train", bench_cuda.train), ("decode", bench_cuda.decode)):
        try:
            found[f"{name} {cell}"] = measure(cell)
        except Exception as error:
            found[f"{name} {cell}"] = {"problem": repr(error)[:500]}
        print(json.dumps(found), flush=True)
"""

# The same steps with tables and without: a part of them by the clock, then nats, then characters that are drawn.
TABLES = """
import json, sys, time
from charrnn.engines import cuda
from charrnn.generate import decoders
from charrnn.generate.sampling import Sampling, draws, read_prime
from charrnn.model import evaluation
from charrnn.text.corpus import prepare
from charrnn.training.resolve import resolve
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of
from charrnn.training.trainer import Trainer
path, device, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
found = {}

def drawn_per_s(decoder, tokenizer, rows, characters=320):
    primed = read_prime(decoder, tokenizer, "")
    if rows == 1:
        drawn = [decoder.drawn(primed, tokenizer, Sampling(), draws(7, 0))]
    else:
        drawn = decoder.drawn_together(primed, tokenizer, Sampling(), range(rows))
    next(drawn[0])
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(characters):
            next(drawn[0])
        best = max(best, rows * characters / (time.perf_counter() - began))
    return best

for name, changes in (("with tables", {}), ("without", {"direct": 0})):
    asked = Settings(corpus=(path,), device=device, steps=steps, split=(0.9, 0.1, 0), **changes)
    text = prepare(asked)
    settled = resolve(asked, text, Machine(asked, text))
    kept = ("cell", "engine", "precision", "hidden", "layers", "batch", "window", "direct", "direct_rows")
    row = found[name] = {key: getattr(settled, key) for key in kept}
    trainer = Trainer(settled, text)
    with threads_of(settled):
        first = steps // 5
        for _ in range(first):
            trainer.update()
        cuda.wait(device)
        began = time.perf_counter()
        for _ in range(steps - first):
            trainer.update()
        cuda.wait(device)
        row["steps_per_s"] = (steps - first) / (time.perf_counter() - began)
    row["is_recorded"] = getattr(trainer.graphed, "records_steps", None)
    row["val_nats"] = evaluation.estimate(trainer.model, text.parts["val"], text.tokenizer)
    print(json.dumps(found), flush=True)
    decoder = decoders.make(trainer.architecture, trainer.weights(), device)
    for rows in (1, 1024) if device == "cuda" else (1,):
        row[f"chars_per_s of {rows}"] = drawn_per_s(decoder, text.tokenizer, rows)
        print(json.dumps(found), flush=True)
"""


def run(command: list[str], seconds: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a command; return its exit code, None where it was stopped, its seconds and what it said last."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=max(1.0, seconds))
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        said, code = process.communicate()[0], None
    return {"code": code, "seconds": round(time.monotonic() - began, 1), "said": said}


def measured(script: str, arguments: list[str], left: float, home: str) -> dict[str, Any]:
    """Run a script that prints JSON, more with each line; keep what was found, however it ends."""
    done = run([sys.executable, "-c", script, *arguments], left, {"PYTHONPATH": str(ROOT), "CHARRNN_HOME": home})
    lines = [line for line in done["said"].splitlines() if line.startswith("{")]
    return {**(json.loads(lines[-1]) if lines else {}), "code": done["code"], "seconds": done["seconds"]} | (
        {} if done["code"] == 0 else {"said": done["said"][-KEPT:]}
    )


def training(text: str, budget: int, left: float, home: str) -> dict[str, Any]:
    """Train for so many seconds; return the result and what was chosen."""
    command = [sys.executable, "cli.py", "train", text, "--device", "cuda", "--budget", f"{budget}s"]
    done = run(
        [*command, "--split", "0.9,0.1,0", "--name", f"run{budget}"], min(left, budget + MORE), {"CHARRNN_HOME": home}
    )
    done["said"] = done["said"][-KEPT:]
    folder = next(Path(home).rglob(f"run{budget}/run.json"), None)
    if folder is None:
        return done
    about = json.loads(folder.read_text(encoding="utf-8"))
    config = json.loads(folder.with_name("config.json").read_text(encoding="utf-8"))
    sizes = ("engine", "precision", "hidden", "layers", "batch", "window", "direct")
    kept = {name: config.get(name) for name in (*sizes, "lr", "dropout", "plan", "measured_us")}
    return {**done, "result": about.get("result"), "config": kept}


def tests(left: float, home: str) -> dict[str, Any]:
    """Run the tests marked gpu, side by side where pytest-xdist is installed; join what their processes measured."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *TESTS, "-q", "-rfE", "--tb=short", "--maxfail=25"]
    command += ["-p", "no:benchmark"]  # a plugin that would warn of tests side by side
    if find_spec("xdist"):
        command += ["-n", str(min(WORKERS, os.cpu_count() or 1))]
    done = run(command, left, {"CHARRNN_HOME": home, "CHARRNN_GPU_FIGURES": f"{home}/figures.json"})
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(home).glob("figures*.json"))]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for part in parts for row in part["rows"]):
        joined = rows.setdefault((row["cell"], row["engine"]), {})
        joined |= {**row, "seconds": round(joined.get("seconds", 0.0) + row["seconds"], 3)}
    facts = {name: value for part in parts for name, value in part.items() if name != "rows"}
    return {**done, "said": done["said"][-KEPT:], "figures": {**facts, "rows": [rows[key] for key in sorted(rows)]}}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures.json"))
    parser.add_argument("--text", default=str(ROOT / "corpora" / "rekurentne.txt"), help="the text to train on")
    parser.add_argument(
        "--parts", default="speed,tables,one,three,tests", help="of speed, tables, one, three, ten, tests"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that all of it may take")
    asked = parser.parse_args()
    began, found = time.monotonic(), {"command": " ".join(sys.argv), "date": time.strftime("%F %T")}
    out, text = asked.out.absolute(), str(Path(asked.text).absolute())
    with tempfile.TemporaryDirectory() as home:
        ways: dict[str, Callable[[float], Any]] = {
            "speed": lambda left: measured(SPEED, [], min(left, SPEED_SECONDS), home),
            "tables": lambda left: measured(TABLES, [text, "cuda", str(STEPS)], min(left, TABLES_SECONDS), home),
        }
        ways |= {
            name: lambda left, budget=budget: training(text, budget, left, home)  # type: ignore[misc]
            for name, budget in BUDGETS.items()
        }
        ways["tests"] = lambda left: tests(left, home)
        for part in asked.parts.split(","):
            left = (asked.seconds if part != "ten" else max(asked.seconds, 700)) - (time.monotonic() - began)
            found[part] = ways[part](left) if left > 5 else "there was no time left"
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
