"""Learning on from another run: known characters keep their weights, and scores say what was gained and forgotten."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS, SMALL

import charrnn
from charrnn import api, cells
from charrnn.__main__ import main
from charrnn.errors import CharRNNError, OptionError
from charrnn.text.corpus import prepare
from charrnn.text.tokenizer import BYTES
from charrnn.training import export, loop, sizing
from charrnn.training.config import settings_from_json
from charrnn.training.events import Event, Finished, Started
from charrnn.training.pretrained import Pretrained
from charrnn.training.run import Run
from charrnn.training.start import initial_weights

TrainedRun = Callable[..., Run]
# A cell for each kind of input: an embedding, none, one that is the head too, two layers.
SHAPES: list[dict[str, Any]] = [
    {},
    {"one_hot": True, "embedding": None},
    {"tie": True, "embedding": None},
    {"layers": 2, "residual": True, "cell": "gru"},
]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The path of another text, which has letters that no Serbian one has, and capitals."""
    path = tmp_path / "other.txt"
    text = CORPUS.read_text(encoding="utf-8")[9000:12000].upper()
    path.write_text(text.replace(" ", " wxyz ß "), "utf-8")
    return str(path)


def tuned(base: Run, text: str, path: Path, stop: Callable[[], bool] = lambda: False, **settings: Any) -> list[Event]:
    """Learn a text on from a run, into a folder."""
    pretrained = Pretrained.of(base)
    values = {name: value for name, value in SMALL.items() if name not in ("hidden", "embedding")}
    asked = pretrained.settings({**values, "corpus": (text,), **settings})
    return list(loop.new_run(asked, Run(path), stop, pretrained=pretrained))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_known_characters_keep_their_weights_and_new_ones_have_rows(
    shape: dict[str, Any], trained: TrainedRun, other: str, home: Path
) -> None:
    run = trained(steps=2, direct=0, **shape)  # rows of tables have other ids: they begin anew
    pretrained = Pretrained.of(run)
    settings = pretrained.settings({"corpus": (other,), "steps": 1})
    corpus = prepare(settings, known=pretrained.tokenizer.characters)
    new = pretrained.new_characters(corpus.tokenizer)
    assert {"w", "x", "y", "ß", "Ž"} <= set(new)
    assert set(corpus.tokenizer.characters) == set(pretrained.tokenizer.characters) | set(new)
    machine = loop.Machine(settings, corpus)
    decided = loop.resolve.resolve(settings, corpus, machine)
    weights, fresh = pretrained.start(decided, corpus), initial_weights(decided, corpus)
    id_of = {c: i for i, c in enumerate(corpus.tokenizer.characters, BYTES)}
    old_of = {c: i for i, c in enumerate(pretrained.tokenizer.characters, BYTES)}
    inputs = [name for name, value in weights.items() if len(value) == corpus.tokenizer.size + 1]
    assert len(inputs) == 1
    old = pretrained.weights
    for name in inputs:
        for c, i in old_of.items():
            assert np.array_equal(weights[name][id_of[c]], old[name][i]), (name, c)
        assert np.array_equal(weights[name][:BYTES], old[name][:BYTES])
        assert np.array_equal(weights[name][corpus.tokenizer.size], old[name][pretrained.tokenizer.size])  # the start
        for c in new:
            assert np.array_equal(weights[name][id_of[c]], fresh[name][id_of[c]])
    for name in {"head.W", "head.b"} & set(weights):
        for c, i in old_of.items():
            assert np.array_equal(weights[name][..., id_of[c]], old[name][..., i])
        for c in new:
            assert np.array_equal(weights[name][..., id_of[c]], fresh[name][..., id_of[c]])
    for name in set(weights) - {*inputs, "head.W", "head.b"}:
        assert np.array_equal(weights[name], old[name]), name
    # A text of known characters costs what it did, but for what new ones are believed to be.
    known = charrnn.TextModel(decided, corpus.tokenizer, weights)
    text = "rekurentne mreže"
    assert known.score(text).nats > api.load(run).score(text).nats


