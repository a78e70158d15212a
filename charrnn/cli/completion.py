"""completion: the shell completes commands, options, runs, cells and corpora."""

import os
import re
import shlex
import sys

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from charrnn import cli

VARIABLE = "_CHARRNN_COMPLETE"


class _Bash(BashComplete):
    """Completion in bash, which puts a word into the line as it is: one with a space must come quoted."""

    def format_completion(self, item: CompletionItem) -> str:
        if item.type != "plain":
            return super().format_completion(item)
        words, number = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
        begun = words[number] if number < len(words) else ""
        # Where a quote was typed, bash closes it itself. Letters of every script need none.
        plain = begun.startswith(("'", '"')) or re.fullmatch(r"[\w@%+=:,./-]*", item.value)
        return f"{item.type},{item.value if plain else shlex.quote(item.value)}"


add_completion_class(_Bash, "bash")


def answer(instruction: str) -> int:
    """Print what a shell asks for, 'bash_complete' for instance. Returns the exit code.

    Not click's own function: it gives up on a name that is not UTF-8.
    """
    shell, _, what = instruction.partition("_")
    found = get_completion_class(shell)
    if found is None or what != "complete":
        return 1
    click.echo(found(cli.group, {}, "charrnn", VARIABLE).complete())
    sys.stdout.flush()
    return 0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete charrnn's commands, options, runs, cells and corpora.

    \b
    bash: eval "$(charrnn completion bash)"    in ~/.bashrc
    zsh:  eval "$(charrnn completion zsh)"     in ~/.zshrc, after compinit
    fish: charrnn completion fish > ~/.config/fish/completions/charrnn.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    # Not its source(): that runs the shell to learn its version, which is not our business here.
    script = found(cli.group, {}, "charrnn", VARIABLE)
    click.echo(script.source_template % script.source_vars())
