"""ONNX Runtime's way to decode: one step of the whole model as a graph of its own.

An extra (`pip install charrnn[bench]`). The graph is a fair one: the first layer is looked up, every input and output
stays where it is, and the only work left to Python is the call and the draw.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from charrnn.compiler.targets.onnx import write
from charrnn.compiler.trace import slot
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture


def available() -> bool:
    """Tell whether ONNX Runtime and the package that writes its graphs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def steps(architecture: Architecture, weights: Any, threads: int) -> Callable[[int], Any]:
    """Decode so many characters, drawing each with NumPy."""
    step = session(architecture, weights, threads)
    names = [f"{slot(name)}_{n}" for n in range(architecture.layers) for name in architecture.definition.state]
    outputs = ["logits", *(f"{name}_after" for name in names)]
    rng = np.random.default_rng(7)

    def run(chars: int) -> None:
        values = [start for _ in range(architecture.layers) for start in _start(architecture)]
        id_ = np.zeros(1, np.int64)
        for _ in range(chars):
            logits, *values = step.run(outputs, {"id": id_, **dict(zip(names, values, strict=True))})
            p = np.exp(logits[0] - logits[0].max())
            id_[0] = np.searchsorted(np.cumsum(p), rng.random() * p.sum())

    return run


def session(architecture: Architecture, weights: Any, threads: int) -> Any:
    """Make one step as ONNX Runtime runs it: id (1,) and every layer's states in, logits (1, V) and states out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    graph = write(Decoder(architecture, weights, "numpy"), weights).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _start(architecture: Architecture) -> tuple[Any, ...]:
    return architecture.definition.start((1, architecture.hidden), np.float32, **architecture.cell_options)
