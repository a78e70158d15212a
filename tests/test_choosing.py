"""How engine, precision and threads are chosen: by scripted times of a stand-in clock, so that no machine decides."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import config

from charrnn.compiler import cache
from charrnn.compiler.processor import Processor
from charrnn.text.corpus import prepare
from charrnn.training import candidates, kept_speeds, resolve, speed
from charrnn.training.candidates import Candidate, compare, fastest, thread_counts
from charrnn.training.config import Config
from charrnn.training.settings import Plan, Settings
from charrnn.training.waiting import Waiting

LOOP, NATIVE = Candidate("loop", "float32", 2), Candidate("native", "float32", 2)
ALONE, BF16 = Candidate("native", "float32", 1), Candidate("native", "bf16", 2)
WINDOW = 64


class Scripted:
    """A machine on which a character costs so many seconds by candidate, and a whole step something besides.

    each: seconds that any pass takes besides. disturbed: gives what a pass takes longer by, by its number.
    """

    def __init__(
        self,
        seconds: dict[Candidate, float],
        besides: float = 0.0,
        disturbed: Callable[[int], float] = lambda n: 0.0,
        each: float = 0.0,
    ) -> None:
        self.seconds, self.besides, self.disturbed, self.each = seconds, besides, disturbed, each
        self.now = 0.0
        self.passes: list[tuple[Candidate, int | None]] = []

    def timed(self, candidate: Candidate, characters: int | None) -> float:
        took = self.seconds[candidate] * (characters or WINDOW) + (self.besides if characters is None else 0)
        took += self.each + self.disturbed(len(self.passes))
        self.passes.append((candidate, characters))
        self.now += took
        return took

    def compared(self, seconds: float = 1.5) -> dict[Candidate, float]:
        return compare(list(self.seconds), WINDOW, self.timed, seconds, lambda: self.now)


def test_the_fastest_is_found_by_whole_steps_and_far_ones_run_only_a_little() -> None:
    machine = Scripted({LOOP: 1e-3, NATIVE: 1e-4, ALONE: 1.2e-4}, besides=1e-3)
    found = machine.compared()
    assert list(found) == [NATIVE, ALONE, LOOP]
    assert found[NATIVE] == pytest.approx(WINDOW * 1e-4 + 1e-3)
    assert {c for c, characters in machine.passes if characters is None} == {NATIVE, ALONE}
    assert {characters for c, characters in machine.passes if c == LOOP} == {1, 8}
    assert found[LOOP] == pytest.approx(WINDOW * 1e-3 * found[NATIVE] / (WINDOW * 1e-4))  # left behind stays behind


def test_what_every_pass_takes_is_not_taken_for_what_a_character_takes() -> None:
    costs = {LOOP: 6e-4, Candidate("loop", "float32", 1): 9e-4, ALONE: 3e-4, NATIVE: 1.8e-4, BF16: 1.2e-4}
    for seconds in (0.05, 0.5):
        machine = Scripted(costs, each=3.5e-3)
        found = machine.compared(seconds)
        assert found[BF16] == pytest.approx(WINDOW * 1.2e-4 + 3.5e-3)
        assert fastest(found) == BF16
    assert {c for c, characters in machine.passes if characters is None} == {BF16}


def test_rounds_are_interleaved() -> None:
    machine = Scripted({NATIVE: 1e-4, ALONE: 1.1e-4, BF16: 1.05e-4})
    machine.compared()
    order = [c for c, _ in machine.passes]
    first = order.index(ALONE) - 2  # where numbers of threads are told apart; both stages have two lengths
    assert order[:first] == [NATIVE, NATIVE, BF16, BF16] * (first // 4)
    whole = [c for c, n in machine.passes if n is None]
    assert whole == [NATIVE, ALONE, BF16] * (len(whole) // 3)
    assert order[first : -len(whole)] == [NATIVE, NATIVE, ALONE, ALONE, BF16, BF16] * (
        len(order[first : -len(whole)]) // 6
    )


def test_fewer_threads_of_what_is_far_behind_never_run() -> None:
    slow = Candidate("loop", "float32", 1)
    machine = Scripted({LOOP: 1e-3, slow: 1.1e-3, NATIVE: 1e-4, ALONE: 0.9e-4})
    assert list(machine.compared()) == [ALONE, NATIVE, LOOP]
    assert slow not in {c for c, _ in machine.passes}


@pytest.mark.parametrize("seconds", [0.5, 0.75, 1.0, 1.25, 1.5, 10.0])
def test_noise_in_one_round_does_not_change_the_answer(seconds: float) -> None:
    costs = {LOOP: 1.3e-3, NATIVE: 1e-3, ALONE: 1.25e-3}
    quiet = Scripted(costs)
    found = quiet.compared(seconds)
    for n in range(len(quiet.passes)):  # one pass takes longer by as much as makes it the slowest, or a round does
        for disturbed in ({n}, set(range(n // 3 * 3, n // 3 * 3 + 3))):
            noisy = Scripted(costs, disturbed=lambda k, disturbed=disturbed: 0.05 * (k in disturbed))
            answer = noisy.compared(seconds)
            assert fastest(answer) == fastest(found) == NATIVE
            assert answer[NATIVE] == pytest.approx(found[NATIVE])


@pytest.mark.parametrize("character", [1e-6, 1e-4, 2e-3, 5e-3])
@pytest.mark.parametrize("seconds", [0.3, 1.5, 4.0])
def test_comparing_keeps_within_its_time(character: float, seconds: float) -> None:
    machine = Scripted({LOOP: 1.5 * character, NATIVE: character, ALONE: 1.4 * character, BF16: 1.1 * character})
    found = machine.compared(seconds)
    assert machine.now <= max(seconds, 5 * character * (1 + 8))  # one round of the shortest pieces is run in any case
    assert fastest(found) == NATIVE


@pytest.mark.parametrize("seconds", [0.05, 0.07, 0.2, 1.5])
def test_few_threads_of_many_take_no_more_than_the_time_there_is(seconds: float) -> None:
    costs = {Candidate("native", "float32", n): 0.064 / n / WINDOW for n in (16, 8, 4, 2, 1)}
    machine = Scripted(costs)
    found = machine.compared(seconds)
    assert machine.now <= seconds
    assert fastest(found) == Candidate("native", "float32", 16)


def test_bf16_has_to_be_clearly_faster() -> None:
    assert fastest({BF16: 0.95, NATIVE: 1.0}) == NATIVE
    assert fastest({BF16: 0.5, NATIVE: 1.0}) == BF16
    assert fastest({BF16: 0.5}) == BF16


def test_more_threads_have_to_be_worth_it() -> None:
    assert fastest({NATIVE: 0.97, ALONE: 1.0}) == ALONE
    assert fastest({NATIVE: 0.6, ALONE: 1.0}) == NATIVE
    assert fastest({NATIVE: 1.2, ALONE: 1.0}) == ALONE


def test_threads_are_halved_until_one_is_left() -> None:
    assert [thread_counts(n) for n in (1, 2, 6, 16)] == [(1,), (2, 1), (6, 3, 1), (16, 8, 4, 2, 1)]


# What is kept


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


class Measured:
    """Stands for this machine, where nothing is in the way unless said so; counts how often candidates are compared.

    delayed: the share of the time that threads waited for a core. best: the candidate that is the fastest.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.path, self.corpus = path, prepare(config(path))
        self.times, self.delayed, self.seconds = 0, 0.0, 0.0
        self.best, self.known = Candidate("loop", "float32", 1), [LOOP]
        monkeypatch.setattr(speed.Machine, "products_per_s", 1e9)
        monkeypatch.setattr(candidates, "compare", self.compare)
        monkeypatch.setattr(candidates.Steps, "prepare", lambda *_: None)
        monkeypatch.setattr(Waiting, "delayed_share", lambda _: self.delayed)

    def compare(
        self, known: list[Candidate], window: int, timed: Any, seconds: float, stages: Any
    ) -> dict[Candidate, float]:
        self.times, self.known, self.seconds = self.times + 1, known, seconds
        return {c: 0.01 if c == self.best else 0.02 for c in known}

    def decided(self, **changes: Any) -> Config:
        settings = config(self.path, **{"budget": 60.0, "precision": "auto", **changes})
        return resolve.resolve(settings, self.corpus, speed.Machine(settings, self.corpus))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, corpus: str, own_cache: Path, two_threads: None) -> Measured:
    return Measured(monkeypatch, corpus)


