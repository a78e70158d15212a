"""Compiled decoding: the arithmetic, the traced equations, the draw, the cache; against NumPy in float64."""

import ctypes
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compiled import drawing, map_of, product

from charrnn import api, cells
from charrnn.cells import ops
from charrnn.cells.cell import Cell, Param, run_cell
from charrnn.cells.initialisation import glorot, zeros
from charrnn.compiler import cache as native_cache
from charrnn.compiler import objects
from charrnn.compiler.decoding import driver as native_driver
from charrnn.compiler.decoding import memory
from charrnn.compiler.decoding import weights as native_weights
from charrnn.compiler.decoding.driver import LINE
from charrnn.errors import CharRNNError
from charrnn.generate import sampling
from charrnn.generate.compiled import NativeDecoder, load
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Primed, Sampling, draws
from charrnn.model.architecture import Architecture
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
ROOT = Path(__file__).parent.parent
EPS = float(np.finfo(np.float32).eps)


# Arithmetic


def over_all_of_float32(name: str) -> tuple[Any, Any]:
    """A function's results over a spread of all float32 numbers and densely where it bends; and the arguments."""
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([bits[np.isfinite(bits)], np.linspace(-110, 95, 300_001, dtype=np.float32)])
    x = np.concatenate([x, np.linspace(-10, 10, 300_001, dtype=np.float32)])
    x = x[x > -1] if name == "log1p" else x
    y = map_of(lambda maths, value: maths.apply(name, value), x)
    edges = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    at_edges = map_of(lambda maths, value: maths.apply(name, value), edges)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(edges) if name != "sigmoid" else np.array([np.nan, 1, 0, 0.5])
    if name != "log1p":
        np.testing.assert_array_equal(at_edges, exact)
        assert np.signbit(at_edges[3]) == np.signbit(exact[3])
    return x, y


@pytest.mark.parametrize(("name", "ulps"), [("exp", 4), ("sigmoid", 4), ("tanh", 4), ("expm1", 4), ("log1p", 5)])
def test_functions_are_within_a_few_ulp_of_exact_everywhere(name: str, ulps: int) -> None:
    x, y = over_all_of_float32(name)
    with np.errstate(over="ignore", under="ignore"):
        wide = x.astype(np.float64)
        exact = ops.sigmoid(wide) if name == "sigmoid" else getattr(np, name)(wide)
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(np.isfinite(y), finite)
    error = np.abs(y[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite])).astype(np.float64)
    assert error.max() <= ulps


@pytest.mark.parametrize("kept", ["float32", "bf16", "int8"])
def test_products_are_right_for_every_size(kept: str) -> None:
    rng = np.random.default_rng(0)
    form = native_weights.form(kept, False)
    for I, O in ((1, 1), (2, 64), (3, 65), (7, 5), (64, 63), (129, 200), (1030, 70)):
        matrix, x = rng.standard_normal((I, O)).astype(np.float32), rng.standard_normal(I).astype(np.float32)
        packed = native_weights.pack(matrix, form)
        y, beyond = np.full((1, 64 + O), np.nan, np.float32), np.append(x, np.float32(3))
        product(kept, False)(beyond[None], I, packed, y, O)
        y = y[0, :O]
        wide = np.abs(x.astype(np.float64))
        error = np.abs(y - x.astype(np.float64) @ matrix)
        step = {"float32": 0, "bf16": 2.0**-8, "int8": 1 / 254}[kept]  # how far a weight may be rounded ...
        of = np.abs(matrix) if kept == "bf16" else np.abs(matrix).max(axis=0)  # ... as a share of this
        bound = wide @ (np.ones_like(matrix) * of) * step + I * EPS * (wide @ np.abs(matrix))
        if kept == "int8":  # and x to 16 bits
            bound += wide.max() / 65534 * np.abs(matrix).sum(axis=0) * 1.01
        assert (error <= bound * 1.001 + 1e-30).all()


