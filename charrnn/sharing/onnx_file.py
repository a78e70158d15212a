"""A finished model as one ONNX file: one step of it, with all that a program needs to complete text by it.

The graph reads an id and every layer's states, and gives logits and the states after; the ids that direct connections
look at are a state too. The file's metadata says what
ids are, in JSON: `vocabulary`, `states` and `options`. docs/sharing.md has a program that completes text by them.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.compiler.targets import onnx
from charrnn.compiler.trace import slot
from charrnn.errors import CharRNNError, how_to_install
from charrnn.generate.decoder import Decoder
from charrnn.sharing import single_file
from charrnn.text.tokenizer import BYTES

if TYPE_CHECKING:
    from charrnn.api import TextModel

PACKAGES = ("onnx", "onnxruntime")
LOGITS_WITHIN = 1e-4  # of the equations' in NumPy, where a logit is some units: roundings of one step are far smaller
CHECKED_IDS = 64


def write(model: "TextModel", path: Path) -> Path:
    """Write a model as an ONNX file, after ONNX Runtime has computed what the equations do. Returns the path.

    model: of a run, or any. path: the file, which must not exist yet.
    Raises CharRNNError where the packages onnx and onnxruntime are missing, where the cell's equations cannot be
    recorded, where ONNX Runtime computes something else, and where the file exists or cannot be written.
    """
    single_file.refuse_taken(path)
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise CharRNNError(f"an ONNX file needs the packages {' and '.join(missing)}", how_to_install("onnx"))
    decoder = Decoder(model.architecture, model.weights, "numpy")
    graph = onnx.write(decoder, model.weights)
    for key, value in metadata(model).items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    graph.producer_name = "charrnn"
    content: bytes = graph.SerializeToString()
    check(content, decoder)
    single_file.write(path, content)
    return path


def metadata(model: "TextModel") -> dict[str, str]:
    """Return what the file says of a model, each as JSON.

    vocabulary: a list whose place 256 + i, counted on from the bytes, is the i-th character. states: of each layer and
    state its name in the graph, and the number that every feature of it starts at; with direct connections also of the
    ids before, which are int64 and start as the start token's. options: tokenizer, normalize, newline, document, start
    (the id that precedes a text), the cell with its sizes, and those of the direct connections.
    """
    architecture = model.architecture
    states: dict[str, float] = {
        f"{slot(name)}_{layer}": float(value)
        for layer in range(architecture.layers)
        for name, value in architecture.definition.state.items()
    }
    if architecture.remembered:
        states[onnx.BEFORE] = architecture.start
    options = {
        "tokenizer": model.tokenizer.kind,
        "normalize": model.tokenizer.normalize,
        "newline": model.config.newline,
        "document": model.config.document,
        "start": architecture.start,
        "cell": architecture.cell,
        "cell_options": dict(architecture.cell_options),
        "hidden": architecture.hidden,
        "layers": architecture.layers,
        "direct": architecture.direct,
        "direct_rows": architecture.direct_rows,
        "first_character": BYTES,
    }
    values = {"vocabulary": list(model.tokenizer.characters), "states": states, "options": options}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def check(content: bytes, decoder: Decoder) -> None:
    """Raise CharRNNError where ONNX Runtime computes other logits than the equations do, over CHECKED_IDS ids."""
    V = decoder.architecture.vocabulary
    ids = np.random.default_rng(1).integers(0, V, CHECKED_IDS)
    difference = float(np.abs(logits(content, decoder, ids) - _expected(decoder, ids)).max())
    if not difference <= LOGITS_WITHIN:
        raise CharRNNError(
            f"ONNX Runtime computes logits that differ by {difference:.2g} from the equations'",
            "another version of onnxruntime may do better; nothing was written",
        )


def logits(content: bytes, decoder: Decoder, ids: NDArray[Any]) -> NDArray[np.float32]:
    """Run an ONNX file over the start token and ids (N,); return the logits after each, (N + 1, V)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {given.name: given for given in session.get_inputs()}
    starts = json.loads(session.get_modelmeta().custom_metadata_map["states"])
    dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    state: dict[str, NDArray[Any]] = {
        name: np.full(inputs[name].shape, value, dtypes[inputs[name].type]) for name, value in starts.items()
    }
    outputs = ["logits", *(f"{name}_after" for name in state)]
    rows = []
    for id_ in (decoder.architecture.start, *ids):
        row, *after = session.run(outputs, {"id": np.array([id_], np.int64), **state})
        state = dict(zip(state, after, strict=True))
        rows.append(row[0])
    return np.stack(rows)


def _expected(decoder: Decoder, ids: NDArray[Any]) -> NDArray[Any]:
    state, rows = decoder.start(), []
    for id_ in (decoder.architecture.start, *ids):
        row, state = decoder.step(np.array([id_]), state)
        rows.append(row[0])
    return np.stack(rows)
