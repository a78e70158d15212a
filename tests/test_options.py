"""Whatever combination of options is typed, what comes out is a result or an explanation: no traceback, ever."""

import contextlib
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import CORPUS, config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn import cli
from charrnn.errors import CharRNNError
from charrnn.generate import compiled
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture, Weights
from charrnn.training import bundled, loop
from charrnn.training.config import Config

LONG = {"bench", "compare", "inspect", "train"}  # commands that take minutes with most of their options
INTEGERS = ["1", "2", "3", "5", "0", "-1", "many", "", "1.5"]
LARGE = ["7", "0", "-1", "18446744073709551616", "9223372036854775808", "1" + "0" * 400]  # where they cost nothing
NUMBERS = ["0.5", "1", "0", "-1", "nan", "inf", "1e-320", "1e308", "1e999", "much", ""]
TEXTS = ["", "Rek", "мрежа", "mrez\u030ca", "日本\n", "\udce8vor", "\0", "\x1b[31m", "-", "--", "a" * 3000, "{}", "%s"]
RUNS = ["small", "latest", "smal", "", ".", "/", "..", "\0", "a" * 300, "\udce8"]
OWN = {  # parameters that want something of their own
    "run": RUNS,
    "names": ["", "smal", ".", "/", "\0"],  # not the run that all examples share
    "resume": ["smal", "small", "."],
    "corpus": ["TEXT", "missing.txt", "rekurentn", "FOLDER", "", "\0"],
    "file": ["TEXT", "missing.txt", "FOLDER", "", "-"],
    "what": ["TEXT", "FOLDER", *TEXTS],
    "config_file": ["TEXT", "CONFIG", "missing.json", "FOLDER"],
    "out": ["FOLDER", "FOLDER/new", "FOLDER/no/such/file", "TEXT"],
    "html": ["FOLDER", "FOLDER/new.html", "FOLDER/no/such/file", "TEXT"],
    "prime_file": ["TEXT", "BYTES", "FOLDER", "missing.txt"],
    "shell": ["bash", "zsh", "fish", "tcsh"],
    "cell": ["nn.GRU", "simple", "lstm", "lstn", ""],
    "cell_options": ["depth=3", "depth", "depth=x", "=1", ""],
    "split": ["0.9,0.1,0", "1,0,0", "0,0,1", "1,2", "a,b,c", "nan,nan,nan", ""],
    "budget": ["1s", "soon", "-1", "nan", ""],
    "device": ["cpu", "auto", "cuda:99", "tpu", ""],
    "tokenizer": ["byte", "char", "bite"],
    "name": ["nn.GRU", "lstn", "", "..", "a/b", "small", "\0", "a" * 300],
    "batch": INTEGERS,
    "top_k": [*INTEGERS, *LARGE],
    "seed": LARGE,
    "k": [*INTEGERS, *LARGE],
    "max_copy": [*INTEGERS, *LARGE],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a text, bytes that are none, a configuration, and a home folder with a run called 'small'."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "TEXT").write_text(CORPUS.read_text(encoding="utf-8")[:1500], encoding="utf-8")
    (folder / "BYTES").write_bytes(b"\xff\x00\xfe")
    (folder / "FOLDER").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        patch.chdir(folder)
        patch.setattr(bundled, "folders", dict)  # of a larger model, which would take its time
        small = config("TEXT", hidden=8, steps=3)
        small_run = loop.open_run(small, "small")
        for _ in loop.new_run(small, small_run):
            pass
        patch.setattr(compiled, "CompiledDecoder", compiled_for(small_run.architecture()))
        (folder / "CONFIG").write_bytes((folder / "home" / "small" / "config.json").read_bytes())
        yield folder


def compiled_for(architecture: Architecture) -> type[Decoder]:
    """A CompiledDecoder that compiles for one architecture and refuses the rest, which would take seconds each."""

    class OfOne(compiled.CompiledDecoder):
        def __init__(self, other: Architecture, weights: Weights, kept: str = "float32") -> None:
            if (other, kept) != (architecture, "float32"):
                raise CharRNNError("these tests compile for one model alone")
            super().__init__(other, weights, kept)

    return OfOne


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, with the words that name it."""
    context = click.Context(cli.group)
    for name in cli.COMMANDS:
        if name == "bench":  # it measures for a minute: test_bench.py
            continue
        command = cli.group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from (((name, word), sub) for word, sub in command.commands.items())
        else:
            yield (name,), command


def values(param: click.Parameter) -> list[str]:
    """What to try for a parameter: what it wants, and what it does not."""
    if param.name in OWN:
        return OWN[param.name]
    if isinstance(param.type, click.Choice):
        return [*param.type.choices, "", "nothing"]
    return {"integer": INTEGERS, "float": NUMBERS}.get(param.type.name, TEXTS)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, in any order, each with any of its values."""
    train = ("train",), dict(commands())["train",]
    short = sorted((pair for pair in commands() if pair[0][0] not in LONG), key=lambda pair: pair[0])
    words, command = draw(st.sampled_from([*short, *[train] * 4]))  # it has the most options
    line = []
    for param in draw(st.lists(st.sampled_from(command.params), max_size=5, unique_by=id)) if command.params else []:
        value = draw(st.sampled_from(values(param)))
        if isinstance(param, click.Argument):
            line.append(value)
        elif param.is_flag:  # type: ignore[attr-defined]
            line.append(draw(st.sampled_from([*param.opts, *param.secondary_opts])))
        else:
            line += [param.opts[0], value]
    if draw(st.integers(0, 20)) == 0:
        line.append(draw(st.sampled_from(["--nonsense", "-x", "--", "--help", "--json"])))
    if words == ("train",):  # small and short, unless an option of the line says otherwise
        small = ["--hidden", "4", "--batch", "2", "--window", "4", "--validate-every", "1"]
        line = [*small, *line, *([] if "--steps" in line else ["--steps", "2"])]
    if words == ("corpora", "fetch") and not set(line) & {"--help"}:
        line.append("surely-no-corpus")  # nothing is downloaded
    return [*words, *line]


def run(arguments: list[str]) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command line whose standard input is a pipe."""
    out, err = io.StringIO(), io.StringIO()
    piped = io.TextIOWrapper(io.BytesIO(b"Rek\n/again\n/nothing\n/seed x\n"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", piped)
        with contextlib.suppress(ModuleNotFoundError):  # without what serving needs, that is said
            from charrnn.serve.server import Server

            patch.setattr(Server, "run", Server.close)  # else it serves until a signal ends it
        code = cli.run(arguments)
    return code, out.getvalue(), err.getvalue()


def holds(arguments: list[str]) -> None:
    code, out, err = run(arguments)
    assert code in (0, 1, 2), (code, err)
    assert "defect" not in err, err
    assert "Traceback" not in err, err
    if code:
        assert "error" in err.lower(), err
        assert out == ""
    elif "--json" in arguments and "--help" not in arguments and "--out" not in arguments:
        json.loads(out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command_lines())
def test_any_command_line_is_answered_in_words(arguments: list[str]) -> None:
    holds(arguments)


@pytest.mark.long
@pytest.mark.usefixtures("place")
@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command_lines())
def test_any_of_many_command_lines_is_answered_in_words(arguments: list[str]) -> None:
    holds(arguments)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("words", [words for words, _ in commands() if words[0] not in LONG], ids=" ".join)
def test_every_option_by_itself_is_answered_in_words(words: tuple[str, ...]) -> None:
    command = dict(commands())[words]
    for param in command.params:
        if isinstance(param, click.Option) and not param.is_flag and words != ("corpora", "fetch"):
            for value in values(param)[:2]:
                required = [values(p)[0] for p in command.params if p.required]
                holds([*words, param.opts[0], value, *required])


def test_any_configuration_file_is_answered_in_words(place: Path) -> None:
    good = json.loads((place / "CONFIG").read_text())
    for name in good:
        for value in (None, True, -1, 1.5, math.nan, "x", [], {}, [1, 2], [[1]], "\ud800", 10**400):
            text = json.dumps({**good, name: value})
            with contextlib.suppress(CharRNNError):
                Config.from_json(text, "BAD").to_json().encode()
