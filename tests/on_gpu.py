"""All that needs a GPU, in one command of under ten minutes that writes its figures to a file.

    python tests/on_gpu.py --out figures.json --text tinyshakespeare.txt

In this order: speed (limits, training and completing against plain loops), a minute and three minutes of training on
a text, and the tests marked gpu, some beside each other. The file is written after each part, so that what was
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
SPEED_SECONDS, SECONDS = 150, 570
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


def speed(left: float, home: str) -> dict[str, Any]:
    """Measure speed; keep what was found, however it ends."""
    done = run([sys.executable, "-c", SPEED], left, {"PYTHONPATH": str(ROOT), "CHARRNN_HOME": home})
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
    kept = ("engine", "precision", "hidden", "layers", "batch", "window", "lr", "dropout", "plan", "measured_us")
    return {**done, "result": about.get("result"), "config": {name: config.get(name) for name in kept}}


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
    parser.add_argument("--parts", default="speed,one,three,tests", help="of speed, one, three, ten, tests")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that all of it may take")
    asked = parser.parse_args()
    began, found = time.monotonic(), {"command": " ".join(sys.argv), "date": time.strftime("%F %T")}
    out, text = asked.out.absolute(), str(Path(asked.text).absolute())
    with tempfile.TemporaryDirectory() as home:
        ways: dict[str, Callable[[float], Any]] = {"speed": lambda left: speed(min(left, SPEED_SECONDS), home)}
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
