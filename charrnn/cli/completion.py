"""completion: the shell completes commands, options, runs, cells and corpora."""

import click
from click.shell_completion import get_completion_class

from charrnn import cli

VARIABLE = "_CHARRNN_COMPLETE"


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
