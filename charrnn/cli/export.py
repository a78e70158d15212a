"""export: a run in another form."""

from pathlib import Path
from typing import Any

import click

from charrnn.cli import options


@click.command()
@click.argument("run", default="latest", shell_complete=options.complete_runs)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write: NAME.html is a page, NAME.onnx an ONNX file, and any other name a folder of weights.",
)
@click.option(
    "--weights",
    "kind",
    type=click.Choice(["float32", "bf16", "int8"]),
    help="Of a page: how the matrices are kept in it; fewer bytes are a little less exact.  [default: float32]",
)
@options.as_json
def command(run: str, to: Path, kind: Any, as_json: bool) -> None:
    """Write RUN in a form that can be given away.

    A folder holds its weights alone. It completes and scores as RUN does, and a new run can learn on from it. It cannot
    be resumed. Nothing of this machine is in it: no path, no time, no loss of a single character.

    NAME.html is a page that completes texts and shows what surprises the model, complete in one file: it needs a
    browser and no network.

    NAME.onnx is one step of the model, for ONNX Runtime and programs in other languages, with the vocabulary in its
    metadata. ONNX Runtime has computed what the equations do before it is written.
    """
    form = to.suffix.lower()
    if kind is not None and form != ".html":
        raise click.UsageError("--weights is of a page: give --to NAME.html, or leave it out")
    if form in (".html", ".onnx"):
        from charrnn.sharing import onnx_file, page_file

        model = options.whole(run, "cpu")
        written = onnx_file.write(model, to) if form == ".onnx" else page_file.write(model, to, kind or "float32")
        step, size = model.run.about()["step"], written.stat().st_size
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
