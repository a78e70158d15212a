"""One step of a whole model as a JavaScript module, made from the traced equations. It needs nothing but the weights.

Numbers are JavaScript's, which are float64; weights are kept in float32.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.cells import ops
from charrnn.compiler.graph import Node, reachable
from charrnn.compiler.trace import Function, Leaf, slot, trace
from charrnn.errors import CharRNNError
from charrnn.text import contexts

if TYPE_CHECKING:
    from charrnn.generate.decoder import Decoder
    from charrnn.model.architecture import Architecture

HEAD = """\
// One step of a recurrent model: {cell}, {layers} x {hidden}, {vocabulary} characters. Written by charrnn.

export const vocabulary = {vocabulary};
export const startId = {vocabulary};  // precedes the first character

// The state before a text: every state of every layer.
export function start() {{
  return [{starts}].map(([width, value]) => new Float64Array(width).fill(value));
}}
"""

FUNCTIONS = """\
function sigmoid(x) {
  const e = Math.exp(-Math.abs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

function layernorm(x, epsilon, y) {
  let mean = 0, variance = 0;
  for (const value of x) mean += value / x.length;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  for (let i = 0; i < x.length; i++) y[i] = (x[i] - mean) * scale;
}

// Four rows of the matrix at a time: y is read and written once for them.
function multiply(x, matrix, y) {
  const I = x.length, O = y.length;
  y.fill(0);
  let i = 0, at = 0;
  for (; i + 3 < I; i += 4) {
    const a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3];
    for (let j = 0, k = at; j < O; j++, k++) {
      y[j] += a * matrix[k] + b * matrix[k + O] + c * matrix[k + 2 * O] + d * matrix[k + 3 * O];
    }
    at += 4 * O;
  }
  for (; i < I; i++, at += O) for (let j = 0; j < O; j++) y[j] += x[i] * matrix[at + j];
}
"""

DIRECT = """\
// Direct connections: {N} tables of {R} rows, of which those are kept that are not all zero.
const P = {P}, Q = {Q}, MASK = {MASK};
const N = {N}, R = {R}, first = {first}, columns = {columns};

// Where a row is among those that are kept, whose numbers rise; -1 where it is not.
function placeOf(row, kept) {{
  let from = 0, to = kept.length;
  while (from < to) {{
    const middle = (from + to) >>> 1;
    if (kept[middle] < row) from = middle + 1;
    else to = middle;
  }}
  return kept[from] === row ? from : -1;
}}

// Adds what the last characters by themselves say of the next one. before: the ids before `id`, the newest last.
function addDirect(table, kept, id, before, logits) {{
  let h = 0, c = id;
  for (let n = 0; n < N; n++) {{
    if (n > 0 && c !== startId) c = before[before.length - n];
    h = (Math.imul(P, h) + Math.imul(Q, c + 1)) & MASK;
    // floor(h R / 2^31) in two parts: h R may be above 2^53, where numbers are not exact.
    const row = Math.floor(((h >>> 7) * R + Math.floor((h & 127) * R / 2 ** 7)) / 2 ** 24);
    const place = placeOf(n * R + row, kept);
    if (place >= 0) for (let i = 0, k = place * columns; i < columns; i++, k++) logits[first + i] += table[k];
  }}
}}
"""


def write(decoder: "Decoder") -> str:
    """Return a module that exports `vocabulary`, `startId`, `start()` and `step(weights, state, id, logits)`.

    `step` reads the character `id`, writes the scores of the next one into `logits`, a Float32Array, and changes
    `state`: arrays of numbers, the last of which holds ids where direct connections remember some. `weights` is an
    object of arrays, as from `weights`. Raises CharRNNError where the equations cannot be traced.
    """
    architecture = decoder.architecture
    H, L, V, cell = architecture.hidden, architecture.layers, architecture.vocabulary, architecture.definition
    writer, states = _Writer(), list(map(slot, cell.state))
    body: list[str] = []
    y = ""
    for n in range(L):
        given, step = trace(cell, architecture.input_size(n), H, H, dict(architecture.cell_options))
        inputs = {name: f"state[{n * len(states) + k}]" for k, name in enumerate(states)}
        if n == 0:  # looked up
            width, z = step.inputs["z"], writer.name()
            body.append(f"const {z} = weights.table.subarray(id * {width}, (id + 1) * {width});")
        else:
            z = writer.function(given, {"x": y}, n, body)["z"]
        below, after = y, writer.function(step, {"z": z, **inputs}, n, body)
        y = after["y"]
        if n > 0 and architecture.residual:
            y = writer.room(H)
            body.append(f"for (let i = 0; i < {H}; i++) {y}[i] = {after['y']}[i] + {below}[i];")
        # A state may be what another one is made of: all are computed before the first is written.
        body += [f"{inputs[name]}.set({after[name]});" for name in states]
    bias, head = writer.weight("head.b"), writer.weight("head.W")
    top = writer.room(V)
    body.append(f"multiply({y}, {head}, {top});")
    widths = {name: width for name, (width,) in architecture.states.items()}
    starts = [f"[{width}, {_number(cell.state[name])}]" for name, width in widths.items()] * L
    functions, before = FUNCTIONS, architecture.remembered
    if architecture.direct:
        functions += "\n" + _direct(architecture)
        table, kept, ids = writer.weight("direct"), writer.weight("direct.rows"), f"state[{len(starts)}]"
        body.append(f"addDirect({table}, {kept}, id, {ids if before else '[]'}, {top});")
        if before:
            body += [f"{ids}.copyWithin(0, 1);", f"{ids}[{before - 1}] = id;"]
            starts.append(f"[{before}, startId]")
    body.append(f"for (let i = 0; i < {V}; i++) logits[i] = {top}[i] + {bias}[i];")
    text = HEAD.format(cell=cell.name, layers=L, hidden=H, vocabulary=V, starts=", ".join(starts))
    rooms = "".join(f"const {name} = new Float64Array({width});\n" for name, width in writer.rooms.items())
    lines = "".join(f"  {line}\n" for line in body)
    return f"{text}\n{functions}\n{rooms}\nexport function step(weights, state, id, logits) {{\n{lines}}}\n"


def _direct(architecture: "Architecture") -> str:
    """Return the function that adds direct connections, with its constants."""
    hash_ = {"P": contexts.P, "Q": contexts.Q, "MASK": contexts.MASK}
    sizes = {"N": architecture.direct, "R": architecture.direct_rows}
    first = architecture.columns.start
    return DIRECT.format(**hash_, **sizes, first=first, columns=architecture.vocabulary - first)


def weights(decoder: "Decoder", named: Any) -> dict[str, NDArray[Any]]:
    """Return what `step` wants, by name: the look-up table, the parameters of the layers, the head; as float32.

    Of direct connections there are the rows that are not all zero, and their numbers `direct.rows`, int32, rising.
    named: the weights of the run, by name.
    """
    arrays = {name: value for name, value in named.items() if name.startswith("layers.")}
    arrays |= {"table": decoder.first, "head.W": decoder.head, "head.b": decoder.bias}
    rows: dict[str, NDArray[Any]] = {}
    if decoder.tables is not None:  # most rows are of no text that was read
        kept = np.flatnonzero(decoder.tables.any(axis=1))
        arrays["direct"], rows["direct.rows"] = decoder.tables[kept], kept.astype(np.int32)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()} | rows


class _Writer:
    """Writes traced functions as statements. rooms: the arrays that they work in, by name, with their widths."""

    def __init__(self) -> None:
        self.rooms: dict[str, int] = {}
        self._names = 0

    def name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def room(self, width: int) -> str:
        name = self.name()
        self.rooms[name] = width
        return name

    def weight(self, name: str) -> str:
        return f'weights["{name}"]'

    def function(self, function: Function, inputs: dict[str, str], layer: int, body: list[str]) -> dict[str, str]:
        """Append a function's statements; return the arrays that hold its outputs, by name."""
        arrays: dict[Node, str] = {}
        for node in reachable(function.outputs.values()):
            if node.op != "constant":
                arrays[node] = self._node(node, arrays, inputs, layer, body)
        return {name: arrays[node] for name, node in function.outputs.items()}

    def _node(self, node: Node, arrays: dict[Node, str], inputs: dict[str, str], layer: int, body: list[str]) -> str:
        if node.op == "input":
            return inputs[node.data]
        name = self.name()
        if node.op == "parameter":
            body.append(f"const {name} = {self._leaf(node.data, layer)};")
            return name
        if node.op == "slice":
            body.append(f"const {name} = {arrays[node.args[0]]}.subarray({node.data}, {node.data + node.width});")
            return name
        self.rooms[name] = node.width
        if node.op == "matmul":
            body.append(f"multiply({arrays[node.args[0]]}, {self._leaf(node.data, layer)}, {name});")
        elif node.op == "concat":
            at = 0
            for part in node.args:
                body.append(f"{name}.set({arrays[part]}, {at});")
                at += part.width
        elif node.elementwise:
            terms = [f"({_number(a.data)})" if a.op == "constant" else f"{arrays[a]}[i]" for a in node.args]
            value = ops.TABLE[node.op].javascript.format(*terms)
            body.append(f"for (let i = 0; i < {node.width}; i++) {name}[i] = {value};")
        else:
            body.append(ops.TABLE[node.op].javascript.format(*(arrays[a] for a in node.args), name))
        return name

    def _leaf(self, leaf: Leaf, layer: int) -> str:
        """Write a parameter, or the one of a stack that is meant."""
        whole = self.weight(f"layers.{layer}.{leaf.name}")
        size = int(np.prod(leaf.shape))
        if not leaf.index:
            return whole
        if len(leaf.index) > 1:
            raise CharRNNError(f"parameter {leaf.name} is a stack of stacks", "stack it along one axis alone")
        (k,) = leaf.index
        return f"{whole}.subarray({k * size}, {(k + 1) * size})"


def _number(value: float) -> str:
    return repr(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
