"""rm: delete runs."""

import sys
from typing import Any

import click

from charrnn.cli import options
from charrnn.errors import CharRNNError


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True, shell_complete=options.complete_runs)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking.")
def command(names: tuple[str, ...], yes: bool) -> None:
    """Delete runs, after asking; damaged ones too, and those that never got a checkpoint."""
    from charrnn.training import runs

    found = [runs.find_run(own=True) if name == "latest" else runs.find_folder(name) for name in names]
    chosen = {run.path.resolve(): run for run in found}
    for run in chosen.values():
        run.refuse_removal()
    for run in chosen.values():
        what = _described(run)
        if not yes:
            if not sys.stdin.isatty():
                raise CharRNNError(f"deleting {what} wants a yes, and nobody is there to ask", "pass --yes")
            if not click.confirm(f"delete {what}?", err=True):
                click.echo(f"kept {run.path}", err=True)
                continue
        run.remove()
        click.echo(f"deleted {run.path}", err=True)


def _described(run: Any) -> str:
    size = sum(path.lstat().st_size for path in run.path.iterdir()) / 2**20
    reason = run.damage()
    about = f"damaged: {reason}" if reason else f"{run.config().cell}, step {run.about()['step']:,}"
    return f"{run.path} ({about}, {size:.1f} MB)"
