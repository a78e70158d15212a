"""The head's bias starts at how often each character comes: letters that no text had are unlikely at once."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import config, decided

import charrnn
from charrnn.model.architecture import log_shares
from charrnn.text.corpus import prepare
from charrnn.training.config import Config
from charrnn.training.resolve import resolve
from charrnn.training.run import Run
from charrnn.training.speed import Machine
from charrnn.training.start import initial_weights

TrainedRun = Callable[..., Run]


def resolved(corpus: str, **changes: Any) -> tuple[Config, Any]:
    asked = config(corpus, **changes)
    prepared = prepare(asked)
    return resolve(asked, prepared, Machine(asked, prepared)), prepared


def test_the_bias_is_the_log_of_each_share(corpus: str) -> None:
    decision, prepared = resolved(corpus, bias_smoothing=2.0)
    ids, V = prepared.ids("train"), prepared.tokenizer.size
    expected = [np.log((int((ids == id_).sum()) + 2) / (len(ids) + 2 * V)) for id_ in range(V)]
    np.testing.assert_allclose(initial_weights(decision, prepared)["head.b"], expected, rtol=1e-6)
    assert np.exp(log_shares(prepared.counts("train"), 2.0)).sum() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [5e-324, 1e-320, 1e300])
def test_any_smoothing_gives_every_id_a_share(smoothing: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        logs = log_shares(np.array([0, 3, 1000]), smoothing)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) >= 0).all()


def test_nothing_else_starts_otherwise(corpus: str) -> None:
    decision, prepared = resolved(corpus)
    weights = initial_weights(decision, prepared)
    zero = initial_weights(decision.replace(bias_smoothing=0.0), prepared)
    assert not zero["head.b"].any()
    for name in weights.keys() - {"head.b"}:
        np.testing.assert_array_equal(weights[name], zero[name])


def test_it_is_decided_once_and_off_where_every_weight_is_uniform(corpus: str) -> None:
    assert resolved(corpus)[0].bias_smoothing > 0
    assert resolved(corpus, uniform=0.08)[0].bias_smoothing == 0
    assert resolved(corpus, uniform=0.08, bias_smoothing=1.0)[0].bias_smoothing == 1


@pytest.mark.parametrize("format_", [1, 2])
def test_older_configurations_start_at_zero_as_they_did(format_: int) -> None:
    values = json.loads(decided(steps=9).to_json())
    del values["bias_smoothing"]
    assert Config.from_json(json.dumps({**values, "format": format_}), "old").bias_smoothing == 0


def test_letters_that_no_text_had_are_not_drawn_after_a_few_steps(corpus: str) -> None:
    settings = {"steps": 5, "hidden": 16, "device": "cpu", "precision": "float32"}
    model = charrnn.train(corpus, **settings)
    seen = set(prepare(model.config, private=True).ids("train").tolist())
    logits, _ = model.decoder().step(np.array([model.tokenizer.size]), model.decoder().start())
    p = np.exp(logits[0].astype(np.float64))
    p /= p.sum()
    never = [id_ for id_ in range(model.tokenizer.size) if id_ not in seen]
    assert len(never) > 100
    model_at_zero = charrnn.train(corpus, bias_smoothing=0.0, **settings)
    logits, _ = model_at_zero.decoder().step(np.array([model.tokenizer.size]), model_at_zero.decoder().start())
    q = np.exp(logits[0].astype(np.float64))
    assert p[never].sum() < 0.05 < (q / q.sum())[never].sum()
