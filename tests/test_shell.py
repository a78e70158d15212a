"""Commands that are advised can be typed as they stand, whatever a run or a file is called."""

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import config

from charrnn import cli, strict_json
from charrnn.errors import CharRNNError, command, quoted
from charrnn.training import loop
from charrnn.training.checkpoint import Run, find_run

ROOT = Path(__file__).parent.parent
ODD = ["-x", "--help", "a b", "it's", "$HOME;*", "čaša", "two\nlines", "\udce8\udcff", "\x1b[31m", "-"]


def words_of(line: str, **variables: str) -> list[str]:
    """The words that bash makes of a command line."""
    script = b"printf '%s\\0' " + line.encode("utf-8", "surrogateescape")
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={**os.environ, **variables})
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("word", [*ODD, "", "plain", "\\n", "a\\'b\n", "\t'"])
def test_a_quoted_word_is_one_word_to_a_shell(word: str) -> None:
    assert words_of(quoted(word), LC_ALL="C.UTF-8") == [word]
    assert quoted(word).isprintable()


@pytest.mark.parametrize("name", ODD)
def test_what_is_advised_about_a_run_finds_it(
    name: str, trained: Callable[..., Run], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape"))  # as `main` does
    folder = trained("plain", steps=2).path
    folder.rename(folder.with_name(name))  # no run is begun under such a name, but one may be given it
    lines = [
        command("eval", operands=(name,)),
        command("train", "--steps", "3", "--resume", name),
        command("next", "--run", name, operands=("-1",)),
        command("info", operands=(name,)),
    ]
    for line in lines:
        program, *words = words_of(line, LC_ALL="C.UTF-8")
        assert program == "charrnn"
        assert cli.run([*words[:1], "--json", *words[1:]]) == 0, line
        assert Run(Path(json.loads(capsys.readouterr().out.splitlines()[-1])["path" if words[0] == "info" else "run"]))
    # Never saved: the advice to begin it again or to remove it is right too.
    path = find_run(name).path
    for file in ("run.json", "training-00000003.safetensors"):
        (path / file).unlink()
    with pytest.raises(CharRNNError) as raised:
        find_run(name)
    resume, remove = raised.value.hint.removeprefix("begin it again: ").split(", or delete it: ")
    _, *words = words_of(resume, LC_ALL="C.UTF-8")
    assert cli.run([*words[:1], "--json", *words[1:]]) == 0
    _, *words = words_of(remove, LC_ALL="C.UTF-8")
    assert cli.run([*words[:1], "-y", *words[1:]]) == 0


@pytest.mark.parametrize(
    ("called", "original", "shown"),
    [
        ("cli.py", ["python", "cli.py", "runs"], "python cli.py"),
        ("the dir/cli.py", ["python3", "the dir/cli.py", "runs"], "python3 'the dir/cli.py'"),
        ("/a/charrnn/__main__.py", ["/venv/bin/python", "-m", "charrnn", "runs"], "/venv/bin/python -m charrnn"),
        ("/no/where/charrnn", ["/usr/bin/python", "/no/where/charrnn", "runs"], "/no/where/charrnn"),
        ("-c", ["python", "-c", "..."], "charrnn"),
    ],
)
def test_advice_begins_as_the_program_was_called(
    called: str, original: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr(sys, "orig_argv", original)
    assert cli.run(["sample", "--run", "nothing"]) == 1
    assert f"hint: train one: {shown} train\n" in capsys.readouterr().err
    assert cli.run(["runs"]) == 0
    assert f"train one: {shown} train\n" in capsys.readouterr().err
    assert cli.run(["train", "text8", "--steps", "1"]) == 1
    assert f"fetch it: {shown} corpora fetch text8\n" in capsys.readouterr().err
    assert cli.run(["--help"]) == 0
    assert f"  {shown} train corpus.txt\n" in capsys.readouterr().out
    assert cli.run(["corpora", "--help"]) == 0
    assert f"  {shown} corpora list\n" in capsys.readouterr().out
    assert cli.as_called("/x/charrnn train, charrnnx train, charrnn wrote it") == (
        "/x/charrnn train, charrnnx train, charrnn wrote it"
    )


def test_a_program_on_the_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "charrnn").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "charrnn")])
    assert cli.program() == "charrnn"


def test_what_train_advises_can_be_typed(corpus: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--hidden", "8", "--batch", "2", "--window", "4", "--steps", "2", "--validate-every", "1"]
    assert cli.run(["train", corpus, "--name=-x", *small]) == 0
    err = capsys.readouterr().err
    (line,) = (line for line in err.splitlines() if line.startswith("next: "))
    advised = line.removeprefix("next: ").split("   or: ")
    assert len(advised) == 2
    for line in advised:
        assert line.startswith(cli.program())
        assert cli.run(shlex.split(line.removeprefix(cli.program()))) == 0, line
    assert "eval -- -x" in advised[1]


# Names that are not UTF-8


@pytest.mark.slow
def test_files_and_runs_whose_names_are_not_utf_8_are_found_and_printed(corpus: str, home: Path) -> None:
    text = os.path.join(os.path.dirname(corpus), "\udce8\udcff.txt")
    os.rename(corpus, text)
    settings = config(text, steps=2)
    run = loop.open_run(settings, "\udce8")
    list(loop.new_run(settings, run))
    assert run.config().corpus == (text,)
    for file in run.path.glob("*.json"):
        file.read_bytes().decode("utf-8")
    list(loop.resume(run, steps=3))
    page = os.path.join(os.path.dirname(corpus), "page.html")
    name = os.fsencode("\udce8")
    for words in (
        ["eval", "\udce8", text],
        ["runs"],
        ["info", "\udce8"],
        ["score", text, "--html", page],
        ["score", text],
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CHARRNN_HOME": str(home), "OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert name in done.stdout + done.stderr or words[-1] == page
    Path(page).read_bytes().decode("utf-8")


def test_json_stays_utf_8_and_gives_the_name_back() -> None:
    written = strict_json.dumps({"name": "\udce8 č"})
    assert written.encode("utf-8") == b'{"name": "\\udce8 \xc4\x8d"}'
    assert strict_json.loads(written) == {"name": "\udce8 č"}


# Shell completion


@pytest.mark.parametrize("typed", ["", "ra", "'ra", "ra\\ "])
def test_bash_completes_odd_names(typed: str, tmp_path: Path, home: Path) -> None:
    for name in ("ra b", "rač", "ra\nx", "ra'q", "\udce8"):
        (home / name).mkdir(parents=True)
        (home / name / "run.json").write_text("{}")
    program = tmp_path / "charrnn"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/cli.py" "$@"\n')
    program.chmod(0o755)
    script = f'eval "$(charrnn completion bash)"; COMP_WORDS=(charrnn info "{typed}"); COMP_CWORD=2; '
    script += "_charrnn_completion charrnn; printf '%s\\n' \"${COMPREPLY[@]}\""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CHARRNN_HOME": str(home)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=environment, timeout=60)
    assert done.stderr == b""
    found = {os.fsdecode(line) for line in done.stdout.splitlines()}
    expected = {
        "": {"latest", "'ra b'", "rač", quoted("ra'q"), "'\udce8'", "rekurentne"},
        "ra": {"'ra b'", "rač", quoted("ra'q")},
        "'ra": {"ra b", "rač", "ra'q"},
        "ra\\ ": {"'ra b'"},
    }
    assert found == expected[typed]
