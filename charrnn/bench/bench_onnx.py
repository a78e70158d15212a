"""ONNX Runtime's way to decode: one step of the whole model as a graph, made from the traced equations.

An extra (`pip install charrnn[bench]`). The graph is a fair one: the first layer is looked up, every input and output
stays where it is, and the only work left to Python is the call and the draw.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from charrnn.compiler.decoding.trace import Function, Node, slot, trace
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture

NAMES = {"truediv": "Div", "maximum": "Max", "minimum": "Min"}


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
    graph = _model(architecture, weights).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _start(architecture: Architecture) -> tuple[Any, ...]:
    return architecture.definition.start((1, architecture.hidden), np.float32)


def _model(architecture: Architecture, weights: Any) -> Any:
    from onnx import TensorProto, helper

    H, L, cell = architecture.hidden, architecture.layers, architecture.definition
    graph = _Graph()
    decoder = Decoder(architecture, weights, "numpy")
    z = graph.add("Gather", [graph.constant(decoder.first), "id"])
    y, inputs, outputs = "", [helper.make_tensor_value_info("id", TensorProto.INT64, [1])], []
    for n in range(L):
        given, step = trace(cell, architecture.input_size(n), H, H, dict(architecture.cell_options))
        names = {name: f"{name}_{n}" for name in map(slot, cell.state)}
        parameters = {name.removeprefix(f"layers.{n}."): value for name, value in weights.items()}
        if n > 0:
            z = graph.function(given, {"x": y}, parameters)["z"]
        after = graph.function(step, {"z": z, **names}, parameters)
        y = graph.add("Add", [after["y"], y]) if architecture.residual and n > 0 else after["y"]
        for name in map(slot, cell.state):
            graph.add("Identity", [after[name]], f"{names[name]}_after")
            inputs.append(helper.make_tensor_value_info(names[name], TensorProto.FLOAT, [1, H]))
            outputs.append(helper.make_tensor_value_info(f"{names[name]}_after", TensorProto.FLOAT, [1, H]))
    graph.add("Gemm", [y, graph.constant(np.ascontiguousarray(decoder.head)), graph.constant(decoder.bias)], "logits")
    outputs.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, architecture.vocabulary]))
    whole = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.constants)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Graph:
    """Nodes and constants of an ONNX graph, from traced functions."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, arguments: list[str], name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, arguments, [name], **attributes))
        return name

    def function(self, function: Function, inputs: dict[str, str], parameters: dict[str, Any]) -> dict[str, str]:
        """Add a traced function's nodes; returns the names of its outputs."""
        done: dict[Node, str] = {}

        def visit(node: Node) -> str:
            if node not in done:
                done[node] = self._node(node, [visit(a) for a in node.arguments], inputs, parameters)
            return done[node]

        return {name: visit(node) for name, node in function.outputs.items()}

    def _node(self, node: Node, arguments: list[str], inputs: dict[str, str], parameters: dict[str, Any]) -> str:
        if node.op == "input":
            return inputs[node.detail]
        if node.op == "constant":
            return self.constant(np.float32(node.detail))
        if node.op in ("parameter", "matmul"):
            value = parameters[node.detail.name]
            for k in node.detail.index:
                value = value[k]
            leaf = self.constant(np.ascontiguousarray(value))
            return leaf if node.op == "parameter" else self.add("MatMul", [*arguments, leaf])
        if node.op == "concat":
            return self.add("Concat", arguments, axis=-1)
        if node.op == "slice":
            ends = [self.constant(np.array([n])) for n in (node.detail, node.detail + node.width, -1)]
            return self.add("Slice", [*arguments, *ends])
        if node.op == "expm1":
            return self.add("Sub", [self.add("Exp", arguments), self.constant(np.float32(1))])
        if node.op == "log1p":
            return self.add("Log", [self.add("Add", [*arguments, self.constant(np.float32(1))])])
        if node.op == "layernorm":
            scale = self.constant(np.ones(node.width, np.float32))
            return self.add("LayerNormalization", [*arguments, scale], epsilon=node.detail)
        return self.add(NAMES.get(node.op, node.op.capitalize()), arguments)
