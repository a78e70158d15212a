"""sample: complete a text."""

import sys
from pathlib import Path
from typing import Literal, TextIO

import click

from charrnn.cli import options
from charrnn.errors import CharRNNError


@click.command()
@click.option("--run", default="latest", show_default=True, help="The run: its name, its path, or 'latest'.")
@click.option("--prime", help="The text to complete; '-' reads it from standard input.")
@click.option("--prime-file", type=click.Path(path_type=Path), help="Complete the text in this file.")
@click.option("--chars", default=200, show_default=True, metavar="N", help="How many characters to draw.")
@click.option(
    "--temperature", default=0.8, show_default=True, metavar="X", help="0 always takes the likeliest character."
)
@click.option("--top-k", type=int, metavar="N", help="Draw from the N likeliest alone.")
@click.option("--top-p", type=float, metavar="X", help="Draw from the likeliest that together reach this probability.")
@click.option("--min-p", type=float, metavar="X", help="Drop what is less likely than X times the likeliest.")
@click.option("--seed", default=7, show_default=True, metavar="N", help="The same seed gives the same text.")
@click.option("--count", default=1, show_default=True, metavar="N", help="How many different completions.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given more than once.")
@click.option(
    "--weights",
    "kept",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="What the weights are kept in while completing: fewer bytes are faster and a little less exact.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
@options.device
@options.as_json
def command(
    run: str,
    prime: str | None,
    prime_file: Path | None,
    chars: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int,
    count: int,
    stop: tuple[str, ...],
    kept: Literal["float32", "bf16", "int8"],
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Complete a text: draw characters that go on from a prime.

    Without --prime or --prime-file the prime is read from standard input when something is piped in, and is empty
    otherwise.
    """
    from charrnn.sampling import Sampling
    from charrnn.text_model import load

    sampling = Sampling(temperature, top_k, top_p, min_p, seed)
    text = _prime(prime, prime_file)
    model = load(run, device, kept=kept)
    assert model.run is not None
    for note in model.decoder().notes:
        click.echo(f"note: {note}", err=True)
    completions = model.completions(text, chars, sampling, count, stop)
    target = _open(out)
    try:
        done = []
        for number, characters in enumerate(completions):
            pieces, nats = [], 0.0
            if not as_json:
                separator = f"\n--- {number + 1} of {count}\n" if count > 1 else ""
                print(separator + text, end="", file=target, flush=True)
            for character, cost in characters:
                pieces.append(character)
                nats += cost
                if not as_json:
                    print(character, end="", file=target, flush=True)
            if not as_json:
                print(file=target, flush=True)
            done.append({"text": "".join(pieces), "nats": nats})
        if as_json:
            result = {"run": str(model.run.path), "prime": text, "seed": seed, "completions": done}
            options.print_json(result, target)
    finally:
        if out is not None:
            target.close()


def _prime(prime: str | None, prime_file: Path | None) -> str:
    if prime is not None and prime_file is not None:
        raise CharRNNError("both --prime and --prime-file are given", "give one of them")
    try:
        if prime_file is not None:
            return prime_file.read_bytes().decode("utf-8")
        if prime == "-" or (prime is None and not sys.stdin.isatty()):
            return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CharRNNError(f"the prime's byte {error.start} is not UTF-8", "convert it to UTF-8") from None
    except OSError as error:
        raise CharRNNError(f"{prime_file} cannot be read: {error.strerror}", "check the path") from None
    return prime or ""


def _open(out: Path | None) -> TextIO:
    try:
        return sys.stdout if out is None else out.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise CharRNNError(f"{out} cannot be written: {error.strerror}", "choose another --out") from None
