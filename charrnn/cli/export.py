"""export: a run in another form."""

from pathlib import Path

import click

from charrnn.cli import options


@click.command()
@click.argument("run", default="latest", shell_complete=options.complete_runs)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write: NAME.onnx is an ONNX file, and any other name a folder of weights, which is made.",
)
@options.as_json
def command(run: str, to: Path, as_json: bool) -> None:
    """Write RUN in a form that can be given away.

    A folder holds its weights alone. It completes and scores as RUN does, and a new run can learn on from it. It cannot
    be resumed. Nothing of this machine is in it: no path, no time, no loss of a single character.

    NAME.onnx is one step of the model, for ONNX Runtime and programs in other languages, with the vocabulary in its
    metadata. ONNX Runtime has computed what the equations do before it is written.
    """
    if to.suffix.lower() == ".onnx":
        from charrnn.sharing import onnx_file

        model = options.whole(run, "cpu")
        written, step = onnx_file.write(model, to), model.run.about()["step"]
        size = written.stat().st_size
    else:
        from charrnn.training import export
        from charrnn.training.runs import find_run

        weights = export.weights(find_run(run), to)
        written, step = weights.path, weights.about()["step"]
        size = sum(path.stat().st_size for path in written.iterdir())
    if as_json:
        options.print_json({"run": str(written), "step": step, "bytes": size})
        return
    click.echo(f"wrote {written}: {size / 1e6:.2f} MB", err=True)
