"""Options that several commands share, and those that are derived from the settings of a run."""

import contextlib
import dataclasses
import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import click
from click.shell_completion import CompletionItem

from charrnn import cli, devices, strict_json
from charrnn.cli import streams
from charrnn.errors import CharRNNError, DamageWarning, OptionError, did_you_mean
from charrnn.knobs import hints, plain
from charrnn.terminal import harmless as harmless
from charrnn.terminal import one_line as one_line
from charrnn.terminal import visible as visible
from charrnn.training.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Where to compute: cpu, cuda, or auto for CUDA when there is one.",
)


class DeviceChoice(click.Choice[str]):
    """A choice of devices, which says how one GPU of several is chosen."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take one of them."""
        if (hint := devices.one_of_several(str(value))) is not None:
            self.fail(f"there is no device {value!r} here: {hint}", param, ctx)
        return super().convert(value, param, ctx)


class Subcommands(click.Group):
    """A command with commands of its own, which names the nearest one where there is none such."""

    def get_help(self, ctx: click.Context) -> str:
        return cli.in_examples(super().get_help(ctx))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"there is no command {args[0]!r}; {did_you_mean(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """List the names of runs that begin so, for a shell."""
    from charrnn.training.runs import bundled_runs, runs

    try:
        known = [run.name for run in (*runs(), *bundled_runs())]
    except OSError:  # a folder that may not be read, a run that is just being deleted: no traceback at a prompt
        known = []
    # A name with a line end or another control character would be taken for several, or for no name.
    whole = [name for name in known if not any(unicodedata.category(c) == "Cc" for c in name)]
    return [name for name in ("latest", *whole) if name.startswith(incomplete)]


def complete_cells(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """List the names of cells that begin so, for a shell."""
    from charrnn import cells

    with contextlib.redirect_stdout(io.StringIO()):  # what a cell's file prints is no completion
        return [name for name in cells.names() if name.startswith(incomplete)]


def complete_corpora(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """List the named corpora that begin so, and files, for a shell."""
    from charrnn.text import corpora

    names = [CompletionItem(name) for name in corpora.names() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


run = click.option(
    "--run",
    default="latest",
    show_default=True,
    shell_complete=complete_runs,
    help="The run: its name, its path, or 'latest'.",
)
several_runs = click.option(
    "--run",
    "runs",
    multiple=True,
    default=["latest"],
    show_default="latest",
    shell_complete=complete_runs,
    help="The run: its name, its path, or 'latest'. Given more than once, the runs predict as one: their probabilities "
    "are averaged.",
)
encoding = click.option(
    "--encoding",
    metavar="NAME",
    help="How the file is encoded, as Python names it: cp1252, shift_jis, utf-16 ...  [default: as the run's corpus]",
)
max_copy = click.option(
    "--max-copy", type=int, metavar="N", help="Copy fewer than N characters in a row from the training text."
)


def sampling(function: F) -> F:
    """Give a command the options of `charrnn.generate.sampling.Sampling`, under its names."""
    for decorator in (
        click.option("--seed", default=7, show_default=True, metavar="N", help="The same seed gives the same text."),
        click.option("--min-p", type=float, metavar="X", help="Drop what is less likely than X times the likeliest."),
        click.option(
            "--top-p", type=float, metavar="X", help="Draw from the likeliest that together reach this probability."
        ),
        click.option("--top-k", type=int, metavar="N", help="Draw from the N likeliest alone."),
        click.option(
            "--temperature",
            default=0.8,
            show_default=True,
            metavar="X",
            help="0 always takes the likeliest character.",
        ),
    ):
        function = decorator(function)
    return function


def loaded(run: str | Sequence[str], device: str, characters: int | None, kept: Any = "float32") -> Any:
    """Load the model of a run, or of several as one, ready to complete text; say what there is to know about how.

    characters: how many are to be read and drawn, None where that is not known.
    """
    model = whole(run, device, kept)
    for note in model.decoder(characters).notes:
        cli.note(note)
    return model


def whole(run: str | Sequence[str], device: str, kept: Any = "float32") -> Any:
    """Load the model of a run, or of several as one; say where a damaged checkpoint is replaced by the one before."""
    from charrnn.api import Ensemble, load

    if not isinstance(run, str):
        models = tuple(whole(each, device, kept) for each in run)
        return models[0] if len(models) == 1 else Ensemble(models)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamageWarning)
        model = load(run, device, kept=kept)
    if model.run is not None and model.run.is_bundled():
        cli.note(f"{model.run.name} comes with charrnn; a model of your own: {cli.typed('train')}")
    for warning in caught:
        if warning.category is DamageWarning:
            click.echo(f"note: {warning.message}", err=True)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model


def reading(model: Any, encoding: str | None) -> Any:
    """Return a model that reads files in an encoding; as it was trained when None. Raises CharRNNError for none."""
    if encoding is None:
        return model
    if models := several(model):
        return dataclasses.replace(model, models=tuple(reading(each, encoding) for each in models))
    return dataclasses.replace(model, config=dataclasses.replace(model.config, encoding=encoding))


def several(model: Any) -> tuple[Any, ...]:
    """Return the models that are one in this one; none where it is that of one run."""
    return tuple(getattr(model, "models", ()))


def named(model: Any) -> str:
    """Return the name of a model's run, or the names of its runs."""
    return " + ".join(each.run.name for each in several(model) or (model,))


