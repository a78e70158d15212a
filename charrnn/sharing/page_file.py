"""A finished model as one HTML file that completes text offline: the local page with the model inside.

The views are those of the server's page (charrnn/serve/page/web). What they ask of a server, `local.js` answers, by one
step of the model in JavaScript, which the compiler wrote. A file cannot import modules, so they are put one after the
other. Nothing is asked of the network, and the file says so to the browser.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from charrnn import __version__, strict_json
from charrnn.compiler.decoding.weights import to_bf16, to_int8
from charrnn.compiler.targets import javascript
from charrnn.errors import OptionError
from charrnn.generate.decoder import Decoder
from charrnn.generate.request import DEFAULT_SEED, DEFAULT_TEMPERATURE
from charrnn.pages import filling
from charrnn.serve.page import files
from charrnn.sharing import single_file
from charrnn.text.tokenizer import BYTES

if TYPE_CHECKING:
    from charrnn.api import TextModel

Kind = Literal["float32", "bf16", "int8"]
VIEWS = ("complete", "surprise")
FIRST, SERVER = "app.js", "server.js"
MOST_CHARS = 20_000  # that a view takes: a model in JavaScript reads some thousands a second
LOCAL = Path(__file__).parent / "web" / "local.js"
_IMPORT = re.compile(r'import (?:(\{[^}]*\})|\* as (\w+)|(\w+)) from "/page/web/([\w.-]+)";')
_EXPORT = re.compile(r"^export (?:(default) |(?=(?:async )?function\*? (\w+)|class (\w+)|const (\w+)))", re.MULTILINE)


def write(model: "TextModel", path: Path, kind: Kind = "float32") -> Path:
    """Write a model as an HTML file. Returns the path.

    path: the file, which must not exist yet. kind: how its matrices are kept in it: float32, bf16 or int8.
    Raises CharRNNError where the cell's equations cannot be recorded, and where the file exists or cannot be written.
    """
    if kind not in get_args(Kind):
        raise OptionError(f"weights are {kind!r}", f"choose from: {', '.join(get_args(Kind))}")
    single_file.refuse_taken(path)
    single_file.write(path, page(model, kind).encode())
    return path


def page(model: "TextModel", kind: Kind = "float32") -> str:
    """Return the HTML of a model's page. Arguments as of `write`."""
    decoder = Decoder(model.architecture, model.weights, "numpy")
    web = {name: file.content.decode() for name, file in files.read().items()}
    step = javascript.write(decoder)
    script = inlined({**web, "step.js": step, SERVER: LOCAL.read_text(encoding="utf-8")}, FIRST)
    style, icon = web["style.css"], base64.b64encode(web["icon.svg"].encode()).decode()
    known = _given(model, decoder, step, kind)
    title = known["about"]["models"][0]["id"]
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    page = filling.fill(
        "local_page.html",
        views=" ".join(VIEWS),
        policy=filling.markup(policy),
        version=__version__,
        title="".join(c for c in title if c.isprintable()),
        icon=icon,
        style=filling.markup(style),
        model=filling.markup(as_json(known)),
        script=filling.markup(script),
    )
    return str(page)


def inlined(modules: Mapping[str, str], first: str) -> str:
    """Put modules one after the other, those that others import before them, `first` last. Returns one script.

    modules: by name, as they stand in "/page/web/NAME". One that is imported only while the page runs, and is not
    among them, is left out; of the others all that such an import would give is there already.
    """
    order: dict[str, str] = {}

    def add(name: str) -> None:
        text = modules[name]
        late = [
            found
            for found in re.findall(r'import\("/page/web/([\w.-]+)"\)', text)
            if found.removesuffix(".js") in VIEWS
        ]
        for needed in [*(found[3] for found in _IMPORT.findall(text)), *late]:
            if needed not in order:
                add(needed)
        order.setdefault(name, _as_function(text))

    add(first)
    script = "const modules = {};\n" + "".join(f'modules["{name}"] = {text}' for name, text in order.items())
    # What ends a script in HTML, or a line in old JavaScript, stands in no program but in texts.
    return (
        re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _as_function(text: str) -> str:
    """Return a module as a function that is called at once and gives what the module exports."""
    exported: list[str] = []

    def taken(found: re.Match[str]) -> str:
        names, whole, default, module = found.groups()
        source = f'modules["{module}"]'
        if names:
            return f"const {names.replace(' as ', ': ')} = {source};"
        return f"const {whole} = {source};" if whole else f"const {default} = {source}.default;"

    def given(found: re.Match[str]) -> str:
        default, *names = found.groups()
        exported.append("default: exported" if default else next(name for name in names if name))
        return "const exported = " if default else ""

    body = _EXPORT.sub(given, _IMPORT.sub(taken, text))
    body = re.sub(r'import\("/page/web/([\w.-]+)"\)', r'Promise.resolve(modules["\1"])', body)
    return f"await (async () => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();\n"


def _given(model: "TextModel", decoder: Decoder, step: str, kind: Kind) -> dict[str, Any]:
    """Return what the page knows of the model: its weights, the spelling of texts, and what it says of itself."""
    architecture, tokenizer = model.architecture, model.tokenizer
    needed = {name: value for name, value in javascript.weights(decoder, model.weights).items() if _is_in(name, step)}
    return {
        "about": {
            "version": __version__,
            "models": [
                {
                    "id": model.run.name if model.run else "model",
                    "cell": architecture.cell,
                    "hidden": architecture.hidden,
                    "layers": architecture.layers,
                    "parameters": architecture.count(),
                }
            ],
            "may_train": False,
            "own_text": False,
            "defaults": {"temperature": DEFAULT_TEMPERATURE, "seed": DEFAULT_SEED},
            "most_chars": {"complete": MOST_CHARS, "surprise": MOST_CHARS},
        },
        "characters": list(tokenizer.characters),
        "options": {
            "normalize": tokenizer.normalize,
            "newline": model.config.newline,
            "document": model.config.document,
        },
        "automaton": _packed(np.ascontiguousarray(tokenizer.next_state[:, :BYTES]), "int16"),
        "weights": {name: _weight(name, value, kind) for name, value in needed.items()},
    }


def _is_in(name: str, step: str) -> bool:
    return f'weights["{name}"]' in step or f"weights.{name}." in step


def _weight(name: str, value: NDArray[Any], kind: Kind) -> dict[str, Any]:
    """Return a weight as the page unpacks it: matrices in the kind that was asked for, others as they are."""
    if value.ndim != 2:
        return _packed(value, value.dtype.name)
    # A row of the tables is large where its characters came often: each has a scale of its own.
    return _packed(value, kind, "row" if name == "direct" else "column")


def _packed(value: NDArray[Any], kind: str, per: Literal["column", "row"] = "column") -> dict[str, Any]:
    """Return an array as the page unpacks it: base64 of little-endian numbers; int8 has a scale per column or row."""
    packed: dict[str, Any] = {"kind": kind, "shape": value.shape}
    if kind == "int8":
        whole, scale = to_int8(value.T if per == "row" else value)
        value = whole.T if per == "row" else whole
        packed |= {"scale": _base64(scale), "per": per}
    elif kind == "bf16":
        value = to_bf16(value)
    return {**packed, "data": _base64(value)}


def _base64(value: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()).decode()


def as_json(value: Any) -> str:
    """Write JSON that no text in it can end, wherever in HTML it stands."""
    text = strict_json.dumps(value)  # the name of a run's folder need not be UTF-8
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
