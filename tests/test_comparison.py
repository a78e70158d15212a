"""Comparisons: fair sizes and trials, figures that repeat, grids that go on and grow, runs that are ordinary ones."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL

from charrnn import api, cells
from charrnn.compare import comparison, decisions, outcome, pictures, presets, remaining, statistics
from charrnn.compare.grid import Entry, Folder, Grid, different, matching_hidden, parameters
from charrnn.errors import CharRNNError
from charrnn.model import evaluation
from charrnn.text.corpus import encode, learn_tokenizer, open_text
from charrnn.training import loop, runs, sizing
from charrnn.training.settings import Settings

TINY = {key: value for key, value in SMALL.items() if key not in ("steps", "validate_every")}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)  # tests/test_report.py looks at those


def grid(corpus: str, **changes: Any) -> Grid:
    settings: dict[str, Any] = {"match": "parameters", "seeds": 2, "lr_trials": 2, "budget": None, "steps": 10}
    return Grid(config=Settings(corpus=(corpus,), direct=0, **TINY), prime="Re", **{**settings, **changes})


def compared(asked: Grid, models: Sequence[Any], path: Path, **options: Any) -> comparison.Compared:
    last = list(comparison.compare(asked, models, Folder(path), **options))[-1]
    assert isinstance(last, comparison.Compared)
    return last


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what is measured with a clock."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "chars_per_s")} for row in result["cells"]]
    return {**result, "cells": rows}


# Fairness


@pytest.mark.parametrize("target", [9_000, 100_000, 1_000_000])
@pytest.mark.parametrize("name", cells.names())
def test_no_other_width_comes_nearer_to_the_parameters_asked_for(corpus: str, name: str, target: int) -> None:
    config = Settings(corpus=(corpus,), cell=name, embedding=16, layers=1)
    tokenizer = learn_tokenizer(open_text(config), config.tokenizer, config.split)
    width = matching_hidden(config, tokenizer, target)
    misses = [abs(parameters(config, tokenizer, width + d) - target) for d in (-1, 0, 1) if width + d > 0]
    assert min(misses) == abs(parameters(config, tokenizer, width) - target)


def test_the_parameters_counted_are_those_of_the_run(corpus: str, tmp_path: Path) -> None:
    done = compared(grid(corpus, seeds=1, lr_trials=1, target=8000), ["lstm", "nn.RNN"], tmp_path / "c")
    for entry in done.grid.entries:
        run = done.folder.run(done.grid, entry, 0)
        assert sum(w.size for w in run.weights().values()) == entry.parameters
        assert entry.parameters == pytest.approx(8000, rel=0.03)


def test_every_cell_has_the_same_trials_and_the_test_part_is_scored_once_a_run(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    original = evaluation.side_by_side_costs

    def counting(model: Any, texts: Any) -> Any:
        scored.extend(len(ids) for ids, _ in texts)
        return original(model, texts)

    monkeypatch.setattr(evaluation, "side_by_side_costs", counting)
    done = compared(grid(corpus), ["simple", "gru"], tmp_path / "c")
    assert scored.count(len(done.corpus.parts["test"])) == 2 * 2  # cells by seeds; validation has another length
    for entry in done.grid.entries:
        trials = decisions.tried(done.grid, done.folder, entry)
        assert [lr for lr, _ in trials] == [done.grid.config.lr, 2 * done.grid.config.lr]
        for lr, _ in trials:
            run = done.folder.trial(entry, lr)
            assert run.about()["result"] is None
            assert run.about()["step"] == entry.trial_steps == 3
        assert len(list(done.folder.trials(entry).iterdir())) == 2
        best = min(trials, key=lambda trial: done.folder.trial(entry, trial[0]).about()["best_val_nats"])[0]
        assert entry.lr == pytest.approx(best * 3**-0.41, rel=0.01)  # of a run three times as long


@pytest.mark.parametrize(
    ("best", "rates"),
    [
        (4.0, [1, 2, 4, 8, 5.66]),  # above 4, for 8 costs less than 2
        (0.4, [1, 2, 0.5, 0.25, 0.354]),
        (1.0, [1, 2, 0.5, 1.41, 1.19]),
        (100, [1, 2, 4, 8, 16]),  # not reached: the last is an outermost one
    ],
)
def test_the_search_for_a_rate_ends_with_the_best_between_others(best: float, rates: list[float]) -> None:
    trials: decisions.Trials = ()
    while len(trials) < len(rates):
        lr = decisions.next_rate(1, trials)
        trials = (*trials, (lr, abs(np.log(lr / best) - 0.01)))
    assert [lr for lr, _ in trials] == rates


def test_the_search_for_a_rate_leaves_what_diverges_below() -> None:
    assert decisions.next_rate(1, ((1, None),)) == 0.5
    assert decisions.next_rate(1, ((1, None), (0.5, None))) == 0.25
    assert decisions.next_rate(1, ((1, 2.0), (2, None))) == 0.5
    assert decisions.next_rate(1, ((1, 2.0), (2, None), (0.5, 2.1))) == 0.707


def test_the_best_rate_is_where_a_parabola_is_lowest(corpus: str) -> None:
    def best(*trials: tuple[float, float | None]) -> float:
        return decisions.best_rate(grid(corpus, lr_trials=5), trials)

    def cost(lr: float) -> float:
        return 1.5 + 0.1 * np.log(lr / 0.0123) ** 2

    assert best(*((lr, cost(lr)) for lr in (0.01, 0.02, 0.005, 0.014, 0.012))) == 0.0123
    assert best(*((lr, cost(lr)) for lr in (0.002, 0.004, 0.008))) == 0.008  # not reached
    assert best((0.01, 1.5), (0.02, None), (0.005, 1.6)) == 0.01
    assert best((0.01, 1.5), (0.02, 1.5), (0.005, 1.5)) == 0.005
    assert best((0.01, None), (0.005, None)) == 0.005
    assert best((0.01, 1.5), (0.01, 1.5), (0.02, 1.6), (0.005, 1.6)) == 0.01  # a long search comes back to a rate


def test_runs_of_a_grid_are_ordinary_runs_whose_losses_are_their_score(corpus: str, tmp_path: Path) -> None:
    done = compared(grid(corpus, lr_trials=1), ["nn.GRU"], tmp_path / "c")
    (entry,) = done.grid.entries
    bits = []
    for seed in range(2):
        run = runs.find_run(str(done.folder.run(done.grid, entry, seed).path))
        bits.append(run.about()["result"]["test_bits_per_char"])
        assert run.losses()["test"].mean() / np.log(2) == pytest.approx(bits[-1], rel=1e-6)
    (row,) = done.result["cells"]
    assert row["bits_per_char"] == pytest.approx(np.mean(bits), rel=1e-6)
    assert row["low"] < row["bits_per_char"] < row["high"]
    assert row["sd"] == pytest.approx(np.std(bits, ddof=1), rel=0.02)  # of blocks that may differ by a character


def test_with_equal_time_a_faster_cell_takes_more_steps(corpus: str, tmp_path: Path) -> None:
    def entry(cell: str, seconds: float) -> Any:
        return Entry(cell, 24, 1, 1, "loop", step_seconds=seconds)

    asked = grid(corpus, match="time", budget=6.0, steps=None)
    timed = dataclasses.replace(asked, entries=(entry("simple", 0.01), entry("gru", 0.03)))
    assert [e.trial_steps for e in decisions.with_trial_steps(timed).entries] == [200, 67]
    level = dataclasses.replace(timed, match="parameters")
    assert [e.trial_steps for e in decisions.with_trial_steps(level).entries] == [67, 67]


def test_a_budget_becomes_no_more_passes_than_in_training(corpus: str) -> None:
    asked = grid(corpus, budget=600.0, steps=None)
    config = asked.config.replace(batch=4, window=16)
    text = open_text(config)
    encoded = encode(text, learn_tokenizer(text, "char", config.split), config.split)
    entries = (Entry("simple", 24, 1, 1, "loop", step_seconds=0.01),)
    timed = dataclasses.replace(asked, config=config, entries=entries)
    most = decisions.most_steps(timed, encoded)
    assert most == sizing.most_steps(math.ceil(math.ceil(len(encoded.ids("train")) / 4) / 16)) < 60_000
    assert decisions.lengths(timed, most) == [most]
    assert decisions.lengths(timed, 10 * 60_000) == [60_000]
    assert decisions.most_steps(dataclasses.replace(timed, match="time"), encoded) is None
    assert decisions.most_steps(dataclasses.replace(timed, budget=None, steps=9), encoded) is None


# Going on, growing, repeating


def test_an_interrupted_comparison_goes_on_to_the_same_figures(corpus: str, tmp_path: Path) -> None:
    whole = compared(grid(corpus), ["simple", "gru"], tmp_path / "whole")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % 9 == 0

    for _ in range(40):
        last = list(comparison.compare(grid(corpus), ["simple", "gru"], Folder(tmp_path / "cut"), stop=stop))[-1]
        if isinstance(last, comparison.Compared):
            break
    assert isinstance(last, comparison.Compared)
    assert asked > 40
    assert timeless(last.result) == timeless(whole.result)


def test_a_run_cut_off_before_its_first_checkpoint_is_begun_anew(corpus: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "c")
    for event in comparison.compare(grid(corpus, lr_trials=1), ["simple"], folder):
        if isinstance(event, comparison.Working):
            break
    left = tmp_path / "c/runs/simple-24x1/seed-7"  # by a process that was killed: one that ends by itself tidies up
    left.mkdir(parents=True, exist_ok=True)
    (left / "config.json").write_text("{}")
    assert compared(grid(corpus, lr_trials=1), ["simple"], tmp_path / "c").result["cells"][0]["seeds"] == 2


def test_a_second_comparison_in_the_folder_adds_cells_and_keeps_runs(corpus: str, tmp_path: Path) -> None:
    first = compared(grid(corpus), ["simple"], tmp_path / "c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c/runs").rglob("*.safetensors")}
    both = compared(grid(corpus, seeds=1), ["gru"], tmp_path / "c")
    assert {row["cell"] for row in both.result["cells"]} == {"simple", "gru"}
    assert {row["seeds"] for row in both.result["cells"]} == {2}
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    old = timeless(first.result)["cells"][0]
    assert old in timeless(both.result)["cells"]


def test_a_folder_with_other_settings_is_refused(corpus: str, tmp_path: Path) -> None:
    compared(grid(corpus, seeds=1, lr_trials=1), ["simple"], tmp_path / "c")
    with pytest.raises(CharRNNError, match="another steps"):
        compared(grid(corpus, seeds=1, lr_trials=1, steps=11), ["simple"], tmp_path / "c")
    other = dataclasses.replace(grid(corpus, lr_trials=1), config=Settings(corpus=(corpus,), **{**TINY, "batch": 5}))
    with pytest.raises(CharRNNError, match="another batch"):
        compared(other, ["simple"], tmp_path / "c")


@pytest.mark.slow
def test_a_comparison_timed_once_repeats_with_the_same_figures(corpus: str, tmp_path: Path) -> None:
    done = compared(grid(corpus, budget=1.0, steps=None, seeds=1), ["simple", "nn.GRU"], tmp_path / "c")
    assert len({entry.steps for entry in done.grid.entries}) == 1
    stored = json.loads((tmp_path / "c" / "comparison.json").read_text())
    again = Grid.of(stored["grid"], "comparison.json").forget_results()
    repeated = compared(again, [], tmp_path / "d")
    assert timeless(repeated.result) == timeless(done.result)


@pytest.mark.slow
def test_a_repetition_in_a_folder_of_another_comparison_is_refused_and_of_its_own_grows(
    corpus: str, tmp_path: Path
) -> None:
    def stored(path: Path) -> Grid:
        return Grid.of(json.loads((path / "comparison.json").read_text())["grid"], "").forget_results()

    done = compared(grid(corpus, seeds=1), ["simple"], tmp_path / "a")
    one = stored(tmp_path / "a")
    assert timeless(compared(one, [], tmp_path / "again").result) == timeless(done.result)
    done = compared(grid(corpus, seeds=1), ["gru"], tmp_path / "a")  # the first one has grown
    assert timeless(compared(stored(tmp_path / "a"), [], tmp_path / "again").result) == timeless(done.result)
    with pytest.raises(CharRNNError, match="the cell 'gru' too"):
        compared(one, [], tmp_path / "again")
    compared(grid(corpus, seeds=2), ["gru"], tmp_path / "a")
    both = stored(tmp_path / "a")
    shorter = both.with_entry(0, trial_steps=1)
    with pytest.raises(CharRNNError, match="another length or engine of 'simple'"):
        compared(shorter, [], tmp_path / "again")
    other = dataclasses.replace(both, config=both.config.replace(threads=2))
    with pytest.raises(CharRNNError, match="other settings"):
        compared(other, [], tmp_path / "again")
    compared(both, [], tmp_path / "again")
    with pytest.raises(CharRNNError, match="more seeds"):
        compared(dataclasses.replace(both, seeds=1), [], tmp_path / "again")


@pytest.mark.slow
def test_side_by_side_gives_the_figures_of_one_after_the_other(corpus: str, tmp_path: Path) -> None:
    alone = dataclasses.replace(grid(corpus), config=grid(corpus).config.replace(threads=1))
    one = compared(alone, ["simple", "gru"], tmp_path / "one")
    two = compared(alone, ["simple", "gru"], tmp_path / "two", jobs=2)
    assert timeless(one.result) == timeless(two.result)


@pytest.mark.slow
def test_a_process_side_by_side_that_dies_is_told_with_what_to_do(corpus: str, tmp_path: Path) -> None:
    """Each process begins this script again, and dies of that, since it lacks the line that the hint names."""
    script = tmp_path / "script.py"
    call = f"{corpus!r}, cells=['simple', 'gru'], jobs=2, steps=4, seeds=1, lr_trials=1, hidden=8, progress=False"
    script.write_text(f"import charrnn\ncharrnn.compare_cells({call}, out={str(tmp_path / 'c')!r})\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert "CharRNNError: a process that trained runs beside others died" in done.stderr
    assert "__name__ == '__main__'" in done.stderr


def test_equal_time_and_jobs_do_not_go_together(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(CharRNNError, match="slow each other down"):
        compared(grid(corpus, match="time", budget=2.0, steps=None), ["simple"], tmp_path / "c", jobs=2)


# Figures


def test_a_diverged_run_is_counted_and_costs_as_much_as_a_blank_model(corpus: str, tmp_path: Path) -> None:
    asked = dataclasses.replace(
        grid(corpus, lr_trials=1), config=Settings(corpus=(corpus,), **{**TINY, "lr": 1e30, "clip": 0, "warmup": 0})
    )
    done = compared(asked, ["nn.RNN"], tmp_path / "c")
    (row,) = done.result["cells"]
    assert row["diverged"] == 2
    ids, tokenizer = done.corpus.parts["test"], done.corpus.tokenizer
    assert row["bits_per_char"] == pytest.approx(np.log2(tokenizer.size) * len(ids) / tokenizer.characters_in(ids))


def test_a_model_that_cannot_complete_says_why(corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise CharRNNError("the model's logits are not finite")

    monkeypatch.setattr(api.TextModel, "completion", refuse)
    done = compared(grid(corpus, lr_trials=1, seeds=1), ["simple"], tmp_path / "c")
    completed = list(outcome.completions(done.grid, done.folder, "Re", 20))
    assert completed == [("simple", " [the model's logits are not finite]")]


def test_what_is_left_is_the_steps_that_are_left(corpus: str, tmp_path: Path) -> None:
    entry, folder = Entry("simple", 8, 1, 100, "loop", step_seconds=0.5, trial_steps=20), Folder(tmp_path)
    asked = grid(corpus, entries=(entry,))
    runs = 2 * 20 / decisions.TRIAL_SHARE
    assert remaining.seconds(asked, folder, (), {}) == 0.5 * (2 * 20 + runs)
    tried, trying = (folder.trial(entry, lr).path for lr in (0.1, 0.2))
    assert remaining.seconds(asked, folder, {tried}, {tried: 20, trying: 5}) == 0.5 * (15 + runs)
    decided = asked.with_entry(0, lr=0.1, steps=100)
    first, second = (folder.run(decided, decided.entries[0], seed).path for seed in (0, 1))
    assert remaining.seconds(decided, folder, {first}, {first: 100, second: 40}) == 0.5 * 60


def test_differences_are_paired_and_ties_are_called_ties() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(2, 0.5, (1, 40))  # the same text for all: what it costs cancels in a difference
    blocks = {
        "a": hard + rng.normal(0, 0.01, (3, 40)),
        "b": hard + 0.1 + rng.normal(0, 0.01, (3, 40)),
        "c": hard + rng.normal(0, 0.01, (3, 40)),
    }
    scores = {label: outcome.Scores(table, 0) for label, table in blocks.items()}
    differences = outcome.differences(["a", "b", "c"], scores, blocks)
    assert [(d["a"], d["b"]) for d in differences] == [("a", "b"), ("a", "c")]
    assert differences[0]["low"] < 0.1 < differences[0]["high"]
    assert differences[0]["high"] - differences[0]["low"] < 0.03
    assert statistics.interval(blocks["a"]).high - statistics.interval(blocks["a"]).low > 0.2
    assert outcome.ties({"differences": differences}) == {"c"}


def test_the_result_has_the_fields_it_promises(corpus: str, tmp_path: Path) -> None:
    done = compared(grid(corpus, lr_trials=1), ["simple", "gru"], tmp_path / "c")
    stored = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert {"corpus", "split", "match", "budget", "cells", "differences", "baselines"} <= stored.keys()
    expected = {"cell", "hidden", "parameters", "seeds", "bits_per_char", "sd", "low", "high", "perplexity"}
    assert expected | {"chars_per_s", "diverged"} <= stored["cells"][0].keys()
    assert {"a", "b", "mean", "low", "high", "p_holm"} <= stored["differences"][0].keys()
    for row in (*stored["cells"], *stored["baselines"]):
        assert row["perplexity"] == (None if row["bits_per_char"] is None else 2 ** row["bits_per_char"])
    assert stored["cells"][0]["bits_per_char"] <= stored["cells"][1]["bits_per_char"]
    assert {k: v for k, v in stored.items() if k != "grid"} == json.loads(json.dumps(done.result))
    assert (tmp_path / "c" / "comparison.csv").read_text().count("\n") == 3


def test_the_preset_is_the_papers_grid(corpus: str) -> None:
    asked, models = presets.karpathy2015(Settings(corpus=(corpus,)), fraction=0.1)
    assert len(models) == 3 * 3 * 4
    config = asked.config
    assert (config.batch, config.window, config.optimizer, config.lr) == (100, 100, "rmsprop", 2e-3)
    assert (config.clip, config.clip_by, config.uniform, config.one_hot) == (5.0, "value", 0.08, True)
    assert config.decay**5 == pytest.approx(0.95**50)  # a tenth of the epochs, as much decay
    full, _ = presets.karpathy2015(Settings(corpus=(corpus,)))
    assert full.steps is not None
    assert asked.steps == pytest.approx(full.steps / 10, abs=1)
    _, narrow = presets.karpathy2015(Settings(corpus=(corpus,)), widest=128)
    assert narrow == [model for model in models if model[1] in (64, 128)]


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 0},
        {"lr_trials": 0},
        {"match": "width"},
        {"match": "time"},
        {"budget": 3.0},
        {"match": "hidden", "target": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(corpus: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CharRNNError):
        grid(corpus, **changes)


def test_a_comparison_needs_parts_to_choose_and_to_score_by(corpus: str) -> None:
    with pytest.raises(CharRNNError, match="one of them is empty"):
        dataclasses.replace(grid(corpus), config=Settings(corpus=(corpus,), split=(0.9, 0.1, 0.0)))


def test_training_keeps_no_losses_without_a_test_part(trained: Any) -> None:
    run = trained(split=(0.9, 0.1, 0.0))
    assert run.losses() == {}
    for _ in loop.resume(run, steps=20):
        pass
    assert [path.name for path in run.path.glob("losses-*")] == ["losses-00000020.safetensors"]


def test_a_comparison_goes_on_whatever_was_decided_while_running(corpus: str) -> None:
    asked = grid(corpus)
    decided = asked.config.replace(measured_us={"native float32": 5}, threads=1, fingerprint="0", plan=((0, 3, 1),))
    assert different(dataclasses.replace(asked, config=decided), asked) is None
    other = dataclasses.replace(asked, config=asked.config.replace(lr=0.5))
    assert different(asked, other) == "lr"


# One process at a time, and nothing outside its folder


def test_a_second_comparison_in_one_folder_names_the_first_and_removes_nothing(corpus: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "c")
    first = comparison.compare(grid(corpus, seeds=1, lr_trials=1), ["simple"], folder)
    for event in first:
        if isinstance(event, comparison.Working):
            break
    before = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*"))
    with pytest.raises(CharRNNError, match="in use by process"):
        next(comparison.compare(grid(corpus, seeds=1, lr_trials=1), ["simple"], folder))
    assert before == sorted(path.relative_to(folder.path) for path in folder.path.rglob("*"))
    assert isinstance(list(first)[-1], comparison.Compared)


@pytest.mark.parametrize(
    "changes", [{"cell": "../../x"}, {"hidden": "../x"}, {"lr": "/x"}, {"trial_steps": True}, {"step_seconds": None}]
)
def test_a_grid_names_no_folder_but_its_own(changes: dict[str, Any], corpus: str, tmp_path: Path) -> None:
    done = compared(grid(corpus, seeds=1, lr_trials=1), ["simple"], tmp_path / "c")
    values = json.loads((done.folder.path / "grid.json").read_text())
    values["entries"][0] |= changes
    (done.folder.path / "grid.json").write_text(json.dumps(values))
    with pytest.raises(CharRNNError, match="no model of a comparison"):
        done.folder.grid()


def test_a_trial_that_diverged_is_done_and_counts_as_that(corpus: str, tmp_path: Path) -> None:
    wild = {**TINY, "lr": 1e30, "clip": 0, "warmup": 0, "schedule": "constant", "validate_every": 2}
    asked = Grid(
        config=Settings(corpus=(corpus,), **wild), match="hidden", seeds=1, lr_trials=2, budget=None, steps=6, prime="R"
    )
    done = compared(asked, ["simple"], tmp_path / "c")
    tried = decisions.tried(done.grid, done.folder, done.grid.entries[0])
    assert [nats for _, nats in tried] == [None, None]
    assert done.result["cells"][0]["diverged"] == 1
    assert math.isfinite(done.result["cells"][0]["bits_per_char"])
