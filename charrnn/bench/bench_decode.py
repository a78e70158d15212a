"""One character after the other: the loops a careful torch user would write, ONNX Runtime, and the decoders here.

All have the same weights, draw a character at every step from the softmax of the logits at temperature 1, and run on
one thread, unless their names say otherwise; many at once use all threads. The plain loops are written for speed where
that is easy: inference mode, no copies, no Python objects but those that torch needs.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.bench import bench_onnx
from charrnn.bench.bench_machine import panel_reader, reader, seconds_of
from charrnn.cells.cell import Cell
from charrnn.generate.compiled import CHUNKS, CompiledDecoder
from charrnn.generate.decoder import Decoder
from charrnn.generate.rows import STEPS, RowsDecoder
from charrnn.generate.sampling import Sampling, draws, read_prime
from charrnn.model.architecture import Architecture
from charrnn.model.torch_layers import to_torch
from charrnn.text.tokenizer import Tokenizer

CHARACTERS = "\n !\"'(),-.0123456789:;?" + "".join(chr(c) for c in [*range(65, 91), *range(97, 123)]) + "čćđšžČĆĐŠŽ"
SLICE_SECONDS = 8e-3
READ_BYTES_PER_S = 50e9  # about; only for how often to read in that time
ROWS = 64  # completions side by side, on all cores
Steps = Callable[[int], Any]


def measure(cell: str, hidden: int, layers: int, seconds: float, precisions: tuple[str, ...]) -> list[dict[str, Any]]:
    """Measure each way to decode a fresh model of these sizes, within about so many seconds; return a row for each.

    precisions: dtypes of the weights for the compiled decoder. Times are in microseconds a character.
    """
    tokenizer = Tokenizer.char(CHARACTERS)
    architecture = Architecture(cell, tokenizer.size, hidden, layers, min(hidden, 128))
    weights = architecture.initial(seed=7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _measured(architecture, weights, tokenizer, seconds, precisions)
    finally:
        torch.set_num_threads(threads)


def _measured(
    architecture: Architecture, weights: Any, tokenizer: Tokenizer, seconds: float, precisions: tuple[str, ...]
) -> list[dict[str, Any]]:
    model = TorchModel(architecture, weights)
    ways: dict[str, tuple[str, Steps]] = {}
    if model.cell.twin is not None:
        ways["nn module"] = "float32", module_loop(model)
        ways["cell loop"] = "float32", cell_loop(model)
        if model.cell.twin.layer == "LSTM":
            for name, make in zip(("eager, rows", "eager, columns"), eager_loops(), strict=True):
                ways[name] = "float32", make(model)
    ways["eager, equations"] = "float32", _eager_equations(architecture, weights)
    if bench_onnx.available():
        for threads in sorted({1, os.cpu_count() or 1}):
            label = "onnx runtime" if threads == 1 else f"onnx runtime, {threads} threads"
            ways[label] = "float32", bench_onnx.steps(architecture, weights, threads)
    sizes = {}
    for dtype in precisions:
        decoder = CompiledDecoder(architecture, weights, dtype)
        ways[f"native {dtype}"] = dtype, _one_row(decoder, tokenizer)
        sizes[dtype] = decoder.bytes_per_character
        ways[f"native {dtype}, {ROWS} at once"] = dtype, _side_by_side(decoder, tokenizer)
    # Windows of some milliseconds each: short enough that other programs seldom fall into the shortest of many, long
    # enough that bringing weights back into the cache, where the ways before have taken their place, does not count.
    chars = {name: _chars_in(SLICE_SECONDS, steps, _at_a_time(name)) for name, (_, steps) in ways.items()}
    works: dict[str, Callable[[], Any]] = {name: _bound(steps, chars[name]) for name, (_, steps) in ways.items()}
    times_read = {dtype: max(1, int(SLICE_SECONDS * READ_BYTES_PER_S / size)) for dtype, size in sizes.items()}
    works |= {f"read {dtype}": reader(size, times=times_read[dtype]) for dtype, size in sizes.items()}
    works |= {
        f"panels {dtype}": _bound(_often(panel_reader(size, dtype)), times_read[dtype]) for dtype, size in sizes.items()
    }
    times = seconds_of(works, seconds)
    per_char = {name: times[name] / chars[name] for name in ways}
    # The limit is the fastest read of the weights, whoever reads them.
    per_read = {
        dtype: min(times[f"read {dtype}"] / n, times[f"panels {dtype}"] / n, per_char[f"native {dtype}"])
        for dtype, n in times_read.items()
    }
    eager = min(per_char[name] for name in ways if name.startswith("eager"))
    rows = []
    for name, (dtype, _) in ways.items():
        in_one_row = name == f"native {dtype}"
        rows.append(
            {
                "cell": architecture.cell,
                "hidden": architecture.hidden,
                "layers": architecture.layers,
                "weights": dtype,
                "engine": name.replace(f"native {dtype}", "native"),
                "microseconds_per_char": per_char[name] * 1e6,
                "ratio_to_plain": per_char["nn module"] / per_char[name] if "nn module" in ways else None,
                "ratio_to_cell_loop": per_char["cell loop"] / per_char[name] if "cell loop" in ways else None,
                "ratio_to_eager": eager / per_char[name],
                "share_of_bandwidth": per_read[dtype] / per_char[name] if in_one_row else None,
            }
        )
    return rows


def rows_seconds(decoder: CompiledDecoder, tokenizer: Tokenizer, seconds: float) -> float:
    """Return the seconds that a character takes where ROWS rows are decoded side by side, as `measure` has it."""
    steps = _side_by_side(decoder, tokenizer)
    chars = _chars_in(SLICE_SECONDS, steps, ROWS * STEPS)
    return seconds_of({"rows": _bound(steps, chars)}, seconds)["rows"] / chars


def _at_a_time(name: str) -> int:
    """Return the number of characters that a way to decode hands out a multiple of."""
    if name.endswith("at once"):
        return ROWS * STEPS
    return CHUNKS[-1] if name.startswith("native") else 1


def _chars_in(seconds: float, steps: Steps, multiple: int) -> int:
    """Return how many characters take about so many seconds, as a multiple of `multiple`."""
    steps(multiple)
    began = time.perf_counter()
    steps(multiple)
    return multiple * max(1, min(64 // multiple, round(seconds / (time.perf_counter() - began))))


def _often(work: Callable[[], Any]) -> Steps:
    def steps(times: int) -> None:
        for _ in range(times):
            work()

    return steps


def _bound(steps: Steps, chars: int) -> Callable[[], Any]:
    return lambda: steps(chars)


class TorchModel:
    """The weights as torch's modules hold them."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Any]):
        self.cell: Cell = architecture.definition
        self.architecture = architecture
        w = {name: torch.tensor(value) for name, value in weights.items()}
        names = self.cell.parameter_names
        self.layers = [{n: w[f"layers.{i}.{n}"] for n in names} for i in range(architecture.layers)]
        self.embedding = w["embedding"]
        self.head = nn.Linear(architecture.hidden, architecture.vocabulary)
        self.head.weight.copy_(w["head.W"].T)
        self.head.bias.copy_(w["head.b"])

    def draw(self, logits: Tensor) -> Tensor:
        return torch.multinomial(torch.softmax(logits, -1), 1)


