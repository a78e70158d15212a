"""Options that several commands share, and those that are derived from the settings of a run."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO, TypeVar

import click

from charrnn.config import Config
from charrnn.errors import CharRNNError

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Where to compute: cpu, cuda, or auto for CUDA when there is one.",
)


def settings(function: F) -> F:
    """Give a command an option for every setting that a user may set; those not given arrive as None."""
    return settings_but()(function)


def settings_but(*names: str) -> Callable[[F], F]:
    """As `settings`, without those of these names, which the command sets itself or offers in its own way."""

    def decorate(function: F) -> F:
        for knob in reversed(dataclasses.fields(Config)):
            if "resolved" not in knob.metadata and knob.name not in ("corpus", *names):
                function = _option(knob)(function)
        return function

    return decorate


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, as `Config` takes them."""
    values = {name: value for name, value in options.items() if value is not None and value != ()}
    if "split" in values:
        values["split"] = _shares(values["split"])
    if "cell_options" in values:
        values["cell_options"] = dict(map(_pair, values["cell_options"]))
    return values


def cells(text: str) -> list[str]:
    """The cells of a list 'a,b,c' or 'all', each once; raises CharRNNError for one that there is not."""
    from charrnn.cells import get, names

    return names() if text == "all" else list(dict.fromkeys(get(name.strip()).name for name in text.split(",")))


def print_json(value: Mapping[str, Any], file: TextIO | None = None) -> None:
    """One object, on one line, to stdout unless a file is given."""
    click.echo(json.dumps(value, ensure_ascii=False), file=file)


def _option(knob: "dataclasses.Field[Any]") -> Callable[[F], F]:
    data, kind = knob.metadata, str(knob.type)
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
    if "bool" in kind:
        return click.option(f"{name}/--no-{name[2:]}", default=None, help=text)
    if data["choices"]:
        return click.option(name, type=click.Choice(data["choices"]), help=text)
    if knob.name == "budget":
        return click.option(name, metavar="TIME", help=text)
    if knob.name == "split":
        return click.option(name, metavar="A,B,C", help=text)
    if "int" in kind:
        return click.option(name, type=int, metavar="N", help=text)
    return click.option(
        name, type=float if "float" in kind else str, metavar="X" if "float" in kind else "NAME", help=text
    )


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise CharRNNError(f"split is {text!r}", "give three shares, for instance 0.8,0.1,0.1 or 0.9,0.1,0") from None


def _pair(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError:
        raise CharRNNError(
            f"cell option {text!r}", "give name=value with a whole number, for instance depth=3"
        ) from None
