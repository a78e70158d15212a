"""Make the stored runs of run.json's format 2 and what the code that made them says about them.

    python tests/stored/make_format_2.py FOLDER

writes FOLDER/format-2, a home folder with a complete run and one that was stopped between two validations, and
FOLDER/expected-2.json. It belongs to the commit that README.md names. Never make `format-2` again with newer code.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

SMALL: dict[str, Any] = {"hidden": 4, "layers": 1, "embedding": 2, "batch": 4, "window": 16, "warmup": 2, "lr": 0.05}
SMALL |= {"precision": "float32", "device": "cpu", "engine": "fused", "steps": 30, "validate_every": 8}
STOPPED_AFTER = 20


def main(folder: Path) -> None:
    home = folder / "format-2"
    if home.exists():
        sys.exit(f"{home} is there already, and is never made again")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        os.environ["CHARRNN_HOME"] = "checkpoints"  # relative, so that the files name no folder of this machine
        text = (ROOT / "corpora" / "rekurentne.txt").read_text(encoding="utf-8")[:3000]
        Path("text.txt").write_text(text, encoding="utf-8")
        train("complete", 10**6)
        train("stopped", STOPPED_AFTER)
        for encoded in Path("checkpoints/.corpora").glob("*/ids-*"):
            shutil.rmtree(encoded)  # made anew from the text
        for lock in Path("checkpoints").rglob(".lock"):
            lock.unlink()
        shutil.copytree("checkpoints", home)
        expected = {
            "info": {name: said("info", name, "--json") for name in ("complete", "stopped")},
            "eval": said("eval", "complete", "--json"),
            "resumed": said("train", "--resume", "stopped", "--json"),
        }
    (folder / "expected-2.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def train(name: str, stop_after: int) -> None:
    """Train a run, and stop it after so many steps."""
    from charrnn import training
    from charrnn.training.events import Stepped
    from charrnn.training.settings import Settings

    done = [0]
    settings = Settings(corpus=("text.txt",), **SMALL)
    for event in training.new_run(settings, training.open_run(settings, name), lambda: done[0] >= stop_after):
        if isinstance(event, Stepped):
            done[0] = event.step


def said(*arguments: str) -> dict[str, Any]:
    """Give the JSON object that a command prints."""
    from charrnn import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert cli.run(list(arguments)) == 0, arguments
    return dict(json.loads(out.getvalue().splitlines()[-1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
