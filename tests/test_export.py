"""Runs of weights alone: they read texts as the whole run does, tell nothing of the machine, and are not resumed."""

import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn import api
from charrnn.__main__ import main
from charrnn.errors import CharRNNError, OptionError
from charrnn.training import export, loop, run_json, runs
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
FILES = {"run.json", "config.json", "tokenizer.json", "model-00000012.safetensors"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, str, str]]:
    """What a command ends with, and prints."""

    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["charrnn", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


def test_weights_alone_read_a_text_as_the_whole_run_does(trained: TrainedRun, tmp_path: Path) -> None:
    run = trained()
    alone = export.weights(run, tmp_path / "made" / "alone")
    assert set(contents(alone.path)) == FILES
    models = api.load(run), api.load(alone.path)
    assert models[0].complete("Rek", 40) == models[1].complete("Rek", 40)
    assert models[0].next("Rek") == models[1].next("Rek")
    scores = [api.score_run(model, None, None, "stream")[1] for model in models]
    assert np.array_equal(scores[0].per_char, scores[1].per_char)
    best = run.weights("best")
    for which in ("best", "last"):  # there is one alone
        assert all(np.array_equal(value, best[name]) for name, value in alone.weights(which).items())
    assert alone.is_weights_alone()
    assert not run.is_weights_alone()


def test_nothing_of_the_machine_is_in_weights_alone(trained: TrainedRun, tmp_path: Path, corpus: str) -> None:
    run = trained()
    assert str(tmp_path).encode() in contents(run.path)["config.json"]  # so that there is something to leave out
    alone = export.weights(run, tmp_path / "alone")
    words = {str(tmp_path), str(Path.home()), os.getcwd(), "seconds", "losses"} - {"/"}
    words |= {getpass.getuser()} if len(getpass.getuser()) > 4 else set()
    for name, content in contents(alone.path).items():
        for word in words:
            assert word.encode() not in content, (name, word)
    assert alone.config().corpus == (Path(corpus).name,)
    assert alone.config().measured_us == {}
    assert alone.config().fingerprint == run.config().fingerprint


def test_the_same_weights_make_the_same_bytes(trained: TrainedRun, tmp_path: Path) -> None:
    first, again = (export.weights(trained(name), tmp_path / name[::-1]) for name in ("one", "two"))
    assert contents(first.path) == contents(again.path)
    assert contents(export.weights(first, tmp_path / "copy").path) == contents(first.path)


def test_weights_alone_are_not_resumed_and_say_so(trained: TrainedRun, tmp_path: Path, say: Any) -> None:
    alone = export.weights(trained(), tmp_path / "alone")
    before = contents(alone.path)
    for resume in (loop.resume(alone), loop.resume(alone, steps=99)):
        with pytest.raises(CharRNNError, match=r"holds weights alone, without a training state.*train --from"):
            list(resume)
    with pytest.raises(CharRNNError, match="holds weights alone"):
        alone.restore()
    code, _, err = say("train", "--resume", str(alone.path))
    assert (code, "cannot be resumed" in err) == (1, True)
    assert contents(alone.path) == before  # no lock either


def test_every_command_takes_weights_alone(trained: TrainedRun, tmp_path: Path, say: Any, home: Path) -> None:
    trained("whole")
    code, out, _ = say("export", "whole", "--to", str(home / "alone"), "--json")
    assert (code, json.loads(out)["run"]) == (0, str(home / "alone"))
    assert json.loads(out)["bytes"] == sum(map(len, contents(home / "alone").values()))
    for words in (
        ("sample", "--run", "alone", "--prime", "Rek", "--chars", "5", "--json"),
        ("complete", "Rek", "--run", "alone", "--chars", "5", "--json"),
        ("next", "Rek", "--run", "alone", "--json"),
        ("score", "Rekurentne", "--run", "alone", "--json"),
        ("eval", "alone", "--json"),
        ("info", "alone", "--json"),
    ):
        code, out, err = say(*words)
        assert code == 0, (words, err)
        assert json.loads(out)["run"] in ("alone", str(home / "alone"))
    rows = {row["run"]: row for row in json.loads(say("runs", "--json")[1])["runs"]}
    assert rows["alone"]["weights_alone"]
    assert not rows["whole"]["weights_alone"]
    assert say("info", "alone")[0] == 0
    assert say("rm", "alone", "--yes")[0] == 0
    assert not (home / "alone").exists()


@pytest.mark.parametrize("name", ["page.html", "model.onnx", "weights.SAFETENSORS", "a.json"])
def test_a_folder_that_ends_like_a_file_is_refused(name: str, trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="ends as a file does"):
        export.weights(trained(steps=1), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_taken_is_refused(trained: TrainedRun, tmp_path: Path) -> None:
    run = trained(steps=1)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    for taken in (tmp_path / "taken", tmp_path / "taken" / "note.txt", run.path):
        with pytest.raises(CharRNNError, match="exists already"):
            export.weights(run, taken)
    assert contents(tmp_path / "taken") == {"note.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert export.weights(run, tmp_path / "empty").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": {"best": {"name": "../model-00000012.safetensors", "sha256": "0" * 64}}},
        {"step": "12"},
        {"parameters": None},
        {"format": 2},
        {"format": 4},
        {"result": {"val_nats": []}},
    ],
)
def test_a_changed_run_json_of_weights_alone_is_damage(
    change: dict[str, Any], trained: TrainedRun, tmp_path: Path
) -> None:
    alone = export.weights(trained(), tmp_path / "alone")
    about = json.loads((alone.path / "run.json").read_text())
    assert about["format"] == run_json.WEIGHTS_FORMAT
    (alone.path / "run.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(CharRNNError, match=r"damaged|has format 4"):
        api.load(alone.path)


def test_a_run_that_was_interrupted_gives_its_weights_and_is_not_the_one_to_resume(
    trained: TrainedRun, tmp_path: Path, home: Path
) -> None:
    calls = iter(range(100))
    settings = trained("whole").config().as_settings()
    cut = Run(tmp_path / "cut")
    list(loop.new_run(settings.replace(steps=12), cut, stop=lambda: next(calls) >= 6))
    alone = export.weights(cut, home / "alone")
    assert alone.about()["result"] is None
    with pytest.raises(CharRNNError, match="was interrupted"):
        runs.newest_interrupted()
