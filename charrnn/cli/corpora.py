"""corpora: what can be learned by name, and what a text is like."""

import math
from typing import TYPE_CHECKING

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.reporting import bars

if TYPE_CHECKING:
    from charrnn.progress import Progress
    from charrnn.text.copies import Text
    from charrnn.text.statistics import Stats
    from charrnn.training.forecast import Forecast


def _complete_catalogue(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from charrnn.text import catalogue

    return [name for name in catalogue.ENTRIES if name.startswith(incomplete)]


@click.group(cls=options.Subcommands)
def command() -> None:
    """List, fetch and measure corpora.

    \b
    python cli.py corpora list
    python cli.py corpora stats corpus.txt
    """


@command.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """Show the corpora that have a name: size, alphabet, language."""
    from charrnn.text.named_corpora import describe

    rows = describe()
    if as_json:
        options.print_json({"corpora": [row.as_dict() for row in rows]})
        return
    width = max(len(row.name) for row in rows)
    click.echo(f"{'corpus':<{width}}  {'bytes':>11}  {'alphabet':>8}  {'language':<20}  about")
    for row in rows:
        alphabet = "-" if row.alphabet is None else str(row.alphabet)
        missing = "" if row.here else "not here yet; "
        if row.problem is not None:
            click.echo(f"{row.name:<{width}}  {'-':>11}  {'-':>8}  {row.language:<20}  cannot be read: {row.problem}")
            continue
        click.echo(f"{row.name:<{width}}  {row.bytes:>11,}  {alphabet:>8}  {row.language:<20}  {missing}{row.about}")
    if not all(row.here or row.problem for row in rows):
        click.echo(f"fetch what is not here with: {cli.typed('corpora', 'fetch', 'NAME')}", err=True)


@command.command()
@click.argument("name", shell_complete=_complete_catalogue)
@options.as_json
def fetch(name: str, as_json: bool) -> None:
    """Download a corpus of the catalogue and verify it; a download that was cut off is resumed."""
    from charrnn.text import catalogue

    with bars.bars() as show:
        path = catalogue.fetch(name, lambda done, total: show("fetching", done, total), cli.note)
    if as_json:
        options.print_json({"corpus": name, "path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(f"{name}: {path.stat().st_size:,} bytes in {path}")
        click.echo(f"next: {cli.typed('train', operands=(name,))}", err=True)


@command.command()
@click.argument("file", nargs=-1, required=True, shell_complete=options.complete_corpora)
@click.option("--encoding", metavar="NAME", help="How the files are encoded, as Python names it.  [default: utf-8]")
@click.option(
    "--forecast", is_flag=True, help="Say too what `train` would come to in 1, 3, 10 and 60 minutes on this machine."
)
@options.as_json
def stats(file: tuple[str, ...], encoding: str | None, forecast: bool, as_json: bool) -> None:
    """Measure a text: alphabet, entropies, repeats, and what a model of it should beat.

    FILE is what `train` takes: files, folders, patterns, - or a name.
    """
    from charrnn.home import home
    from charrnn.text import statistics
    from charrnn.text.cleaning import Cleaning
    from charrnn.text.corpus import read
    from charrnn.text.encodings import UTF8, text_encoding

    cleaning = Cleaning(encoding=text_encoding(encoding or UTF8), encodable=True)
    with bars.bars() as show:
        text = read(file, home() / ".corpora", cleaning, progress=show)
        measured = statistics.measure(text, show)
        forecasts, why_none = _forecasts(text, show) if forecast else ([], None)
    notes = [*text.notes, *([why_none] if why_none else [])]
    if as_json:
        foreseen = {"forecast": [each.as_dict() for each in forecasts]} if forecast else {}
        options.print_json({"corpus": text.source, **measured.as_dict(), **foreseen, "notes": notes})
        return
    click.echo(_report(text.source, measured))
    if forecasts:
        click.echo(_foreseen(forecasts))
    for note in notes:
        cli.note(note)


def _forecasts(text: "Text", show: "Progress") -> "tuple[list[Forecast], str | None]":
    """Return the forecasts, or none and why: what was measured of the text holds without them."""
    from charrnn.errors import CharRNNError
    from charrnn.text.corpus import encode, learn_tokenizer
    from charrnn.training.forecast import forecasts
    from charrnn.training.settings import Settings

    settings = Settings()
    try:
        tokenizer = learn_tokenizer(text, settings.tokenizer, settings.split, progress=show)
        return list(forecasts(settings, encode(text, tokenizer, settings.split, show))), None
    except CharRNNError as error:
        return [], f"no forecast: {error.problem}"


def _foreseen(forecasts: "list[Forecast]") -> str:
    lines = [
        "\nforecast   of the validation part, at the speed of this machine when it is quiet",
        f"{'budget':<11}{'model':<16}{'characters read':>16}{'passes':>8}{'bits':>8}{'nats':>8}",
    ]
    for f in forecasts:
        model = f"{f.cell} {f.hidden} x {f.layers}"
        budget = f"{f.budget / 60:g} min"
        bits = f.nats / math.log(2)
        lines.append(f"{budget:<11}{model:<16}{f.read:>16,}{f.passes:>8.1f}{bits:>8.3f}{f.nats:>8.3f}")
    return "\n".join(lines)


def _report(source: str, m: "Stats") -> str:
    common = "  ".join(f"{_shown(character)} {share:.1%}" for character, share in m.common)
    sample = "" if m.sampled == m.characters else f", from {m.sampled:,} characters in blocks spread over the text"
    lines = [
        f"text       {source}: {m.characters:,} characters, {m.bytes:,} bytes, {m.lines:,} lines",
        f"alphabet   {len(m.alphabet)} characters: {_shown(m.alphabet[:200])}{'...' if len(m.alphabet) > 200 else ''}",
        f"commonest  {common}",
        f"rare       {len(m.rare)} occur once or twice, {m.rare_characters} times in all, and would be spelled in bytes"
        + (f": {_shown(m.rare[:60])}" if m.rare else ""),
        f"\nbits per character{sample}",
        f"{'given the':<11}{'counted on':>12}{'contexts':>11}{'on a tenth':>12}",
        f"{'last':<11}{'the text':>12}{'seen once':>11}{'left out':>12}",
    ]
    for order in m.orders:
        lines.append(f"{order.context:<11}{order.empirical_bits:>12.3f}{order.once:>11.1%}{order.held_out_bits:>12.3f}")
    lines += [
        f"{'xz':<11}{m.xz_bits:>12.3f}",
        "Counting on the text itself flatters: a context seen once seems to foretell its character with certainty.",
        f"\nrepeats    {m.repeated:.1%} of all passages of 32 bytes stood in the text before"
        + ("; the longest:" if m.repeats else ""),
    ]
    for repeat in m.repeats:
        lines.append(f"  {repeat.characters:>9,} characters at byte {repeat.first:,} and {repeat.again:,}")
        lines.append(f"            | {_shown(repeat.text[:80])}")
    nats = m.beat_bits * math.log(2)
    lines.append(f"\nto beat    {m.beat_bits:.3f} bits ({nats:.3f} nats) per character: {m.beat}")
    return "\n".join(lines)


def _shown(text: str) -> str:
    """Return a text on one line: white space by its usual symbols, what does not print by its number."""
    symbols = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(symbols.get(c) or (c if c.isprintable() else f"<U+{ord(c):04X}>") for c in text)