def module_loop(model: TorchModel) -> Steps:
    """Call nn.LSTM, nn.GRU or nn.RNN on sequences of one character."""
    module = to_torch(model.cell, model.layers)
    embedding = nn.Embedding.from_pretrained(model.embedding)  # type: ignore[no-untyped-call]

    def steps(chars: int) -> None:
        state, id_ = None, torch.zeros(1, 1, dtype=torch.long)
        for _ in range(chars):
            y, state = module(embedding(id_), state)
            id_ = model.draw(model.head(y[0]))

    return steps


def cell_loop(model: TorchModel) -> Steps:
    """Call nn.LSTMCell, nn.GRUCell or nn.RNNCell, layer by layer."""
    assert model.cell.twin is not None
    cells = []
    for params in model.layers:
        weights = model.cell.twin.to_torch(model.cell.pack(params))
        cell = getattr(nn, f"{model.cell.twin.layer}Cell")(weights[0].shape[1], weights[1].shape[1])
        for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True):
            getattr(cell, name).copy_(value)
        cells.append(cell)
    embedding = nn.Embedding.from_pretrained(model.embedding)  # type: ignore[no-untyped-call]
    lstm = model.cell.twin.layer == "LSTM"

    def steps(chars: int) -> None:
        states: list[Any] = [None] * len(cells)
        id_ = torch.zeros(1, dtype=torch.long)
        for _ in range(chars):
            x = embedding(id_)
            for n, cell in enumerate(cells):
                states[n] = cell(x, states[n])
                x = states[n][0] if lstm else states[n]
            id_ = model.draw(model.head(x))[0]

    return steps


