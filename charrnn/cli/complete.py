"""complete: finish a word, a line or a sentence, the likeliest of several first."""

from pathlib import Path
from typing import Any

import click

from charrnn.cli import options, priming


@click.command()
@click.argument("prime", required=False)
@options.run
@priming.file
@priming.encoding
@priming.as_is
@click.option(
    "--until",
    type=click.Choice(["sentence", "word", "line"]),
    default="sentence",
    show_default=True,
    help="Where a completion ends.",
)
@click.option("--count", default=5, show_default=True, metavar="N", help="How many to draw; each text is shown once.")
@click.option(
    "--chars", default=400, show_default=True, metavar="N", help="Give up on an end after so many characters."
)
@options.sampling
@options.max_copy
@options.device
@options.as_json
def command(
    prime: str | None,
    run: str,
    prime_file: Path | None,
    encoding: str | None,
    prime_as_is: bool,
    until: Any,
    count: int,
    chars: int,
    max_copy: int | None,
    device: str,
    as_json: bool,
    **drawing: Any,
) -> None:
    """Finish the sentence, word or line of PRIME: several completions, the likeliest first.

    They are ranked by their likelihood per character: nats, fewer are better. '-' reads PRIME from standard input.
    """
    from charrnn.generate.candidates import ranked
    from charrnn.generate.sampling import Sampling

    sampling = Sampling(**drawing)
    text = priming.given(prime, prime_file, encoding, prime_as_is)
    model = options.loaded(run, device, count * (len(text) + chars))
    text = priming.examined(text, model, prime_as_is, priming.typed("complete", run))
    candidates = ranked(model.completions(text, chars, sampling, count, max_copy=max_copy), until)
    if as_json:
        copied = options.copies(model)
        done = [
            {
                "text": c.text,
                "nats": c.nats,
                "nats_per_char": c.nats_per_char,
                "finished": c.finished,
                "ended": c.ended,
                "copied": copied(c.text),
            }
            for c in candidates
        ]
        path, seed = str(model.run.path), sampling.seed
        options.print_json({"run": path, "prime": text, "until": until, "seed": seed, "completions": done})
        return
    last_line = text[text.rfind("\n") + 1 :]
    for c in candidates:
        shown = last_line + c.text + ("" if c.finished else " …")
        if count > 1:
            click.echo(f"{c.nats_per_char:.3f}  {options.one_line(shown)}")
        else:
            click.echo(text + c.text)