@pytest.mark.parametrize("kept", ["float32", "bf16", "int8"])
def test_rows_side_by_side_are_multiplied_to_the_last_bit_as_one_alone(kept: str) -> None:
    rng = np.random.default_rng(0)
    forms = [native_weights.form(kept, for_rows) for for_rows in (False, True)]
    shapes = [(1, 1, 1), (2, 7, 5), (5, 64, 63), (6, 3, 65), (13, 129, 200), (33, 70, 130), (9, 1030, 70)]
    for B, I, O in [*shapes, *((B, 17, 21) for B in range(1, 71))]:
        matrix, x = rng.standard_normal((I, O)).astype(np.float32), rng.standard_normal((B, I + 4)).astype(np.float32)
        packed, tiles = (native_weights.pack(matrix, form) for form in forms)
        whole = -(-O // native_weights.WIDEST) * native_weights.WIDEST
        around, alone = np.full((B + 12, whole + 2), np.nan, np.float32), np.full((1, whole), np.nan, np.float32)
        y = around[6:-6]
        product(kept, True)(x[:, 3:], I, tiles, y[:, 1:], O)
        for row, given in zip(y, x, strict=True):
            product(kept, False)(given[None, 3:].copy(), I, packed, alone, O)
            np.testing.assert_array_equal(row[1 : 1 + O], alone[0, :O])
        assert np.isnan(y[:, [0, -1]]).all()
        assert np.isnan(around[:6]).all()
        assert np.isnan(around[-6:]).all()


def test_bf16_numbers_are_the_nearest() -> None:
    import torch

    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    assert (native_weights.to_bf16(x) == torch.tensor(x).bfloat16().view(torch.uint16).numpy()).all()


# The traced equations


@pytest.mark.parametrize("name", cells.names())
def test_traced_equations_are_the_equations(name: str) -> None:
    H, V, T = 6, 5, 8
    architecture = Architecture(name, V, H, 2, 4, residual=True)
    cell, rng = architecture.definition, np.random.default_rng(1)
    params = [cell.initial(rng, architecture.input_size(n), H, H) for n in range(2)]
    embedding, ids = rng.standard_normal((V + 1, 4)), rng.integers(0, V, T)
    below, _ = run_cell(cell, embedding[ids], params[0])
    above, last = run_cell(cell, below, params[1])

    driver = native_driver.make(architecture, "float64")
    run, _ = load(driver)
    table, head = cell.inputs(embedding, cell.pack(params[0])), rng.standard_normal((H, V))
    decoder: Any = SimpleNamespace(first=table, head=head, bias=np.zeros(V), tables=None)
    named = {f"layers.{layer}.{name}": value for layer in (0, 1) for name, value in params[layer].items()}
    weights = memory.Weights(driver, decoder, named)
    work = memory.Workspace(driver, memory.Layout(driver, weights, 1))
    outputs, drawn = np.empty((T, 16)), np.empty(T, np.int64)
    work.enter((cell.start((1, H)),) * 2)
    work.point(given=ids, drawn=drawn, outputs=outputs)
    run(work.address, 0, 0, T, 0, 1, 1)
    work.t += T
    np.testing.assert_allclose(outputs[:, :H], below + above, rtol=1e-12, atol=1e-13)
    for found, expected in zip(work.state()[1], last, strict=True):
        np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-13)
    logits = work.array(LINE["logits"], np.float64)[0, 0, :V]
    np.testing.assert_allclose(logits, (below + above)[-1] @ head, rtol=1e-12, atol=1e-13)


def test_equations_that_decide_by_a_value_are_refused() -> None:
    def step(z: Any, state: Any, p: Any) -> Any:
        h = z + state[0] if z.max() > 0 else z
        return h, (h,)

    cell = Cell("deciding", "", "", {"W": Param("I H", glorot()), "b": Param("H", zeros)}, {"h": 0}, step)
    cells.register(cell)
    try:
        with pytest.raises(CharRNNError, match="cannot be compiled"):
            native_driver.make(Architecture("deciding", 5, 4))
    finally:
        cells.unregister("deciding")


def worst_difference(name: str, chars: int) -> tuple[float, float]:
    """Between compiled float32 logits and NumPy's float64, over a forced text; and a bound on rounding alone.

    Rounding: a logit is a sum of H terms, each |y_i W_ij| with |y_i| within what was seen, and y itself went through as
    many sums of H terms as there are layers; a state that forgets adds up a few steps of them.
    """
    H = 24
    architecture = Architecture(name, 300, H, 2, 12)
    weights = architecture.initial(seed=5, bound=H**-0.5)
    native = NativeDecoder(architecture, weights)
    exact = Decoder(architecture, {k: v.astype(np.float64) for k, v in weights.items()}, "numpy")
    a, b = native.start(), exact.start()
    worst, largest = 0.0, 0.0
    for id_ in np.random.default_rng(2).integers(0, 300, chars):
        x, a = native.step(np.array([id_]), a)
        y, b = exact.step(np.array([id_]), b)
        worst = max(worst, float(np.abs(x - y).max()))
        largest = max(largest, float(np.abs(y).max()), *(float(np.abs(s).max()) for s in b[-1] if np.isfinite(s).all()))
    return worst, EPS * H * max(1, largest) * np.abs(weights["head.W"]).sum(axis=0).max()