def _eager_lstm(model: TorchModel, by_rows: bool) -> Steps:
    """Compute an LSTM by hand: the first layer's input looked up, both products of a layer in one, vectors for rows."""
    assert model.cell.twin is not None
    H, tables, matrices, biases = model.architecture.hidden, None, [], []
    for n, params in enumerate(model.layers):
        w_ih, w_hh, b_ih, b_hh = model.cell.twin.to_torch(model.cell.pack(params))
        if n == 0:
            tables = (model.embedding @ w_ih.T + b_ih + b_hh).contiguous()
        together = w_hh if n == 0 else torch.cat([w_ih, w_hh], 1)
        matrices.append((together if by_rows else together.T).contiguous())
        biases.append(b_ih + b_hh)
    head = model.head.weight.contiguous() if by_rows else model.head.weight.T.contiguous()

    def product(bias: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
        return torch.addmv(bias, matrix, x) if by_rows else torch.addmm(bias, x[None], matrix)[0]

    def steps(chars: int) -> None:
        assert tables is not None
        h = [torch.zeros(H) for _ in matrices]
        c = [torch.zeros(H) for _ in matrices]
        id_ = torch.zeros(1, dtype=torch.long)
        for _ in range(chars):
            for n, matrix in enumerate(matrices):
                z = product(tables[id_][0], matrix, h[0]) if n == 0 else None
                if z is None:
                    z = product(biases[n], matrix, torch.cat([h[n - 1], h[n]]))
                gates = torch.sigmoid(z)
                c[n] = gates[H : 2 * H] * c[n] + gates[:H] * torch.tanh(z[2 * H : 3 * H])
                h[n] = gates[3 * H :] * torch.tanh(c[n])
            id_ = model.draw(product(model.head.bias, head, h[-1]))

    return steps


def eager_loops() -> list[Callable[[TorchModel], Steps]]:
    """Return the LSTM by hand, in both layouts of the weights."""
    return [partial(_eager_lstm, by_rows=True), partial(_eager_lstm, by_rows=False)]


def _eager_equations(architecture: Architecture, weights: Any) -> Steps:
    """Run the cell's own equations on torch tensors."""
    decoder = Decoder(architecture, weights, "torch")

    def steps(chars: int) -> None:
        state, id_ = decoder.start(), np.zeros(1, np.int64)
        for _ in range(chars):
            logits, state = decoder.step(id_, state)
            id_ = torch.multinomial(torch.softmax(torch.from_numpy(logits[0]), -1), 1).numpy()

    return steps


def _one_row(decoder: CompiledDecoder, tokenizer: Tokenizer) -> Steps:
    primed = read_prime(decoder, tokenizer, "")
    drawn = decoder.drawn(primed, tokenizer, Sampling(), draws(7, 0))
    for _ in range(sum(CHUNKS)):  # now every CHUNKS[-1] characters asked for are that many drawn
        next(drawn)

    def steps(chars: int) -> None:
        for _ in range(chars):
            next(drawn)

    return steps


def _side_by_side(decoder: CompiledDecoder, tokenizer: Tokenizer) -> Steps:
    primed = read_prime(decoder, tokenizer, "")
    rows = RowsDecoder(decoder).drawn(primed, tokenizer, Sampling(), range(ROWS))

    def steps(chars: int) -> None:
        for row in rows:
            for _ in range(chars // ROWS):
                next(row)

    return steps