@pytest.mark.parametrize("cell", cells.names())
def test_every_cell_takes_weights_of_a_smaller_vocabulary(cell: str) -> None:
    """One-hot input is where a cell's own parameters have an axis of ids."""
    from charrnn.model.architecture import Architecture
    from charrnn.training.pretrained import aligned

    small, large = (Architecture(cell, BYTES + n, hidden=6, embedding=None) for n in (3, 5))
    old, fresh = small.initial(1), large.initial(2)
    places = np.array([*range(BYTES), BYTES, BYTES + 2, BYTES + 4, large.start])
    weights = {name: aligned(value, fresh[name], places) for name, value in old.items()}
    large.check(weights)
    ids = np.array([BYTES, BYTES + 1, BYTES + 2, 65])
    outs = []
    for architecture, its, weigh in ((small, ids, old), (large, places[ids], weights)):
        doubles = {name: value.astype(np.float64) for name, value in weigh.items()}
        decoder = api.Decoder(architecture, doubles, "numpy")  # type: ignore[arg-type]
        logits, _ = decoder.step(
            its[1:2], decoder.read(its[:1], decoder.step(np.array([architecture.start]), decoder.start())[1])
        )
        outs.append(logits[0, its])
    assert np.allclose(*outs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tables", [0, 3])
def test_scores_before_and_after_are_of_both_texts(
    tables: int, trained: TrainedRun, other: str, corpus: str, tmp_path: Path
) -> None:
    base = trained(direct=tables)
    events = tuned(base, other, tmp_path / "tuned", steps=30)
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    result, run = finished.result, Run(tmp_path / "tuned")
    assert run.about()["result"] == result
    assert started.before is not None
    assert (result["from"], result["old_text"]) == (base.name, corpus)
    assert result["new_characters"] == len(set(run.tokenizer().characters) - set(base.tokenizer().characters)) > 5
    assert result["val_nats"] < result["val_nats_before"]
    assert result["test_nats"] < result["test_nats_before"]
    model = api.load(run)
    _, old = api.score_run(charrnn.TextModel(base.config(), model.tokenizer, run.weights()), None, "test", "stream")
    assert result["old_nats"] == pytest.approx(old.nats, abs=1e-6)
    lost = result["old_nats_before"] - base.about()["result"]["test_nats"]
    if tables:  # ids moved, and all that tables knew is lost: it is seen in the score after
        assert lost == pytest.approx(0, abs=1e-6)
    else:  # what new characters are believed to be, known ones pay for
        assert 0 < lost < 1
    assert run.config().pretrained == export.weights(base, tmp_path / "alone").about()["files"]["best"]["sha256"]


def test_where_the_old_text_is_gone_that_is_said(
    trained: TrainedRun, other: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = export.weights(trained(), tmp_path / "alone")
    monkeypatch.setenv("CHARRNN_HOME", str(tmp_path / "elsewhere"))
    (*_, finished) = tuned(alone, other, tmp_path / "tuned", steps=2)
    assert isinstance(finished, Finished)
    assert (finished.result["old_text"], finished.result["old_nats"]) == ("", None)
    assert finished.result["val_nats_before"] > 0


def test_of_weights_that_are_all_worse_than_those_it_began_with_the_best_are_kept(
    trained: TrainedRun, corpus: str, tmp_path: Path
) -> None:
    base, run = trained(steps=300, direct=0), Run(tmp_path / "tuned")
    # The rate throws the weights out of where they were, and they come back as it falls.
    *_, last = tuned(base, corpus, run.path, steps=40, lr=0.3, warmup=0, validate_every=5)
    assert isinstance(last, Finished)
    start, *rows = run.rows("metrics.jsonl")
    best = min(rows, key=lambda row: float(row["val_nats"]))
    assert start["val_nats"] < best["val_nats"] < rows[0]["val_nats"]
    assert run.about()["files"]["best"]["name"] == f"model-{best['step']:08d}.safetensors"
    assert run.about()["best_val_nats"] == best["val_nats"]


def test_what_is_worse_than_it_was_but_becomes_better_does_not_stop_early(
    trained: TrainedRun, corpus: str, tmp_path: Path
) -> None:
    base, run = trained(steps=300, direct=0), Run(tmp_path / "tuned")
    *_, last = tuned(base, corpus, run.path, steps=40, lr=0.3, warmup=0, validate_every=5, patience=4)
    assert isinstance(last, Finished)
    start, *rows = run.rows("metrics.jsonl")
    assert rows[-1]["val_nats"] > start["val_nats"]
    assert rows[-1]["step"] == 40


def test_a_run_that_learned_on_resumes_exactly_without_the_other(
    trained: TrainedRun, other: str, tmp_path: Path
) -> None:
    base = trained()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tuned(base, other, whole, dropout=0.2)
    calls = iter(range(100))
    tuned(base, other, parts, stop=lambda: next(calls) >= 5, dropout=0.2)
    assert Run(parts).about()["result"] is None
    base.remove()
    list(loop.resume(Run(parts)))
    for which in ("last", "best"):
        a, b = Run(whole).weights(which), Run(parts).weights(which)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    results = [
        {k: v for k, v in Run(path).about()["result"].items() if k not in ("run", "seconds", "chars_per_s")}
        for path in (whole, parts)
    ]
    assert results[0] == results[1]
    assert results[0]["old_nats"] is not None


def test_its_configuration_with_the_same_weights_repeats_it_and_without_is_refused(
    trained: TrainedRun, other: str, tmp_path: Path
) -> None:
    base = trained()
    tuned(base, other, tmp_path / "first")
    text = (tmp_path / "first" / "config.json").read_text(encoding="utf-8")
    settings = settings_from_json(text, "config.json")
    with pytest.raises(CharRNNError, match="learned on from weights whose SHA-256 is"):
        list(loop.new_run(settings, Run(tmp_path / "without")))
    assert not (tmp_path / "without").exists()
    pretrained = Pretrained.of(export.weights(base, tmp_path / "alone"))
    again = pretrained.settings({name: getattr(settings, name) for name in settings.__dataclass_fields__})
    list(loop.new_run(again, Run(tmp_path / "again"), pretrained=pretrained))
    assert Run(tmp_path / "again").config() == Run(tmp_path / "first").config()
    sha = [Run(tmp_path / name).about()["files"]["last"]["sha256"] for name in ("first", "again")]
    assert sha[0] == sha[1]


def test_what_cannot_be_continued_is_refused_all_at_once(trained: TrainedRun, other: str, tmp_path: Path) -> None:
    pretrained = Pretrained.of(trained(steps=1))
    given = {"corpus": (other,), "cell": "gru", "hidden": 99, "layers": 3, "tokenizer": "byte", "embedding": 7}
    with pytest.raises(OptionError) as refused:
        pretrained.settings({**given, "normalize": "nfc", "tie": True, "one_hot": False} | {"tie": False})
    for said in ("cell is gru, that of run is nn.GRU", "hidden is 99", "layers is 3", "tokenizer is byte", "24", "12"):
        assert said in str(refused.value)
    assert "normalize is nfc" in str(refused.value)
    assert "one_hot" not in str(refused.value)
    same = pretrained.settings({"corpus": (other,), "cell": "nn.GRU", "hidden": 24, "embedding": 12, "lr": 1.0})
    assert (same.hidden, same.lr) == (24, 1.0)
    with pytest.raises(OptionError, match="no text is named"):
        pretrained.settings({"steps": 3})
    with pytest.raises(OptionError, match=r"uniform is 0\.1"):  # nothing would start so
        pretrained.settings({"corpus": (other,), "uniform": 0.1})


def test_the_rate_by_rule_is_lower_than_that_of_a_run_that_begins_anew(trained: TrainedRun, other: str) -> None:
    pretrained = Pretrained.of(trained(steps=1))
    settings = pretrained.settings({"corpus": (other,), "steps": 50})

    def rate(asked: charrnn.Settings) -> float | None:
        return sizing.decide(asked, sizing.Extent(10_000, 259, 259, 20.0), lambda: 1e9).lr

    anew = rate(settings.replace(pretrained=None))
    assert anew is not None
    assert rate(settings) == pytest.approx(sizing.PRETRAINED_SHARE * anew, rel=0.02)
    assert sizing.PRETRAINED_SHARE < 1
    assert rate(settings.replace(lr=0.5)) == 0.5


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


def test_a_configuration_that_says_little_leaves_the_rest_to_the_weights(
    trained: TrainedRun, other: str, say: Any, tmp_path: Path, home: Path
) -> None:
    trained("base", cell="gru")
    (tmp_path / "some.json").write_text(json.dumps({"lr": 0.02, "steps": 2, "batch": 4, "window": 16}), "utf-8")
    code, _, err = say("train", "--from", "base", other, "--config", str(tmp_path / "some.json"), "--name", "tuned")
    assert code == 0, err
    config = Run(home / "tuned").config()
    assert (config.cell, config.hidden, config.lr, config.steps) == ("gru", 24, 0.02, 2)


def test_on_the_command_line_and_from_python(trained: TrainedRun, other: str, say: Any) -> None:
    trained("base")
    steps = ("--steps", "3", "--batch", "4", "--window", "16", "--engine", "loop", "--precision", "float32")
    code, out, err = say("train", "--from", "base", other, *steps, "--name", "tuned")
    assert code == 0, err
    assert "from      base: " in err
    assert "characters it did not know" in err
    assert "nats before" in out
    (line,) = [line for line in out.splitlines() if line.startswith("old text")]
    assert "before: " in line
    assert line.endswith(("forgotten", "gained"))
    code, out, _ = say("train", "--from", "base", other, *steps, "--name", "again", "--json")
    assert json.loads(out.splitlines()[-1])["from"] == "base"
    fixed: Any = {"steps": 3, "batch": 4, "window": 16, "engine": "loop", "precision": "float32"}
    model = api.train(other, from_="base", name="python", **fixed)
    for name in ("again", "python"):
        assert api.load(name).run.about()["files"]["last"] == api.load("tuned").run.about()["files"]["last"]  # type: ignore[union-attr]
    assert model.config == api.load("tuned").config
    code, _, err = say("train", "--from", "base", other, "--cell", "lstm", "--hidden", "5")
    assert (code, "cell is lstm" in err, "hidden is 5" in err) == (2, True, True)
    assert say("train", "--from", "base")[0] == 2
    assert say("train", "--from", "base", "--resume", "tuned")[0] == 2
    assert say("train", "--from", "nothing", other)[0] == 1
    assert say("train", "--resume", "tuned", "--steps", "5")[0] == 0


@pytest.mark.parametrize(
    "change",
    ["text", {}, {"base": 3}, {"old_nats": "1"}, {"old_part": "half"}, {"old_settings": {"corpus": "/etc"}}],
)
def test_what_a_changed_run_json_says_of_the_beginning_is_damage(
    change: Any, trained: TrainedRun, other: str, tmp_path: Path
) -> None:
    calls = iter(range(100))
    tuned(trained(), other, tmp_path / "tuned", stop=lambda: next(calls) >= 3)
    path = tmp_path / "tuned" / "run.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    known = about["before_training"]
    about["before_training"] = {**known, **change} if isinstance(change, dict) and change else change
    path.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(CharRNNError, match="was changed or damaged: before_training"):
        list(loop.resume(Run(tmp_path / "tuned")))
