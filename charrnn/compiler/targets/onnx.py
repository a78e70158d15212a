"""One step of a whole model as an ONNX graph, made from the traced equations.

The first layer is looked up. The graph takes an id and every layer's states, and gives logits and the states after.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from charrnn.cells import ops
from charrnn.compiler.graph import Node
from charrnn.compiler.trace import Function, slot, trace

if TYPE_CHECKING:
    from charrnn.generate.decoder import Decoder

OPSET = 17


def write(decoder: "Decoder", weights: Any) -> Any:
    """Return one step of a model as an ONNX ModelProto.

    decoder: of the model, for its look-up table and head. weights: by name, as in a run.
    Inputs: 'id' (1,) int64, which is the start token's before the first character; and each state of each layer,
    named state_NAME_LAYER, (1, H) float32 or as wide as the cell declares. Outputs: 'logits' (1, V), and each state's
    name with _after.
    Raises ImportError without the package onnx, and CharRNNError where the equations cannot be traced.
    """
    from onnx import TensorProto, helper

    architecture = decoder.architecture
    H, L, cell = architecture.hidden, architecture.layers, architecture.definition
    graph = OnnxGraph()
    z = graph.add("Gather", graph.constant(decoder.first), "id")
    y, inputs, outputs = "", [helper.make_tensor_value_info("id", TensorProto.INT64, [1])], []
    for n in range(L):
        given, step = trace(cell, architecture.input_size(n), H, H, dict(architecture.cell_options))
        names = {name: f"{name}_{n}" for name in map(slot, cell.state)}
        parameters = {name.removeprefix(f"layers.{n}."): value for name, value in weights.items()}
        if n > 0:
            z = graph.function(given, {"x": y}, parameters)["z"]
        after = graph.function(step, {"z": z, **names}, parameters)
        y = graph.add("Add", after["y"], y) if architecture.residual and n > 0 else after["y"]
        for name, (width,) in ((slot(name), shape) for name, shape in architecture.states.items()):
            graph.add("Identity", after[name], name=f"{names[name]}_after")
            inputs.append(helper.make_tensor_value_info(names[name], TensorProto.FLOAT, [1, width]))
            outputs.append(helper.make_tensor_value_info(f"{names[name]}_after", TensorProto.FLOAT, [1, width]))
    head = graph.constant(np.ascontiguousarray(decoder.head))
    graph.add("Gemm", y, head, graph.constant(decoder.bias), name="logits")
    outputs.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, architecture.vocabulary]))
    whole = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.constants)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


class OnnxGraph:
    """Nodes and constants of an ONNX graph. What a node gives is known by its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._widths: dict[str, int] = {}

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, value: float) -> str:
        """Add a number, for the rows of the table of operations."""
        return self.constant(np.float32(value))

    def ones(self, like: str) -> str:
        """Add as many ones as a result of the equations has numbers."""
        return self.constant(np.ones(self._widths[like], np.float32))

    def add(self, op: str, *arguments: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node; return its name."""
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, arguments, [name], **attributes))
        return name

    def function(self, function: Function, inputs: dict[str, str], parameters: dict[str, Any]) -> dict[str, str]:
        """Add a traced function's nodes; return the names of its outputs."""
        done: dict[Node, str] = {}

        def visit(node: Node) -> str:
            if node not in done:
                done[node] = self._node(node, [visit(a) for a in node.args], inputs, parameters)
                self._widths[done[node]] = node.width
            return done[node]

        return {name: visit(node) for name, node in function.outputs.items()}

    def _node(self, node: Node, args: list[str], inputs: dict[str, str], parameters: dict[str, Any]) -> str:
        if node.op == "input":
            return inputs[node.data]
        if node.op == "constant":
            return self.number(node.data)
        if node.op in ("parameter", "matmul"):
            value = parameters[node.data.name]
            for k in node.data.index:
                value = value[k]
            leaf = self.constant(np.ascontiguousarray(value))
            return leaf if node.op == "parameter" else self.add("MatMul", *args, leaf)
        if node.op == "concat":
            return self.add("Concat", *args, axis=-1)
        if node.op == "slice":
            ends = [self.constant(np.array([n])) for n in (node.data, node.data + node.width, -1)]
            return self.add("Slice", *args, *ends)
        write = ops.TABLE[node.op].onnx
        assert write is not None, node.op
        result: str = write(self, *args)
        return result
