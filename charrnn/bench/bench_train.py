"""One step of training: the engines here against torch's own module in a plain loop, the same batches and Adam.

A cell that is no torch layer is measured against the layer nearest to it in parameters. The share of the peak counts
the operations that are executed: a first layer whose table is smaller than what is read multiplies the table alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from charrnn import cells
from charrnn.bench.bench_machine import fastest_products, product_works, seconds_of
from charrnn.cells.cell import Cell
from charrnn.compiler import trace
from charrnn.compiler.graph import reachable
from charrnn.engines import fused, names_for
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.model.torch_layers import to_torch

VOCABULARY = 330
SQUARE = 1024  # of the product that is measured in turns with training
TABLES = frozenset({"loop", "scan", "native"})  # engines that multiply a small table before it is looked up


def measure(
    cell: str, hidden: int, depth: int, batch: int, window: int, seconds: float, gflops: dict[str, float]
) -> list[dict[str, Any]]:
    """Measure characters a second of each engine and precision, within about so many seconds.

    gflops: the machine's peaks by precision; bf16 is left out where it is slower than float32. The share of the peak is
    taken of one that is measured in the same turns.
    """
    architecture = Architecture(cell, VOCABULARY, hidden, depth, min(hidden, 128))
    definition, weights = architecture.definition, architecture.initial(seed=7)
    ids = torch.from_numpy(np.random.default_rng(7).integers(0, VOCABULARY, (window + 1, batch)))
    works: dict[tuple[str, str], Callable[[], Any]] = {}
    precisions = [p for p in ("float32", "bf16") if gflops[p] >= gflops["float32"]]
    module = dataclasses.replace(architecture, cell=nearest_torch_layer(definition).name, cell_options={})
    for precision in precisions:
        if precision == "float32" or fused.multiplies_bf16(module.definition, "cpu"):
            works["nn module", precision] = _plain(module, module.initial(seed=7), ids, precision)
        for engine in names_for(definition):
            works[engine, precision] = _step(CharRNN(architecture, weights, engine), ids, precision)
    names = {" ".join(key): work for key, work in works.items()}
    products, operations = product_works(torch.get_num_threads(), SQUARE)
    times = seconds_of(names | products, seconds, at_least=2)
    peaks = fastest_products(times, operations)
    plain = min(seconds for name, seconds in times.items() if name.startswith("nn module"))
    rows = []
    for engine, precision in works:
        t = times[f"{engine} {precision}"]
        measured = module if engine == "nn module" else architecture
        rows.append(
            {
                **sizes(cell, hidden, depth, batch, window),
                "engine": engine,
                "precision": precision,
                "chars_per_s": batch * window / t,
                "ratio_to_plain": plain / t,
                "share_of_peak": executed(measured, batch * window, engine in TABLES) / t / peaks[precision],
            }
        )
    return rows


def executed(architecture: Architecture, read: int, tables: bool) -> float:
    """Count the 10^9 operations of the matrix products of a step: two a multiplication, forwards once, backwards twice.

    read: characters of a step. tables: whether the first layer multiplies its table where that is smaller than `read`.
    """
    H, cell = architecture.hidden, architecture.definition
    multiplications = read * H * architecture.vocabulary
    for layer in range(architecture.layers):
        inputs, step = trace.trace(cell, architecture.input_size(layer), H, H, dict(architecture.cell_options))
        rows = min(read, architecture.vocabulary + 1) if layer == 0 and tables else read
        multiplications += rows * _multiplied(inputs) + read * _multiplied(step)
    return 6 * multiplications / 1e9


def _multiplied(function: trace.Function) -> int:
    """Count the multiplications of a function's matrix products, for one row."""
    nodes = reachable(function.outputs.values())
    return sum(node.width * node.args[0].width for node in nodes if node.op == "matmul")


def sizes(cell: str, hidden: int, depth: int, batch: int, window: int) -> dict[str, Any]:
    """Return what all rows of a measurement say of the model and its batches."""
    return {"cell": cell, "hidden": hidden, "layers": depth, "batch": batch, "window": window}


def nearest_torch_layer(cell: Cell) -> Cell:
    """Choose the cell whose torch layer the plain loop has: itself, or the torch layer nearest in parameters."""
    twins = [known for known in map(cells.get, cells.names()) if known.twin is not None]
    return min(twins, key=lambda twin: (twin.name != cell.name, abs(twin.count(512, 512) - cell.count(512, 512))))


def _step(model: CharRNN, ids: Any, precision: str) -> Callable[[], Any]:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def forward(inputs: Any) -> Any:
        return model(inputs, model.start(inputs.shape[1]))[0]

    return lambda: _train_step(forward, optimizer, ids, precision)


def _plain(architecture: Architecture, weights: Any, ids: Any, precision: str) -> Callable[[], Any]:
    """Make the plain loop: nn.Embedding, nn.LSTM (or GRU, RNN), nn.Linear."""
    w = {name: torch.tensor(value) for name, value in weights.items()}
    names = architecture.definition.parameter_names
    stack = [{n: w[f"layers.{i}.{n}"] for n in names} for i in range(architecture.layers)]
    embedding = nn.Embedding.from_pretrained(w["embedding"], freeze=False)  # type: ignore[no-untyped-call]
    recurrent = to_torch(architecture.definition, stack)
    head = nn.Linear(architecture.hidden, architecture.vocabulary)
    parameters = [*embedding.parameters(), *recurrent.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, fused=True)
    return lambda: _train_step(lambda x: head(recurrent(embedding(x))[0]), optimizer, ids, precision)


def _train_step(forward: Callable[[Any], Any], optimizer: torch.optim.Optimizer, ids: Any, precision: str) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = forward(ids[:-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
