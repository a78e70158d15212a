"""The command line: click options -> library calls -> print. Results go to stdout, progress and advice to stderr.

A command is a module of this folder with a `command`, imported when it is asked for, so that --help is instant.
Exit codes: 0 done, 1 an error the library explains, 2 wrong usage; 128 and the number of a signal that ended it: 130
Ctrl-C, 143 kill, 129 a closed terminal.
"""

import errno
import gc
import importlib
import os
import re
import signal
import sys
import time
from typing import Any

import click

from charrnn import __version__
from charrnn.cli import streams
from charrnn.errors import PROGRAM, CharRNNError, OptionError, command, did_you_mean, quoted
from charrnn.interruption import HANG_UP, Ended

STARTED = time.monotonic()  # a budget of time counts from here: imports are part of a run

# What no program can help: a full disk or quota, a file too large, a device or a pipe that fails, no rights, too long a
# name, links that lead in a circle.
REFUSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip

COMMANDS = {  # name -> its help in one line, as in its module
    "train": "Learn a text: train a model on CORPUS and keep it as a run.",
    "sample": "Complete a text: draw characters that go on from a prime.",
    "complete": "Finish the sentence, word or line of PRIME: several completions, the likeliest first.",
    "chat": "Complete what you type, line after line, as long as you like.",
    "serve": "Serve models to other programs, in the way of OpenAI's completions API.",
    "next": "Show the likeliest characters after PRIME, with their probabilities as bars.",
    "score": "Show how much every character of TEXT, or of a file, surprises the model.",
    "eval": "Score RUN on a part of its corpus, or on FILE.",
    "corpora": "List, fetch and measure corpora.",
    "runs": "List the runs, newest first; where there are none, those that come with charrnn.",
    "info": "Show what RUN is: configuration, scores, files.",
    "export": "Write RUN in a form that can be given away.",
    "push": "Upload the weights of RUN to USER/NAME on the Hugging Face Hub, with a page about them.",
    "compare": "Compare recurrent cells on CORPUS, fairly: which models it best, at what size, speed and cost.",
    "inspect": "Look inside: how far back gradients reach, how long a cell remembers, what single units follow.",
    "bench": "Measure training, decoding, encoding and serving against plain torch and what the machine can do.",
    "rm": "Delete runs, after asking; damaged ones too, and those that never got a checkpoint.",
    "cells": "List the recurrent cells, or show one: equations, shapes, source.",
    "env": "Show versions, processor, threads and paths, for a report of a problem.",
    "completion": "Print the script that makes SHELL complete charrnn's commands, options, runs, cells and corpora.",
}


def in_examples(help_: str) -> str:
    """Return a help text whose examples begin as this program was called."""
    return re.sub(r"^( +)python cli\.py(?= )", lambda found: found[1] + program(), help_, flags=re.MULTILINE)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"charrnn.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}; {did_you_mean(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return in_examples(super().get_help(ctx))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


