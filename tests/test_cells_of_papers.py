"""Cells against the equations of their papers, written out again: a matrix per gate, one row, one step at a time.

Nothing here comes from the package but what is tested; `blocks` cuts a stored matrix into those the paper names.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from charrnn import cells
from charrnn.generate.compiled import NativeDecoder
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture

Matrix = NDArray[np.float64]
Paper = Callable[[Matrix, dict[str, Matrix], int], Matrix]
T, I, H = 30, 5, 7


def s(x: Matrix) -> Matrix:
    return 1 / (1 + np.exp(-x))


def blocks(w: Matrix) -> list[Matrix]:
    """A stored (rows, k H) as the k matrices of a paper, which stand to the left of a column: (H, rows) each."""
    return [w[..., i : i + H].T for i in range(0, w.shape[-1], H)]


def norm(x: Matrix) -> Matrix:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def gru_after(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wr, Wz, Wn), (Ur, Uz, Un), (br, bz, bn) = blocks(p["W"]), blocks(p["U"]), blocks(p["b"])
    h, hs = np.zeros(H), []
    for x in xs:
        r, z = s(Wr @ x + Ur @ h + br), s(Wz @ x + Uz @ h + bz)
        n = np.tanh(Wn @ x + bn + r * (Un @ h))
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.stack(hs)


def minimal_gated(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wf, Wh), (bf, bh) = blocks(p["W"]), blocks(p["b"])
    h, hs = np.zeros(H), []
    for x in xs:
        f = s(Wf @ x + p["U"].T @ h + bf)
        candidate = np.tanh(Wh @ x + p["V"].T @ (f * h) + bh)
        h = (1 - f) * h + f * candidate
        hs.append(h)
    return np.stack(hs)


def indrnn(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    u = np.tanh(p["v"])
    assert (abs(u) < 1).all()
    h, hs = np.zeros(H), []
    for x in xs:
        h = np.maximum(0, p["W"].T @ x + u * h + p["b"])
        hs.append(h)
    return np.stack(hs)


def multiplicative_lstm(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wf, Wi, Wo, Wh), (Uf, Ui, Uo, Uh), (bf, bi, bo, bh) = blocks(p["W"]), blocks(p["U"]), blocks(p["b"])
    h, c, hs = np.zeros(H), np.zeros(H), []
    for x in xs:
        m = (p["W_m"].T @ x) * (p["V"].T @ h)
        f, i, o = s(Wf @ x + Uf @ m + bf), s(Wi @ x + Ui @ m + bi), s(Wo @ x + Uo @ m + bo)
        c = f * c + i * np.tanh(Wh @ x + Uh @ m + bh)
        h = o * np.tanh(c)
        hs.append(h)
    return np.stack(hs)


def layernorm_lstm(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    h, c, hs = np.zeros(H), np.zeros(H), []
    for x in xs:
        gates = norm(p["U"].T @ h) * p["gain_h"] + norm(p["W"].T @ x) * p["gain_x"] + p["b"]
        f, i, o, g = gates.reshape(4, H)
        c = s(f) * c + s(i) * np.tanh(g)
        h = s(o) * np.tanh(norm(c) * p["gain_c"] + p["b_c"])
        hs.append(h)
    return np.stack(hs)


def mogrifier_lstm(xs: Matrix, p: dict[str, Matrix], rounds: int) -> Matrix:
    (Wf, Wi, Wo, Wj), (Uf, Ui, Uo, Uj), (bf, bi, bo, bj) = blocks(p["W"]), blocks(p["U"]), blocks(p["b"])
    h, c, hs = np.zeros(H), np.zeros(H), []
    for x in xs:
        for i in range(1, rounds + 1):
            if i % 2:
                x = 2 * s(p["Q"][(i - 1) // 2].T @ h) * x
            else:
                h = 2 * s(p["R"][i // 2 - 1].T @ x) * h
        f, i_, o = s(Wf @ x + Uf @ h + bf), s(Wi @ x + Ui @ h + bi), s(Wo @ x + Uo @ h + bo)
        c = f * c + i_ * np.tanh(Wj @ x + Uj @ h + bj)
        h = o * np.tanh(c)
        hs.append(h)
    return np.stack(hs)


def slstm(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    # Without the stabiliser, which must not change the numbers.
    (Wf, Wi, Wo, Wz), (Rf, Ri, Ro, Rz), (bf, bi, bo, bz) = blocks(p["W"]), blocks(p["U"]), blocks(p["b"])
    h, c, n, hs = np.zeros(H), np.zeros(H), np.zeros(H), []
    for x in xs:
        f, i = s(Wf @ x + Rf @ h + bf), np.exp(Wi @ x + Ri @ h + bi)
        z, o = np.tanh(Wz @ x + Rz @ h + bz), s(Wo @ x + Ro @ h + bo)
        c, n = f * c + i * z, f * n + i
        h = o * c / n
        hs.append(h)
    return np.stack(hs)


def rhn(xs: Matrix, p: dict[str, Matrix], depth: int) -> Matrix:
    WH, WT = blocks(p["W"])
    state, states = np.zeros(H), []
    for x in xs:
        for l in range(depth):
            (RH, RT), (bH, bT) = blocks(p["R"][l]), blocks(p["b"][l])
            first = 1 if l == 0 else 0
            h, t = np.tanh(first * WH @ x + RH @ state + bH), s(first * WT @ x + RT @ state + bT)
            state = h * t + state * (1 - t)
        states.append(state)
    return np.stack(states)


def mingru(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wz, Wh), (bz, bh) = blocks(p["W"]), blocks(p["b"])
    h, hs = np.zeros(H), []
    for x in xs:
        z = s(Wz @ x + bz)
        h = (1 - z) * h + z * (Wh @ x + bh)
        hs.append(h)
    return np.stack(hs)


def minlstm(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wf, Wi, Wh), (bf, bi, bh) = blocks(p["W"]), blocks(p["b"])
    h, hs = np.zeros(H), []
    for x in xs:
        f, i = s(Wf @ x + bf), s(Wi @ x + bi)
        h = f / (f + i) * h + i / (f + i) * (Wh @ x + bh)
        hs.append(h)
    return np.stack(hs)


def rg_lru(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (Wa, Wx), (ba, bx) = blocks(p["V"]), blocks(p["b_v"])
    h, hs = np.zeros(H), []
    for x in xs:
        x = p["W"].T @ x + p["b"]
        r, i = s(Wa @ x + ba), s(Wx @ x + bx)
        a = s(-p["L"]) ** (8 * r)
        h = a * h + np.sqrt(1 - a**2) * (i * x)
        hs.append(h)
    return np.stack(hs)


def sru(xs: Matrix, p: dict[str, Matrix], _: int) -> Matrix:
    (W, Wf, Wr, Wx), (bf, br) = blocks(p["W"]), blocks(p["b"])
    c, hs = np.zeros(H), []
    for x in xs:
        f, r = s(Wf @ x + bf), s(Wr @ x + br)
        c = f * c + (1 - f) * (W @ x)
        hs.append(r * c + (1 - r) * (Wx @ x))
    return np.stack(hs)


def square(k: int) -> int:
    """Parameters of k gates that each see x, h and a bias."""
    return k * (I * H + H * H + H)


# name, options, the paper's loop, parameters by formula
PAPERS: list[tuple[str, dict[str, int], Paper, int]] = [
    ("gru-after", {}, gru_after, square(3)),
    ("minimal-gated", {}, minimal_gated, square(2)),
    ("indrnn", {}, indrnn, I * H + 2 * H),
    ("multiplicative-lstm", {}, multiplicative_lstm, square(4) + I * H + H * H),
    ("layernorm-lstm", {}, layernorm_lstm, square(4) + 2 * 4 * H + 2 * H),
    *(("mogrifier-lstm", {"rounds": n}, mogrifier_lstm, square(4) + n * I * H) for n in (1, 2, 5)),
    ("slstm", {}, slstm, square(4)),
    *(("rhn", {"depth": n}, rhn, 2 * (I * H + n * (H * H + H))) for n in (1, 2, 5)),
    ("mingru", {}, mingru, 2 * (I * H + H)),
    ("minlstm", {}, minlstm, 3 * (I * H + H)),
    ("rg-lru", {}, rg_lru, I * H + H + 2 * (H * H + H) + H),
    ("sru", {}, sru, 4 * I * H + 2 * H),
]


@pytest.mark.parametrize(("name", "options", "paper", "count"), PAPERS)
def test_a_cell_is_its_papers_equations(name: str, options: dict[str, int], paper: Paper, count: int) -> None:
    cell = cells.get(name)
    rng = np.random.default_rng(2)
    # Away from the start values, where zeros would hide a bias and equal gains a gain.
    params = {k: v + 0.3 * rng.standard_normal(v.shape) for k, v in cell.initial(rng, I, H, **options).items()}
    xs = rng.standard_normal((T, I))
    expected = paper(xs, params, next(iter(options.values()), 0))
    y, _ = cells.run(name, xs, params)
    assert y.shape == (T, H)
    assert np.abs(y - expected).max() < 1e-12
    assert cell.count(I, H, **options) == sum(v.size for v in params.values()) == count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [(name, options) for name, options, *_ in PAPERS if options])
def test_a_cell_with_options_decodes_natively(name: str, options: dict[str, int]) -> None:
    architecture = Architecture(name, 40, 27, 2, 11, residual=True, cell_options=options)
    weights = architecture.initial(3)
    decoders = NativeDecoder(architecture, weights), Decoder(architecture, weights, "numpy")
    states = [decoder.start(1) for decoder in decoders]
    for i in np.random.default_rng(8).integers(0, 40, 200):
        steps = [decoder.step(np.array([i]), state) for decoder, state in zip(decoders, states, strict=True)]
        states = [state for _, state in steps]
        assert np.abs(steps[0][0] - steps[1][0]).max() < 1e-5  # logits of about 1, some hundred roundings apart


def test_every_cell_that_came_with_a_paper_is_compared_with_it() -> None:
    notebook = {"simple", "rnn", "lstm", "gru", "nn.RNN", "nn.LSTM", "nn.GRU"}  # these have oracles of their own
    assert {name for name, *_ in PAPERS} == set(cells.names()) - notebook


def test_the_stabiliser_of_slstm_survives_gates_that_no_float_holds() -> None:
    cell = cells.get("slstm")
    rng = np.random.default_rng(3)
    params = {name: 300 * value for name, value in cell.initial(rng, I, H).items()}
    y, state = cells.run("slstm", rng.standard_normal((T, I)).astype(np.float32), _float32(params))
    assert np.isfinite(y).all()
    assert all(np.isfinite(x).all() for x in state)
    assert (state[2] >= 1).all()  # the normaliser


def test_the_unit_of_griffin_is_exact_where_its_gate_is_nearly_one() -> None:
    cell = cells.get("rg-lru")
    params = cell.initial(np.random.default_rng(4), I, H)
    params["L"] = np.linspace(-25, -10, H)  # log a from -1e-10 down
    x = np.random.default_rng(5).standard_normal((1, I))
    a, b = {}, {}
    for dtype in (np.float64, np.float32):
        p = cell.pack({name: value.astype(dtype) for name, value in params.items()})
        assert cell.gates is not None
        a[dtype], b[dtype] = cell.gates(cell.inputs(x.astype(dtype), p), p)
    # sqrt(1 - a^2) of a rounded a would be wrong from the first digit on.
    assert np.abs(b[np.float32] / b[np.float64] - 1).max() < 1e-5


def test_the_gradient_of_griffins_unit_is_finite_where_its_gate_is_shut() -> None:
    cell = cells.get("rg-lru")
    values = cell.initial(np.random.default_rng(4), I, H).values()
    p = cell.pack([torch.tensor(value, dtype=torch.float32, requires_grad=True) for value in values])
    z = torch.full((2, 3 * H), -200.0, requires_grad=True)
    assert cell.gates is not None
    a, b = cell.gates(z, p)
    (a.sum() + b.sum()).backward()
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(p.L.grad).all()


def test_the_memories_of_indrnn_start_bounded_and_cannot_leave() -> None:
    v = cells.get("indrnn").initial(np.random.default_rng(6), I, 1000)["v"]
    assert 0 < np.tanh(v).min() < 0.01
    assert 0.99 < np.tanh(v).max() < 1
    params = {"W": np.zeros((I, 1)), "v": np.array([50.0]), "b": np.zeros(1)}
    y, _ = cells.run("indrnn", np.zeros((1000, I)), params, (np.ones(1),))
    assert (y <= 1).all()


def test_the_decays_of_griffin_start_over_all_spans() -> None:
    L = cells.get("rg-lru").initial(np.random.default_rng(7), I, 1000)["L"]
    a = s(-L) ** 8
    assert 0.05 <= a.min() < 0.06
    assert 0.998 < a.max() <= 0.999


def _float32(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astype(np.float32) for name, value in params.items()}
