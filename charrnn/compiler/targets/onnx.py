"""One step of a whole model as an ONNX graph, made from the traced equations.

The first layer is looked up. The graph takes an id and every layer's states, and gives logits and the states after.
With direct connections the ids before that id are a state too.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from charrnn.cells import ops
from charrnn.compiler.graph import Node
from charrnn.compiler.trace import Function, slot, trace
from charrnn.text import contexts

if TYPE_CHECKING:
    from charrnn.generate.decoder import Decoder
    from charrnn.model.architecture import Architecture

OPSET = 17
BEFORE = "ids_before"  # the state of direct connections


def write(decoder: "Decoder", weights: Any) -> Any:
    """Return one step of a model as an ONNX ModelProto.

    decoder: of the model, for its look-up table and head. weights: by name, as in a run.
    Inputs: 'id' (1,) int64, which is the start token's before the first character; and each state of each layer,
    named state_NAME_LAYER, (1, H) float32 or as wide as the cell declares. Where direct connections look at more than
    one id, there is 'ids_before' (1, N - 1) int64 too, the newest last. Outputs: 'logits' (1, V), and each state's name
    with _after.
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
    head = [y, graph.constant(np.ascontiguousarray(decoder.head)), graph.constant(decoder.bias)]
    if decoder.tables is None:
        graph.add("Gemm", *head, name="logits")
    else:
        graph.add("Add", graph.add("Gemm", *head), _direct(graph, architecture, decoder.tables), name="logits")
    if before := architecture.remembered:
        inputs.append(helper.make_tensor_value_info(BEFORE, TensorProto.INT64, [1, before]))
        outputs.append(helper.make_tensor_value_info(f"{BEFORE}_after", TensorProto.INT64, [1, before]))
    outputs.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, architecture.vocabulary]))
    whole = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.constants)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _direct(graph: "OnnxGraph", architecture: "Architecture", tables: Any) -> str:
    """Add what direct connections say of every id, (1, V) or (V,), and the ids that are remembered after the step."""
    N, R, past = architecture.direct, architecture.direct_rows, "id"
    if architecture.remembered:
        newest = graph.add("Unsqueeze", "id", graph.whole(0))
        past = graph.add("Concat", BEFORE, newest, axis=1)
        graph.add("Slice", past, graph.whole(1), graph.whole(N), graph.whole(1), name=f"{BEFORE}_after")
    start, modulus = graph.whole(architecture.start), graph.whole(contexts.MASK + 1)
    c, h, found = "id", graph.whole(0), []
    for n in range(N):
        if n > 0:  # what stands before a start token counts as start tokens
            older = graph.add("Gather", past, graph.constant(N - 1 - n), axis=1)
            c = graph.add("Where", graph.add("Equal", c, start), start, older)
        of_id = graph.add("Mul", graph.whole(contexts.Q), graph.add("Add", c, graph.whole(1)))
        h = graph.add("Mod", graph.add("Add", graph.add("Mul", graph.whole(contexts.P), h), of_id), modulus)
        row = graph.add("Div", graph.add("Mul", h, graph.whole(R)), modulus)
        found.append(graph.add("Add", row, graph.whole(n * R)))
    # Most rows are of no text that was read: one row stands for all that are zero.
    kept = np.flatnonzero(tables.any(axis=1))
    places = np.full(N * R, len(kept), np.int32)
    places[kept] = np.arange(len(kept))
    table = np.concatenate([tables[kept], np.zeros_like(tables[:1])])
    where = graph.add("Gather", graph.constant(places), graph.add("Concat", *found, axis=0))
    said = graph.add("ReduceSum", graph.add("Gather", graph.constant(table), where), graph.whole(0))
    return graph.add("Pad", said, graph.constant(np.array([0, architecture.columns.start, 0, 0])))


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

    def whole(self, value: int) -> str:
        """Add a whole number, (1,) int64."""
        return self.constant(np.array([value], np.int64))

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
