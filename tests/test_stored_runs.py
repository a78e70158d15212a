"""Runs that were made by earlier versions, kept as files: they load, score, complete and resume as they did then.

What is expected was said by the code that made them; `tests/stored/README.md` tells how. Only what users have is used
here, the command line and `charrnn.load`: whatever moves inside, these tests stay.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

import charrnn
from charrnn.__main__ import main

ROOT = Path(__file__).parent.parent
STORED = Path(__file__).parent / "stored"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text(encoding="utf-8"))
RUNS: dict[str, Any] = EXPECTED["runs"]
RESUMABLE = [name for name, facts in RUNS.items() if "resumed" in facts]
# nn.GRU of one size: its decoder is compiled once for all of them. Every other shape costs seconds.
QUICK = [
    name
    for name, facts in RUNS.items()
    if (facts["info"]["cell"], facts["info"]["hidden"], facts["info"]["layers"]) == ("nn.GRU", 4, 1)
]
QUICK_COMMANDS = ("sample", "complete", "next", "score", "eval", "runs", "info", "cells", "env", "corpora stats")
# Two processors round the last bits of a sum differently, and training carries that on.
NATS, TRAINED_NATS = 1e-6, 1e-4

Say = Callable[..., dict[str, Any]]


def slow_but(quick: list[str], names: list[str]) -> list[Any]:
    """The names as parameters of a test, of which all but the quick ones are marked as slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def long_but(quick: list[str], names: list[str]) -> list[Any]:
    """As `slow_but`, where all but the quick ones take minutes together: each compiles, or trains anew."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture
def stored(home: Path) -> Path:
    """A home folder with everything that is stored."""
    shutil.copytree(STORED / "format-1", home)
    return home


@pytest.fixture
def say(stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """The JSON object that a command prints, in this process and in the home folder's parent."""
    monkeypatch.chdir(stored.parent)

    def run(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["charrnn", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return dict(json.loads(out.splitlines()[-1]))

    return run


def missing(old: Any, new: Any, at: str = "") -> list[str]:
    """Where a JSON value lacks what an older one had, or has another value; names may be added, numbers be near."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [where for name in old for where in missing(old[name], new.get(name, "(absent)"), f"{at}.{name}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [where for i, (a, b) in enumerate(zip(old, new, strict=True)) for where in missing(a, b, f"{at}[{i}]")]
    if isinstance(old, float) and isinstance(new, int | float):
        return [] if new == pytest.approx(old, rel=NATS, abs=NATS) else [f"{at}: {old} was, {new} is"]
    return [] if old == new else [f"{at}: {old!r} was, {new!r} is"]


def kinds(value: Any) -> Any:
    """The names and types in a JSON value; of a list, those of all its elements together."""
    if isinstance(value, dict):
        return {name: kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return [reduce(together, map(kinds, value))] if value else []
    return {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}[type(value)]


def together(a: Any, b: Any) -> Any:
    """What two elements of a list have: what is null in one may be known from the other."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {name: together(a.get(name, "null"), b.get(name, "null")) for name in {**a, **b}}
    return b if a in ("null", []) else a


def lost(old: Any, new: Any, at: str = "") -> list[str]:
    """The names and types that a result of a command had and has no more; a null or an empty list said nothing."""
    if old in ("null", []):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [where for name in old for where in lost(old[name], new.get(name, "absent"), f"{at}.{name}")]
    if isinstance(old, list) and isinstance(new, list) and new:
        return lost(old[0], new[0], f"{at}[]")
    return [] if old == new else [f"{at}: {old} was, {new} is"]


def without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    """The facts that do not depend on where and when the files were copied."""
    return {name: value for name, value in facts.items() if name not in names}


def test_every_stored_run_is_expected_to_do_something() -> None:
    found = {path.parent.name for path in (STORED / "format-1").glob("*/run.json")}
    assert found == set(RUNS)
    assert {"loop", "fused", "scan", "native"} <= {RUNS[name]["info"]["config"]["engine"] for name in RESUMABLE}


def test_a_stored_run_is_described_as_it_was_and_reads_text_as_it_did(say: Say) -> None:
    for name, facts in RUNS.items():
        found = say("info", name, "--json")
        config = found["config"]
        assert config["format"] == 7  # which says with every plan how validations are spaced, and how the head begins
        assert config["bias_smoothing"] == 0
        assert config["unseen"] == "learned"
        found["config"] = {**config, "format": 1, "plan": [entry[:2] for entry in config["plan"]]}
        assert missing(without(facts["info"], "path", "saved"), found) == [], name
        tokenizer = charrnn.load(name).tokenizer
        text = facts["score"]["text"]
        assert tokenizer.encode(tokenizer.clean(text)).tolist() == facts["ids"], name
        assert tokenizer.decode(facts["ids"]) == text, name


def test_stored_runs_are_listed_as_they_were(say: Say) -> None:
    def by_name(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((without(row, "path", "saved") for row in rows), key=lambda row: str(row["run"]))

    assert missing(by_name(EXPECTED["list"]), by_name(say("runs", "--json")["runs"])) == []


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_scores_texts_as_it_did(name: str, say: Say) -> None:
    facts = RUNS[name]
    found = say("score", facts["score"]["text"], "--text", "--run", name, "--json")
    assert missing(without(facts["score"], "run"), found) == []
    for what, figures in facts["eval"].items():
        part, mode = what.split()
        found = say("eval", name, "--part", part, "--mode", mode, "--json")
        assert missing(without(figures, "run"), found) == [], what
    model = charrnn.load(name)
    for drawn in facts["completions"]:
        prime = drawn["options"][drawn["options"].index("--prime") + 1]
        assert model.score(prime + drawn["texts"][0]).nats == pytest.approx(drawn["score"][0], abs=NATS)


def completes(name: str, drawn: dict[str, Any], say: Say) -> None:
    """Check that `sample` draws what it did, up to where the last digits of a logit decide."""
    found = say("sample", "--json", *drawn["options"])["completions"]
    assert len(found) == len(drawn["texts"])
    exact = NATS if "float32" in drawn["options"] else 1e-3
    for each, text, nats, certain in zip(found, drawn["texts"], drawn["nats"], drawn["certain"], strict=True):
        assert each["text"][:certain] == text[:certain], (name, drawn["options"])
        if each["text"] == text:
            assert each["nats"] == pytest.approx(nats, rel=exact), (name, drawn["options"])


@pytest.mark.parametrize("name", long_but(QUICK, list(RUNS)))
def test_a_stored_run_completes_as_it_did(name: str, say: Say) -> None:
    for prime, rows in RUNS[name]["next"].items():
        assert missing(rows, say("next", prime, "--run", name, "--k", str(len(rows)), "--json")["next"]) == []
    for drawn in RUNS[name]["completions"]:
        if "float32" in drawn["options"] and len(drawn["texts"]) == 1:
            completes(name, drawn, say)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in ("char-gru", "byte") else pytest.mark.long) for n in RUNS]
)
def test_a_stored_run_completes_as_it_did_with_fewer_bits_and_side_by_side(name: str, say: Say) -> None:
    for drawn in RUNS[name]["completions"]:
        if "float32" not in drawn["options"] or len(drawn["texts"]) > 1:
            completes(name, drawn, say)


