"""How parameters start: every rule gate by gate, whatever stands beside it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from charrnn import cells
from charrnn.cells.initialisation import constant, describe, glorot, normal, orthogonal, uniform, zeros

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_recurrent_blocks_are_orthogonal(blocks: int) -> None:
    matrix = orthogonal(blocks)(RNG, (16, 16 * blocks))
    for block in np.split(matrix, blocks, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(16), atol=1e-12)


def test_a_block_that_is_not_square_keeps_lengths_on_its_shorter_side() -> None:
    wide, tall = orthogonal()(RNG, (4, 9)), orthogonal()(RNG, (9, 4))
    np.testing.assert_allclose(wide @ wide.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(tall.T @ tall, np.eye(4), atol=1e-12)


def test_orthogonal_blocks_prefer_no_sign() -> None:
    traces = np.trace(orthogonal()(RNG, (900, 8, 8)), axis1=1, axis2=2)  # uniformly distributed: mean 0, variance 1
    assert abs(traces.mean()) < 4 / np.sqrt(900)
    assert traces.var() == pytest.approx(1, abs=0.3)


def test_glorot_is_uniform_within_the_bound_of_one_block() -> None:
    matrix = glorot(4)(RNG, (100, 800))
    bound = np.sqrt(6 / (100 + 200))
    assert 0.99 * bound < np.abs(matrix).max() <= bound
    assert matrix.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_uniform_normal_constant_and_zeros_are_what_they_say() -> None:
    assert 0.29 < np.abs(uniform(0.3)(RNG, (1000,))).max() <= 0.3
    assert normal(2.0)(RNG, (10000,)).std() == pytest.approx(2, rel=0.05)
    assert constant(1, 0)(RNG, (4,)).tolist() == [1, 1, 0, 0]
    assert zeros(RNG, (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_a_gain_widens_the_bound_and_is_said() -> None:
    matrix = glorot(4, gain=2)(RNG, (100, 800))
    bound = 2 * np.sqrt(6 / (100 + 200))
    assert 0.99 * bound < np.abs(matrix).max() <= bound
    assert describe(glorot(4, gain=2)) == "Glorot uniform times 2, 4 blocks"


def test_both_lstms_start_alike_with_every_gate_half_open() -> None:
    H = 64
    lstm, nn_lstm = cells.get("lstm").initial(RNG, 64, H), cells.get("nn.LSTM").initial(RNG, 64, H)
    assert not lstm["b"].any()
    assert not (nn_lstm["b_ih"] + nn_lstm["b_hh"]).any()
    assert lstm["W"].std() == pytest.approx(nn_lstm["W_ih"].std(), rel=0.05)
    assert lstm["W"].std() == pytest.approx(3 * np.sqrt(2 / (2 * 64)), rel=0.05)


def test_update_gates_of_every_gru_start_open_whichever_way_they_are_written() -> None:
    H = 64
    gru, after = cells.get("gru").initial(RNG, 64, H), cells.get("gru-after").initial(RNG, 64, H)
    nn_gru = cells.get("nn.GRU").initial(RNG, 64, H)
    both = nn_gru["b_ih"] + nn_gru["b_hh"]
    assert gru["b"].tolist() == [1] * H + [0] * 2 * H  # z, r, candidate: z takes the new
    assert after["b"].tolist() == both.tolist() == [-1] * 2 * H + [0] * H  # r, z, candidate: z keeps the old


@pytest.mark.parametrize(("name", "matrix"), [("simple", "U"), ("rnn", "U"), ("nn.RNN", "W_ih")])
def test_the_input_of_plain_cells_starts_as_strong_as_the_lstms(name: str, matrix: str) -> None:
    assert cells.get(name).initial(RNG, 64, 64)[matrix].std() == pytest.approx(3 * np.sqrt(2 / 128), rel=0.05)


@pytest.mark.parametrize("name", cells.names())
def test_a_fresh_cell_neither_vanishes_nor_explodes(name: str) -> None:
    cell, H = cells.get(name), 64
    params = cell.initial(np.random.default_rng(1), 32, H)
    outputs, _ = cells.run(cell, np.random.default_rng(2).standard_normal((100, 32)), params)
    assert 0.01 < outputs[50:].std() < 10


@pytest.mark.parametrize("name", cells.names())
def test_the_same_seed_starts_the_same_cell(name: str) -> None:
    first, again, other = (cells.get(name).initial(np.random.default_rng(seed), 8, 8) for seed in (1, 1, 2))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_numpys_threads_change_no_weight_and_are_given_back() -> None:
    code = (
        "import hashlib, numpy as np; from charrnn import blas; from charrnn.model.architecture import Architecture\n"
        "found = blas.functions()\n"
        "weights = Architecture('lstm', 50, 96, 1, 24).initial(seed=7)\n"
        "digest = hashlib.sha256(b''.join(w.tobytes() for w in weights.values())).hexdigest()\n"
        "print(found is None or found[0](), digest)\n"
        "with blas.one_thread():\n"
        "    print(found is None or found[0]())\n"
    )
    said = {}
    for n in ("1", "2"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": n}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        first, second = done.stdout.splitlines()
        threads, said[n] = first.split()
        assert threads in (n, "True")
        assert second in ("1", "True")
    assert said["1"] == said["2"]
