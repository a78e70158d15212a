"""Write the parts of these pages that the code knows, between the marks `<!-- generated: NAME -->`.

    python docs/generate.py                     write every generated part
    python docs/generate.py --check             name the parts that are stale, and exit with 1
    python docs/generate.py --picture FOLDER    draw the picture of the front page from a comparison

The JSON fields are seen by running commands on a tiny text; that takes a minute or two.
"""

import argparse
import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FIELDS = tomllib.loads((DOCS / "json_fields.toml").read_text(encoding="utf-8"))
MARKED = re.compile(r"(<!-- generated: ([\w ]+) -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)
TINY_CHARS = 30_000
PICKED = "1\n漢\n".encode()  # the standard input of all: what `next --pick` is told

API = {  # module -> its names for users, '*' for all public functions and classes
    "charrnn": [
        *("train", "resume", "load", "ensemble", "from_torch", "compare_cells", "load_comparison"),
        *("TextModel", "Ensemble", "Comparison", "Config", "run", "CharRNNError"),
    ],
    "charrnn.generate.language_model": ["LanguageModel"],
    "charrnn.generate.likeliest": ["NextCharacters"],
    "charrnn.generate.units": ["Units", "Unit"],
    "charrnn.cells": ["names", "get", "register", "unregister"],
    "charrnn.cells.cell": ["Cell", "Param"],
    "charrnn.cells.initialisation": ["glorot", "orthogonal", "uniform", "normal", "constant"],
    "charrnn.model.torch_layers": ["to_torch", "from_torch"],
    "charrnn.training.loop": ["new_run", "resume"],
    "charrnn.training.events": ["*"],
    "charrnn.training.run": ["Run"],
    "charrnn.training.export": ["weights"],
    "charrnn.training.pretrained": ["Pretrained"],
    "charrnn.training.runs": ["open_run", "runs", "find_run"],
    "charrnn.model.evaluation": ["Score"],
    "charrnn.sharing.onnx_file": ["write", "metadata"],
    "charrnn.sharing.hub": ["push", "Pushed"],
    "charrnn.generate.request": ["Choices", "Filters"],
    "charrnn.generate.sampling": ["Sampling"],
    "charrnn.generate.completion": ["Completion", "CompletionStream"],
    "charrnn.generate.transliteration": ["to_latin", "to_cyrillic"],
    "charrnn.compare.statistics": ["in_blocks", "interval", "Interval"],
}


def escaped(text: str) -> str:
    """Text as Markdown shows it, in a table too; what stands between backticks is code and stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", r"\|") if part.startswith("`") else re.sub(r"([\\*<>|\[\]])", r"\\\1", part) for part in parts
    )


def code(text: str) -> str:
    """Text in code font, in a table."""
    return f"`{text}`".replace("|", r"\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; its cells are escaped already."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def cells() -> str:
    """Every cell of the registry's own folder."""
    from charrnn import cells

    rows = []
    for name in cells.names():
        cell = cells.get(name)
        if not (cell.gates or cell.step).__module__.startswith("charrnn.cells."):
            continue  # registered by somebody else, as tests do
        options = ", ".join(f"`--cell-option {key}={value}`" for key, value in cell.options.items())
        equations = escaped(cell.summary) + (f" ({options})" if options else "")
        over_time = "scan" if cell.linear else "sequential"
        rows.append([code(name), equations, f"{cell.count(128, 512):,}", over_time, escaped(cell.source)])
    return table(["cell", "equations", "parameters", "over time", "source"], rows)


def operations() -> str:
    """Every function that equations are written in."""
    ops = importlib.import_module("charrnn.cells.ops")
    rows = [
        [code(f"{name}({', '.join(_parameters(f))})"), escaped(_first_sentence(f))] for name, f in ops.public().items()
    ]
    return table(["function", "what it does"], rows)


def _parameters(function: object) -> tuple[str, ...]:
    return getattr(function, "parameters", None) or tuple(inspect.signature(function).parameters)


def versions() -> str:
    """What pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = [["Python", code(project["requires-python"])]]
    for requirement in project["dependencies"]:
        name, versions = re.match(r"([\w.-]+)(.*)", requirement).groups()
        rows.append([name, code(versions)])
    return table(["what", "versions"], rows)


def commands() -> str:
    """Every command with its arguments and options."""
    from charrnn import cli

    return "\n\n".join(_command(name, cli.group.get_command(None, name)) for name in cli.COMMANDS)


def _command(name: str, command: Any) -> str:
    parts = [f"## {name}" if " " not in name else f"### {name}", _prose(command.help or "")]
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        arguments = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
        parts.append(f"    python cli.py {' '.join([name, *arguments, '[OPTIONS]'])}")
        rows = [_option(param) for param in command.params if isinstance(param, click.Option)]
        parts.append(table(["option", "what it does"], rows))
    parts += [_command(f"{name} {sub}", subcommands[sub]) for sub in sorted(subcommands)]
    return "\n\n".join(parts)


def _argument(param: click.Argument) -> str:
    name = param.metavar or (
        f"[{'|'.join(map(str, param.type.choices))}]"
        if isinstance(param.type, click.Choice)
        else (param.name or "").upper()
    )
    name = name.strip("[]").removesuffix("...")
    return (name if param.required else f"[{name}]") + ("..." if param.nargs == -1 else "")


def _option(param: click.Option) -> list[str]:
    names = ", ".join([*sorted(param.opts, key=len, reverse=True), *param.secondary_opts])
    value = ""
    if not param.is_flag:
        choices = isinstance(param.type, click.Choice)
        value = " " + (f"[{'|'.join(param.type.choices)}]" if choices else param.metavar or param.type.name.upper())
    shown = param.show_default if isinstance(param.show_default, str) else param.default if param.show_default else None
    text = (param.help or "").strip()
    if said := re.fullmatch(r"(.*?)\s+\[default: (.*)\]", text, re.DOTALL):
        text, shown = said.groups()
    default = f" Default: {code(str(shown))}." if shown not in (None, False, ()) else ""
    return [code(names + value), escaped(text + ("" if text.endswith(".") else ".")) + default]


def json_fields(command: str) -> str:
    """The fields of a command's --json. Raises ValueError for one without a description, or a description too many."""
    described = {key: value for key, value in FIELDS[command].items() if key not in ("commands", "slow")}
    seen: dict[str, set[str]] = {}
    for line in FIELDS[command]["commands"]:
        for path, kind in _walk(printed(line), "", described):
            seen.setdefault(path, set()).add(kind)
    objects = {path for path in seen if any(each.startswith(f"{path}.") for each in described)}  # of an empty list
    if missing := [path for path in seen if path not in described and path not in objects]:
        raise ValueError(f"{command} --json has fields that docs/json_fields.toml does not describe: {missing}")
    # What is inside a list that happens to be empty, or an object that happens to be null, was not seen.
    empty = {path for path, kinds in seen.items() if kinds <= {"null", "list"}}
    gone = [path for path in described if path not in seen and not path.startswith(tuple(empty) or ("\0",))]
    if gone:
        raise ValueError(f"docs/json_fields.toml describes fields that {command} --json does not have: {gone}")
    rows = [[code(path), *_described(command, path, seen.get(path, set()), text)] for path, text in described.items()]
    return table(["field", "type", "what it is"], rows)


def _described(command: str, path: str, kinds: set[str], text: str) -> list[str]:
    said = re.match(r"(\w+)([?!])\|(.*)", text)
    nullable = said is not None and said[2] == "?"
    if said:
        kind, text = said[1], said[3]
        allowed = {kind} | ({"null"} if nullable else set()) | ({"integer"} if kind == "number" else set())
    else:
        kind = "number" if kinds == {"integer", "number"} else " or ".join(sorted(kinds))
        allowed = kinds - {"null"}
    if not kinds <= allowed and not path.endswith(("[]", "{}")):
        raise ValueError(f"{command} --json: {path} is {kinds}, which docs/json_fields.toml does not say")
    return [kind + (" or null" if nullable else ""), escaped(text)]


def _walk(value: Any, path: str, described: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every field inside a JSON value with its type; fields of open objects, whose names vary, are not looked into."""
    if f"{path}{{}}" in described:
        yield f"{path}{{}}", "object"
    elif isinstance(value, dict):
        if path in described:
            yield path, "object"
        for name, inner in value.items():
            yield from _walk(inner, f"{path}.{name}" if path else name, described)
    elif isinstance(value, list):
        if not value or f"{path}[]" in described:
            yield f"{path}[]", "list" if not value else ("list" if isinstance(value[0], list) else _kind(value[0]))
            return
        for inner in value:
            yield from _walk(inner, f"{path}[]", described)
    else:
        yield path, _kind(value)


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "integer", float: "number", str: "string", type(None): "null"}
    return kinds.get(type(value), "object")


@cache
def _place() -> Path:
    """A temporary folder with a tiny text and a run of it, for this process."""
    place = tempfile.TemporaryDirectory(prefix="charrnn-docs-")
    _KEPT.append(place)
    text = (ROOT / "corpora" / "rekurentne.txt").read_text(encoding="utf-8")
    Path(place.name, "tiny.txt").write_text(text[:TINY_CHARS], encoding="utf-8")
    return Path(place.name)


_KEPT: list[Any] = []  # temporary folders that go with the process


@cache
def printed(line: str) -> Any:
    """What a command prints with --json."""
    from charrnn.cli import group

    train = FIELDS["train"]["commands"][0]
    if line != train:
        printed(train)  # the others speak of its run
    place = _place()
    words = [
        word.replace("TINY", str(place / "tiny.txt")).replace("OUT", str(place / "comparison")) for word in line.split()
    ]
    before = os.environ.get("CHARRNN_HOME")
    os.environ["CHARRNN_HOME"] = str(place / "home")
    out, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(PICKED), "utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            group.main(words, standalone_mode=False)
    finally:
        sys.stdin = stdin
        os.environ.pop("CHARRNN_HOME") if before is None else os.environ.update(CHARRNN_HOME=before)
    return json.loads(out.getvalue().splitlines()[-1])


def api() -> str:
    """The names for users, with their signatures and docstrings."""
    parts = []
    for module_name, names in API.items():
        module = importlib.import_module(module_name)
        if names == ["*"]:
            own = [n for n, v in vars(module).items() if inspect.isclass(v) or inspect.isfunction(v)]
            names = [n for n in own if getattr(module, n).__module__ == module_name and not n.startswith("_")]
        parts += [f"## {module_name}", _prose(_doc(module).split("\n\n")[0])]
        parts += [_documented(f"{module_name}.{name}", getattr(module, name)) for name in names]
    return "\n\n".join(part for part in parts if part)


def _documented(name: str, thing: Any) -> str:
    node = _tree(thing)
    parts = [f"### {name}"]
    if isinstance(node, ast.ClassDef):
        parts.append(_prose(_doc(thing)))
        if dataclasses.is_dataclass(thing) and any("help" in field.metadata for field in dataclasses.fields(thing)):
            parts.append(_settings(thing))
        else:
            declared = [n for n in node.body if isinstance(n, ast.AnnAssign)]
            fields = [line for line in map(ast.unparse, declared) if not line.startswith("_")]
            parts += [_block("\n".join(fields))] if fields else []
        for method in node.body:
            documented = isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
            if documented and not method.name.startswith("_"):
                parts += [_block(_signature(method)), _prose(documented)]
    else:
        parts += [_block(_signature(node)), _prose(_doc(thing))]
    return "\n\n".join(part for part in parts if part)


def _tree(thing: Any) -> ast.stmt:
    node = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    for inner in ast.walk(node):
        if isinstance(inner, ast.arg):
            inner.annotation = _plain(inner.annotation)
        elif isinstance(inner, ast.FunctionDef):
            inner.returns = _plain(inner.returns)
    return node


def _plain(annotation: ast.expr | None) -> ast.expr | None:
    """An annotation without the quotes that only the import order needs."""
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return ast.parse(annotation.value, mode="eval").body if quoted else annotation


def _signature(node: ast.FunctionDef) -> str:
    """As written in the source, so that it does not depend on versions; without self."""
    args = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    if any(ast.unparse(d) in ("property", "cached_property") for d in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns) if node.returns else 'Any'}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({args}){returns}"
    if len(line) <= 100:
        return line
    return f"{node.name}(\n    {_cut(args)}\n){returns}"


def _cut(arguments: str) -> str:
    """Arguments on lines of their own: cut at commas outside brackets."""
    depth, out = 0, ""
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        out += ",\n   " if character == "," and depth == 0 else character
    return out


def _settings(thing: Any) -> str:
    """The fields of a configuration that a user may set."""
    rows = []
    for field in dataclasses.fields(thing):
        if "resolved" not in field.metadata:
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            rows.append([code(field.name), code(repr(default)), escaped(field.metadata["help"])])
    return table(["setting", "default", "what it is"], rows)


def _block(text: str) -> str:
    quoted = text.replace("'", '"')  # as a formatter of code in Markdown leaves it
    return f"```python\n{quoted}\n```"


def _doc(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def _first_sentence(thing: Any) -> str:
    return _doc(thing).split("\n\n")[0].replace("\n", " ")


def _prose(text: str) -> str:
    """A docstring as Markdown: paragraphs escaped, indented blocks as they are."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    out = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b\n"):  # click's mark: keep the lines
            out.append(textwrap.indent(paragraph[2:], "    "))
        elif all(line.startswith("    ") for line in paragraph.splitlines()):
            out.append(paragraph)
        else:
            out.append(escaped(" ".join(line.strip() for line in paragraph.splitlines())))
    return "\n\n".join(out)


PARTS: dict[str, Callable[[], str]] = {
    "cells": cells,
    "operations": operations,
    "versions": versions,
    "commands": commands,
    "api": api,
    **{f"json {command}": partial(json_fields, command) for command in FIELDS},
}
SLOW = [f"json {command}" for command, table_ in FIELDS.items() if table_.get("slow")]


def pages() -> dict[str, Path]:
    """Where each generated part stands. Raises ValueError for a part that no page has, or that is not known."""
    found: dict[str, Path] = {}
    for page in sorted(DOCS.rglob("*.md")):
        for match in MARKED.finditer(page.read_text(encoding="utf-8")):
            found[match[2]] = page
    if set(found) != set(PARTS):
        raise ValueError(f"generated parts and pages differ: {sorted(set(found) ^ set(PARTS))}")
    return found


def written(name: str) -> str:
    """A generated part as it stands in its page."""
    text = pages()[name].read_text(encoding="utf-8")
    return next(match[3] for match in MARKED.finditer(text) if match[2] == name)


def generated(name: str) -> str:
    """A generated part as it should stand in its page."""
    return f"\n{PARTS[name]()}\n\n"


def write(name: str) -> None:
    """Put a generated part into its page."""
    page, new = pages()[name], generated(name)
    text = page.read_text(encoding="utf-8")
    page.write_text(
        MARKED.sub(lambda m: m[1] + new + m[4] if m[2] == name else m[0], text), encoding="utf-8", newline="\n"
    )


def picture(folder: str) -> Path:
    """Draw validation by characters read, from a finished comparison, as docs/images/learning.png."""
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    from charrnn.compare import outcome, pictures
    from charrnn.compare.grid import Folder

    place = Folder(Path(folder))
    grid = place.grid()
    with matplotlib.rc_context({**pictures.STYLE, "font.size": 11}):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        tops = []
        for i, entry in enumerate(grid.entries):
            curve = outcome.curve(grid, place, entry)
            x = curve.characters / 1e6
            look = {"color": pictures.COLOURS[i], "marker": pictures.MARKS[i]}
            axes.plot(x, curve.bits.mean(axis=0), label=f"{entry.cell} {entry.hidden}", markersize=4, **look)
            axes.fill_between(x, curve.bits.min(axis=0), curve.bits.max(axis=0), color=look["color"], alpha=0.15)
            tops.append(np.median(curve.bits[:, : len(x) // 3]))
        axes.set(xlabel="million characters read", ylabel="validation, bits per character")
        axes.set_ylim(top=max(tops))
        axes.legend()
        path = DOCS / "images" / "learning.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def main() -> int:
    """Do what the command line says; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="name the parts that are stale, and write nothing")
    parser.add_argument("--picture", metavar="FOLDER", help="draw the front page's picture from a comparison")
    given = parser.parse_args()
    if given.picture:
        sys.stdout.write(f"written: {picture(given.picture)}\n")
        return 0
    stale = [name for name in PARTS if generated(name) != written(name)]
    for name in stale:
        if not given.check:
            write(name)
        sys.stdout.write(f"{'stale' if given.check else 'written'}: {name} in {pages()[name].relative_to(ROOT)}\n")
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
