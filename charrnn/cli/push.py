"""push: give a run's weights to the Hugging Face Hub."""

import click

from charrnn import cli
from charrnn.cli import options


@click.command()
@click.argument("run", shell_complete=options.complete_runs)
@click.argument("repo", metavar="USER/NAME")
@click.option("--public", is_flag=True, help="Everybody may have it; else it is private.")
@options.as_json
def command(run: str, repo: str, public: bool, as_json: bool) -> None:
    """Upload the weights of RUN to USER/NAME on the Hugging Face Hub, with a page about them.

    They are what `export` writes: no path of this machine, no training state, no loss of a single character. Log in
    before with `hf auth login`, or set HF_TOKEN. `sample --run hf://USER/NAME` completes by them anywhere, and
    `train --from hf://USER/NAME` learns on.
    """
    from charrnn.sharing import hub
    from charrnn.training.runs import find_run

    pushed = hub.push(find_run(run), repo, public=public)
    if as_json:
        options.print_json({"address": pushed.address, "url": pushed.url, "private": pushed.is_private})
        return
    click.echo(f"{pushed.url}: {'private' if pushed.is_private else 'public'}", err=True)
    cli.note(f"to complete by it: {cli.typed('sample', '--run', pushed.address.partition('@')[0])}")
    click.echo(pushed.address)
