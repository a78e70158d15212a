"""Make the stored runs of format 1 and what the code that made them says about them.

    python tests/stored/make.py FOLDER

writes FOLDER/format-1 (a home folder: runs, private copies of their texts, a comparison) and FOLDER/expected.json. It
was run once, with commit 9bc75a7, and belongs to that commit: it uses modules that may be elsewhere by now. Never make
`format-1` again with newer code: these files prove that what was written then is still read. A new format gets a
folder of its own beside it.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT / "corpora" / "rekurentne.txt"
sys.path.insert(0, str(ROOT))

SMALL = {
    "corpus": "text.txt",
    "precision": "float32",
    "device": "cpu",
    "hidden": 4,
    "layers": 1,
    "embedding": 2,
    "batch": 4,
    "window": 16,
    "steps": 100,
    "validate_every": 50,
    "warmup": 5,
    "lr": 0.05,
    "dropout": 0.0,
    "engine": "fused",
}

RUNS: dict[str, dict[str, Any]] = {
    "char-gru": {},
    "wide-lstm-residual": {"cell": "lstm", "hidden": 8, "layers": 2, "residual": True, "engine": "native"},
    "gru-tied": {"cell": "gru", "hidden": 8, "embedding": None, "tie": True, "engine": "native"},
    "byte": {"tokenizer": "byte", "normalize": "nfc"},
    "one-hot": {"cell": "simple", "one_hot": True, "embedding": None, "engine": "native"},
    "lines": {"corpus": "lines.txt", "document": "line"},
    "paragraphs": {"corpus": "paragraphs.txt", "document": "blank"},
    "files": {"corpus": "files", "document": "file"},
    "nfc": {"corpus": "decomposed.txt", "normalize": "nfc"},
    "not-nfc": {"corpus": "decomposed.txt", "newline": "lf"},
    "mingru-scan": {"cell": "mingru", "hidden": 8, "engine": "scan"},
    "rhn-depth-3": {"cell": "rhn", "cell_options": {"depth": 3}, "engine": "native"},
    "karpathy": {
        "cell": "nn.LSTM",
        "optimizer": "rmsprop",
        "schedule": "step",
        "decay": 0.9,
        "decay_after": 1,
        "uniform": 0.08,
        "clip": 5.0,
        "clip_by": "value",
        "beta2": 0.95,
    },
    "constant-no-test": {"schedule": "constant", "clip": 0.0, "weight_decay": 0.0, "split": (0.9, 0.1, 0.0)},
    "bf16": {"cell": "gru", "precision": "bf16", "engine": "native"},
    "turned": {"lr": 0.5, "patience": 1, "steps": 400, "validate_every": 20},
}

# Stopped after `STOPPED_AFTER` of 30 steps, between two validations.
INTERRUPTED: dict[str, dict[str, Any]] = {
    "stopped-loop": {"cell": "nn.RNN", "engine": "loop", "dropout": 0.3},
    "stopped-fused": {"cell": "nn.GRU", "engine": "fused", "document": "line", "corpus": "lines.txt"},
    "stopped-scan": {"cell": "mingru", "hidden": 8, "engine": "scan"},
    "stopped-native": {"cell": "lstm", "layers": 2, "engine": "native", "dropout": 0.2, "tokenizer": "byte"},
    "stopped-rmsprop": {"cell": "nn.GRU", "engine": "native", "optimizer": "rmsprop", "schedule": "step"},
}
STOPPED_AFTER = 20

TEXT = "Reka ispod mosta. Ljubičasta šuma, Đak i ѓ, 漢字 ☃\n\nNovi pasus\tgde e\u0301 stoji.\n"  # some of it unknown
PRIMES = {"": "empty", "Reka ": "words"}
DRAWN = {  # name -> options of `sample`
    "usual": {"temperature": 0.8, "seed": 7},
    "greedy": {"temperature": 0.0, "seed": 7},
    "top-k": {"temperature": 1.0, "seed": 8, "top_k": 5},
    "top-p": {"temperature": 1.1, "seed": 9, "top_p": 0.8},
    "min-p": {"temperature": 1.3, "seed": 10, "min_p": 0.1, "top_k": 40},
}
WEIGHTS = {  # kind -> (how far its logits may be off on another processor, what is drawn with it)
    "float32": (1e-4, tuple(DRAWN)),
    "bf16": (1e-3, ("usual", "greedy")),
    "int8": (1e-3, ("usual", "greedy")),
}
CHARS = 200


def main(folder: Path) -> None:
    home = folder / "format-1"
    if home.exists():
        sys.exit(f"{home} is there already, and is never made again")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        os.environ["CHARRNN_HOME"] = "checkpoints"  # relative, so that the files name no folder of this machine
        write_texts()
        train_all()
        compare()
        expected: dict[str, Any] = {"list": said("runs", "--json")["runs"], "commands": commands(), "runs": {}}
        for name in sorted(runs()):
            print(name, file=sys.stderr, flush=True)
            expected["runs"][name] = facts(name)
        for encoded in Path("checkpoints/.corpora").glob("*/ids-*"):
            shutil.rmtree(encoded)  # made anew from the text
        shutil.copytree("checkpoints", home)
    write(expected, folder / "expected.json")


def write(expected: dict[str, Any], path: Path) -> None:
    """Write JSON with a line for every fact about a run, and for every command."""
    indent = "\n"

    def lines(value: Any, depth: int) -> str:
        if not isinstance(value, dict | list) or depth == 3:
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict):
            each = [f"{json.dumps(key)}: {lines(one, depth + 1)}" for key, one in value.items()]
        else:
            each = [lines(one, depth + 1) for one in value]
        begin, end = "{}" if isinstance(value, dict) else "[]"
        return begin + indent + f",{indent}".join(each) + "\n" + end

    path.write_text(lines(rounded(expected), 0) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """The value with ten digits of every number, many more than two processors agree in."""
    if isinstance(value, dict):
        return {key: each if key == "info" else rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def write_texts() -> None:
    """Write the texts that are learned, all of them cut from the embedded corpus."""
    text = CORPUS.read_text(encoding="utf-8")[:4000]
    sentences = [s.strip() for s in text.replace("\n", " ").split(". ") if s.strip()]
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("paragraphs.txt").write_text("\n\n".join(sentences[:40]) + "\n", encoding="utf-8")
    Path("lines.txt").write_text("".join(f"{s}\n" for s in sentences[:40]), encoding="utf-8")
    Path("decomposed.txt").write_bytes(unicodedata.normalize("NFD", text[:3000]).replace("\n", "\r\n").encode())
    Path("files").mkdir()
    for i in range(8):
        Path(f"files/{i}.txt").write_text(text[400 * i : 400 * (i + 1)], encoding="utf-8")


def train_all() -> None:
    from charrnn.config import Config
    from charrnn.reports import Stepped

    from charrnn import training

    def carry_out(name: str, settings: dict[str, Any], stop_after: int | None = None) -> None:
        config = Config(**{**SMALL, **settings})  # type: ignore[arg-type]
        done = [0]
        for report in training.new_run(config, training.open_run(config, name), lambda: done[0] == stop_after):
            if isinstance(report, Stepped):
                done[0] = report.step

    for name, settings in RUNS.items():
        print("training", name, file=sys.stderr, flush=True)
        carry_out(name, settings)
    for name, settings in INTERRUPTED.items():
        carry_out(name, {"steps": 30, "validate_every": 8, **settings}, STOPPED_AFTER)
    # A length that was decided by timing, and corrected: now and then no correction is needed, so try again.
    torch.set_num_threads(2)
    slow = {"cell": "layernorm-lstm", "engine": "loop", "batch": 16, "window": 64}
    for seed in range(7, 40):
        print("planned", seed, file=sys.stderr, flush=True)
        carry_out(
            "planned", {**slow, "steps": None, "budget": 4.0 * seed, "validate_every": 4, "patience": 0, "seed": seed}
        )
        if len(json.loads(Path("checkpoints/planned/config.json").read_text())["plan"]) >= 2:
            break
        shutil.rmtree("checkpoints/planned")
    torch.set_num_threads(1)


def compare() -> None:
    """A comparison of two cells, without its page, which anyone can draw from the rest."""
    small = [
        "--hidden",
        "4",
        "--embedding",
        "2",
        "--batch",
        "4",
        "--window",
        "16",
        "--validate-every",
        "20",
        "--precision",
        "float32",
        "--warmup",
        "5",
    ]
    said("compare", "text.txt", "--cells", "nn.GRU,mingru", "--steps", "24", "--seeds", "2", "--lr-trials", "2",
         "--no-inspect", "--out", "checkpoints/compared", "--json", *small)  # fmt: skip
    Path("checkpoints/compared/report.html").unlink()


def runs() -> list[str]:
    return [*RUNS, *INTERRUPTED, "planned"]


def facts(name: str) -> dict[str, Any]:
    """Everything that the code of today says about a run."""
    import charrnn

    model = charrnn.load(name)
    parts = ("val",) if name == "constant-no-test" else ("val", "test")
    found: dict[str, Any] = {"info": said("info", name, "--json")}
    found["eval"] = {
        f"{part} {mode}": said("eval", name, "--part", part, "--mode", mode, "--json")
        for part in parts
        for mode in ("stream", "cold")
    }
    found["score"] = said("score", TEXT, "--text", "--run", name, "--json")
    found["ids"] = model.tokenizer.encode(model.tokenizer.clean(TEXT)).tolist()
    found["next"] = {prime: said("next", prime, "--run", name, "--k", "12", "--json")["next"] for prime in PRIMES}
    found["completions"] = [
        completion(name, kind, drawn, prime, 1) for kind, (_, some) in WEIGHTS.items() for drawn in some
        for prime in (["Reka "] if drawn != "usual" else PRIMES)
    ]  # fmt: skip
    if name in ("char-gru", "wide-lstm-residual"):  # several are drawn side by side
        found["completions"] += [completion(name, kind, "usual", "Reka ", 9) for kind in ("float32", "bf16")]
    if name.startswith("stopped"):
        home = os.environ["CHARRNN_HOME"]
        shutil.copytree(home, "copy")
        os.environ["CHARRNN_HOME"] = "copy"
        found["resumed"] = said("train", "--resume", name, "--json")
        os.environ["CHARRNN_HOME"] = home
        shutil.rmtree("copy")
    return found


def completion(name: str, kind: str, drawn: str, prime: str, count: int) -> dict[str, Any]:
    """What `sample` draws; certain: how many characters of each text do not hang on a logit's last digits."""
    import charrnn

    options = [x for key, value in DRAWN[drawn].items() for x in (f"--{key.replace('_', '-')}", str(value))]
    options += ["--run", name, "--prime", prime, "--chars", str(CHARS), "--weights", kind, "--count", str(count)]
    found = said("sample", "--json", *options)["completions"]
    model = charrnn.load(name, kept=kind)  # type: ignore[arg-type]
    return {
        "options": options,
        "texts": [each["text"] for each in found],
        "nats": [each["nats"] for each in found],
        "certain": [certain(model, prime, each["text"], drawn, n, WEIGHTS[kind][0]) for n, each in enumerate(found)],
        # Of the prime and its completion, by weights as they were trained.
        "score": [charrnn.load(name).score(prime + each["text"]).nats for each in found],
    }


