"""info: everything about one run."""

import json

import click

from charrnn.cli import options, runs


@click.command()
@click.argument("run", default="latest", shell_complete=options.complete_runs)
@options.as_json
def command(run: str, as_json: bool) -> None:
    """Show what RUN is: configuration, scores, files."""
    from charrnn.training.runs import find_run

    found = find_run(run)
    config = json.loads(found.config().to_json())
    about = found.about()
    if as_json:
        options.print_json(
            {**runs.summary(found), "config": config, "result": about["result"], "files": about["files"]}
        )
        return
    summary = runs.summary(found)
    summary["saved"] = runs.ago(summary["saved"])
    for name, value in {**summary, **config}.items():
        click.echo(f"{name:<20}{value if not isinstance(value, list) else ', '.join(map(str, value))}")
    for name, value in (about["result"] or {}).items():
        click.echo(f"{'result ' + name:<28}{value}")
    for shape_name, (shape, _) in found.architecture().shapes().items():
        click.echo(f"weight {shape_name:<21}{' x '.join(map(str, shape))}")
