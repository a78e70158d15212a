"""Text that a person hands over to be read by a model: where it comes from, and what is said about it."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from charrnn import cli
from charrnn.errors import CharRNNError, OptionError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 200  # characters of a suggested prime

as_is = click.option(
    "--prime-as-is",
    is_flag=True,
    help="Read the prime as it is: with the last line end of standard input, which is left out otherwise, and without "
    "a word about letters the model lacks.",
)
file = click.option("--prime-file", type=click.Path(path_type=Path), help="Complete the text in this file.")
encoding = click.option(
    "--encoding",
    metavar="NAME",
    help="How --prime-file or standard input is encoded, as Python names it.  [default: utf-8]",
)


def given(prime: str | None, prime_file: Path | None, encoding: str | None = None, as_is: bool = False) -> str:
    """Return the prime: the argument, a file's text, standard input for '-' or when something is piped in, or empty.

    encoding: of the file or standard input; UTF-8 when None. as_is: whether the last line end of standard input, which
    `echo` and the like put there, is part of it.
    """
    if prime is not None and prime_file is not None:
        raise OptionError("both a prime and --prime-file are given", "give one of them")
    if prime_file is not None:
        return read_file(prime_file, encoding)
    if prime == "-" or (prime is None and not sys.stdin.isatty()):
        text = decoded(sys.stdin.buffer.read(), "standard input", encoding)
        return text if as_is else re.sub(r"\r?\n\Z", "", text)
    if encoding is not None:
        raise OptionError("--encoding is given for a prime that is typed", "give it with --prime-file, or with '-'")
    return argument(prime or "") if as_is else typed_in(prime or "", "the prime")


def typed_in(text: str, what: str) -> str:
    """Return a text of the command line; say on stderr where it spells a line end or a tab, which no shell reads so."""
    text = argument(text)
    if found := re.search(r"\\[nrt]", text):
        other = re.sub(r"\\(?![nrt])", r"\\\\", text).replace("'", "\\'")
        cli.note(f"{what} has {found[0]} in it, a backslash and a letter, and is read so")
        if len(text) <= SHOWN:
            click.echo(f"hint: bash and zsh make the character of it in $'{other}'", err=True)
    return text


def argument(text: str) -> str:
    """Return a text of the command line, which is UTF-8 whatever the locale says."""
    try:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, which no shell can give: reading the text refuses it
        return text


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


def examined(text: str, model: Any, as_is: bool, better: Callable[[str], str]) -> str:
    """Return the prime to read; say on stderr what the model cannot read well, and `better` of the nearest spelling."""
    model.tokenizer.encode(text)  # refuses what is not text before anything is printed
    if as_is:
        return text
    from charrnn.generate.primes import examine

    notes = []
    if model.config.newline == "lf" and "\r" in text:
        from charrnn.text.cleaning import with_lf

        text = with_lf(text)
        notes.append("the line ends of the prime were turned into LF, as those of the text that the model learned")
    found = examine(text, model.tokenizer)
    for note in (*notes, *found.notes):
        cli.note(note)
    if found.suggestion and len(found.suggestion) <= SHOWN:  # without its marks nothing may be left
        click.echo(f"hint: {better(found.suggestion)}", err=True)
    return found.text


def typed(command: str, runs: str | Sequence[str], option: str = "") -> Callable[[str], str]:
    """Return how a command is typed, given its prime. option: of the prime, where it has one."""
    runs = (runs,) if isinstance(runs, str) else tuple(runs)
    words = [command, *(word for run in runs if runs != ("latest",) for word in ("--run", run))]

    def with_prime(prime: str) -> str:
        whole = cli.typed(*words, option, prime) if option else cli.typed(*words, operands=(prime,))
        return f"{whole}    (--prime-as-is keeps this quiet)"

    return with_prime
