"""The design, held by tests: imports point downwards, the library never prints, pickles or wakes torch needlessly."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from charrnn import renamed
from charrnn.cells import cell_files
from charrnn.compiler.decoding import driver

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "charrnn"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, types: bool = True) -> frozenset[str]:
    """The charrnn modules a file imports, wherever in it. types: also those that only annotations need."""
    found = set()
    unread = {id(inner) for node in ast.walk(tree_of(path)) if only_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree_of(path)):
        if not types and id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return frozenset(name for name in found if name in MODULES and MODULES[name] != path) - {"charrnn"}


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(tree: ast.AST) -> set[str]:
    """All that is imported, of whatever package: modules, and what is taken from them, with its module before it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of(modules: set[str], *packages: str) -> set[str]:
    """Those of the modules that are packages or in them."""
    return {module for module in modules if any(f"{module}.".startswith(f"{package}.") for package in packages)}


def test_the_key_of_compiled_completing_depends_on_all_that_writes_its_code() -> None:
    apart = {MODULES[f"charrnn.compiler.{name}"] for name in ("cache", "trace")}  # kept; in a driver's description
    waiting, found = {MODULES["charrnn.compiler.decoding.llvm"]}, set[Path]()
    while waiting:
        path = waiting.pop()
        found.add(path)
        needed = of(set(imports(path, types=False)), "charrnn.compiler", "charrnn.cells", "charrnn.text.contexts")
        waiting |= {MODULES[name] for name in needed} - found - apart
    assert {(driver.PACKAGE / f"{name}.py").resolve() for name in driver.SOURCES} == found


def test_the_modules_are_found() -> None:
    """Whatever is said of all modules would hold of none."""
    for package in (
        "pages",
        "cells",
        "text",
        "model",
        "compiler",
        "engines",
        "training",
        "reporting",
        "generate",
        "compare",
        "sharing",
        "serve",
        "bench",
        "cli",
    ):
        assert len(of(set(MODULES), f"charrnn.{package}")) > 1, package
    assert imports(MODULES["charrnn.cells.gru"])


def test_there_are_no_circles() -> None:
    graph = {name: imports(path) for name, path in MODULES.items() if name != "charrnn"}
    assert any(graph.values())
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


# Names that were public where they stood before: (former module, module): names.
FORMER = {
    ("charrnn.training.checkpoint", "charrnn.training.run"): ["Run"],
    ("charrnn.training.checkpoint", "charrnn.training.runs"): ["runs", "folders", "find_run", "find_folder"],
    ("charrnn.training.checkpoint", "charrnn.training.tensor_files"): ["Tensors"],
    ("charrnn.training.checkpoint", "charrnn.files"): ["write_atomically"],
    ("charrnn.training.loop", "charrnn.training.runs"): ["open_run"],
    ("charrnn.training.loop", "charrnn.training.threads"): ["threads_of"],
    ("charrnn.training.loop", "charrnn.training.trainer"): ["Trainer"],
}

# From the lowest folder, or module beside them, to the highest: none knows one that stands after it.
BASE = ("patterns", "errors", "home", "memory", "files", "strict_json", "knobs", "locks", "interruption", "renamed")
BASE = (*BASE, "blas", "hardware", "terminal", "pages", "figures", "frames", "progress", "perplexity")
ORDER = (*BASE, "cells", "text", "compiler", "engines", "devices", "model", "generate", "training", "reporting", "api")
ORDER = (*ORDER, "compare", "serve", "sharing", "bench", "cli", "__main__")


def test_imports_point_one_way() -> None:
    assert {name.split(".")[1] for name in MODULES if "." in name} == set(ORDER)
    for name, path in MODULES.items():
        if "." in name:
            own = ORDER.index(name.split(".")[1])
            for other in imports(path, types=False):
                assert ORDER.index(other.split(".")[1]) <= own, f"{name} imports {other}"


def test_cells_know_the_ops_and_the_protocol_alone() -> None:
    allowed = {"charrnn.cells.cell", "charrnn.cells.ops", "charrnn.cells.initialisation"}
    files = [n for n in of(set(MODULES), "charrnn.cells") if n.rpartition(".")[2] not in cell_files.SERVING]
    files.remove("charrnn.cells")
    assert len(files) > 10
    for name in files:
        assert imports(MODULES[name]) <= allowed, name


@pytest.mark.parametrize("package", ["cells", "text", "model", "compiler"])
def test_what_is_below_knows_no_command_line(package: str) -> None:
    names = of(set(MODULES), f"charrnn.{package}")
    assert names
    for name in names:
        tree = tree_of(MODULES[name])
        assert not of(imported(tree), "click", "tqdm", "argparse", "charrnn.cli", "charrnn.__main__"), name


def test_no_module_but_a_cells_own_names_a_cell() -> None:
    from charrnn import cells

    assert cells.names()
    for name, path in MODULES.items():
        # The default cell is a setting, and presets are lists of cells.
        if not name.startswith("charrnn.cells") and name not in ("charrnn.model.settings", "charrnn.compare.presets"):
            strings = {n.value for n in ast.walk(tree_of(path)) if isinstance(n, ast.Constant)}
            assert not strings & set(cells.names()), name


def test_the_library_neither_prints_nor_imports_click() -> None:
    names = set(MODULES) - of(set(MODULES), "charrnn.cli")
    for name in names:
        tree = tree_of(MODULES[name])
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert "print" not in called, name
        assert not of(imported(tree), "click"), name


