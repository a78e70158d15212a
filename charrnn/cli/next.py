"""next: what may follow a text, with how likely it is; and a text that is picked from it."""

import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options, priming
from charrnn.errors import CharRNNError

BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths
SHOWN = 60  # characters of the text so far, above each list
PICKED = 200  # about how many characters a person picks: where nothing is compiled yet, that is not worth compiling


@click.command()
@click.argument("prime", required=False)
@options.run
@priming.file
@priming.encoding
@priming.as_is
@click.option("--k", default=10, show_default=True, metavar="N", help="How many characters to show.")
@click.option("--pick", is_flag=True, help="Pick one of them by its number, or type another, and go on from there.")
@options.device
@options.as_json
def command(
    prime: str | None,
    run: str,
    prime_file: Path | None,
    encoding: str | None,
    prime_as_is: bool,
    k: int,
    pick: bool,
    device: str,
    as_json: bool,
) -> None:
    """Show the likeliest characters after PRIME, with their probabilities as bars.

    '-' reads PRIME from standard input; without one, what may begin a text is shown.

    With --pick you write a text with the model. A line is a number of the list, or the characters that you want
    instead: write = before them where they are a number or begin with =. An empty line or Ctrl-D ends. The lines may
    come from a pipe.
    """
    if k < 1:
        raise click.UsageError("--k is a whole number of 1 or more")
    if pick and prime == "-":
        raise click.UsageError("--pick reads what you pick from standard input: give PRIME itself, or --prime-file")
    if pick and prime is None and prime_file is None:
        prime = ""
    text = priming.given(prime, prime_file, encoding, prime_as_is)
    model = options.loaded(run, device, len(text) + (PICKED if pick else k))
    text = priming.examined(text, model, prime_as_is, priming.typed("next", run))
    if pick:
        picked = list(_picked(model, text, k))
        whole = text + "".join(row["character"] for row in picked)
        if as_json:
            options.print_json({"run": str(model.run.path), "prime": text, "picked": picked, "text": whole})
        else:
            click.echo(whole)
        return
    likeliest = model.next(text, k)
    if as_json:
        rows = [{"character": character, "probability": p} for character, p in likeliest]
        options.print_json({"run": str(model.run.path), "prime": text, "next": rows, "others": likeliest.others})
        return
    room = _room()
    for character, p in likeliest:
        click.echo(_line(f"{options.visible(character):>8}", p, room))
    click.echo(f"{'others':>8}  {likeliest.others:6.1%}  {'':9}  {_bar(likeliest.others, room)}".rstrip())


def _picked(model: Any, prime: str, k: int) -> Iterator[dict[str, Any]]:
    """Yield what a person picks, character by character, as --json shows it."""
    place = model.picking(prime, PICKED)
    asked = sys.stdin.isatty() and sys.stderr.isatty()
    while not place.ended:
        likeliest = place.likeliest(k)
        listed = [character for character, _ in likeliest]
        _show(place.text, likeliest)
        wanted = None
        while wanted is None:
            try:
                if (line := _typed(asked)) is None:
                    return
                wanted = _wanted(line, listed)
            except CharRNNError as error:
                cli.say(error)
        for character in model.clean(wanted):
            listed = [each for each, _ in place.likeliest(k)]
            rank = listed.index(character) + 1 if character in listed else None
            yield {"character": character, "probability": place.take(character), "rank": rank}
            if place.ended:
                break
    cli.note("the document has ended, as the model learned documents")


def _show(text: str, likeliest: Sequence[tuple[str, float]]) -> None:
    """Show on stderr the end of the text, and what may follow it, numbered."""
    room = _room() - 4
    end = text[-SHOWN:]
    click.echo(f"\n{'…' if len(text) > SHOWN else ''}{options.one_line(end)}|", err=True)
    for number, (character, p) in enumerate(likeliest, 1):
        click.echo(_line(f"{number:>3}  {options.visible(character):>7}", p, room), err=True)


def _typed(asked: bool) -> str | None:
    """Return a line of standard input; None at its end, and where it is empty. asked: whether to show a prompt.

    Raises CharRNNError for a line that is not UTF-8.
    """
    if asked:
        click.echo("pick: ", err=True, nl=False)
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        raise CharRNNError("that line is not UTF-8", "type it anew") from None
    if not line and asked:
        click.echo(err=True)
    return priming.argument(line.removesuffix("\n").removesuffix("\r")) or None


def _wanted(line: str, listed: Sequence[str]) -> str:
    """Return the characters that a line asks for. Raises CharRNNError for a number that is not listed, and for '='."""
    if line.startswith("="):
        if line == "=":
            raise CharRNNError("nothing stands after =", "type == for the character itself")
        return line[1:]
    if not (line.isascii() and line.isdigit()):
        return line
    numbered = {str(number): character for number, character in enumerate(listed, 1)}
    number = line.lstrip("0")  # compared as text: Python makes no number of very many digits
    if number not in numbered:
        raise CharRNNError(
            f"there is no number {line} in the list", f"type 1 to {len(listed)}, or ={line} for the text itself"
        )
    return numbered[number]


def _room() -> int:
    """Return how wide a bar may be."""
    return max(10, min(60, shutil.get_terminal_size().columns - 24))


def _line(name: str, p: float, room: int) -> str:
    bits = -math.log2(p) if p > 0 else math.inf
    return f"{name}  {p:6.1%}  {bits:4.1f} bits  {_bar(p, room)}".rstrip()


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    return BLOCKS[8] * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")
