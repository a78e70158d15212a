"""A terminal is given nothing that it would obey, whoever wrote the text; files and pipes get the text itself."""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CORPUS

from charrnn import cli
from charrnn.cli import options, streams
from charrnn.terminal import harmless
from charrnn.training.run import Run

HOSTILE = "\x1b]0;title\x07\x1b[31m\x9b2J\x0e\r\x7f\u202e\u2066 č\tא\u0301"
SHOWN = "␛]0;title␇␛[31m<009B>2J␎␍␡<202E><2066> č\tא\u0301"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Screen(io.BytesIO):
    """A terminal, as far as it says so; what it was given."""

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        """Stay readable: a stream that is forgotten closes what is below it."""

    @property
    def text(self) -> str:
        return self.getvalue().decode("utf-8", "surrogateescape")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command whose streams are terminals; gives its exit code, and what each was given."""
    monkeypatch.setattr("sys.stdin", Screen())
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: str) -> tuple[int, str, str]:
        screens = Screen(), Screen()
        with monkeypatch.context() as patch:
            for name, screen in zip(("stdout", "stderr"), screens, strict=True):
                stream = streams.Shown(screen, "utf-8", "surrogateescape", write_through=True)
                patch.setattr(sys, name, stream)
            code = cli.run(list(arguments))
        return code, screens[0].text, screens[1].text

    return call


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert harmless(HOSTILE + "\n") == SHOWN + "\n"
    assert harmless("\udc9b") == "<DC9B>"  # a byte of a file's name
    every = "".join(map(chr, range(0x3000)))
    assert not OBEYED.search(harmless(every))
    assert harmless("Mreža\n\tčvor 日本 ع 👍\u200d👍") == "Mreža\n\tčvor 日本 ع 👍\u200d👍"


def test_json_holds_nothing_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    every = "".join(map(chr, range(0x3000)))
    options.print_json({"text": every})
    out = capsys.readouterr().out
    assert not OBEYED.search(out.removesuffix("\n"))
    assert json.loads(out) == {"text": every}


def test_a_terminal_is_shown_what_files_and_pipes_are_given(
    shown: Callable[..., tuple[int, str, str]],
    trained: Callable[..., Run],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trained(steps=2)
    for words in (
        ("sample", "--prime", HOSTILE, "--chars", "0"),
        ("complete", HOSTILE, "--count", "1", "--chars", "1"),
    ):
        capsys.readouterr()
        code, out, _ = shown(*words)
        assert (code, out.startswith(SHOWN)) == (0, True)
        monkeypatch.setattr("sys.stdin", Screen())
        assert cli.run(list(words)) == 0
        assert capsys.readouterr().out.startswith(HOSTILE)
    assert shown("sample", "--prime", HOSTILE, "--chars", "0", "--out", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out").read_bytes().decode() == HOSTILE + "\n"
    coloured = shown("score", "--text", HOSTILE, "--color", "always")[1]
    assert not OBEYED.search(re.sub(r"\x1b\[[0-9;]*m", "", coloured).replace("\n", ""))
    assert coloured.count("\x1b[") > 2

    odd = run.path.rename(run.path.parent / "a\x1b[8m\u202eb")
    text = tmp_path / "te\x1b[2Jxt.txt"
    text.write_text(CORPUS.read_text(encoding="utf-8")[:500], encoding="utf-8")
    (tmp_path / "folder\n").mkdir()
    (tmp_path / "folder\n" / "hint: run this.bin").write_bytes(b"\0" * 99)
    (tmp_path / "folder\n" / "text").write_text("text " * 99)
    for code, *words in (
        (0, "runs"),
        (0, "info", odd.name),
        (0, "eval", odd.name, str(text)),
        (0, "corpora", "stats", str(text)),
        (0, "corpora", "stats", str(tmp_path / "folder\n")),
        (1, "info", HOSTILE),
        (1, "train", HOSTILE),
        (1, "score", "./" + HOSTILE.replace(" ", "")),
        (1, "train", "--config", HOSTILE),
        (1, "cells", HOSTILE),
        (2, HOSTILE),
        (2, "train", "--" + HOSTILE),
        (2, "train", "--cell-option", HOSTILE),
        (2, "train", "--split", HOSTILE),
        (2, "train", "--encoding", HOSTILE),
        (2, "sample", "--temperature", HOSTILE),
        (1, "sample", "--run", odd.name, "--prime", "\udce8" + HOSTILE),
    ):
        got, out, err = shown(*words)
        assert got == code, (words, err)
        assert not OBEYED.search((out + err).replace("\n", "")), words
        assert not [line for line in err.splitlines() if line.startswith("hint: run this")], err


def test_a_damaged_run_says_nothing_that_a_terminal_would_obey(
    shown: Callable[..., tuple[int, str, str]], trained: Callable[..., Run]
) -> None:
    run = trained(steps=2)
    for file, values in (
        ("run.json", {"step": HOSTILE}),
        ("run.json", {HOSTILE: 1, "format": HOSTILE}),
        ("config.json", {"cell": HOSTILE}),
        ("config.json", {HOSTILE: 3}),
        ("config.json", {"optimizer": HOSTILE}),
        ("tokenizer.json", {"normalizer": HOSTILE}),
    ):
        path = run.path / file
        kept = path.read_bytes()
        path.write_text(json.dumps({**json.loads(kept), **values}))
        for words in (("info", "run"), ("runs",), ("sample", "--prime", "R", "--chars", "1")):
            _, out, err = shown(*words)
            assert "defect" not in err
            assert not OBEYED.search((out + err).replace("\n", "")), (file, values, words)
        path.write_bytes(kept)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")
def test_the_streams_of_the_program_know_a_terminal() -> None:
    """In a process of its own, on a terminal: what `main` makes of the standard streams."""
    import subprocess

    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent.parent / "cli.py"), "info", "a\x1b[2Jb"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        timeout=60,
    )
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 1
    assert "\\x1b[2Jb" in said
    assert "\x1b" not in said