UNPICKLERS = ("pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "joblib", "cloudpickle", "torch.load")
# torch.distributed pickles what these send.
OBJECTS = ("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list", "send_object_list")
OBJECTS = (*OBJECTS, "recv_object_list")
UNPICKLERS = (*UNPICKLERS, "yaml", "ruamel", "jsonpickle", "pandas", "code", "runpy", "imp", "numpy.load", "torch.jit")
RUNNERS = ("eval", "exec", "compile", "torch.load", "torch.jit.load", "__import__", "execfile")
# A table is made of figures that are there already; nothing is read by pandas.
RUNS_TEXT = {"charrnn.frames": ["pandas.DataFrame"]}
# Triton reads its kernels from source, which is made of traced equations.
RUNS_TEXT["charrnn.engines.on_chip"] = ["compile", "exec"]


def unsafe(tree: ast.AST) -> list[str]:
    """What could run the content of a file: unpicklers, and calls that run text as Python."""
    found = sorted(of(imported(tree), *UNPICKLERS, *(f"torch.distributed.{name}" for name in OBJECTS)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).removeprefix("builtins.")
            if called in RUNNERS or called.rpartition(".")[2] in OBJECTS:
                found.append(called)
            found += [
                keyword.arg
                for keyword in node.keywords
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
            ]
    return sorted(found)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads as read", ["pickle.loads"]),
        ("from torch import load", ["torch.load"]),
        ("import torch\ntorch.load(path)", ["torch.load"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle"]),
        ("dist.broadcast_object_list(values)", ["dist.broadcast_object_list"]),
        ("from torch.distributed import gather_object as gather", ["torch.distributed.gather_object"]),
        ("np.load(path, allow_pickle=wanted)", ["allow_pickle"]),
        ("builtins.exec(text)", ["exec"]),
        ("eval(text)", ["eval"]),
        ("import yaml\nfrom shelve import open\nimport marshal", ["marshal", "shelve.open", "yaml"]),
        ("np.load(path, allow_pickle=False); model.eval(); re.compile(text); import pickled", []),
    ],
)
def test_what_could_run_a_files_content_is_found(code: str, found: list[str]) -> None:
    assert unsafe(ast.parse(code)) == found


def test_no_file_is_run_or_unpickled() -> None:
    found = {name: unsafe(tree_of(path)) for name, path in MODULES.items()}
    assert {name: calls for name, calls in found.items() if calls} == RUNS_TEXT


WRITERS = ("write_text", "write_bytes", "unlink", "rmtree", "fsync", "rename", "touch", "os.replace", "os.remove")


def writes(tree: ast.AST) -> list[str]:
    """The calls that write, rename or remove a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            modes = [n.value for n in (*node.args, *(k.value for k in node.keywords)) if isinstance(n, ast.Constant)]
            opened = called.endswith("open") and any(re.fullmatch("[rbt]*[wax+][bt+]*", str(mode)) for mode in modes)
            if opened or called in WRITERS or called.rpartition(".")[2] in WRITERS:
                found.append(called)
    return [call for call in found if not call.startswith("files.")]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.open('wb'); open(path, mode='a'); io.open(path, 'r+b')", ["path.open", "open", "io.open"]),
        ("path.write_text(text); path.unlink(); os.replace(a, b)", ["path.write_text", "path.unlink", "os.replace"]),
        ("shutil.rmtree(path); os.fsync(1)", ["shutil.rmtree", "os.fsync"]),
        ("path.open(); open(path, 'rb'); config.replace(steps=3); files.append(path, text)", []),
    ],
)
def test_what_writes_a_file_is_found(code: str, found: list[str]) -> None:
    assert sorted(writes(ast.parse(code))) == sorted(found)


def test_what_a_run_keeps_is_written_by_one_module() -> None:
    assert writes(tree_of(MODULES["charrnn.files"]))
    for name in of(set(MODULES), "charrnn.training", "charrnn.compare", "charrnn.locks"):
        assert not writes(tree_of(MODULES[name])), name


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import charrnn, charrnn.cli", ["torch", "numpy", "llvmlite"]),
        ("from charrnn import cells; cells.names()", ["torch", "llvmlite"]),
        ("from charrnn import devices; devices.has_nvidia_driver = bool; devices.resolve('auto')", ["torch"]),
        ("import charrnn.training.settings, charrnn.training.optimizers", ["torch"]),
        (
            "import charrnn.training.checkpoint, charrnn.text.corpus, charrnn.generate.sampling",
            ["torch", "llvmlite"],
        ),
        pytest.param(
            "import charrnn; from tempfile import mkdtemp as new\n"
            "charrnn.train(out=f'{new()}/run', steps=2, hidden=4, batch=2, window=8, engine='fused')",
            ["torch._dynamo", "matplotlib"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_not_used_is_not_imported(code: str, absent: list[str]) -> None:
    check = f"{code}\nimport sys; print([m for m in {absent} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_former_name_of_a_module_gives_the_module_itself() -> None:
    """In one process: what a former name imports is imported once."""
    code = "".join(
        f"import {former} as old, {now} as new\nassert old is new, {former!r}\nfrom {former} import __doc__\n"
        for former, now in renamed.MODULES.items()
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("former", "now"), FORMER)
def test_what_moved_out_of_a_module_can_be_imported_from_there(former: str, now: str) -> None:
    for name in FORMER[former, now]:
        assert getattr(import_module(former), name) is getattr(import_module(now), name)


@pytest.mark.timing
def test_help_is_instant() -> None:
    def seconds() -> float:
        """Of the processor, which a busy machine lengthens less than those of the clock."""
        before = os.times()
        subprocess.run([sys.executable, "cli.py", "--help"], check=True, capture_output=True, cwd=ROOT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.2
