"""Runs on disk: whole or absent, verified, safetensors and JSON alone; configurations that refuse what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import decided
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from charrnn import api
from charrnn.errors import CharRNNError
from charrnn.knobs import parse_seconds
from charrnn.training import loop, runs
from charrnn.training.config import Config
from charrnn.training.run import Run
from charrnn.training.settings import Plan, Settings

TrainedRun = Callable[..., Run]


def test_a_run_holds_safetensors_and_json_and_nothing_else(trained: TrainedRun) -> None:
    run = trained()
    names = {path.name for path in run.path.iterdir()}
    assert {"run.json", "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl"} < names
    assert (run.path / ".lock").read_bytes() == b""
    for name in names - {"metrics.jsonl", "timings.jsonl", ".lock"}:
        if name.endswith(".json"):
            json.loads((run.path / name).read_text())
        else:
            with safe_open(run.path / name, "numpy") as tensors:
                assert tensors.keys()
    about = run.about()
    entries = [*about["files"].values(), *about["before"]["files"].values()]
    assert {entry["name"] for entry in entries} == {n for n in names if n.endswith(".safetensors")}


def test_a_save_that_dies_at_any_write_leaves_the_run_whole(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained()
    weights, training_state, about = run.weights("last"), run.training_state(), run.about()
    for survive in range(3):
        writes = iter(range(10))

        def replace(a: Any, b: Any, survive: int = survive, writes: Any = writes, real: Any = os.replace) -> None:
            if next(writes) == survive:
                raise OSError("the disk is full")
            real(a, b)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="full"):
            run.save(99 + survive, weights, training_state, True, {"result": None})
        monkeypatch.undo()
        assert run.about() == about
        api.load(Run(run.path))


@pytest.mark.parametrize("which", ["best", "training"])
def test_damage_is_noticed(which: str, trained: TrainedRun) -> None:
    run = trained()
    path = run.path / run.about()["files"][which]["name"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CharRNNError, match="damaged"):
        run.weights(which)


def test_weights_of_another_shape_are_refused(trained: TrainedRun) -> None:
    run = trained()
    values = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**values, "hidden": 25}))
    with pytest.raises(CharRNNError, match="the configuration asks for"):
        api.load(run)


def test_runs_are_found_by_name_path_and_age(trained: TrainedRun, home: Path) -> None:
    first, second = trained("first", steps=1), trained("second", steps=1)
    os.utime(first.path / "run.json", (1, 1))
    assert [run.name for run in runs.runs()] == ["second", "first"]
    assert runs.find_run().name == "second"
    assert runs.find_run("first") == first
    assert runs.find_run(str(second.path)) == second
    with pytest.raises(CharRNNError, match="did you mean 'first'"):
        runs.find_run("frist")


def test_no_run_yet_is_said_with_what_to_do() -> None:
    with pytest.raises(CharRNNError, match="train one"):
        runs.find_run(own=True)


def test_a_taken_name_is_refused_and_nothing_in_it_is_touched(trained: TrainedRun, corpus: str) -> None:
    run = trained("taken", steps=1)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(CharRNNError, match="exists already"):
        trained("taken", steps=1)
    assert before == {path.name: path.read_bytes() for path in run.path.iterdir()}


def test_a_taken_name_is_refused_before_the_text_is_read(trained: TrainedRun) -> None:
    run = trained("taken", steps=2)
    with pytest.raises(CharRNNError, match="exists already"):
        list(loop.new_run(Settings(corpus=("no-such-text.txt",)), run))


def test_what_was_cut_off_before_its_first_checkpoint_can_be_begun_again_or_deleted(
    trained: TrainedRun, home: Path
) -> None:
    run = trained("taken", steps=2)
    with pytest.raises(CharRNNError, match="--resume"):
        run.refuse_taken()
    (run.path / "run.json").unlink()
    with pytest.raises(CharRNNError, match=r"begin it again: .*train --resume taken, or delete it: .*rm taken"):
        run.refuse_taken()


@pytest.mark.parametrize("name", ["", "..", "a/b", "latest"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(CharRNNError, match="name of a run"):
        loop.open_run(Settings(), name)


@given(
    st.builds(
        decided,
        hidden=st.integers(1, 10**6),
        dropout=st.floats(0, 0.95),
        corpus=st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple),
        clip=st.none() | st.floats(1e-9, 100),
        cell_options=st.dictionaries(st.text(max_size=5), st.integers(1, 9), max_size=2),
        seed=st.integers(0, 2**63 - 1),
        plan=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=3).map(tuple),
    )
)
def test_a_configuration_survives_json(config: Config) -> None:
    try:
        text = config.to_json().encode().decode()
    except UnicodeEncodeError:
        return  # a lone surrogate cannot be written; no path or name holds one
    assert Config.from_json(text, "config.json") == config


def test_a_configuration_of_format_1_is_read_with_its_validations_in_the_plan() -> None:
    values = {**json.loads(decided(steps=9).to_json()), "format": 1, "plan": [[0, 9], [4, 12]], "validate_every": 3}
    config = Config.from_json(json.dumps(values), "config.json")
    assert config.plan == (Plan(0, 9, 3), Plan(4, 12, 3))
    assert Config.from_json(json.dumps({**values, "plan": []}), "config.json").plan == ()


@pytest.mark.parametrize("name", ["hidden", "lr", "dropout", "threads", "fingerprint"])
def test_a_configuration_leaves_nothing_open(name: str) -> None:
    with pytest.raises(CharRNNError, match=f"{name} is null"):
        decided(**{name: None})


@pytest.mark.parametrize("name", ["device", "precision", "engine"])
def test_a_configuration_says_nothing_but_what_was_decided(name: str) -> None:
    Settings(**{name: "auto"})
    with pytest.raises(CharRNNError, match=f"{name} is 'auto'"):
        decided(**{name: "auto"})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"hidden": 0}, "1 or more"),
        ({"hidden": 1.5}, "whole number"),
        ({"hidden": True}, "whole number"),
        ({"dropout": 1}, "0 to 0.95"),
        ({"lr": float("nan")}, "0 or more"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"split": (0.5, 0.1, 0.1)}, "sum to 1"),
        ({"split": (0.0, 0.5, 0.5)}, "sum to 1"),
        ({"steps": 5, "epochs": 2}, "one of them"),
        ({"budget": "soon"}, "90s, 3m"),
        ({"one_hot": True, "embedding": 5}, "one-hot"),
        ({"tie": True, "embedding": 5, "hidden": 6}, "tied"),
        ({"hiden": 5}, "did you mean 'hidden'"),
    ],
)
def test_a_bad_setting_is_refused_in_words(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(CharRNNError, match=message):
        Settings.of(bad)


def test_a_length_of_time_is_read_as_people_write_it() -> None:
    given = ["90", "90s", "3m", "1h30m", "1m30s", "1m30", "0.5m", 12]
    assert [parse_seconds(text) for text in given] == [90, 90, 180, 5400, 90, 90, 30, 12]
    with pytest.raises(CharRNNError, match="does not say of what it has 30") as refused:  # half an hour, or seconds?
        parse_seconds("1h30")
    assert refused.value.hint == "give 1h30m or 1h30s"


@pytest.mark.parametrize("text", ["not json", "[1]", '{"format": 99}', '{"hiden": 5}', '{"hidden": "x"}'])
def test_a_bad_config_file_is_refused_by_name(text: str) -> None:
    with pytest.raises(CharRNNError):
        Config.from_json(text, "config.json")
