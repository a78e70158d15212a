"""chat: complete what a person types, line after line."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options, priming
from charrnn.cli.streams import Controls
from charrnn.errors import CharRNNError, did_you_mean
from charrnn.terminal import harmless

HISTORY_LINES = 1000
HELP = """\
Type how a text begins, and the model goes on. A line that begins with / is a command:
  /again            another completion of the same beginning
  /more             go on from where the completion stopped
  /temperature X    0 always takes the likeliest character; higher is bolder
  /seed N           the same seed gives the same text
  /chars N          how long a completion may be
  /until WHERE      stop at the end of a word, line or sentence, or at none
  /help             this
  /quit             leave; Ctrl-D too. Ctrl-C stops a completion.
A text that begins with / is typed with two of them."""


@click.command()
@options.run
@click.option("--chars", default=200, show_default=True, metavar="N", help="How long a completion may be.")
@click.option(
    "--until",
    type=click.Choice(["none", "word", "line", "sentence"]),
    default="none",
    show_default=True,
    help="Stop at the end of this.",
)
@options.sampling
@options.max_copy
@priming.as_is
@options.device
def command(
    run: str, chars: int, until: str, max_copy: int | None, prime_as_is: bool, device: str, **drawing: Any
) -> None:
    """Complete what you type, line after line, as long as you like.

    /help shows the commands: /again, /more, /temperature, /seed, /chars, /until, /quit. Ctrl-C stops a completion,
    Ctrl-D leaves.
    """
    from charrnn.generate.sampling import Sampling

    talk = _Talk(options.loaded(run, device, chars), Sampling(**drawing), chars, until, max_copy, prime_as_is)
    talk.check()
    click.echo(f"{talk.model.run.name}: type how a text begins; /help for more, Ctrl-D to leave", err=True)
    with _history():
        for line in _lines():
            try:
                if not talk.answer(line):
                    return
            except CharRNNError as error:
                cli.say(error)


class _Talk:
    """The memory of one conversation: the settings, the last beginning and what was drawn after it."""

    def __init__(self, model: Any, sampling: Any, chars: int, until: str, max_copy: int | None, as_is: bool) -> None:
        self.model, self._sampling = model, sampling
        self._chars, self._until, self._max_copy, self._as_is = chars, until, max_copy, as_is
        self._prime, self._drawn, self._number = "", "", 0
        self._commands: dict[str, Callable[[str], None]] = {
            "again": self._again,
            "more": self._more,
            "temperature": self._temperature,
            "seed": self._seed,
            "chars": self._set_chars,
            "until": self._set_until,
            "help": lambda _: click.echo(HELP, err=True),
        }

    def check(self) -> None:
        """Refuse settings out of range before anything is typed; compile what completing needs."""
        for characters in self.model.completions("", self._chars, self._sampling, 1, max_copy=self._max_copy):
            next(characters, None)

    def answer(self, line: str) -> bool:
        """Do what a line asks; tell whether to go on."""
        if line.startswith("/") and not line.startswith("//"):
            name, _, value = line[1:].strip().partition(" ")
            if name in ("quit", "exit", "q"):
                return False
            if name not in self._commands:
                raise CharRNNError(f"there is no /{name}", did_you_mean(name, [*self._commands, "quit"]))
            self._commands[name](value.strip())
        elif line:
            text = line[1:] if line.startswith("//") else line
            self._complete(self._examined(text), 0)
        return True

    def _examined(self, text: str) -> str:
        return priming.examined(text, self.model, self._as_is, "type: {}".format)

    def _complete(self, prime: str, number: int) -> None:
        self._prime, self._drawn, self._number = prime, "", number
        characters = next(
            self.model.completions(prime, self._chars, self._sampling, 1, first=number, max_copy=self._max_copy)
        )
        if self._until != "none":
            characters = characters.up_to(self._until)
        last_line = prime[prime.rfind("\n") + 1 :]
        if options.colours_wanted():
            Controls(sys.stdout).write(click.style(harmless(last_line), bold=True))
        else:
            sys.stdout.write(last_line)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            for character, _ in characters:
                self._drawn += character
                print(character, end="", flush=True)
        print(flush=True)

    def _again(self, _: str) -> None:
        self._complete(self._prime, self._number + 1)

    def _more(self, _: str) -> None:
        self._complete(self._prime + self._drawn, 0)

    def _temperature(self, value: str) -> None:
        number = _number(value, float, f"temperature is {self._sampling.temperature:g}", "/temperature 0.5")
        self._sampling = dataclasses.replace(self._sampling, temperature=number)
        click.echo(f"temperature is now {number:g}", err=True)

    def _seed(self, value: str) -> None:
        number = _number(value, int, f"seed is {self._sampling.seed}", "/seed 7")
        self._sampling = dataclasses.replace(self._sampling, seed=number)
        click.echo(f"seed is now {number}", err=True)

    def _set_chars(self, value: str) -> None:
        number = _number(value, int, f"chars is {self._chars}", "/chars 200")
        if number < 1:
            raise CharRNNError(f"chars is {number}", "expected a whole number of 1 or more")
        self._chars = number
        click.echo(f"a completion now has up to {number:,} characters", err=True)

    def _set_until(self, value: str) -> None:
        if value not in ("none", "word", "line", "sentence"):
            raise CharRNNError(
                f"{value!r} is no place to stop" if value else f"until is {self._until}",
                "choose from: none, word, line, sentence",
            )
        self._until = value
        click.echo(f"until is now {value}", err=True)


def _number(value: str, kind: Callable[[str], Any], now: str, example: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        problem = f"{value!r} is not a number" if value else now
        raise CharRNNError(problem, f"give one, for instance {example}") from None


def _lines() -> Iterator[str]:
    """Yield what is typed, line by line, until the end; Ctrl-C at the prompt begins the line anew."""
    asked = sys.stdin.isatty() and sys.stdout.isatty()  # else input() would write its prompt into the result
    while True:
        try:
            yield priming.argument(input("> " if asked else ""))
        except EOFError:
            if asked:
                click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
        except UnicodeDecodeError:
            click.echo("error: that line is not UTF-8", err=True)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Keep typed lines in the home folder, and bring them back under the arrow keys, where Python has readline."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    from charrnn.home import home

    file = home() / ".chat-history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(file)
