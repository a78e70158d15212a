"""eval: how well a run predicts a text."""

from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.errors import CharRNNError
from charrnn.errors import command as command_line
from charrnn.reporting import bars


@click.command()
@click.argument("run", required=False, shell_complete=options.complete_runs)
@click.argument("file", required=False)
@click.option(
    "--run",
    "runs",
    multiple=True,
    shell_complete=options.complete_runs,
    help="Instead of RUN; given more than once, the runs predict as one: their probabilities are averaged.",
)
@click.option("--part", type=click.Choice(["train", "val", "test"]), help="Which part; the default is test, or val.")
@click.option(
    "--mode",
    type=click.Choice(["stream", "cold"]),
    default="stream",
    show_default=True,
    help="One stream from the first character, or windows that each start from nothing.",
)
@click.option(
    "--adapt",
    is_flag=True,
    help="Score again, while a copy of the model learns on from what it has read: dynamic evaluation.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the nats of every character here, as .npy: those of the last score.",
)
@options.encoding
@options.device
@options.as_json
def command(
    run: str | None,
    file: str | None,
    runs: tuple[str, ...],
    part: str | None,
    mode: str,
    adapt: bool,
    out: Path | None,
    encoding: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Score RUN on a part of its corpus, or on FILE.

    With --run the only argument is FILE. Several runs are scored on a part of their corpus if they have the same one.

    All figures are per character of text, also where a character is spelled in several bytes. What --adapt gives stands
    beside compressors, which learn from what they read too, and not beside other scores.
    """
    from charrnn.api import text_to_score
    from charrnn.text.cleaning import Findings

    if runs:
        if file is not None:
            raise click.UsageError(f"{run} is given as a run, and --run too: with --run give the file alone")
        run, file = None, run
    if adapt and mode == "cold":
        raise click.UsageError("--adapt reads one stream: leave --mode cold out")
    if encoding is not None and file is None:
        raise click.UsageError("--encoding is that of a FILE: give one")
    if out is not None:
        options.refuse_unwritable(out, "--out")
    try:
        loaded = options.whole(runs or run or "latest", device)
    except CharRNNError as error:
        if run is not None and file is None and Path(run).is_file():
            latest = command_line("eval", operands=("latest", run))
            raise CharRNNError(error.problem, f"the run comes first, then the file: {latest}") from error
        raise
    model = options.reading(loaded, encoding)
    findings = Findings()
    what, ids, starts = text_to_score(model, file, part, findings)  # type: ignore[arg-type]
    for note in findings.others:
        cli.note(note)
    with bars.bars() as show:
        score = model.score_ids(ids, mode, starts, show)
        adapted = model.score_ids(ids, "adapt", starts, show) if adapt else None
    if out is not None:
        import numpy as np

        with options.opened(out, "--out") as stream:
            np.save(stream, (score if adapted is None else adapted).per_char)
    share = score.spelled_characters / max(1, score.characters)
    if as_json:
        options.print_json(
            {
                **options.paths(model),
                "characters": score.characters,
                **_figures(score),
                "mode": mode,
                "spelled_in_bytes": {
                    "characters": score.spelled_characters,
                    "share": share,
                    "nats": score.spelled_nats,
                },
                "adapted": adapted and _figures(adapted),
            }
        )
        return
    click.echo(f"{options.named(model)} on {what}: {score.characters:,} characters, {mode}")
    click.echo(_in_words(score))
    if adapted is not None:
        click.echo(f"{_in_words(adapted)}, while it goes on learning: to be set beside compressors, which do so too")
    if score.spelled_characters:
        cost = score.spelled_nats / score.spelled_characters
        click.echo(f"spelled in bytes: {score.spelled_characters:,} characters ({share:.3%}), {cost:.1f} nats each")


def _figures(score: Any) -> dict[str, float]:
    return {"nats_per_char": score.nats, "bits_per_char": score.bits_per_char, "perplexity": score.perplexity}


def _in_words(score: Any) -> str:
    return f"{score.nats:.4f} nats, {score.bits_per_char:.4f} bits per character, perplexity {score.perplexity:.3f}"
