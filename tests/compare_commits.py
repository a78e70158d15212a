"""Compare two checkouts of this repository on one machine: the same bits, the same emitted code, the same speed?

    python tests/compare_commits.py OLD_CHECKOUT NEW_CHECKOUT
    python tests/compare_commits.py OLD_CHECKOUT NEW_CHECKOUT --only bits,text --cells lstm,mingru

bits    the weights after some steps, for cells x engines x precisions; runs that were resumed; completions of every
        cell with every kind of weights, one alone and nine side by side: equal to the last bit
text    what the compilers are given: the LLVM text for training, the Python source for completing and drawing. Paths
        of modules in it are left out of the comparison, and so are comments and docstrings of Python source
speed   seconds of the processor, new over old, of starting, of `sample` as a process, of reading and encoding a text

Each checkout works in processes and cache folders of its own, so that everything is compiled anew. Nothing here knows
where a module is: it uses the command line, `charrnn.train`, `charrnn.load` and `charrnn.cells.names`, and what is
compiled is caught where llvmlite and Python are handed it.

Exit code 1: something differs, or a ratio exceeds the bound.
"""

import argparse
import ast
import builtins
import contextlib
import hashlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = ("bits", "text", "speed")
TRAINED = ("nn.GRU", "lstm", "rnn", "mingru", "rhn", "layernorm-lstm")
ENGINES = ("loop", "fused", "scan", "native")
KINDS, COUNTS = ("float32", "bf16", "int8"), (1, 9)
SIZES = {"hidden": 24, "layers": 2, "embedding": 12, "batch": 4, "window": 16, "warmup": 2, "device": "cpu"}
REPEATS, TIMES_OVER = 7, 3  # a ratio above the bound is measured so many times over before it is believed
BOUND = 1.05
READ_BYTES = 8_000_000
SCRIPTS = {
    "help": ["cli.py", "--help"],
    "import charrnn": ["-c", "import charrnn"],
    "cells.names()": ["-c", "import charrnn; charrnn.cells.names()"],
    "sample": ["cli.py", "sample", "--run", "sampled", "--prime", "Reka ", "--chars", "50"],
}


# In a process of one checkout


class Compiled:
    """Notes what a checkout hands to llvmlite and to Python's compile, with what was being done at the time."""

    def __init__(self) -> None:
        self.doing, self.texts = "", {}  # normalised text -> (doing, language)
        import llvmlite.binding as llvm

        parse, python = llvm.parse_assembly, builtins.compile

        def parse_assembly(text: str, *rest: Any, **named: Any) -> Any:
            if _asked_by_charrnn() and text:
                self._note(text, "llvm")
            return parse(text, *rest, **named)

        def compile_(source: Any, filename: Any, *rest: Any, **named: Any) -> Any:
            if isinstance(source, str) and _asked_by_charrnn():
                self._note(source, "python")
            return python(source, filename, *rest, **named)

        llvm.parse_assembly, builtins.compile = parse_assembly, compile_

    def _note(self, text: str, language: str) -> None:
        self.texts.setdefault(normalised(text), (self.doing, language))


def _asked_by_charrnn() -> bool:
    """Whether the caller of a replaced function is the package itself."""
    return str(sys._getframe(2).f_globals.get("__name__")).partition(".")[0] == "charrnn"


def normalised(text: str) -> str:
    """Emitted code without the paths of modules, which may move."""
    return re.sub(r"\bcharrnn(\.[A-Za-z_]\w*)+", "charrnn.MODULE", text)


def without_words(source: str) -> str:
    """Python source without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.unparse(tree)


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Train, resume and complete what is ordered; gives what came out, by name, and what was compiled."""
    os.chdir(order["folder"])
    compiled = Compiled() if order["text"] else None
    import torch

    import charrnn

    assert Path(charrnn.__file__).resolve().is_relative_to(Path(order["checkout"]).resolve()), charrnn.__file__
    torch.set_num_threads(1)
    found: dict[str, Any] = {}

    def do(name: str, what: Callable[[], Any]) -> None:
        print(f"  {name}", file=sys.stderr, flush=True)
        if compiled:
            compiled.doing = name
        try:
            found[name] = what()
        except charrnn.CharRNNError as error:
            found[name] = f"refused: {error}"

    known = charrnn.cells.names()
    chosen = [cell for cell in order["cells"] or known if cell in known]
    for cell in chosen if order["cells"] else TRAINED:
        for engine in ENGINES:
            for precision in ("float32", "bf16") if engine == "native" else ("float32",):
                name = f"{cell} {engine} {precision}"
                settings = {**SIZES, "cell": cell, "engine": engine, "precision": precision, "steps": order["steps"]}

                def trained(name: str = name, settings: dict[str, Any] = settings) -> str:
                    charrnn.train("text.txt", name=name, validate_every=settings["steps"], **settings)
                    return weights_of(name)

                def resumed(name: str = name) -> str:
                    more = str(2 * order["steps"])
                    told("train", "--resume", name, "--steps", more, "--json")
                    return weights_of(name)

                do(f"train {name}", trained)
                if not str(found[f"train {name}"]).startswith("refused"):
                    do(f"resume {name}", resumed)
    for cell in chosen:
        settings = {**SIZES, "cell": cell, "precision": "float32", "engine": "loop", "steps": 2}
        charrnn.train("text.txt", name=f"of {cell}", **settings)
        for kind in KINDS:
            for count in COUNTS:
                options = ["--weights", kind, "--count", str(count), "--chars", str(order["chars"]), "--json"]

                def completed(cell: str = cell, options: list[str] = options) -> Any:
                    drawn = told("sample", "--run", f"of {cell}", "--prime", "Reka ", *options)["completions"]
                    return [(each["text"], repr(each["nats"])) for each in drawn]

                do(f"complete {cell} {kind} x {count}", completed)
    return {"found": found, "texts": compiled.texts if compiled else {}}