def test_the_number_of_threads_is_chosen_with_the_engine_and_stored(measured: Measured) -> None:
    for best in (Candidate("loop", "float32", 1), Candidate("native", "float32", 2)):
        measured.best = best
        there = measured.decided(hidden=23 + best.threads)
        assert (there.engine, there.precision, there.threads) == best
        assert there.measured_us[str(best)] == 10_000
        assert set(there.measured_us) == set(map(str, measured.known))
    assert {c.threads for c in measured.known} == {1, 2}


def test_what_was_measured_is_kept_for_the_same_shape(measured: Measured) -> None:
    first = measured.decided()
    measured.best = Candidate("native", "float32", 2)
    assert measured.decided() == first
    assert measured.decided(budget=90.0, seed=8, lr=0.1).measured_us == first.measured_us
    assert measured.times == 1


@pytest.mark.parametrize(
    "changes",
    [
        *({"cell": "gru"}, {"hidden": 25}, {"layers": 2}, {"batch": 5}, {"window": 17}, {"embedding": 13}),
        *({"engine": "native"}, {"precision": "bf16"}, {"threads": 3}, {"optimizer": "rmsprop"}, {"dropout": 0.5}),
        {"tie": True},
    ],
    ids=str,
)
def test_what_was_measured_is_not_used_for_another_shape(measured: Measured, changes: dict[str, Any]) -> None:
    measured.decided(layers=1, dropout=0.0, weight_dropout=0.0)
    if "tie" in changes:
        changes = {**changes, "embedding": 24}
    measured.decided(**{"layers": 1, "dropout": 0.0, "weight_dropout": 0.0, **changes})
    assert measured.times == 2