@pytest.mark.parametrize("name", ["char-gru"])
def test_a_stored_run_completes_the_same_from_python(name: str, stored: Path) -> None:
    model = charrnn.load(stored / name)
    for drawn in RUNS[name]["completions"]:
        given = dict(zip(drawn["options"][::2], drawn["options"][1::2], strict=True))
        if given["--weights"] == "float32" and given["--count"] == "1":
            filters = {"top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p"}
            kinds_of = {"top_k": int, "top_p": float, "min_p": float}
            settings: dict[str, Any] = {k: kinds_of[k](given[o]) for k, o in filters.items() if o in given}
            settings |= {"temperature": float(given["--temperature"]), "seed": int(given["--seed"])}
            text = model.complete(given["--prime"], int(given["--chars"]), **settings)
            assert text[: drawn["certain"][0]] == drawn["texts"][0][: drawn["certain"][0]]
    for prime, rows in RUNS[name]["next"].items():
        found = [{"character": c, "probability": p} for c, p in model.next(prime, len(rows))]
        assert missing(rows, found) == []


def end(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Check that a training ended where another did."""
    assert lost(kinds(old), kinds(new)) == []
    for name in ("cell", "hidden", "layers", "parameters", "steps", "characters", "precision", "device"):
        assert new[name] == old[name], name
    for name in ("train_nats", "val_nats", "test_nats"):
        assert new[name] == pytest.approx(old[name], abs=TRAINED_NATS), name


@pytest.mark.parametrize("name", slow_but(QUICK, RESUMABLE))
def test_a_stored_run_that_was_stopped_goes_on_to_the_end_it_would_have_had(name: str, say: Say) -> None:
    end(RUNS[name]["resumed"], say("train", "--resume", name, "--json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMABLE)
def test_a_stored_run_goes_on_in_a_process_of_its_own(name: str, stored: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "train", "--resume", name, "--json"],
        capture_output=True,
        text=True,
        cwd=stored.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    end(RUNS[name]["resumed"], json.loads(done.stdout.splitlines()[-1]))


def test_a_stored_run_that_is_complete_can_be_made_longer(say: Say) -> None:
    before = RUNS["char-gru"]["info"]["result"]
    result = say("train", "--resume", "char-gru", "--steps", str(before["steps"] + 8), "--json")
    assert result["steps"] == before["steps"] + 8
    plan = say("info", "char-gru", "--json")["config"]["plan"]
    assert [entry[:2] for entry in plan] == [[0, before["steps"]], [before["steps"], result["steps"]]]


@pytest.mark.parametrize("name", long_but(["char-gru", "lines"], [n for n in RUNS if RUNS[n]["info"]["complete"]]))
def test_a_stored_configuration_repeats_its_run(name: str, stored: Path, say: Say) -> None:
    if name == "turned" and torch.backends.cpu.get_cpu_capability() != "AVX2":
        pytest.skip("its steps are so long that the rounding of another processor decides how it ends")
    result = say("train", "--config", str(stored / name / "config.json"), "--name", "again", "--json")
    end(RUNS[name]["info"]["result"], result)


@pytest.mark.slow
def test_a_stored_comparison_is_read_and_nothing_is_trained_anew(stored: Path, say: Say) -> None:
    folder = stored / "compared"
    old = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    source = ["--from", str(folder / "comparison.json"), "--out", str(folder)]
    new = say("compare", *source, "--no-inspect", "--json")
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before
    assert lost(kinds(without(old, "grid")), kinds(new)) == []
    for a, b in zip(old["cells"], new["cells"], strict=True):
        assert missing(without(a, "chars_per_s", "seconds", "low", "high"), b) == []
        # Of two seeds, whose intervals were too narrow then.
        assert b["low"] <= a["low"] <= a["high"] <= b["high"]


@pytest.mark.parametrize(
    "typed",
    [
        # Of these, decoding is measured for half a minute, as in test_docs.
        *long_but([], [c for c in EXPECTED["commands"] if c.startswith("bench decode")]),
        *slow_but(
            [c for c in EXPECTED["commands"] if c.startswith(QUICK_COMMANDS)],
            [c for c in EXPECTED["commands"] if not c.startswith("bench decode")],
        ),
    ],
)
def test_a_command_prints_the_fields_it_did(typed: str, stored: Path, say: Say) -> None:
    text = next(stored.glob(".corpora/*/text.utf8")).read_text(encoding="utf-8")
    (stored.parent / "text.txt").write_text(text, encoding="utf-8")
    found = say(*typed.replace("checkpoints/", f"{stored}/").split(" "))
    assert lost(EXPECTED["commands"][typed], kinds(found)) == []


# run.json of format 2: two checkpoints, and what the run was trained with

NEWER: dict[str, Any] = json.loads((STORED / "expected-2.json").read_text(encoding="utf-8"))


@pytest.fixture
def newer(stored: Path) -> Path:
    """A home folder with the runs of format 2 beside the others."""
    shutil.copytree(STORED / "format-2", stored, dirs_exist_ok=True)
    return stored


def test_runs_of_format_2_are_described_scored_and_resumed_as_they_were(newer: Path, say: Say) -> None:
    for name, facts in NEWER["info"].items():
        found = say("info", name, "--json")
        assert found["config"]["format"] == 7
        assert found["config"]["unseen"] == "learned"
        found["config"]["format"] = 3
        assert missing(without(facts, "path", "saved"), found) == [], name
    assert missing(without(NEWER["eval"], "run"), say("eval", "complete", "--json")) == []
    end(NEWER["resumed"], say("train", "--resume", "stopped", "--json"))


def test_a_run_of_format_2_whose_newest_checkpoint_is_gone_ends_as_it_would_have(newer: Path, say: Say) -> None:
    (newer / "stopped" / "training-00000020.safetensors").unlink()
    end(NEWER["resumed"], say("train", "--resume", "stopped", "--json"))


def test_a_run_of_format_1_becomes_one_of_format_2_when_it_is_trained_on(stored: Path, say: Say) -> None:
    about = json.loads((stored / "char-gru" / "run.json").read_text())
    say("train", "--resume", "char-gru", "--steps", str(about["step"] + 1), "--json")
    now = json.loads((stored / "char-gru" / "run.json").read_text())
    assert (about["format"], now["format"]) == (1, 2)
    assert now["before"]["step"] == about["step"]