def weights_of(name: str) -> str:
    """The SHA-256 of a run's last weights: names, shapes and bits, however they are kept on disk."""
    import charrnn

    digest = hashlib.sha256()
    for key, value in sorted(charrnn.load(name, "cpu", which="last").weights.items()):
        digest.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def told(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints. Raises CharRNNError with its error where there is one."""
    from charrnn import CharRNNError
    from charrnn.__main__ import main as run

    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, None
    sys.argv = ["charrnn", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    if code:
        errors = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
        raise CharRNNError(errors[-1] if errors else f"{arguments} ended with {code}", "")
    return dict(json.loads(out.getvalue().splitlines()[-1]))


def prepare(order: dict[str, Any]) -> None:
    """Make the run that is sampled from while start-up is timed, and compile what it needs."""
    os.chdir(order["folder"])
    import charrnn

    charrnn.train("text.txt", name="sampled", **{**SIZES, "cell": "nn.GRU", "engine": "loop", "steps": 2})
    told("sample", "--run", "sampled", "--prime", "Reka ", "--chars", "50", "--json")


def read(order: dict[str, Any]) -> dict[str, float]:
    """Seconds of the processor that a long text takes: to learn a step from, all preparation included; to encode."""
    os.chdir(order["folder"])
    import charrnn

    name = f"read-{time.time_ns()}"
    os.environ["CHARRNN_HOME"] = name  # so that the text is read anew
    settings = {"steps": 1, "hidden": 8, "split": (1.0, 0.0, 0.0), "batch": 4, "window": 8, "engine": "loop"}
    charrnn.train("text.txt", name="warm", precision="float32", device="cpu", **settings)
    began = time.process_time()
    model = charrnn.train("long.txt", name="long", precision="float32", device="cpu", **settings)
    prepared = time.process_time() - began
    text = Path("long.txt").read_text(encoding="utf-8")
    encoding = []
    for _ in range(3):
        began = time.process_time()
        model.tokenizer.encode(text)
        encoding.append(time.process_time() - began)
    import shutil

    shutil.rmtree(name)
    return {"prepare a text": prepared, "encode a text": min(encoding)}


# The comparison


class Checkout:
    """One of the two: where it is, and a folder of its own with a home and an empty cache."""

    def __init__(self, path: Path, folder: Path, source: str) -> None:
        self.path, self.folder = path.resolve(), folder
        folder.mkdir()
        text = source[:6000]
        (folder / "text.txt").write_text(text, encoding="utf-8")
        (folder / "long.txt").write_text(source * (READ_BYTES // len(source.encode()) + 1), encoding="utf-8")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.path),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CHARRNN_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile what every user has ready

    def call(self, function: str, **order: Any) -> Any:
        """What a function of this file gives in a process of this checkout."""
        order |= {"checkout": str(self.path), "folder": str(self.folder), "result": str(self.folder / "result.json")}
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", function, json.dumps(order)]
        if subprocess.run(command, env=self.environment, cwd=self.path).returncode:
            sys.exit(f"{self.path}: {function} failed")
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    def cpu_seconds(self, arguments: list[str]) -> float:
        """Seconds of the processor that a script takes: other work on the machine lengthens them least."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments], check=True, capture_output=True, env=self.environment, cwd=self.path
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare_bits(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """A row for everything that was trained, resumed or completed: what, how it compares, whether that is well."""
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            yield name, f"only in {'old' if name in old else 'new'}", name not in old
        elif str(old[name]).startswith("refused") and str(new[name]).startswith("refused"):
            yield name, "refused by both", True
        else:
            yield name, "equal" if old[name] == new[name] else "DIFFERENT", old[name] == new[name]


def compare_texts(old: dict[str, Any], new: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Rows as above for emitted code; what is in one alone is written to `folder`."""
    for language in ("llvm", "python"):
        texts = [{text: doing for text, (doing, its) in some.items() if its == language} for some in (old, new)]
        same = set(texts[0]) & set(texts[1])
        yield f"{language}: {len(same)} texts", "equal", True
        if not texts[0]:
            yield f"{language}: of the old checkout", "nothing was caught", False
        apart: list[dict[str, str]] = [{t: d for t, d in some.items() if t not in same} for some in texts]
        if language == "python":
            words = [{without_words(text) for text in some} for some in apart]
            alike = words[0] & words[1]
            if alike:
                yield f"python: {len(alike)} texts", "equal but for comments", True
            apart = [{t: d for t, d in some.items() if without_words(t) not in alike} for some in apart]
        for which, some in zip(("old", "new"), apart, strict=True):
            for i, (text, doing) in enumerate(some.items()):
                path = folder / f"{language}-{doing.replace(' ', '_')}-{i}.{which}"
                path.write_text(text, encoding="utf-8")
                yield f"{language}: {doing}", f"ONLY IN {which.upper()}: {path}", False


def compare_speed(checkouts: tuple[Checkout, Checkout], bound: float) -> Iterator[tuple[str, str, bool]]:
    """Rows as above for seconds: the least of several, old and new in turns."""
    for checkout in checkouts:
        checkout.call("prepare")
    whats: dict[str, Callable[[Checkout], dict[str, float]]] = {
        name: (lambda c, name=name, script=script: {name: c.cpu_seconds(script)}) for name, script in SCRIPTS.items()
    }
    whats["texts"] = lambda c: dict(c.call("read"))
    for measure in whats.values():
        least: list[dict[str, float]] = [{}, {}]
        for _ in range(TIMES_OVER):
            for turn in range(REPEATS):
                for i in (0, 1) if turn % 2 == 0 else (1, 0):
                    for name, seconds in measure(checkouts[i]).items():
                        least[i][name] = min(seconds, least[i].get(name, seconds))
            if all(least[1][name] <= bound * least[0][name] for name in least[0]):
                break
        for name in least[0]:
            ratio = least[1][name] / least[0][name]
            figures = f"{least[0][name]:.3f} s, {least[1][name]:.3f} s: {ratio:.3f}"
            yield name, figures + ("" if ratio <= bound else "  SLOWER"), ratio <= bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout of the repository")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--only", default=",".join(PARTS), help="the parts, of bits,text,speed")
    parser.add_argument("--cells", default="", help="these cells alone, a,b,c; else all of them are completed with")
    parser.add_argument("--steps", type=int, default=6, help="steps of every training")
    parser.add_argument("--chars", type=int, default=60, help="characters of every completion")
    parser.add_argument("--bound", type=float, default=BOUND, help="the highest ratio of seconds that is well")
    parser.add_argument("--keep", type=Path, help="write emitted code that differs into this folder")
    given = parser.parse_args()
    parts = given.only.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--only {given.only}: choose from {', '.join(PARTS)}")
    cells = [cell for cell in given.cells.split(",") if cell]
    rows: list[tuple[str, str, str, bool]] = []
    kept = given.keep or Path(tempfile.mkdtemp(prefix="differences-"))
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = (given.old / "corpora" / "rekurentne.txt").read_text(encoding="utf-8")
        old, new = (Checkout(p, Path(folder) / n, source) for n, p in (("old", given.old), ("new", given.new)))
        if "bits" in parts or "text" in parts:
            results = []
            for checkout in (old, new):
                print(f"{checkout.path}", file=sys.stderr, flush=True)
                order = {"cells": cells, "steps": given.steps, "chars": given.chars, "text": "text" in parts}
                results.append(checkout.call("work", **order))
            if "bits" in parts:
                rows += [("bits", *row) for row in compare_bits(results[0]["found"], results[1]["found"])]
            if "text" in parts:
                rows += [("text", *row) for row in compare_texts(results[0]["texts"], results[1]["texts"], kept)]
        if "speed" in parts:
            rows += [("speed", *row) for row in compare_speed((old, new), given.bound)]
    width = max(len(row[1]) for row in rows)
    for part, name, says, _ in rows:
        print(f"{part:<6} {name:<{width}}  {says}")
    wrong = [row for row in rows if not row[3]]
    print(f"{len(rows)} comparisons, {len(wrong)} of them not well")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        order = json.loads(sys.argv[3])
        result = {"work": work, "prepare": prepare, "read": read}[sys.argv[2]](order)
        Path(order["result"]).write_text(json.dumps(result), encoding="utf-8")
    else:
        sys.exit(main())
