"""The command line as people use it: results on stdout, progress on stderr, exit codes, errors in words."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS

from charrnn import api, cells, cli
from charrnn.cli import options, train
from charrnn.interruption import Interruption
from charrnn.training import runs
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent
TRAIN = ["train", "--hidden", "16", "--batch", "4", "--window", "16", "--steps", "8", "--validate-every", "4"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run a command in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def process(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


def last_json(out: str) -> dict[str, Any]:
    return dict(json.loads(out.splitlines()[-1]))


def test_train_sample_eval_runs_and_info_follow_each_other(run: Any, corpus: str) -> None:
    code, out, err = run(*TRAIN, corpus, "--name", "first")
    assert code == 0
    assert "perplexity" in out
    assert "step" in err
    assert "sample" in err  # the next command to type
    code, out, _ = run("sample", "--prime", "Rekurentne", "--chars", "30")
    assert code == 0
    assert out.startswith("Rekurentne")
    assert len(out) == len("Rekurentne") + 30 + 1
    assert run("eval", "first")[0] == run("runs")[0] == run("info", "first")[0] == run("cells")[0] == 0
    assert "first" in run("runs")[1]


def test_train_json_has_the_fields_the_readme_documents(run: Any, corpus: str) -> None:
    code, out, _ = run(*TRAIN, corpus, "--split", "0.9,0.1,0", "--json")
    assert code == 0
    result = last_json(out)
    fields = (
        "run cell hidden layers parameters steps characters seconds chars_per_s precision device train_nats val_nats "
        "val_bits_per_char test_nats test_bits_per_char test_perplexity diverged advice"
    )
    assert list(result) == fields.split()
    assert result["test_nats"] is result["test_perplexity"] is None
    assert result["steps"] == 8
    assert out.count("\n") == 1


def test_sample_json_holds_texts_without_the_prime(run: Any, corpus: str) -> None:
    run(*TRAIN, corpus, "--name", "r")
    _, out, _ = run("sample", "--run", "r", "--prime", "Re", "--chars", "12", "--count", "2", "--seed", "5", "--json")
    result = last_json(out)
    assert list(result) == ["run", "prime", "seed", "adapted", "completions"]
    assert (result["prime"], result["seed"]) == ("Re", 5)
    assert [len(c["text"]) for c in result["completions"]] == [12, 12]
    assert all(c["nats"] > 0 for c in result["completions"])
    assert result["completions"][0]["text"] == api.load("r").complete("Re", 12, seed=5)


def test_eval_json_and_per_character_costs(run: Any, corpus: str, tmp_path: Path) -> None:
    run(*TRAIN, corpus, "--name", "r")
    (tmp_path / "other.txt").write_text("Mreža pamti. 日本", encoding="utf-8")
    _, out, _ = run("eval", "r", str(tmp_path / "other.txt"), "--out", str(tmp_path / "costs.npy"), "--json")
    result = last_json(out)
    fields = "run characters nats_per_char bits_per_char perplexity mode spelled_in_bytes adapted"
    assert list(result) == fields.split()
    assert result["characters"] == 15
    assert result["spelled_in_bytes"]["characters"] >= 2
    assert np.load(tmp_path / "costs.npy").mean() == pytest.approx(result["nats_per_char"])
    parts = [
        last_json(run("eval", "r", "--part", part, "--json")[1])["characters"] for part in ("train", "val", "test")
    ]
    assert parts == [4800, 600, 600]
    assert last_json(run("eval", "r", "--mode", "cold", "--json")[1])["mode"] == "cold"


@pytest.mark.parametrize("line", ["eval r --json --out", "score --run r text --html", "inspect units r --html"])
@pytest.mark.parametrize("place", ["missing/file", "."])
def test_a_file_that_cannot_be_written_is_refused_before_a_text_is_read(
    line: str, place: str, run: Any, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*TRAIN, corpus, "--name", "r")
    for work in ("score_ids", "score", "units"):
        monkeypatch.setattr(api.TextModel, work, None)
    code, out, err = run(*line.split(), str(tmp_path / place))
    assert (code, out) == (1, "")
    assert "cannot be written" in err
    assert "defect" not in err


@pytest.mark.parametrize("bad", [("--chars", "-1"), ("--chars", "9" * 20), ("--stop", ""), ("--count", "0")])
def test_a_file_is_not_emptied_for_a_completion_that_cannot_be(run: Any, tmp_path: Path, bad: tuple[str, str]) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("an earlier completion", encoding="utf-8")
    code, out, err = run("sample", "--run", "rekurentne", "--prime", "R", *bad, "--out", str(kept))
    assert (code, out) == (2, "")
    assert "hint: " in err
    assert kept.read_text(encoding="utf-8") == "an earlier completion"


@pytest.mark.parametrize("line", ["export rekurentne --to", "eval --out", "train --config", "sample --prime-file"])
def test_a_nul_in_a_name_is_an_error_in_words(line: str, run: Any) -> None:
    code, out, err = run(*line.split(), "a\0b")
    assert (code, out) == (1, "")
    assert "NUL" in err
    assert "defect" not in err


def test_runs_json_lists_what_the_table_shows(run: Any, corpus: str) -> None:
    assert last_json(run("runs", "--json")[1])["runs"] == []
    run(*TRAIN, corpus, "--name", "r")
    (row,) = last_json(run("runs", "--json")[1])["runs"]
    assert (row["run"], row["step"], row["complete"]) == ("r", 8, True)
    documented = tomllib.loads((ROOT / "docs" / "json_fields.toml").read_text(encoding="utf-8"))["runs"]
    assert [name.removeprefix("runs[].") for name in documented if name.startswith("runs[].")] == list(row)


def test_the_prime_comes_from_a_file_or_from_standard_input(run: Any, corpus: str, tmp_path: Path) -> None:
    run(*TRAIN, corpus, "--name", "r")
    expected = run("sample", "--prime", "čvor\n", "--chars", "9")[1]
    (tmp_path / "prime.txt").write_text("čvor\n", encoding="utf-8")
    assert run("sample", "--prime-file", str(tmp_path / "prime.txt"), "--chars", "9")[1] == expected
    piped = process("sample", "--chars", "9", input="čvor\n")
    without = run("sample", "--prime", "čvor", "--chars", "9")[1]
    assert (piped.returncode, piped.stdout) == (0, without)  # `echo` put the line end there, nobody typed it
    assert process("sample", "--chars", "9", "--prime-as-is", input="čvor\n").stdout == expected
    target = tmp_path / "out.txt"
    assert run("sample", "--prime", "čvor\n", "--chars", "9", "--out", str(target))[1] == ""
    assert target.read_text(encoding="utf-8") == expected


def test_resume_on_the_command_line_completes_a_run(run: Any, corpus: str) -> None:
    run(*TRAIN, corpus, "--name", "r", "--schedule", "constant")
    code, out, _ = run("train", "--resume", "r", "--steps", "12", "--json")
    assert (code, last_json(out)["steps"]) == (0, 12)
    code, _, err = run("train", "--resume", "r")
    assert code == 1
    assert "complete" in err
    code, _, err = run("train", "--resume", "r", "--hidden", "5")
    assert code == 2
    assert "hidden" in err


def test_another_cell_takes_no_options_of_the_cell_in_a_configuration(run: Any, corpus: str, home: Path) -> None:
    assert run(*TRAIN, corpus, "--name", "a", "--cell", "rhn", "--cell-option", "depth=2")[0] == 0
    config = str(home / "a" / "config.json")
    other = ("train", "--config", config, "--cell", "lstm", "--engine", "loop", "--name", "b")
    assert run(*other)[0] == 0
    assert json.loads((home / "b" / "config.json").read_text(encoding="utf-8"))["cell_options"] == {}
    assert run("train", "--config", config, "--cell", "rhn", "--name", "c")[0] == 0
    assert json.loads((home / "c" / "config.json").read_text(encoding="utf-8"))["cell_options"] == {"depth": 2}


def test_train_config_repeats_a_run(run: Any, corpus: str, home: Path) -> None:
    first = last_json(run(*TRAIN, corpus, "--name", "a", "--json")[1])
    again = last_json(run("train", "--config", str(home / "a" / "config.json"), "--name", "b", "--json")[1])
    assert first["val_nats"] == again["val_nats"]
    a, b = (runs.find_run(name).about()["files"]["best"]["sha256"] for name in "ab")
    assert a == b


def test_what_is_offered_next_works_as_it_is_typed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("123 " + CORPUS.read_text(encoding="utf-8")[:3000].replace("Reka", "Mreža", 1))
    for place in ([], ["--out", "my folder/run"]):
        err = run(*TRAIN, "text.txt", *place)[2]
        offered, _, other = err[err.index("next: ") + 6 :].partition("   or: ")
        words = shlex.split(offered)
        code, out, _ = run(*words[words.index("sample") :], "--json")
        assert (code, last_json(out)["prime"]) == (0, "Mreža")
        assert Path(last_json(out)["run"]).name == ("run" if place else "text-nn.GRU-16x1")
        words = shlex.split(other.splitlines()[0])
        assert run(*words[words.index("eval") :])[0] == 0


def test_a_run_kept_elsewhere_is_resumed_by_what_an_interrupt_prints(
    run: Any, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "my folder" / "run"
    asked = Interruption()
    asked.number = signal.SIGINT
    monkeypatch.setattr(train, "interruptible", lambda: contextlib.nullcontext(asked))
    code, _, err = run(*TRAIN, corpus, "--out", str(place))
    assert code == 130
    monkeypatch.undo()
    typed = shlex.split(err[err.index("to go on: ") + 10 :].splitlines()[0])
    assert run(*typed[typed.index("train") :])[0] == 0
    assert Run(place).about()["step"] == 8


def test_cells_lists_every_cell_and_shows_one_with_its_equations_shapes_and_start(run: Any) -> None:
    _, out, _ = run("cells")
    rows = {row["cell"]: row for row in last_json(run("cells", "--json")[1])["cells"]}
    assert list(rows) == cells.names()
    for name, row in rows.items():
        assert f"\n{name} " in out
        assert row["summary"] in out
        assert row["source"] in out
        assert f"{row['parameters']:,}" in out
        assert row["over_time"] == ("scan" if cells.get(name).linear else "sequential")
        shown = run("cells", name)[1]
        (whole,) = last_json(run("cells", name, "--json")[1])["cells"]
        assert whole["equations"] in shown
        step = cells.get(name).readout or cells.get(name).step
        assert f"def {step.__name__}(" in whole["equations"]
        assert sum(int(np.prod(param["shape"])) for param in whole["shapes"]) == row["parameters"]
        assert all(param["starts"] in shown for param in whole["shapes"])


@pytest.mark.slow
def test_options_of_a_cell_are_shown_counted_and_part_of_a_run(run: Any, corpus: str) -> None:
    assert "rounds=5" in run("cells", "mogrifier-lstm")[1]
    (few,) = last_json(run("cells", "mogrifier-lstm", "--cell-option", "rounds=2", "--json")[1])["cells"]
    assert few["parameters"] == cells.get("mogrifier-lstm").count(128, 512, rounds=2)
    assert run("cells", "--cell-option", "rounds=2")[0] == 2
    options = ["--cell", "rhn", "--cell-option", "depth=2", "--schedule", "constant"]
    assert run(*TRAIN, corpus, *options, "--name", "r")[0] == 0
    saved = runs.find_run("r")
    assert saved.config().cell_options == {"depth": 2}
    assert saved.weights("best")["layers.0.R"].shape == (2, 16, 32)
    assert run("train", "--resume", "r", "--steps", "12")[0] == 0
    assert runs.find_run("r").weights("last")["layers.0.R"].shape == (2, 16, 32)
    assert len(run("sample", "--run", "r", "--prime", "Re", "--chars", "9")[1]) == 2 + 9 + 1
    code, _, err = run(*TRAIN, corpus, "--cell", "rhn", "--cell-option", "depth=0")
    assert code == 2
    assert "depth=3" in err


def test_a_closed_pipe_is_no_error(corpus: str) -> None:
    assert process(*TRAIN, corpus).returncode == 0
    command = f'"{sys.executable}" "{ROOT}/cli.py" sample --chars 4000 --prime Re | head -c 5'
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupting_saves_and_says_how_to_go_on(corpus: str, home: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), *TRAIN[:-4], "--steps", "100000", corpus, "--name", "r"]
    command += ["--validate-every", "50"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("step "):  # before its first one there is nothing to save
                break
        training.send_signal(signal.SIGINT)
        rest = training.stderr.read()
        assert training.wait(30) == 130
    assert "train --resume r" in rest
    assert runs.find_run("r").about()["step"] > 0


def test_help_of_every_command_names_its_options_and_matches_the_list(run: Any) -> None:
    for name, summary in cli.COMMANDS.items():
        code, out, _ = run(name, "--help")
        assert code == 0
        assert re.sub(r"\s+", " ", out).find(summary) > 0, name
    assert "rekurentne" not in run("train", "--help")[1].lower() or CORPUS.exists()


def test_python_m_charrnn_is_the_same() -> None:
    for command in ([sys.executable, "cli.py"], [sys.executable, "-m", "charrnn"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.startswith("charrnn, version")


def test_json_is_one_line_whatever_a_text_holds(capsys: pytest.CaptureFixture[str]) -> None:
    every = "".join(chr(c) for c in range(0x3000))
    options.print_json({"text": every})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"text": every}