@pytest.mark.parametrize("what", ["processor", "cores", "version", "torch", "threads"])
def test_what_was_measured_is_not_used_on_another_machine(
    measured: Measured, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured.decided()
    if what == "threads":
        torch.set_num_threads(3)
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "0")
    else:
        names = {"processor": "processor", "cores": "cores", "version": "__version__"}
        monkeypatch.setattr(speed, names[what], "0" if what == "version" else lambda: 17)
    measured.decided()
    assert measured.times == 2


def test_what_was_measured_beside_other_work_decides_once(measured: Measured) -> None:
    measured.delayed = 0.5
    assert measured.decided().engine == "loop"
    assert not kept_speeds.choices_path().exists()
    measured.delayed, measured.best = 0.0, Candidate("native", "float32", 2)
    assert measured.decided().engine == "native"
    assert measured.times == 2


@pytest.mark.parametrize("damage", ["{", "[]", "null", "", "each null", "each figure", "each name"])
def test_what_is_damaged_is_measured_anew(measured: Measured, damage: str) -> None:
    measured.decided()
    kept = kept_speeds.choices_path()
    values: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    (what,) = values
    figures = {"each null": None, "each figure": {**values[what], "loop float32 2": -1.0}, "each name": {"x y 1": 1.0}}
    kept.write_text(json.dumps({what: figures[damage]}) if damage in figures else damage, encoding="utf-8")
    assert measured.decided().engine == "loop"
    assert measured.times == 2
    assert json.loads(kept.read_text(encoding="utf-8")) == values


def test_no_more_is_kept_than_is_of_use(own_cache: Path) -> None:
    for n in range(kept_speeds.MOST + 3):
        kept_speeds.keep_choice(str(n), {"loop float32 1": 0.5})
    assert kept_speeds.known_choice("2") is None
    assert kept_speeds.known_choice("3") == {"loop float32 1": 0.5}
    assert len(json.loads(kept_speeds.choices_path().read_text(encoding="utf-8"))) == kept_speeds.MOST


