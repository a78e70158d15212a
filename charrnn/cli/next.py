"""next: what may follow a text, with how likely it is."""

import math
import shutil
from pathlib import Path

import click

from charrnn.cli import options, priming

BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths


@click.command()
@click.argument("prime", required=False)
@options.run
@priming.file
@priming.encoding
@priming.as_is
@click.option("--k", default=10, show_default=True, metavar="N", help="How many characters to show.")
@options.device
@options.as_json
def command(
    prime: str | None,
    run: str,
    prime_file: Path | None,
    encoding: str | None,
    prime_as_is: bool,
    k: int,
    device: str,
    as_json: bool,
) -> None:
    """Show the likeliest characters after PRIME, with their probabilities as bars.

    '-' reads PRIME from standard input; without one, what may begin a text is shown.
    """
    if k < 1:
        raise click.UsageError("--k is a whole number of 1 or more")
    text = priming.given(prime, prime_file, encoding, prime_as_is)
    model = options.loaded(run, device, len(text) + k)
    text = priming.examined(text, model, prime_as_is, priming.typed("next", run))
    likeliest = model.next(text, k)
    others = max(0.0, 1 - math.fsum(p for _, p in likeliest))
    if as_json:
        rows = [{"character": character, "probability": p} for character, p in likeliest]
        options.print_json({"run": str(model.run.path), "prime": text, "next": rows, "others": others})
        return
    room = max(10, min(60, shutil.get_terminal_size().columns - 24))
    for character, p in likeliest:
        bits = -math.log2(p) if p > 0 else math.inf
        click.echo(f"{options.visible(character):>8}  {p:6.1%}  {bits:4.1f} bits  {_bar(p, room)}".rstrip())
    click.echo(f"{'others':>8}  {others:6.1%}  {'':9}  {_bar(others, room)}".rstrip())


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    return BLOCKS[8] * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")