def paths(model: Any) -> dict[str, Any]:
    """Return what --json says of a model's run, or of its runs."""
    models = several(model)
    return {"runs": [str(each.run.path) for each in models]} if models else {"run": str(model.run.path)}


def copies(model: Any) -> Callable[[str], dict[str, Any] | None]:
    """Return what finds the longest passage of a completion in the training text; say so where that is gone."""
    try:
        training_text = model.training_text()
    except CharRNNError as error:
        cli.note(f"what is copied cannot be told: {error.problem}")
        return lambda text: None

    def copied(text: str) -> dict[str, Any]:
        passage = training_text.longest(text)
        return {"length": len(passage.text), "passage": passage.text, "offset": passage.offset}

    return copied


def colours_wanted() -> bool:
    """Tell whether a person looks at stdout who has not declined colours (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def settings(function: F) -> F:
    """Give a command an option for every setting that a user may set; those not given arrive as None."""
    return settings_but()(function)


def settings_but(*names: str) -> Callable[[F], F]:
    """As `settings`, without those of these names, which the command sets itself or offers in its own way."""

    def decorate(function: F) -> F:
        for knob in reversed(dataclasses.fields(Settings)):
            if "recorded" not in knob.metadata and knob.name not in ("corpus", *names):
                function = _option(knob)(function)
        return function

    return decorate


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, as `Settings` takes them."""
    values = {name: value for name, value in options.items() if value is not None and value != ()}
    if "split" in values:
        values["split"] = _shares(values["split"])
    if "cell_options" in values:
        values["cell_options"] = cell_options(values["cell_options"])
    return values


def cells(text: str) -> list[str]:
    """Read the cells of a list 'a,b,c' or 'all', each once; raises CharRNNError for one that there is not.

    Raises click.UsageError for a list with nothing in it, or nothing between two commas.
    """
    from charrnn.cells import get, names

    if text == "all":
        say_broken_cells()
        return names()
    asked = [name.strip() for name in text.split(",")]
    if not all(asked):
        raise click.UsageError(f"--cells {text!r} names no cell at some place: give a list such as gru,lstm, or all")
    return list(dict.fromkeys(get(name).name for name in asked))


def say_broken_cells() -> None:
    """Say on stderr which files of cells cannot be used, and why: for a command that lists or runs all cells."""
    from charrnn.cells import broken

    for each in broken().values():
        cli.note(f"{each.file} is left out: {each.reason}; {each.hint}")


def cell_options(pairs: tuple[str, ...]) -> dict[str, int]:
    """Read the options of a cell from name=value, as often as given; raises CharRNNError for anything else."""
    return dict(map(_pair, pairs))


def refuse_unwritable(path: Path, option: str) -> None:
    """Raise CharRNNError, before long work, for a file that its result could not be written to, as far as one sees."""
    folder = path.absolute().parent
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        reason = "the system does not allow it"
    else:
        return
    raise CharRNNError(f"{path} cannot be written: {reason}", f"choose another {option}")


def opened(path: Path, option: str) -> BinaryIO:
    """Open a file to write to; CharRNNError, with the option that named it, where it cannot be.

    An error while it is written names the file.
    """
    try:
        return io.BufferedWriter(streams.ResultFile(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CharRNNError(f"{path} cannot be written: {reason}", f"choose another {option}") from None


# JSON lets them stand. A reader of lines would end one there, and a terminal obeys them.
_ESCAPED = {n: f"\\u{n:04x}" for n in (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def print_json(value: Mapping[str, Any], file: TextIO | None = None) -> None:
    """One object, on one line, to stdout unless a file is given."""
    click.echo(strict_json.dumps(value).translate(_ESCAPED), file=file)


def _option(knob: "dataclasses.Field[Any]") -> Callable[[F], F]:
    data, kind = knob.metadata, plain(hints(Settings)[knob.name])
    name = "--" + knob.name.replace("_", "-")
    default = knob.default if knob.default is not dataclasses.MISSING else None
    text = data["help"]
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    if default not in (None, False, ""):
        text = f"{text}  [default: {default}]"
    text = text[0].upper() + text[1:]
    if knob.name == "cell_options":
        return click.option("--cell-option", knob.name, multiple=True, metavar="NAME=VALUE", help=text)
    if kind is bool:
        return click.option(f"{name}/--no-{name[2:]}", default=None, help=text)
    if knob.name == "cell":
        return click.option(name, metavar="NAME", shell_complete=complete_cells, help=text)
    if knob.name == "device":
        return click.option(name, type=DeviceChoice(data["choices"]), help=text)
    if data["choices"]:
        return click.option(name, type=click.Choice(data["choices"]), help=text)
    if knob.name == "budget":
        return click.option(name, metavar="TIME", help=text)
    if knob.name == "split":
        return click.option(name, metavar="A,B,C", help=text)
    if kind is int:
        return click.option(name, type=int, metavar="N", help=text)
    return click.option(name, type=kind, metavar="X" if kind is float else "NAME", help=text)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise OptionError(f"split is {text!r}", "give three shares, for instance 0.8,0.1,0.1 or 0.9,0.1,0") from None


def _pair(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise OptionError(
            f"cell option {text!r} is not name=value with a whole number of 1 or more",
            f"give for instance {name or 'depth'}=3",
        )
    return name, number
