"""The one error a user of charrnn should ever see, and commands as they are typed, for what it advises."""

import shlex
from collections.abc import Callable


class CharRNNError(Exception):
    """The one error of the library: what was given, what was expected, and what to do about it.

    The library raises it; the command line alone turns it into an `error:` line, a `hint:` line and an exit code.
    `problem` says what was given and what is expected, `hint` what to do.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}; {hint}" if hint else problem)
        self.problem = problem
        self.hint = hint


class OptionError(CharRNNError):
    """A value that a setting or an option cannot have, or several that contradict each other.

    The command line ends with exit code 2, as for options that there are not; errors of data end with 1.
    """


class DamageWarning(UserWarning):
    """Something is damaged, and what was kept beside it is used instead."""


class WrongCodeWarning(UserWarning):
    """Compiled code computes something else than the equations on this processor, and is not used."""


class NotRecordedWarning(UserWarning):
    """Work for a GPU cannot be recorded, and is given to it piece by piece."""


def did_you_mean(given: str, known: list[str]) -> str:
    """Return a hint that names the nearest of `known`, or all of them when none is near."""
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    lowered = {name.lower(): name for name in known}
    near = near or difflib.get_close_matches(given.lower(), list(lowered), n=1, cutoff=0.5)
    if near:
        return f"did you mean {lowered.get(near[0], near[0])!r}?"
    return f"choose from: {', '.join(known)}" if known else "there are none yet"


Command = Callable[..., str]  # as `command` below
PROGRAM = "charrnn"  # in advice of the library; the command line says it as it was called


def command(*words: str, operands: tuple[str, ...] = ()) -> str:
    """Return a command of charrnn as it is typed in a shell, for advice.

    words: the command and its options. operands: what follows them, which may look like options.
    """
    ends = ("--",) if any(operand.startswith("-") and operand != "-" for operand in operands) else ()
    return " ".join([PROGRAM, *map(quoted, (*words, *ends, *operands))])


def quoted(word: str) -> str:
    """Quote a word for a shell; one that cannot be printed, or is not UTF-8, as bash and zsh read it."""
    if word.isprintable():
        return shlex.quote(word)
    pieces = (
        c
        if c.isprintable() and c not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in word
    )
    return f"$'{''.join(pieces)}'"


def how_to_install(extra: str) -> str:
    """Return a hint that says how to install the packages of an extra of charrnn: compare, plot, notebook ..."""
    return f"pip install 'charrnn[{extra}]', or in a checkout: pip install -e '.[{extra}]'"
