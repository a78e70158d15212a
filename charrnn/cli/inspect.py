"""inspect: look inside models and cells."""

import itertools
import sys
from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import activation, options, score
from charrnn.cli.event_printer import interruptible
from charrnn.cli.streams import Controls
from charrnn.compare.presets import NOTEBOOK
from charrnn.generate.units import PROPERTIES

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)  # steps back in the table


@click.group(cls=options.Subcommands)
def command() -> None:
    """Look inside: how far back gradients reach, how long a cell remembers, what single units follow."""


@command.command()
@click.argument("corpus", nargs=-1, shell_complete=options.complete_corpora)
@click.option(
    "--cells", default=",".join(NOTEBOOK), show_default=True, metavar="A,B,...|all", help="The cells to look at."
)
@click.option(
    "--hidden", default=128, show_default=True, metavar="N", help="Hidden size of the models that are trained."
)
@click.option("--steps", default=300, show_default=True, metavar="N", help="Training steps before the second look.")
@click.option("--copy/--no-copy", default=True, help="Let the cells climb the copy task too.")
@click.option("--encoding", metavar="NAME", help="How the files are encoded, as Python names it.  [default: utf-8]")
@click.option("--out", type=click.Path(path_type=Path), help="Draw both pictures onto this HTML page.")
@options.as_json
def gradients(
    corpus: tuple[str, ...],
    cells: str,
    hidden: int,
    steps: int,
    copy: bool,
    encoding: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Measure how much of the loss gradient at a step reaches the state k steps earlier, before and after training.

    Measure each cell's reach too: the longest gap over which it learns to remember, in the copy task.
    """
    from charrnn.compare import inspection, pictures
    from charrnn.training.settings import Settings

    if out is not None:
        pictures.require()
        options.refuse_unwritable(out, "--out")
    found = []
    with interruptible() as stopped:
        looking = inspection.inspect_cells(
            corpus, options.cells(cells), hidden, steps, copy, stopped, encoding or Settings.encoding
        )
        for step in looking:
            if isinstance(step, str):
                if step.startswith("training"):
                    stopped.can_save()
                else:
                    stopped.at_once("the models are saved; the same command resumes")
                click.echo(f"{step} ...", err=True)
            else:
                found.append(step)
        if stopped():
            click.echo("stopped; the same command resumes", err=True)
            return stopped.exit_code
    if out is not None:  # before the table, whose reader may go
        from charrnn.compare import report

        report.write_inspection(out, found)
        click.echo(f"written: {out}", err=True)
    if as_json:
        options.print_json({"cells": [entry.as_dict() for entry in found]})
    else:
        click.echo(_table(found))
    return 0


def _table(found: list[Any]) -> str:
    width = max(len(entry.label) for entry in found)
    heads = "".join(f"{f'k={k}':>9}" for k in SHOWN)
    lines = [f"{'cell':<{width}}  {'':<8}{heads}  copies over"]
    for entry in found:
        reach = ("-" if not entry.copied else str(entry.reach)).rjust(11)
        for when, shares, last in (("at first", entry.at_start, ""), ("trained", entry.trained, reach)):
            figures = "".join(f"{shares[k]:>9.1e}" for k in SHOWN)
            lines.append(f"{entry.label if not last else '':<{width}}  {when:<8}{figures}  {last}".rstrip())
    return "\n".join(lines)


UNIT_CHARS = 4000  # read where a text is longer, unless more is asked for


@command.command()
@click.argument("run", default="latest", shell_complete=options.complete_runs)
@click.argument("what", metavar="[FILE|TEXT]", required=False)
@click.option("--text", "is_text", is_flag=True, help="It is a text, even if a file has that name.")
@click.option(
    "--chars", default=UNIT_CHARS, show_default=True, metavar="N", help="Read so many characters of it at the most."
)
@click.option("--count", default=5, show_default=True, metavar="N", help="Show so many units for each property.")
@click.option(
    "--unit", metavar="NAME", help="Colour the text by this unit, 1.h.37 for instance: layer, state or gate, number."
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with the text so coloured.")
@options.encoding
@options.as_json
def units(
    run: str,
    what: str | None,
    is_text: bool,
    chars: int,
    count: int,
    unit: str | None,
    html: Path | None,
    encoding: str | None,
    as_json: bool,
) -> None:
    """Rank the units of RUN by how well they follow line position, quotes, brackets, spaces and case in a text.

    A unit is one number of the state of a layer. What it follows, it correlates with: 1 and -1 are perfect, 0 is not at
    all. Without a text, the validation part of the run's own corpus is read. With --unit the text is shown, coloured by
    that unit: red where it is positive, blue where it is negative.

    Where the cell has gates, show how far each is open (0 is closed, 1 is open), at how many characters it is above 0.9
    or below 0.1, the units for which that holds most often, and which units of gates follow what.
    """
    from charrnn.text.cleaning import Findings

    if chars < 1 or count < 1:
        raise click.UsageError("--chars and --count are whole numbers of 1 or more")
    if html is not None:
        options.refuse_unwritable(html, "--html")
    findings = Findings()
    model = options.reading(options.whole(run, "cpu"), encoding)
    if what is None:
        text, source = _own_text(model, chars)
    else:
        read, source = score.found(what, is_text, findings)
        text = model.clean(read(model.config))[:chars]
    for note in findings.others:
        cli.note(note)
    found = model.units(text)
    shown = unit or found.strongest.name
    values = found.of(shown).tolist()
    about = f"{model.run.name} on {source}: {len(text):,} characters"
    if html is not None:
        page = activation.page(text, values, f"unit {shown} of {model.run.name}", f"{about}; {found.follows(shown)}")
        with options.opened(html, "--html") as stream:
            stream.writelines(piece.encode("utf-8", "backslashreplace") for piece in page)
        click.echo(f"wrote {html}", err=True)
    if as_json:
        options.print_json(_figures(model, found, unit))
    elif html is None and unit is None:
        _say_followers(found, count)
        _say_gates(found.gates, count)
        click.echo(f"{about}; a text coloured by one: --unit {shown}", err=True)
    elif html is None:
        if options.colours_wanted():
            controls = Controls(sys.stdout)
            for piece in activation.coloured(text, values):
                controls.write(piece)
            print("" if text.endswith("\n") else "\n", end="", flush=True)
        else:
            lines = zip(text, values, strict=True)
            sys.stdout.writelines(f"{value:+.3f}\t{options.visible(c)}\n" for c, value in lines)
        click.echo(f"{about}; unit {shown}: {found.follows(shown)}", err=True)


def _own_text(model: Any, chars: int) -> tuple[str, str]:
    """Return the beginning of a part of a run's corpus, and which it is: validation, or training where it has none."""
    from charrnn.text.corpus import prepare

    corpus = prepare(model.config, model.tokenizer, private=True)
    source, ids = "its validation part", corpus.parts["val"]
    if not len(ids):
        source, ids = "its training part", corpus.ids("train")
    return model.tokenizer.decode(ids[: 4 * chars])[:chars], source


def _say_followers(found: Any, count: int) -> None:
    """Print, for each property, the units that follow it best."""
    for name in PROPERTIES:
        pairs = (f"{each.name} {r:+.2f}" for each, r in (found.best(name, count) if name in found.correlations else ()))
        click.echo(f"{name:<14} {'   '.join(pairs) or 'does not vary in this text'}")


def _say_gates(gates: Any, count: int) -> None:
    """Print how far each gate is open, and what its units follow; nothing for a cell without gates."""
    if gates.problem is not None:
        cli.note(f"gates are not shown: {gates.problem}")
    if not gates.units:
        return
    width = max(len(_gate(unit)) for unit in gates.units) + 2
    click.echo(f"\n{'gate':<{width}}{'mean':>5}{'> 0.9':>8}{'< 0.1':>8}   most often open, and most often closed")
    for name, group in itertools.groupby(enumerate(gates.units), lambda pair: _gate(pair[1])):
        places = [i for i, _ in group]
        figures = f"{gates.mean[places].mean():>5.2f}" + "".join(
            f"{share[places].mean():>8.0%}" for share in (gates.open, gates.closed)
        )
        most = "; ".join(
            "  ".join(f"{gates.units[i].name} {share[i]:.0%}" for i in sorted(places, key=lambda i: -share[i])[:count])
            for share in (gates.open, gates.closed)
        )
        click.echo(f"{name:<{width}}{figures}   {most}")
    click.echo("\ngates that follow")
    _say_followers(gates, count)


def _gate(unit: Any) -> str:
    """Return the name of the gate that a unit belongs to: 1.f."""
    name: str = unit.name
    return name.rpartition(".")[0]


def _figures(model: Any, found: Any, unit: str | None) -> dict[str, Any]:
    gates = found.gates
    openness = [
        {"mean": float(mean), "open": float(open_), "closed": float(closed)}
        for mean, open_, closed in zip(gates.mean, gates.open, gates.closed, strict=True)
    ]
    return {
        "run": str(model.run.path),
        "characters": len(found.text),
        "units": _ranked(found, [{}] * len(found.units)),
        "gates": _ranked(gates, openness),
        "text": found.text,
        "activations": None if unit is None else found.of(unit).tolist(),
    }


def _ranked(found: Any, more: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return a row for each unit, with more about it; what follows anything best comes first."""
    rows: list[dict[str, Any]] = [
        {"unit": each.name, **about, "follows": {name: float(r[i]) for name, r in found.correlations.items()}}
        for i, (each, about) in enumerate(zip(found.units, more, strict=True))
    ]
    return sorted(rows, key=lambda row: -max(map(abs, row["follows"].values()), default=0.0))