# color: the streams care for what a terminal obeys, and files and pipes get every text as it is.
@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.version_option(__version__, prog_name="charrnn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def group(debug: bool) -> None:
    """Learn a text with a recurrent network, and complete what you begin to write.

    \b
    python cli.py train corpus.txt
    python cli.py sample --prime "Rekurentne"
    """


def main() -> None:
    """Run the command line and exit."""
    # A stream that was closed (`<&-`, some schedulers) is None: opened in this order, each gets its own number back.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stdout = streams.relayered(sys.stdout, streams.Result)
    sys.stderr = streams.relayered(sys.stderr, streams.Lossy)
    if "_CHARRNN_COMPLETE" in os.environ:  # a shell asks, through the script that `completion` prints
        sys.exit(importlib.import_module("charrnn.cli.completion").answer(os.environ["_CHARRNN_COMPLETE"]))
    code = run(sys.argv[1:])
    if code > 128 and HANG_UP is not None:
        signal.signal(HANG_UP, signal.SIG_IGN)  # a second one is no hurry, and would change the exit code
    gc.freeze()  # else Python ends by a search for cycles in all that torch has made
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command that these arguments name. Returns its exit code; an error is one line and a hint on stderr."""
    debug = "--debug" in arguments  # looked for now: click takes the list apart
    try:
        # Not group.main(): it turns a closed pipe into a failure.
        with group.make_context(program(), arguments) as context:
            code = group.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except CharRNNError as error:
        if debug:
            raise
        say(error)
        return 2 if isinstance(error, OptionError) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Ended as error:
        _tell(f"interrupted; {error.hint}" if error.hint else "interrupted")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell("interrupted")
        return 130
    except streams.ReaderGoneError:
        _forget_output()
        return 0
    except MemoryError as error:
        _tell(f"error: the memory does not suffice: {error or 'more was asked for than there is'}")
        _tell("hint: a smaller --hidden, --batch or --window needs less")
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in REFUSED:
            _forget_output()  # it may be what cannot be written
            if error.filename == streams.STDOUT:
                _tell(f"error: the result cannot be written; the system refuses: {error.strerror}")
                _tell("hint: send it elsewhere; a run or a file that was made before is whole")
                return 1
            place = f"{error.filename}: " if error.filename else ""
            _tell(f"error: the system refuses: {place}{error.strerror}")
            _tell("hint: make room, check the rights, or name another place")
            return 1
        if isinstance(error, ValueError) and "embedded null" in str(error):  # what Python says instead of a system
            _tell("error: a name has a NUL character in it, and no file has such a name")
            _tell("hint: leave it out")
            return 1
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package not in ("", "charrnn"):
            _tell(f"error: this needs {package}, which is not installed")
            hint = f"pip install {package}, or all that charrnn needs: pip install -e . in its folder"
            if package in sys.stdlib_module_names:
                hint = f"{package} is part of Python: install Python's complete standard library"
            _tell(f"hint: {hint}")
            return 1
        _tell(f"error: this is a defect of charrnn: {type(error).__name__}: {error}")
        _tell(f"hint: please report it with what `{program()} --debug ...` and `{program()} env` print")
        return 1


def _forget_output() -> None:
    """Keep Python from failing once more when it flushes stdout at exit, where that cannot be written any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(error: CharRNNError) -> None:
    """Print an error and what to do about it, with the commands in it as this program is called."""
    _tell(f"error: {_in_one_place(as_called(error.problem))}")
    if error.hint:
        _tell(f"hint: {as_called(error.hint)}")


def note(text: str) -> None:
    """Print something to know on stderr."""
    _tell(f"note: {_in_one_place(text)}")


def _tell(text: str) -> None:
    click.echo(text, err=True, color=True)


def _in_one_place(text: str) -> str:
    """Return what begins a line of its own, so that on a terminal no line end in it begins what looks like another."""
    return text.replace("\n", "\n    ") if sys.stderr.isatty() else text


def typed(*words: str, operands: tuple[str, ...] = ()) -> str:
    """Return a command as it is typed to this program; arguments as for `charrnn.errors.command`."""
    return as_called(command(*words, operands=operands))


def as_called(text: str) -> str:
    """Return a text in which the commands of charrnn begin as this program was called."""
    pattern = rf"(?<![\w./'-]){PROGRAM}(?= (?:{'|'.join(COMMANDS)})\b)"
    return re.sub(pattern, lambda _: program(), text)


def program() -> str:
    """Return how this program was called, in the words of a shell."""
    called, name = sys.argv[0], os.path.basename(sys.argv[0])
    python = quoted(sys.orig_argv[0] or "python")
    if name == "cli.py":
        return f"{python} {quoted(called)}"
    if name == "__main__.py" and os.path.basename(os.path.dirname(called)) == PROGRAM:
        return f"{python} -m {PROGRAM}"
    if name == PROGRAM and not _is_on_path(called):
        return quoted(called)
    return PROGRAM


def _is_on_path(called: str) -> bool:
    import shutil

    found = shutil.which(PROGRAM)
    return found is not None and os.path.realpath(found) == os.path.realpath(called)