def test_forced_text_has_the_same_logits_compiled() -> None:
    worst, bound = worst_difference(Architecture("lstm", 5, 4).cell, 2000)
    assert 0 < worst < bound


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "rhn" else pytest.mark.long) for name in cells.names()],
)
def test_forced_text_has_the_same_logits_compiled_in_every_cell(name: str) -> None:
    worst, bound = worst_difference(name, 2000)
    assert worst < bound


def test_what_code_writes_to_lives_as_long_as_the_memory_that_names_it() -> None:
    architecture = Architecture("lstm", 70, 16)
    weights, driver = architecture.initial(seed=1), native_driver.make(architecture)
    read = memory.Weights(driver, Decoder(architecture, weights, "numpy"), weights)
    work = memory.Workspace(driver, memory.Layout(driver, read, 1))
    drawn = np.empty(1000, np.int64)
    is_there = weakref.ref(drawn)
    work.point(drawn=drawn)
    del drawn
    assert is_there() is not None
    work.point(drawn=np.empty(10, np.int64))
    assert is_there() is None


# The draw


def test_equal_logits_give_equal_draws() -> None:
    rng = np.random.default_rng(3)
    V = 60
    choose, cost = drawing()
    allowed = rng.random(V) > 0.2
    for n in range(3000):
        logits = rng.standard_normal(V) * 4
        logits = (np.round(logits) if n % 2 else logits).astype(np.float32)  # ties
        settings = Sampling(
            temperature=float(rng.choice([0, 1e-300, 0.5, 1, 2])),
            top_k=None if n % 3 else int(rng.integers(1, V + 5)),
            top_p=None if n % 5 else float(rng.random()) or 1.0,
            min_p=None if n % 7 else float(rng.random()),
        )
        u = float(rng.random())
        expected = sampling.draw(sampling.distribution(logits, allowed, settings), u)
        filters = sampling.filters(settings, V)
        assert choose(logits, allowed, filters, u) == expected
        assert cost(logits, expected) == pytest.approx(sampling.cost(logits, expected), rel=1e-12)
    for bad in (np.nan, np.inf):
        logits[0] = bad
        assert choose(logits, np.ones(V, bool), (1.0, V, 2.0, -1.0), 0.5) == -1


class _OneRow(Decoder):
    """A NativeDecoder seen as any other: the characters are drawn by `charrnn.generate.sampling`."""

    def __init__(self, native: NativeDecoder):
        self.architecture, self.start = native.architecture, native.start  # type: ignore[method-assign]
        self.step, self.read = native.step, native.read  # type: ignore[method-assign]


def test_the_compiled_loop_draws_what_python_draws_from_the_same_logits(trained: TrainedRun) -> None:
    model = api.load(trained(steps=30))
    decoder = model.decoder()
    assert isinstance(decoder, NativeDecoder)
    primed = sampling.read_prime(decoder, model.tokenizer, "Rekurentne")
    for settings in (Sampling(), Sampling(1.3, top_k=20, top_p=0.9), Sampling(0.7, min_p=0.02), Sampling(0)):
        texts = []
        for each in (decoder, _OneRow(decoder)):
            stream = sampling.generate(each, model.tokenizer, primed, settings)
            texts.append([next(stream) for _ in range(150)])
        assert [c for c, _ in texts[0]] == [c for c, _ in texts[1]]
        assert [n for _, n in texts[0]] == pytest.approx([n for _, n in texts[1]], abs=1e-9)


def test_logits_that_are_not_finite_are_refused(trained: TrainedRun) -> None:
    model = api.load(trained())
    model.weights["head.b"][0] = np.nan
    with pytest.raises(CharRNNError, match="diverged"):
        model.complete("Re", 5)


def test_costs_of_a_text_are_evaluations(trained: TrainedRun) -> None:
    from charrnn.model import evaluation
    from charrnn.model.rnn import CharRNN

    model = api.load(trained(steps=20, layers=2))
    decoder = model.decoder()
    assert isinstance(decoder, NativeDecoder)
    ids = model.tokenizer.encode("Rekurentne mreže pamte. " * 60)
    torchs = evaluation.stream_costs(CharRNN(model.architecture, model.weights), ids)
    np.testing.assert_allclose(decoder.stream_costs(ids), torchs, atol=1e-4)
    starts = np.array([0, 7, 8, 700])
    torchs = evaluation.stream_costs(CharRNN(model.architecture, model.weights), ids, starts=starts)
    np.testing.assert_allclose(decoder.stream_costs(ids, starts), torchs, atol=1e-4)
    assert decoder.stream_costs(ids[:0]).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "bits"), [("bf16", 0.001), ("int8", 0.01)])
