"""What is said of a command that cannot be meant: what was given, what is expected, what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import config

from charrnn import cli
from charrnn.training import runs
from charrnn.training.run import Run

WRONG_GRID = (
    '{"grid": {"format": 1, "config": {}, "match": "hidden", "seeds": 0, "lr_trials": 1, "budget": null, "steps": 1, '
    '"prime": "", "entries": []}}'
)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_file_in_place_of_a_run_is_told(run: Command, trained: Callable[..., Run], corpus: str) -> None:
    trained("first", steps=1)
    code, out, err = run("eval", corpus)
    assert (code, out) == (1, "")
    assert f"there is no run '{corpus}', which is a file\n" in err
    assert f"the run comes first, then the file: {cli.program()} eval latest {corpus}" in err
    assert "which is another folder" in run("info", str(Path(corpus).parent))[2]


def test_an_unknown_run_names_the_nearest_and_how_many_others_there_are(
    run: Command, trained: Callable[..., Run], home: Path
) -> None:
    first = trained("first", steps=1)
    assert "hint: choose from: 'first'\n" in run("info", "xyz")[2]
    for number in range(60):
        shutil.copytree(first.path, home / f"copy-{number}")
    near = run("info", "frist")[2]
    assert f"hint: did you mean 'first'? {cli.program()} runs lists 60 more\n" in near
    far = run("info", "xyz")[2]
    assert far.count("'copy-") + far.count("'first'") == 3
    assert f"{cli.program()} runs lists 58 more" in far


def test_a_folder_is_not_scored_as_its_name(run: Command, trained: Callable[..., Run], tmp_path: Path) -> None:
    trained("first", steps=1)
    code, out, err = run("score", str(tmp_path))
    assert (code, out) == (1, "")
    assert f"{tmp_path} is a folder, expected a file or a text\nhint: give one of its files, or pass --text" in err
    assert run("score", "--text", str(tmp_path))[0] == 0


def test_a_run_without_its_text_says_what_is_gone_and_what_works(
    run: Command, trained: Callable[..., Run], corpus: str, home: Path
) -> None:
    config = trained("first", steps=1).path / "config.json"
    shutil.rmtree(home / ".corpora")
    Path(corpus).unlink()
    for command in (("--resume", "first", "--steps", "4"), ("--config", str(config), "--name", "again")):
        code, out, err = run("train", *command)
        assert (code, out) == (1, "")
        assert f"the private copy of the text is not in {home / '.corpora'}, and its source cannot be read: " in err
        assert f"there is no file {corpus}\n" in err
        assert "hint: put the text back there, or copy .corpora from" in err
        assert f"{cli.program()} sample" in err
    assert run("sample", "--run", "first", "--chars", "3")[0] == 0


@pytest.mark.parametrize("command", [("train", "--config"), ("compare", "--from")])
def test_a_file_of_settings_that_is_missing_is_told_in_words(
    run: Command, command: tuple[str, str], home: Path
) -> None:
    err = run(*command, "missing.json")[2]
    assert "error: missing.json cannot be read: No such file or directory\nhint: give the " in err
    assert "Errno" not in run(*command, str(home))[2]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "-5", "steps is -5"),
        ("--budget", "0s", "budget is 0 seconds"),
        ("--parameters", "-3", "parameters is -3"),
        ("--seeds", "0", "seeds is 0"),
    ],
)
def test_a_comparison_checks_its_values_before_anything_else(
    run: Command, option: str, value: str, message: str, tmp_path: Path
) -> None:
    """Before it reads a folder that holds another comparison, which would be what is spoken of."""
    (tmp_path / "grid.json").write_text("{}")
    err = run("compare", "--out", str(tmp_path), option, value)[2]
    assert f"error: {message}\nhint: expected " in err


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a\nb", "a\rb", "a\x1bb", "a\u2028b", "", "..", "latest"])
def test_a_name_that_cannot_be_listed_is_refused(run: Command, name: str, corpus: str, home: Path) -> None:
    code, out, err = run("train", corpus, "--name", name)
    assert (code, out) == (2, "")
    assert f"{name!r} cannot be the name of a run, which is one line without slashes\nhint: use letters" in err
    assert not home.exists() or not any(home.iterdir())


def test_a_name_that_is_made_of_a_file_is_one_line(corpus: str, home: Path) -> None:
    odd = Path(corpus).rename(Path(corpus).parent / "two\nlines.txt")
    assert runs.open_run(config(str(odd), hidden=8)).name.startswith("two-lines-")


def test_a_name_that_is_made_of_a_long_one_is_cut(home: Path) -> None:
    made = runs.open_run(config("č" * 120 + ".txt", hidden=8, cell="9" * 5000)).name
    assert made.startswith("č" * 90)
    assert len(made.encode()) <= 200


def test_a_folder_of_two_lines_takes_one_line_of_the_table(
    run: Command, trained: Callable[..., Run], home: Path
) -> None:
    trained("first", steps=1).path.rename(home / "fir\nst")
    assert [line.split()[0] for line in run("runs")[1].splitlines()] == ["run", "fir↵st"]


def test_a_wrong_value_in_a_file_of_a_comparison_is_a_failure(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    file.write_text(WRONG_GRID)
    code, _, err = run("compare", "--from", str(file))
    assert code == 1
    assert f"error: {file}: " in err
