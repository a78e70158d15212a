"""sample: complete a text."""

import re
import sys
from pathlib import Path
from typing import Any, Literal

import click

from charrnn.cli import options, priming, streams


@click.command()
@options.several_runs
@click.option("--prime", help="The text to complete; '-' reads it from standard input.")
@priming.file
@priming.encoding
@priming.as_is
@click.option("--chars", default=200, show_default=True, metavar="N", help="How many characters to draw.")
@options.sampling
@click.option("--count", default=1, show_default=True, metavar="N", help="How many different completions.")
@click.option(
    "--separator",
    metavar="TEXT",
    help="What stands between completions; \\n, \\t, \\0 and \\\\ mean a line end, a tab, a NUL and a backslash. The "
    "default is a heading for each on a terminal, and a line end elsewhere.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given more than once.")
@click.option(
    "--weights",
    "kept",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="Quantization of the weights while completing: fewer bytes are faster and a little less exact.",
)
@click.option(
    "--adapt", is_flag=True, help="First let a copy of the model learn from the prime, read once: for a long one."
)
@options.max_copy
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Say what each completion cost, and what it copies.")
@options.device
@options.as_json
def command(
    runs: tuple[str, ...],
    prime: str | None,
    prime_file: Path | None,
    encoding: str | None,
    prime_as_is: bool,
    chars: int,
    count: int,
    separator: str | None,
    stop: tuple[str, ...],
    kept: Literal["float32", "bf16", "int8"],
    adapt: bool,
    max_copy: int | None,
    out: Path | None,
    verbose: bool,
    device: str,
    as_json: bool,
    **drawing: Any,
) -> None:
    """Complete a text: draw characters that go on from a prime.

    Without --prime or --prime-file the prime is read from standard input when something is piped in, and is empty
    otherwise.
    """
    from charrnn.generate.sampling import Sampling

    if separator is not None and as_json:
        raise click.UsageError("--separator is for plain text: --json keeps completions apart by itself")
    sampling = Sampling(**drawing)
    text = priming.given(prime, prime_file, encoding, prime_as_is)
    model = options.loaded(runs, device, count * (len(text) + chars), kept)
    text = priming.examined(text, model, prime_as_is, priming.typed("sample", runs, "--prime"))
    stop = tuple(priming.typed_in(text, "a --stop text") for text in stop)
    if adapt and out is not None:
        options.refuse_unwritable(out, "--out")
    model = model.adapted(text) if adapt else model
    completions = model.completions(text, chars, sampling, count, stop, max_copy=max_copy)
    copied = options.copies(model) if as_json or verbose else None
    target = sys.stdout if out is None else streams.Shown(options.opened(out, "--out"), "utf-8", newline="")
    layout = _Layout(count, separator, target.isatty())
    try:
        done = []
        for number, characters in enumerate(completions):
            pieces, nats = [], 0.0
            if not as_json:
                print(layout.before(number) + text, end="", file=target, flush=True)
            for character, cost in characters:
                pieces.append(character)
                nats += cost
                if not as_json:
                    print(character, end="", file=target, flush=True)
            completion: dict[str, Any] = {"text": "".join(pieces), "nats": nats, "ended": characters.ended}
            if not as_json:
                print(layout.after(number, text + completion["text"]), end="", file=target, flush=True)
            if copied is not None:
                completion["copied"] = copied(completion["text"])
            if verbose:
                click.echo(_about(number, completion), err=True)
            done.append(completion)
        if as_json:
            seen = {"prime": text, "seed": sampling.seed, "adapted": adapt}
            options.print_json({**options.paths(model), **seen, "completions": done}, target)
    finally:
        if out is not None:
            target.close()


class _Layout:
    """What stands between completions: a heading for people, for programs what they asked for or a line end."""

    def __init__(self, count: int, separator: str | None, terminal: bool) -> None:
        self._count, self._terminal = count, terminal
        meant = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
        self._separator = separator and re.sub(
            r"\\([ntr0\\])", lambda found: meant[found[1]], priming.argument(separator)
        )

    def before(self, number: int) -> str:
        """Return what precedes a completion. number: from 0."""
        if self._separator is not None:
            return self._separator if number else ""
        headed = self._terminal and self._count > 1
        return ("\n" if number else "") + f"--- {number + 1} of {self._count}\n" if headed else ""

    def after(self, number: int, text: str) -> str:
        """Return what follows a completion, of which `text` is all that was shown."""
        if self._separator is not None:
            return "\n" if self._terminal and number + 1 == self._count else ""
        # Lines that are documents end by themselves: another line end would be an empty one between them.
        return "" if self._count > 1 and not self._terminal and text.endswith("\n") else "\n"


def _about(number: int, completion: dict[str, Any]) -> str:
    text, copied = completion["text"], completion["copied"]
    line = f"completion {number + 1}: {len(text):,} characters"
    if text:
        line += f", {completion['nats'] / len(text):.3f} nats each"
    if copied is not None:
        passage = options.one_line(copied["passage"])
        line += f"; {copied['length']} in a row are in the training text"
        line += f", at {copied['offset']:,}: {passage}" if copied["length"] else ""
    return line
