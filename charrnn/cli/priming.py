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
encoding = click.option(
    "--encoding",
    metavar="NAME",
    help="How --prime-file or standard input is encoded, as Python names it.  [default: utf-8]",
)


def given(prime: str | None, prime_file: Path | None, encoding: str | None = None) -> str:
    """Return the prime: the argument, a file's text, standard input for '-' or when something is piped in, or empty.

    encoding: of the file or standard input; UTF-8 when None.
    """
    if prime is not None and prime_file is not None:
        raise CharRNNError("both a prime and --prime-file are given", "give one of them")
    if prime_file is not None:
        return read_file(prime_file, encoding)
    if prime == "-" or (prime is None and not sys.stdin.isatty()):
        return decoded(sys.stdin.buffer.read(), "standard input", encoding)
    if encoding is not None:
        raise CharRNNError("--encoding is given for a prime that is typed", "give it with --prime-file, or with '-'")
    return argument(prime or "")


def argument(text: str) -> str:
    """Return a text of the command line, which is UTF-8 whatever the locale says."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def read_file(path: Path, encoding: str | None = None) -> str:
    """Return the text of a file. encoding: UTF-8 when None."""
    try:
        return decoded(path.read_bytes(), str(path), encoding)
    except OSError as error:
        raise CharRNNError(f"{path} cannot be read: {error.strerror}", "check the path") from None


def decoded(data: bytes, source: str, encoding: str | None = None) -> str:
    """Decode bytes. source: for the error where they do not fit. encoding: UTF-8 when None."""
    from charrnn.text import cleaning, corpora
    from charrnn.text.encodings import UTF8, text_encoding

    return cleaning.decoded(corpora.memory(source, data), text_encoding(encoding or UTF8))


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
