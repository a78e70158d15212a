"""Forecasts: the model and the length that a run of the budget would have, and a cost that falls as it should."""

from pathlib import Path

import pytest
from conftest import CORPUS

from charrnn.errors import CharRNNError
from charrnn.text import ngram
from charrnn.text.corpus import prepare
from charrnn.training import forecast, resolve, sizing
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine


def test_a_forecast_is_of_the_model_that_a_run_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 2e10)
    settings = Settings(corpus=(str(CORPUS),), engine="fused", precision="float32", threads=1)
    corpus = prepare(settings)
    for foreseen in forecast.forecasts(settings, corpus):
        asked = settings.replace(budget=foreseen.budget)
        decided = resolve.resolve(asked, corpus, Machine(asked, corpus))
        assert (foreseen.cell, foreseen.hidden, foreseen.layers) == (decided.cell, decided.hidden, decided.layers)
        assert foreseen.passes == pytest.approx(foreseen.read / corpus.characters("train"), rel=1e-3)
        assert foreseen.passes <= 30


def test_a_short_text_is_read_as_often_as_a_run_of_it_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 1e12)
    (tmp_path / "short.txt").write_text(CORPUS.read_text(encoding="utf-8")[:20_000], "utf-8")
    settings = Settings(corpus=(str(tmp_path / "short.txt"),), engine="fused", precision="float32", threads=1)
    corpus = prepare(settings)
    counted = forecast.counted_nats(corpus)
    for foreseen in forecast.forecasts(settings, corpus, (600.0, 3600.0)):
        asked = settings.replace(budget=foreseen.budget)
        decided = resolve.resolve(asked, corpus, Machine(asked, corpus))
        steps_per_epoch = resolve.steps_per_epoch(decided.as_settings(), corpus)
        steps = sizing.most_steps(steps_per_epoch, decided.weight_dropout > 0)
        assert steps == sizing.LEAST_STEPS
        assert foreseen.passes == pytest.approx(steps / steps_per_epoch)
        thirty = sizing.MOST_WITH_DROPPED_WEIGHTS * corpus.characters("train")
        assert foreseen.nats == pytest.approx(forecast.expected_nats(counted, corpus.characters("train"), thirty))


def test_the_count_is_of_the_validation_part_by_what_the_training_part_has(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = prepare(Settings(corpus=(str(CORPUS),)))
    models = ngram.costs_by_order(corpus.ids("train"), [corpus.ids("val")], corpus.tokenizer.size, 6)
    whole = min(costs.sum() for (costs,) in models) / corpus.characters("val")
    assert forecast.counted_nats(corpus) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(forecast, "SCORED_IDS", 8000)
    assert forecast.counted_nats(corpus) == pytest.approx(whole, rel=0.05)
    monkeypatch.setattr(forecast, "COUNTED_IDS", 20_000)
    assert forecast.counted_nats(corpus) > 1.1 * whole


def test_without_a_validation_part_nothing_can_be_foreseen() -> None:
    with pytest.raises(CharRNNError, match="no val part"):
        forecast.counted_nats(prepare(Settings(corpus=(str(CORPUS),), split=(1.0, 0.0, 0.0))))


def test_more_reading_and_longer_texts_are_expected_to_cost_less() -> None:
    little, more = (forecast.expected_nats(1.5, 1_000_000, read) for read in (1_000_000, 10_000_000))
    longer = forecast.expected_nats(1.5, 10_000_000, 10_000_000)
    assert 1.5 > little > more > longer > 0


def test_a_budget_that_reads_a_short_text_often_enough_gains_nothing_by_being_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 1e12)
    settings = Settings(corpus=(str(CORPUS),))
    nats = {foreseen.nats for foreseen in forecast.forecasts(settings, prepare(settings))}
    assert len(nats) == 1
