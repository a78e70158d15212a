"""rm: delete runs."""

import re
import sys

import click

from charrnn.cli import options
from charrnn.errors import CharRNNError

OWN_FILES = re.compile(
    r"(run|config|tokenizer)\.json|(metrics|timings)\.jsonl|(model|training|losses)-\d+\.safetensors|\..*"
)


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True, shell_complete=options.complete_runs)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking.")
def command(names: tuple[str, ...], yes: bool) -> None:
    """Delete runs, after asking."""
    from charrnn import checkpoint

    runs = {run.path.resolve(): run for run in map(checkpoint.find_run, names)}
    for run in runs.values():
        run.about(), run.config()  # a folder that only looks like a run is refused here
        strange = sorted(
            path.name for path in run.path.iterdir() if path.is_dir() or not OWN_FILES.fullmatch(path.name)
        )
        if strange:
            raise CharRNNError(
                f"{run.path} holds what no run writes: {', '.join(strange[:5])}",
                "move that, or delete the folder yourself",
            )
    for run in runs.values():
        size = sum(path.stat().st_size for path in run.path.iterdir())
        what = f"{run.path} ({run.config().cell}, step {run.about()['step']:,}, {size / 2**20:.1f} MB)"
        if not yes:
            if not sys.stdin.isatty():
                raise CharRNNError(f"deleting {what} wants a yes, and nobody is there to ask", "pass --yes")
            if not click.confirm(f"delete {what}?", err=True):
                click.echo(f"kept {run.path}", err=True)
                continue
        run.remove()
        click.echo(f"deleted {run.path}", err=True)
