"""score: how much every character of a text surprises the model."""

import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options, priming, surprise
from charrnn.cli.streams import Controls
from charrnn.errors import CharRNNError


@click.command()
@click.argument("what", metavar="FILE|TEXT")
@options.several_runs
@click.option("--text", "is_text", is_flag=True, help="It is a text, even if a file has that name.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page that shows it, complete in one file.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto is on a terminal, unless NO_COLOR is set.",
)
@click.option(
    "--adapt",
    is_flag=True,
    help="While the text is read, a copy of the model goes on learning from it; each character is scored before.",
)
@options.encoding
@options.device
@options.as_json
def command(
    what: str,
    runs: tuple[str, ...],
    is_text: bool,
    html: Path | None,
    color: str,
    adapt: bool,
    encoding: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Show how much every character of TEXT, or of a file, surprises the model.

    In bits: 1 is a guess between two, 8 one of 256. On a terminal the text is coloured; elsewhere there is a line for
    each character: its bits, a tab, and the character. '-' reads standard input. A file is read as the run's own text
    was: line ends, normal form, gzip.
    """
    from charrnn.text.cleaning import Findings

    if html is not None:
        options.refuse_unwritable(html, "--html")
    findings = Findings()
    read, source = found(what, is_text, findings)
    model = options.reading(options.whole(runs, device), encoding)
    text = model.clean(read(model.config))
    for note in findings.others:
        cli.note(note)
    if not text:
        raise CharRNNError(f"{source} is empty", "give a text of at least one character")
    score = model.score(text, adapt=adapt)
    bits = (score.per_char / math.log(2)).tolist()
    about = (
        f"{options.named(model)} on {source}: {score.characters:,} characters, {score.bits_per_char:.3f} bits each, "
        f"perplexity {score.perplexity:.2f}{', while it goes on learning' if adapt else ''}"
    )
    if html is not None:
        page = surprise.page(text, bits, f"{source}, read by {options.named(model)}", about)
        with options.opened(html, "--html") as stream:
            stream.writelines(piece.encode("utf-8", "backslashreplace") for piece in page)
        click.echo(f"wrote {html}", err=True)
        if len(text) > surprise.PAGE_CHARACTERS:
            cli.note(f"it shows the first {surprise.PAGE_CHARACTERS:,} characters; --json has all")
    if as_json:
        options.print_json(_figures(model, text, score, bits, adapt))
    elif html is None:
        coloured = color == "always" or (color == "auto" and options.colours_wanted())
        if coloured:
            controls = Controls(sys.stdout)
            for piece in surprise.coloured(text, bits):
                controls.write(piece)
            print("" if text.endswith("\n") else "\n", end="", flush=True)
            Controls(sys.stderr).write(surprise.legend() + "\n")
        else:
            sys.stdout.writelines(surprise.lines(text, bits))
        click.echo(about, err=True)


def found(what: str, is_text: bool, findings: Any) -> tuple[Callable[[Any], str], str]:
    """Return what reads the text for a run of some configuration, adding to `findings`, and a name for the text."""
    from charrnn.text import corpora
    from charrnn.text.corpus import cleaned

    if not what:
        raise CharRNNError("the text is empty", "give a text of at least one character, or a file")
    path = Path(what)
    try:
        exists, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # too long for a name, or with a byte that none has
        exists = is_folder = False
    if what == corpora.STDIN or (exists and not is_text):
        (source,) = corpora.find(what).sources
        return partial(cleaned, source, findings=findings), source.name
    if is_folder and not is_text:
        raise CharRNNError(
            f"{what} is a folder, expected a file or a text", "give one of its files, or pass --text if it is the text"
        )
    if not is_text and " " not in what and (path.suffix or os.sep in what):
        raise CharRNNError(f"there is no file {what}", "check the path, or pass --text if it is the text itself")
    return lambda _: priming.typed_in(what, "the text"), "the text"


def _figures(model: Any, text: str, score: Any, bits: list[float], adapted: bool) -> dict[str, Any]:
    return {
        **options.paths(model),
        "characters": score.characters,
        "nats_per_char": score.nats,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "adapted": adapted,
        "text": text,
        "bits": bits,
    }
