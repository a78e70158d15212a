"""export: a run in another form."""

from pathlib import Path

import click

from charrnn.cli import options


@click.command()
@click.argument("run", default="latest", shell_complete=options.complete_runs)
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The folder to write, which is made.")
@options.as_json
def command(run: str, to: Path, as_json: bool) -> None:
    """Write the weights of RUN alone into a folder that can be given away.

    It completes and scores as RUN does, and a new run can learn on from it. It cannot be resumed. Nothing of this
    machine is in it: no path, no time, no loss of a single character.
    """
    from charrnn.training import export
    from charrnn.training.runs import find_run

    written = export.weights(find_run(run), to)
    size = sum(path.stat().st_size for path in written.path.iterdir())
    if as_json:
        options.print_json({"run": str(written.path), "step": written.about()["step"], "bytes": size})
        return
    click.echo(f"wrote {written.path}: {size / 1e6:.2f} MB", err=True)
