"""`next --pick`: a text that is picked character by character, on a terminal and through a pipe."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, config

from charrnn import api, cli
from charrnn.training import loop
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one run, which the tests leave as it is."""
    folder = tmp_path_factory.mktemp("picking")
    (folder / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settings = config(str(folder / "text.txt"), steps=20, lr=0.02)
        for _ in loop.new_run(settings, loop.open_run(settings, "run")):
            pass
    return folder / "home"


@pytest.fixture
def run(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CHARRNN_HOME", str(shared_home))
    return Run(shared_home / "run")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `next` with lines on its standard input; gives its exit code, stdout and stderr."""

    def call(lines: str | bytes, *arguments: str) -> tuple[int, str, str]:
        data = lines.encode() if isinstance(lines, str) else lines
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        capsys.readouterr()
        return cli.run(["next", *arguments, "--pick"]), *capsys.readouterr()

    return call


def test_a_picked_character_has_the_probability_that_scoring_gives_it(run: Run) -> None:
    model = api.load(run)
    picking = model.picking("Mre")
    for character in "ža 漢\n":
        listed, expected_list = picking.likeliest(4), model.next(picking.text, 4)
        assert [c for c, _ in listed] == [c for c, _ in expected_list]
        assert [p for _, p in listed] == pytest.approx([p for _, p in expected_list], rel=1e-5)
        expected = math.exp(-model.score(picking.text + character).per_char[-1])
        assert picking.take(character) == pytest.approx(expected, rel=1e-5)
    assert picking.text == "Mreža 漢\n"


def test_lines_are_numbers_of_the_list_or_characters(run: Run, command: Command) -> None:
    model = api.load(run)
    second = model.next("Mre", 3)[1][0]
    code, out, err = command("2\nže\n=7\n==\n\nnot read\n", "Mre", "--k", "3")
    assert (code, out) == (0, f"Mre{second}že7=\n")
    assert err.count("\n  1 ") == 5
    assert "pick:" not in err  # nobody is there to be asked
    found = json.loads(command("2\nže\n", "Mre", "--k", "3", "--json")[1])
    assert found["text"] == f"Mre{second}že"
    assert [row["character"] for row in found["picked"]] == [second, "ž", "e"]
    assert found["picked"][0]["rank"] == 2
    listed = [character for character, _ in model.next(f"Mre{second}", 3)]
    assert found["picked"][1]["rank"] == (listed.index("ž") + 1 if "ž" in listed else None)
    assert found["picked"][2]["probability"] == pytest.approx(
        math.exp(-model.score(found["text"]).per_char[-1]), rel=1e-4
    )


@pytest.mark.parametrize("line", [b"4", b"0", b"9" * 5000, b"=", b"\xff"], ids=lambda line: repr(line[:9]))
def test_what_cannot_be_picked_is_said_and_asked_anew(run: Run, command: Command, line: bytes) -> None:
    code, out, err = command(line + b"\na\n", "Mre", "--k", "3")
    assert code == 0
    assert "error: " in err
    assert out == ("Mre\n" if line == b"\xff" else "Mrea\n")  # what follows bytes that are no text is read with them


def test_picking_ends_with_the_document(trained: TrainedRun, command: Command) -> None:
    model = api.load(trained(steps=2, document="line"))
    listed = [character for character, _ in model.next("Mra", 60)]
    code, out, err = command(f"a\n{listed.index(chr(10)) + 1}\nb\n", "Mr", "--k", "60")
    assert (code, out) == (0, "Mra\n\n")
    assert err.endswith("note: the document has ended, as the model learned documents\n")


def test_the_prime_does_not_come_from_where_the_picks_come_from(run: Run, command: Command) -> None:
    code, _, err = command("1\n", "-")
    assert code == 2
    assert "--prime-file" in err
    code, out, _ = command("a\n\n")
    assert (code, out) == (0, "a\n")


def test_a_person_is_asked(run: Run, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown: Any = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal("a\n"))
    monkeypatch.setattr("sys.stderr", shown)
    assert cli.run(["next", "Mre", "--pick"]) == 0
    assert shown.getvalue().count("pick: ") == 2
    assert shown.getvalue().endswith("pick: \n")