def test_fewer_bytes_cost_hardly_any_bits(trained: TrainedRun, kept: Any, bits: float) -> None:
    run = trained(steps=150, lr=1e-2)
    text = (ROOT / "corpora" / "rekurentne.txt").read_text(encoding="utf-8")[6000:9000]
    scores = []
    for each in ("float32", kept):
        model = api.load(run, kept=each)
        decoder = model.decoder()
        assert isinstance(decoder, NativeDecoder)
        scores.append(decoder.stream_costs(model.tokenizer.encode(text)).sum() / len(text) / math.log(2))
    assert 0 < abs(scores[1] - scores[0]) < bits


# The cache, and what is imported


def test_compiled_code_is_kept_and_is_not_compiled_again(trained: TrainedRun) -> None:
    run = trained()
    expected = api.load(run).complete("Re", 30)
    code = (
        "import sys; sys.modules['charrnn.compiler.objects'] = sys.modules['torch'] = None\n"
        "from charrnn import api\n"
        f"sys.stdout.buffer.write(api.load({str(run.path)!r}).complete('Re', 30).encode())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    assert done.stdout.decode() == expected


def adding(k: int) -> str:
    """The source of a function `one` that adds k."""
    return f"define i64 @one(i64 %n) {{ %sum = add i64 %n, {k}\n ret i64 %sum }}"


ONE = (
    "import ctypes, json, pathlib, sys\n"
    "from charrnn.compiler import cache, objects\n"
    "def one(source, n):\n"
    "    code = objects.compiled(source)\n"
    "    code = cache.keep(code) if code.is_new else code\n"
    "    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address('one'))(n), code.note\n"
)


def one(source: str, n: int) -> tuple[int, str | None]:
    """What function `one` of some source gives, and the note that came with its code."""
    code = objects.compiled(source)
    code = native_cache.keep(code) if code.is_new else code
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("one"))(n), code.note


def loaded_without_compiler(text: str, folder: Path, spare: Path) -> "subprocess.CompletedProcess[str]":
    """Load a function in a new process, which cannot compile, and call it with 2: what it returns, and the note."""
    code = (
        ONE + "objects.object_code = None\n"
        "cache.folder, cache.spare_folder = (lambda path=p: pathlib.Path(path) for p in sys.argv[2:])\n"
        "print(*one(sys.argv[1], 2))"
    )
    command = [sys.executable, "-c", code, text, str(folder), str(spare)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(native_cache, "folder", lambda: tmp_path / "file" / "below")
    monkeypatch.setattr(native_cache, "spare_folder", lambda: tmp_path / "spare")
    text = adding(1)
    three, note = one(text, 2)
    assert three == 3
    assert note is not None
    assert "cannot be kept" in note
    assert str(tmp_path / "spare") in note
    done = loaded_without_compiler(text, native_cache.folder(), native_cache.spare_folder())
    assert done.stdout.split() == ["3", "None"]  # found there, and not compiled again
    monkeypatch.setattr(native_cache, "spare_folder", lambda: tmp_path / "file" / "too")
    _, note = one(adding(2), 2)
    assert note is not None
    assert "compiled anew" in note


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no such owners here")
def test_code_that_others_could_have_written_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_cache, "folder", lambda: tmp_path / "cache")
    text = adding(5)
    one(text, 2)
    assert loaded_without_compiler(text, tmp_path / "cache", tmp_path / "spare").stdout.split() == ["7", "None"]
    (tmp_path / "cache").chmod(0o777)
    refused = loaded_without_compiler(text, tmp_path / "cache", tmp_path / "spare")
    assert "'NoneType' object is not callable" in refused.stderr  # it would have to be compiled
    assert refused.stdout == ""


DAMAGE: list[Callable[[bytes], bytes]] = [
    *(lambda whole, n=n: whole[:n] for n in (0, 10, 65, -1)),
    lambda whole: whole + b"x",
    *(lambda whole, at=at: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, 64, 65, 300, -2)),
]