def test_what_was_given_is_no_candidate(measured: Measured) -> None:
    there = measured.decided(threads=2)
    assert {c.threads for c in measured.known} == {2}
    assert there.threads == 2
    there = measured.decided(engine="fused", threads=None)
    assert {c.engine for c in measured.known} == {"fused"}
    assert there.engine == "fused"
    measured.decided(precision="bf16")
    assert {c.precision for c in measured.known} == {"bf16"}
    times = measured.times
    there = measured.decided(engine="native", precision="bf16", threads=1)
    assert (there.engine, there.precision, there.threads, there.measured_us) == ("native", "bf16", 1, {})
    assert measured.times == times


def test_bf16_is_a_candidate_where_the_processor_has_units_for_it(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, (features, precisions) in enumerate(
        [({"avx2": True, "avx512bf16": False}, {"float32"}), ({"amx-bf16": True}, {"float32", "bf16"})]
    ):
        monkeypatch.setattr(speed, "compiled_for", lambda features=features: Processor("a test's", features))
        monkeypatch.setattr(speed.Machine, "bf16_share", 3.0)  # products of torch's alone veto nothing
        measured.decided(hidden=30 + n)
        assert {c.precision for c in measured.known} == precisions


def test_measuring_takes_a_small_share_of_the_time(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.Machine, "bf16_share", 1.0)  # nothing can be timed by these clocks
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    for n, (budget, seconds) in enumerate([(30.0, 1.5), (180.0, 3.6), (36_000.0, speed.MOST_MEASURING_SECONDS)]):
        measured.decided(budget=budget, hidden=20 + n)
        assert measured.seconds == pytest.approx(seconds)
    measured.decided(budget=10.0)
    assert measured.times == 3  # a short run measures nothing
    clock = iter(range(10**9))
    monkeypatch.setattr(time, "perf_counter", lambda: 0.5 * next(clock))
    measured.decided(budget=180.0, hidden=30)
    assert speed.LEAST_SHARE * 3.6 <= measured.seconds <= 3.6 - 0.5  # what comes before is counted
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0 * next(clock))
    measured.decided(budget=180.0, hidden=31)
    assert measured.seconds == pytest.approx(speed.LEAST_SHARE * 3.6)


def test_what_is_decided_is_not_measured_again(measured: Measured) -> None:
    planned = replace(measured.decided(), plan=(Plan(0, 10, 5),))
    measured.decided(hidden=25)
    settings: Settings = planned
    assert resolve.resolve(settings, measured.corpus, speed.Machine(settings, measured.corpus)) == planned
    assert measured.times == 2


@pytest.mark.parametrize(("delayed", "kept"), [(0.0, True), (0.5, False)])
def test_a_speed_that_sizes_follow_from_is_kept_if_nothing_was_in_the_way(
    own_cache: Path, corpus: str, monkeypatch: pytest.MonkeyPatch, delayed: float, kept: bool
) -> None:
    encoded, settings = prepare(config(corpus)), config(corpus, engine="loop")
    monkeypatch.setattr(Waiting, "delayed_share", lambda _: delayed)
    figure = speed.Machine(settings, encoded).quiet_products_per_s
    monkeypatch.setattr(speed.Machine, "products_per_s", 1.0)
    assert speed.Machine(settings, encoded).quiet_products_per_s == (figure if kept else 1.0)
    assert speed.Machine(settings, encoded).expected_products_per_s == figure  # which decides nothing
    assert speed.Machine(settings.replace(hidden=9), encoded).quiet_products_per_s == 1.0


def test_sizes_follow_from_the_best_of_several_processes(
    own_cache: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, settings = prepare(config(corpus)), config(corpus, engine="loop")
    monkeypatch.setattr(Waiting, "delayed_share", lambda _: 0.0)
    clock = iter(range(10**9))
    seconds = 1.0
    monkeypatch.setattr(time, "perf_counter", lambda: seconds * next(clock))

    def decides() -> float:
        return speed.Machine(settings, encoded).quiet_products_per_s

    slow = decides()
    seconds = 0.5  # the machine is twice as fast, in another process
    assert decides() == pytest.approx(2 * slow)
    seconds = 2.0
    assert decides() == pytest.approx(2 * slow)
    seconds = 0.1  # what was measured three times is not measured again
    assert decides() == pytest.approx(2 * slow)
