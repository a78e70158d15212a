"""The rule behind the settings that were left open."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import cells
from charrnn.compiler import cache
from charrnn.model.architecture import Architecture
from charrnn.text.corpus import prepare
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import kept_speeds, resolve, sizing
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine

TOKENIZER = Tokenizer(tuple(" ,.abcdefghijklmnopqrstuvwxyz"))


def decided(
    characters: int = 1_000_000, products_per_s: float = 3e10, learned: int = TOKENIZER.size, **settings: Any
) -> Settings:
    text = sizing.Extent(characters, TOKENIZER.size, learned, 20.0)
    return sizing.decide(Settings(**settings), text, lambda: products_per_s)


@given(st.integers(1, 10**9), st.floats(1e6, 1e15), st.floats(1, 1e6), st.sampled_from(cells.names()), st.booleans())
def test_every_setting_is_decided_whatever_the_text_the_machine_and_the_time(
    characters: int, speed: float, budget: float, cell: str, one_hot: bool
) -> None:
    config = decided(characters, speed, budget=budget, cell=cell, one_hot=one_hot)
    for name in ("hidden", "layers", "batch", "window", "lr", "warmup", "dropout"):
        assert getattr(config, name) is not None, name
    assert decided(characters, speed, budget=budget, cell=cell, one_hot=one_hot) == config


def test_what_was_given_stays() -> None:
    given: dict[str, Any] = {
        "hidden": 77,
        "layers": 3,
        "batch": 5,
        "window": 11,
        "lr": 0.5,
        "dropout": 0.25,
        "warmup": 9,
    }
    config = decided(budget=60.0, **given)
    assert {name: getattr(config, name) for name in given} == given


def test_more_time_a_faster_machine_and_more_text_each_deserve_a_wider_model() -> None:
    def width(**changes: Any) -> int:
        return decided(**{"budget": 180.0, **changes}).hidden

    assert width(budget=20.0) < width() < width(budget=3600.0)
    assert width(products_per_s=3e9) < width() < width(products_per_s=1e12)
    assert width(characters=5_000) < width()
    assert width() < width(learned=30, budget=240.0)  # ids that do not learn cost no time


def test_in_a_budget_that_is_short_for_a_text_a_smaller_model_reads_more_of_it() -> None:
    def width(characters: int, **length: Any) -> int:
        return decided(characters=characters, products_per_s=1.5e11, **length).hidden

    assert width(9_000_000, budget=60.0) < width(9_000_000, budget=180.0) < width(900_000, budget=180.0)
    assert width(900_000, budget=60.0) > width(2_000_000, budget=60.0) > width(9_000_000, budget=60.0)
    assert width(10**9, budget=3600.0) == width(10**8, budget=3600.0)  # neither is read again
    assert width(9_000_000, steps=1000) == width(900_000, steps=1000)  # all models read as much then


def test_steps_decide_without_looking_at_the_machine() -> None:
    assert decided(steps=2000, products_per_s=1.0) == decided(steps=2000, products_per_s=1e15)


def test_a_text_that_is_read_again_and_again_is_trained_with_dropout() -> None:
    shares = [decided(characters=n, budget=180.0).dropout for n in (100_000_000, 500_000, 150_000)]
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[-1]
    weights = [decided(characters=n, budget=180.0).weight_dropout for n in (100_000_000, 500_000, 150_000)]
    assert weights == sorted(weights)
    assert weights[0] == 0 < weights[-1]
    assert decided(characters=150_000, budget=180.0, cell="mingru").weight_dropout == 0


def test_a_short_text_gets_fewer_streams_so_that_an_epoch_has_enough_updates() -> None:
    assert decided(characters=10**6, budget=600.0).batch == 32
    assert decided(characters=10**4, budget=180.0).batch == 8


def test_a_run_of_few_updates_gets_twice_as_many_of_half_the_size() -> None:
    assert decided(budget=600.0, hidden=256).batch == 32
    assert decided(budget=30.0, hidden=256).batch == 16
    assert decided(epochs=1.0, hidden=256).batch == 16
    assert decided(steps=100, hidden=256).batch == 32  # whoever counts updates has counted them
    assert decided(budget=180.0, characters=150_000, hidden=256).batch == 16  # the passes end before the time does
    assert decided(budget=30.0, hidden=256, batch=64).batch == 64


def test_few_steps_like_a_higher_rate_than_many() -> None:
    rates = [decided(steps=steps, hidden=512).lr for steps in (100, 2300, 4600, 46_000)]
    assert rates[0] == rates[1] == sizing.RATE
    assert rates[2] == pytest.approx(sizing.RATE / 2**sizing.RATE_POWER, rel=0.02)
    assert rates[2] > rates[3] > 1e-3
    assert decided(budget=1e6, characters=10**6).lr == decided(budget=2e6, characters=10**6).lr  # as many passes


def test_a_tied_model_is_as_wide_as_the_embedding_that_was_given() -> None:
    assert decided(tie=True, embedding=96, budget=180.0).hidden == 96


def test_what_is_out_of_proportion_is_said() -> None:
    small = Architecture.of(Settings(hidden=16, layers=1), TOKENIZER.size)
    large = Architecture.of(Settings(hidden=1024, layers=1), TOKENIZER.size)
    assert sizing.warnings(small, 1_000_000) == []
    assert "few" in sizing.warnings(small, 1_000)[0]
    assert "--hidden" in sizing.warnings(large, 20_000)[0]
    assert "few" in sizing.warnings(large, 100)[0]


@pytest.mark.parametrize(("length", "steps"), [({"steps": 40}, 4), ({"epochs": 0.5}, 7), ({"steps": 4000}, 50)])
def test_a_short_run_warms_up_over_a_tenth_of_it(length: dict[str, Any], steps: int) -> None:
    assert decided(characters=160_000, **length).warmup == steps


def test_a_budget_never_becomes_more_passes_than_do_any_good() -> None:
    assert sizing.most_steps(100) == 100 * sizing.MOST_EPOCHS
    assert sizing.most_steps(100, drops_weights=True) == 100 * sizing.MOST_WITH_DROPPED_WEIGHTS
    assert sizing.most_steps(3) == sizing.LEAST_STEPS


def test_what_to_expect_was_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    corpus = prepare(Settings())

    def machine(**settings: Any) -> Machine:
        return Machine(Settings(**{"precision": "float32", "hidden": 8, **settings}), corpus)

    figure = machine().expected_products_per_s
    assert figure == kept_speeds.known(*json.loads(kept_speeds.path().read_text(encoding="utf-8")))
    for other in ({"engine": "native"}, {"cell": "lstm"}):
        assert machine(**other).expected_products_per_s != figure
    monkeypatch.setattr(Machine, "products_per_s", 1.0)
    assert machine().expected_products_per_s == figure
    assert machine(hidden=9).expected_products_per_s == 1.0
    kept_speeds.path().write_text("{", encoding="utf-8")  # damaged
    assert machine().expected_products_per_s == 1.0


def test_tables_grow_with_the_text_that_is_read_and_no_further() -> None:
    def rows(characters: int, **changes: Any) -> int:
        return decided(characters, **{"budget": 180.0, **changes}).direct_rows or 0

    assert 0 < rows(1000) < rows(50_000) < rows(500_000)
    assert (
        rows(10**8, budget=2.0) < rows(10**8) < rows(10**8, budget=36_000.0)
    )  # of a text that is hardly begun, or read
    columns = TOKENIZER.size - 256
    assert 60_000_000 < 6 * columns * rows(10**9, budget=10**6) <= 64_000_000


def test_large_alphabets_get_fewer_tables() -> None:
    def orders(columns: int, variety: float) -> int | None:
        text = sizing.Extent(1_000_000, 256 + columns, columns, variety)
        return sizing.decide(Settings(budget=180.0), text, lambda: 3e10).direct

    found = [orders(65, 27.0), orders(300, 24.0), orders(300, 208.0), orders(1000, 550.0), orders(4000, 1308.0)]
    assert found == [6, 6, 4, 2, 2]
    assert orders(20_000, 3000.0) == 0


def test_the_variety_of_a_text_is_of_its_common_characters(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcd" * 250, encoding="utf-8")
    settings = Settings(corpus=(str(text),), bias_smoothing=1.0)
    found = resolve.extent(settings, prepare(settings))
    assert (found.characters, found.vocabulary, found.learned) == (800, 260, 4)
    assert found.variety == pytest.approx(4)