def test_damaged_code_is_compiled_anew_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded in a process of its own: a damaged object file may end it."""
    monkeypatch.setattr(native_cache, "folder", lambda: tmp_path / "cache")
    texts = [adding(100 + k) for k in range(len(DAMAGE))]
    damaged: dict[str, str] = {}
    for text, damage in zip(texts, DAMAGE, strict=True):
        one(text, 2)
        (file,) = set(map(str, (tmp_path / "cache").iterdir())) - set(damaged)
        damaged[file] = text
        Path(file).write_bytes(damage(Path(file).read_bytes()))
    code = (
        ONE + "cache.folder = lambda: pathlib.Path(sys.argv[2])\n"
        "for text in json.loads(sys.argv[1]): print(*one(text, 0))"
    )
    for again in (False, True):
        command = [sys.executable, "-c", code, json.dumps(texts), str(tmp_path / "cache")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        notes = [None if again else f"{file} was damaged, and is compiled anew" for file in damaged]
        assert done.stdout.splitlines() == [f"{100 + k} {note}" for k, note in enumerate(notes)], done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_nobody_is_waited_for_who_would_write_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_cache, "folder", lambda: tmp_path / "cache")
    text = adding(8)
    one(text, 2)
    (file,) = (tmp_path / "cache").iterdir()
    file.unlink()
    os.mkfifo(file)
    refused = loaded_without_compiler(text, tmp_path / "cache", tmp_path / "spare")
    assert "'NoneType' object is not callable" in refused.stderr


def test_processes_that_start_together_share_a_whole_file(tmp_path: Path) -> None:
    code = ONE + f"print(one({adding(1)!r}, 4)[0])"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, env=environment)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == [b"5", b"5"]
    kept = list((tmp_path / "charrnn").iterdir())
    assert [path.suffix for path in kept] == [".o"]


@pytest.mark.slow
def test_code_that_different_processes_compiled_does_not_mix(tmp_path: Path) -> None:
    # Both files define the same symbol.
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}

    def call(*added: int) -> list[str]:
        code = ONE + f"print({', '.join(f'one({adding(k)!r}, 4)[0]' for k in added)})"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
        return run.stdout.split()

    assert (call(1), call(2)) == (["5"], ["6"])
    assert call(1, 2) == ["5", "6"]


@pytest.mark.slow
def test_code_for_training_is_kept_too(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    code = (
        "import sys, torch; from charrnn import cells, engines; from charrnn.compiler import objects\n"
        "if len(sys.argv) > 1: objects.object_code = None\n"
        "c = cells.get('lstm'); p = c.pack([torch.ones(tuple(s.shape)) / 9 for s in c.shapes(3, 4).values()])\n"
        "y, _ = engines.named('native').run(c, torch.ones(5, 2, 3), (torch.zeros(2, 4),) * 2, p); print(y.sum().item())"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, cwd=ROOT, env=environment)
        for more in ([], ["no compiler"])
    )
    assert first.returncode == second.returncode == 0, second.stderr
    assert first.stdout == second.stdout != ""


def test_code_that_was_not_used_for_longest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_cache, "folder", lambda: tmp_path)
    texts = [adding(50 + k) for k in range(4)]
    names: list[str] = []
    for k, text in enumerate(texts[:3]):
        one(text, 2)
        (new,) = {path.name for path in tmp_path.iterdir()} - set(names)
        names.append(new)
        os.utime(tmp_path / new, (k, k))
    loaded_without_compiler(texts[0], tmp_path, tmp_path / "spare")  # used again
    monkeypatch.setattr(native_cache, "MOST_BYTES", 3 * (tmp_path / names[0]).stat().st_size + 20)
    (tmp_path / "somebody's").write_bytes(bytes(10_000))
    one(texts[3], 2)
    left = {path.name for path in tmp_path.iterdir()}
    assert {names[0], names[2], "somebody's"} < left
    assert names[1] not in left
    assert len(left) == 4


def test_a_stream_hands_out_its_first_character_at_once(trained: TrainedRun) -> None:
    model = api.load(trained())
    decoder = model.decoder()
    assert isinstance(decoder, NativeDecoder)
    source = draws(7, 0)
    next(decoder.drawn(Primed(model.architecture.start, decoder.start(), ""), model.tokenizer, Sampling(), source))
    second = draws(7, 0)
    second.random()
    assert source.random() == second.random()  # one number was taken, not a chunk of them


def test_completing_imports_neither_torch_nor_what_compiles(trained: TrainedRun) -> None:
    run = trained()
    api.load(run).decoder()
    code = (
        f"import sys; from charrnn import api; api.load({str(run.path)!r}).complete('Re', 3)\n"
        "next(iter(api.load('latest').completions('Re', 3, api.Sampling())))\n"
        "print([m for m in ('torch', 'tokenizers', 'charrnn.compiler.objects') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
