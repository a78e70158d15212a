"""Ids that the training part does not have: what the head says of them stays, and training works without them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config, decided

import charrnn
from charrnn.errors import OptionError
from charrnn.model.architecture import log_shares
from charrnn.model.rnn import Seen
from charrnn.text.corpus import prepare
from charrnn.training import loop
from charrnn.training.config import Config
from charrnn.training.pretrained import Pretrained
from charrnn.training.resolve import resolve
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.trainer import Trainer

TrainedRun = Callable[..., Run]


def trainer(corpus: str, **changes: Any) -> Trainer:
    asked = config(corpus, **changes)
    prepared = prepare(asked)
    return Trainer(resolve(asked, prepared, Machine(asked, prepared)), prepared)


OTHER_MODELS = [{}, {"layers": 2}, {"one_hot": True, "embedding": None}, {"cell": "lstm", "engine": "native"}]


@pytest.mark.parametrize("settings", OTHER_MODELS)
def test_a_step_is_that_of_all_ids(corpus: str, settings: dict[str, Any]) -> None:
    few, all_ids = (trainer(corpus, direct=0, **settings) for _ in range(2))
    assert few.seen is not None
    assert len(few.seen.ids) < 100 < few.architecture.vocabulary
    all_ids.seen = None
    losses = [float(each.update()) for each in (few, all_ids)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    known = set(few.seen.ids.tolist())
    for name, weight in few.model.weights.items():
        other = all_ids.model.weights[name].grad
        assert weight.grad is not None
        assert other is not None
        a, b = weight.grad.numpy(), other.numpy()
        if name.startswith("head"):  # of the others it has none
            a, b = (x[..., sorted(known)] for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_never_came_is_said_to_be_as_likely_as_at_first(corpus: str, trained: TrainedRun) -> None:
    run = trained(steps=30)
    assert run.config().unseen == "fixed"
    prepared = prepare(run.config(), run.tokenizer(), private=True)
    never = prepared.counts("train") == 0
    assert never.sum() > 100
    weights = run.weights("last")
    assert not weights["head.W"][:, never].any()
    assert (weights["head.W"][:, ~never] != 0).any(axis=0).all()
    start = log_shares(prepared.counts("train"), run.config().bias_smoothing).astype(np.float32)
    np.testing.assert_array_equal(weights["head.b"][never], start[never])
    assert (weights["head.b"][~never] != start[~never]).all()


def test_learned_ids_are_all_learned(corpus: str) -> None:
    learning = trainer(corpus, unseen="learned")
    assert learning.seen is None
    before = learning.model.weights["head.b"].detach().clone()
    learning.update()
    assert bool((learning.model.weights["head.b"] != before).all())


def test_what_cannot_stay_is_learned(corpus: str) -> None:
    def decision(**changes: Any) -> Config:
        return trainer(corpus, **changes).config

    assert decision().unseen == "fixed"
    assert decision(uniform=0.08).unseen == "learned"  # its bias starts at zero, and all ids alike
    assert decision(bias_smoothing=0.0).unseen == "learned"
    assert decision(uniform=0.08, bias_smoothing=1.0).unseen == "fixed"
    tied = {"tie": True, "embedding": None}
    assert decision(**tied).unseen == "learned"
    with pytest.raises(OptionError, match="tied weights learn") as refused:
        Settings(tie=True, unseen="fixed")  # as a configuration says that is given and --tie with it
    assert refused.value.hint == "let unseen be learned, or leave out tie"


@pytest.mark.parametrize("format_", [1, 2, 3, 4])
def test_runs_of_older_formats_go_on_learning_all(format_: int) -> None:
    values = {**json.loads(decided(steps=9).to_json()), "format": format_}
    del values["unseen"]
    assert Config.from_json(json.dumps(values), "old").unseen == "learned"


def test_ids_that_the_first_text_had_go_on_learning_in_a_second_one(trained: TrainedRun, tmp_path: Path) -> None:
    base = trained(steps=5)
    text = tmp_path / "other.txt"
    text.write_text("abcd " * 300, encoding="utf-8")
    pretrained = Pretrained.of(base)
    settings = pretrained.settings({"corpus": (str(text),), "steps": 3, "validate_every": 1})
    list(loop.new_run(settings, Run(tmp_path / "second"), pretrained=pretrained))
    run = Run(tmp_path / "second")
    assert run.config().unseen == "fixed"
    known = (base.weights("best")["head.W"] != 0).any(axis=0).sum()
    assert (run.weights("last")["head.W"] != 0).any(axis=0).sum() == known > 10


def test_a_run_cut_off_goes_on_with_the_same_ids(trained: TrainedRun, corpus: str, tmp_path: Path) -> None:
    whole = trained("whole", steps=6, validate_every=2)
    calls = iter(range(100))
    asked = config(corpus, steps=6, validate_every=2)
    list(loop.new_run(asked, Run(tmp_path / "cut"), stop=lambda: next(calls) >= 2))
    list(loop.resume(Run(tmp_path / "cut")))
    for name, value in whole.weights("last").items():
        np.testing.assert_array_equal(value, Run(tmp_path / "cut").weights("last")[name], err_msg=name)


def test_places_among_the_seen() -> None:
    seen = Seen.among(torch.tensor([False, True, True, False]), slice(2, 4))
    assert seen.ids.tolist() == [1, 2]
    assert seen.others.tolist() == [0, 3]
    assert seen.place.tolist() == [2, 0, 1, 2, 2]


def test_a_character_that_never_came_is_completed_and_scored(corpus: str) -> None:
    model = charrnn.train(corpus, steps=5, hidden=16, device="cpu", precision="float32")
    costs = model.score("漢").per_char
    assert np.isfinite(costs).all()
    assert costs[0] > 10
    assert model.complete("漢", chars=5, seed=1)