def certain(model: Any, prime: str, text: str, drawn: str, n: int, off: float) -> int:
    """How many characters are drawn the same when all logits are off by so much, at random."""
    from charrnn.completing.sampling import Sampling, distribution, draw, draws
    from charrnn.tokenizer import TextStream

    sampling, noise = Sampling(**DRAWN[drawn]), np.random.default_rng(0)  # type: ignore[arg-type]
    primed, decoder, us, stream = (
        model._primed(prime),
        model.decoder(),
        draws(sampling.seed, n),
        TextStream(model.tokenizer),
    )
    id_, state, characters = primed.last, primed.state, 0
    while characters < len(text):
        logits, state = decoder.step(np.array([id_]), state)
        allowed, u = model.tokenizer.allowed[stream.state], us.random()
        id_ = draw(distribution(logits[0], allowed, sampling), u)
        for _ in range(12):
            other = logits[0] + noise.normal(0, off, len(logits[0]))
            if draw(distribution(other, allowed, sampling), u) != id_:
                return characters
        if character := stream.push(id_):
            if character != text[characters]:  # what is drawn side by side may differ in a last digit too
                return characters
            characters += 1
    return characters


def commands() -> dict[str, Any]:
    """The fields that every command prints with --json: the command as typed, and names with their types."""
    small = ["--hidden", "4", "--embedding", "2", "--batch", "4", "--window", "16", "--steps", "3"]
    typed = [
        ["train", "text.txt", *small, "--name", "fields", "--json"],
        ["sample", "--run", "char-gru", "--prime", "Re", "--chars", "5", "--json"],
        ["complete", "Re", "--run", "char-gru", "--chars", "5", "--count", "2", "--json"],
        ["next", "Re", "--run", "char-gru", "--json"],
        ["score", "Reka", "--text", "--run", "char-gru", "--json"],
        ["eval", "char-gru", "--json"],
        ["runs", "--json"],
        ["info", "char-gru", "--json"],
        ["cells", "--json"],
        ["cells", "rhn", "--cell-option", "depth=2", "--json"],
        ["env", "--json"],
        ["corpora", "list", "--json"],
        ["corpora", "stats", "text.txt", "--json"],
        ["inspect", "gradients", "text.txt", "--cells", "mingru", "--hidden", "4", "--steps", "2", "--no-copy",
         "--json"],
        ["bench", "encode", "--quick", "--json"],
        ["bench", "decode", "--quick", "--cell", "mingru", "--hidden", "8", "--layers", "1", "--json"],
        ["bench", "train", "--quick", "--cell", "mingru", "--hidden", "8", "--layers", "1", "--batch", "2",
         "--window", "8", "--json"],
        ["compare", "--from", "checkpoints/compared/comparison.json", "--out", "checkpoints/compared", "--no-inspect",
         "--json"],
    ]  # fmt: skip
    found = {}
    for arguments in typed:
        print(*arguments, file=sys.stderr, flush=True)
        found[" ".join(arguments)] = kinds(said(*arguments))
    for made in [Path("checkpoints/fields"), *Path("checkpoints").glob("inspect-*")]:
        shutil.rmtree(made)
    Path("checkpoints/compared/report.html").unlink()
    return found


def kinds(value: Any) -> Any:
    """The names and types in a JSON value; of a list, those of its first element."""
    if isinstance(value, dict):
        return {name: kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return [kinds(value[0])] if value else []
    names = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    return names[type(value)]


def said(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints."""
    from charrnn.__main__ import main as run

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), arguments_of(*arguments):
        try:
            run()
        except SystemExit as end:
            code = end.code  # type: ignore[assignment]
    if code:
        sys.exit(f"{arguments}: {code}\n{err.getvalue()}")
    return dict(json.loads(out.getvalue().splitlines()[-1]))


@contextlib.contextmanager
def arguments_of(*arguments: str) -> Iterator[None]:
    before, sys.argv = sys.argv, ["charrnn", *arguments]
    try:
        yield
    finally:
        sys.argv = before


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
