"""Text that a person hands over to be read by a model: where it comes from, and what is said about it."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from charrnn import cli
from charrnn.errors import CharRNNError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 200  # characters of a suggested prime

as_is = click.option(
    "--prime-as-is", is_flag=True, help="Read the prime as it is, and say nothing about letters the model lacks."
)
file = click.option("--prime-file", type=click.Path(path_type=Path), help="Complete the text in this file.")


def given(prime: str | None, prime_file: Path | None) -> str:
    """Return the prime: the argument, a file's text, standard input for '-' or when something is piped in, or empty."""
    if prime is not None and prime_file is not None:
        raise CharRNNError("both a prime and --prime-file are given", "give one of them")
    if prime_file is not None:
        return read_file(prime_file)
    if prime == "-" or (prime is None and not sys.stdin.isatty()):
        return decoded(sys.stdin.buffer.read(), "standard input")
    return argument(prime or "")


def argument(text: str) -> str:
    """Return a text of the command line, which is UTF-8 whatever the locale says."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def read_file(path: Path) -> str:
    """Return the UTF-8 text of a file."""
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise CharRNNError(f"{path} cannot be read: {error.strerror}", "check the path") from None


def decoded(data: bytes, source: str) -> str:
    """Decode bytes as UTF-8. source: for the error where they are not."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CharRNNError(f"{source}: byte {error.start} is not UTF-8", "convert it to UTF-8") from None


def examined(text: str, tokenizer: Any, as_is: bool, better: Callable[[str], str]) -> str:
    """Return the prime to read; say on stderr what the model cannot read well, and `better` of the nearest spelling."""
    tokenizer.encode(text)  # refuses what is not text before anything is printed
    if as_is:
        return text
    from charrnn.generate.primes import examine

    found = examine(text, tokenizer)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if found.suggestion is not None and len(found.suggestion) <= SHOWN:
        click.echo(f"hint: {better(found.suggestion)}", err=True)
    return found.text


def typed(command: str, run: str, option: str = "") -> Callable[[str], str]:
    """Return how a command is typed, given its prime. option: of the prime, where it has one."""
    chosen = [] if run == "latest" else ["--run", shlex.quote(run)]
    words = [cli.program(), command, *chosen, *([option] if option else [])]
    return lambda prime: " ".join([*words, shlex.quote(prime)]) + "    (--prime-as-is keeps this quiet)"
