"""train: from a text to a run, with what happens on the way shown on stderr."""

import math
import re
import shutil
import sys
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import click

from charrnn import cli
from charrnn.cli import options, progress
from charrnn.cli.event_printer import EventPrinter, interruptible

if TYPE_CHECKING:
    from charrnn.text.corpus import Corpus
    from charrnn.training import events
    from charrnn.training.forgetting import Before

PRIME_IDS = 60
INTERRUPTED = ""  # for --resume without a name, which no run has
SAMPLE_CHARS = 70


class _Train(click.Command):
    """A command whose --resume may stand without a run, and whose run may be called as options are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; after --resume, what is the name of a run is no option."""
        read, left = [], iter(args)
        for word in left:
            read.append(word)
            if word == "--":
                break
            if word == "--resume" and (following := next(left, None)) is not None:
                read.append(_path_of(following) if following.startswith("-") else following)
        return super().parse_args(ctx, [*read, *left])


def _path_of(name: str) -> str:
    """Return the path of the run of that name; the name where there is none."""
    from charrnn.home import home
    from charrnn.training.run import Run

    run = Run((home() / name).absolute())
    return str(run.path) if run.begun() else name


@click.command(cls=_Train)
@click.argument("corpus", nargs=-1, shell_complete=options.complete_corpora)
@options.settings
@click.option("--name", help="Call the run this; the default says what it is.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the run in this folder instead of the home folder.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Take settings from a run's config.json."
)
@click.option(
    "--from",
    "base",
    metavar="RUN",
    shell_complete=options.complete_runs,
    help="Learn on from the weights of RUN: CORPUS is learned with its cell, sizes and characters.",
)
@click.option(
    "--resume",
    metavar="[RUN]",
    is_flag=False,
    flag_value=INTERRUPTED,
    shell_complete=options.complete_runs,
    help="Go on with a run exactly where it was, or the newest that was interrupted; --steps N, --epochs N or "
    "--budget TIME lengthens it, --device moves it.",
)
@options.as_json
def command(
    corpus: tuple[str, ...],
    name: str | None,
    out: Path | None,
    config_file: Path | None,
    base: str | None,
    resume: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Learn a text: train a model on CORPUS and keep it as a run.

    CORPUS is one or more UTF-8 files (.gz too), folders, patterns in quotes, - for standard input, or a name that
    `corpora list` shows; without it, the embedded Serbian one is learned.
    """
    from charrnn.errors import OptionError

    values = options.given(settings)
    if corpus:
        values["corpus"] = corpus
    if resume is not None:
        extra = [key for key in values if key not in ("steps", "epochs", "budget", "device")]
        extra += [key for key, value in (("name", name), ("out", out), ("from", base)) if value]
        if extra or config_file:
            raise OptionError(
                f"--resume takes the run's own settings, not other {', '.join(extra) or 'ones'}",
                "give no more than --steps, --epochs or --budget and --device beside it, or a new run's --config",
            )
    with interruptible() as stopped, progress.bars() as prepared:
        events = _events(values, name, out, config_file, base, resume, stopped, prepared)
        return _Printer(as_json, stopped).follow(events)


def _events(
    values: dict[str, Any],
    name: str | None,
    out: Path | None,
    config_file: Path | None,
    base: str | None,
    resume: str | None,
    stopped: Callable[[], bool],
    prepared: Callable[[str, int, int | None], None],
) -> Generator["events.Event", None, None]:
    from charrnn.errors import CharRNNError
    from charrnn.training import loop
    from charrnn.training.config import settings_from_json, values_of
    from charrnn.training.pretrained import Pretrained
    from charrnn.training.runs import find_run, newest_interrupted
    from charrnn.training.settings import Settings

    if resume is not None:
        run = newest_interrupted() if resume == INTERRUPTED else find_run(resume, own=True, saved=False)
        length = Settings.of({key: value for key, value in values.items() if key != "device"})
        lengths = {"epochs": length.epochs, "budget": length.budget}
        device = values.get("device")
        return loop.resume(run, length.steps, stopped, cli.STARTED, prepared, device, **lengths)
    settings = Settings()
    if config_file is not None:
        try:
            text = config_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            problem = f"{config_file} cannot be read: byte {error.start} is not UTF-8"
            raise CharRNNError(problem, "give the config.json of a run") from None
        except OSError as error:
            raise CharRNNError(
                f"{config_file} cannot be read: {error.strerror}", "give the config.json of a run"
            ) from None
        settings = settings_from_json(text, str(config_file))
    settings = settings.replace(**values)
    pretrained = None
    if base is not None:
        pretrained = Pretrained.of(find_run(base))
        settings = pretrained.settings(values if config_file is None else values_of(settings))
    return loop.new_run(settings, loop.open_run(settings, name, out), stopped, cli.STARTED, prepared, pretrained)


class _Printer(EventPrinter["events.Event"]):
    """Prints the events of a run."""

    _context: "events.Started"

    def show(self, event: "events.Event") -> None:
        from charrnn.training import events

        match event:
            case events.Started():
                self._started(event)
            case events.Planned():
                self._planned(event)
            case events.Stepped():
                self._interruption.can_save()
                self._stepped(event)
            case events.Validated():
                self._validated(event)
            case events.Saved():
                pass  # it is no news: nothing is lost
            case events.StoppedEarly():
                self._stopped_early(event)
            case events.Diverged():
                self._diverged(event)
            case events.Stopped():
                self._stopped(event)
            case events.Finished():
                self._finished(event)
            case _:
                assert_never(event)

    def _started(self, event: "events.Started") -> None:
        self._context = event
        config, architecture, corpus = event.config, event.architecture, event.corpus
        sizes = ", ".join(f"{len(ids):,} {part}" for part, ids in corpus.parts.items() if len(ids))
        documents = sum(map(len, corpus.starts.values()))
        sizes += f" in {documents:,} documents" if documents else ""
        self._say(
            f"corpus    {corpus.text.source}: {corpus.text.characters:,} characters, "
            f"{len(corpus.tokenizer.characters):,} different; ids: {sizes}"
        )
        shape = "one-hot" if config.one_hot else f"embedding {config.embedding_size}"
        self._say(
            f"model     {config.cell}, hidden {config.hidden} x {config.layers}, {shape}: "
            f"{architecture.count():,} parameters"
        )
        steps = config.steps_in_all
        if event.before is not None:
            self._say(_begins(event.before))
        self._say(
            f"training  {f'{steps:,} steps' if steps else f'{config.budget:g} s'} of {config.batch} x {config.window} "
            f"characters, {config.optimizer} at {config.lr:g}, {config.schedule}, dropout {config.dropout:g}, "
            f"seed {config.seed}"
        )
        speed = event.expected_chars_per_s
        seconds = (steps - event.step) * config.batch * config.window / speed if steps else config.budget or 0.0
        threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
        how = f"{config.device}, {config.precision}, {config.engine} engine, {threads}"
        self._say(
            f"expected  {_rounded(speed):,} characters a second ({how}), "
            f"{_rounded(event.expected_bytes / 2**20):,} MB of memory, done about {_clock(seconds)}"
        )
        self._say(f"run       {event.run.path}")
        if event.step:
            self._say(f"resuming  after step {event.step:,}")
        for note in (*corpus.text.notes, *event.notes):
            self._say(f"note: {note}")
        from charrnn.generate.decoders import prepare

        prepare(architecture)  # now, so that a budget knows what it takes, and no completion waits for it

    def _planned(self, event: "events.Planned") -> None:
        if event.first:
            self._say(f"planned   {event.steps:,} steps, {event.epochs:.3g} times through the text")
        if self._bar is not None:
            self._bar.total = event.steps

    def _stepped(self, event: "events.Stepped") -> None:
        bar = self._bar_of(total=event.steps, initial=event.step - 1, unit="step", mininterval=0.2)
        if bar is not None and bar.update(1):  # true when the bar was drawn again
            nats = float(event.loss)
            bar.set_postfix_str(
                f"loss {nats:.3f}, {nats / math.log(2):.2f} bits/char, {event.chars_per_s:,.0f} char/s", refresh=False
            )

    def _validated(self, event: "events.Validated") -> None:
        if event.step == 0 or not event.finite:
            return
        val = "" if event.val_nats is None else f"  val {event.val_nats:.4f} nats{' *' if event.best else ''}"
        figures = f"step {event.step:>6,}  train {event.train_nats:.4f}{val}  | "
        room = shutil.get_terminal_size().columns - len(figures) - 1 if sys.stderr.isatty() else SAMPLE_CHARS
        self._say(figures + self._sample(event)[: max(0, room)])

    def _sample(self, event: "events.Validated") -> str:
        from charrnn.api import TextModel
        from charrnn.errors import CharRNNError

        corpus = self._context.corpus
        # As `sample` would without --device.
        device = "cpu" if self._context.config.device == "cpu" else "auto"
        model = TextModel(self._context.config, corpus.tokenizer, event.weights, device=device)
        # After a few words: how a text begins is seen once an epoch, and learned late.
        prime = corpus.tokenizer.decode(corpus.ids("train")[:PRIME_IDS])
        try:
            return options.one_line(model.complete(prime, SAMPLE_CHARS))
        except CharRNNError as error:  # a look at the model, which must not end its training
            return f"({error.problem})"

    def _stopped_early(self, event: "events.StoppedEarly") -> None:
        self._say(f"early stopping after step {event.step:,}: validation is past its best; the best weights are kept")

    def _diverged(self, event: "events.Diverged") -> None:
        self._say(f"step {event.step:>6,}  diverged: a loss or a weight is not finite; ending here")

    def _stopped(self, event: "events.Stopped") -> None:
        self._end_stopped(
            f"stopped after step {event.step:,}; everything is saved",
            f"to go on: {cli.typed('train', '--resume', event.run.typed)}",
        )

    def _finished(self, event: "events.Finished") -> None:
        self._close()
        result = event.result
        if self._as_json:
            options.print_json(result)
        if result["diverged"] is not None:
            from charrnn.training.loop import diverged

            raise diverged(event.run, result["diverged"])
        if self._as_json:
            return
        click.echo(f"run        {result['run']}")
        click.echo(
            f"trained    {result['steps']:,} steps, {result['characters']:,} characters in {result['seconds']:.0f} s"
        )
        for part in ("val", "test"):
            if result[f"{part}_nats"] is not None:
                nats, bits = result[f"{part}_nats"], result[f"{part}_bits_per_char"]
                perplexity = math.exp(min(nats, 700))
                before = result.get(f"{part}_nats_before")
                was = "" if before is None else f"; {before:.4f} nats before"
                click.echo(
                    f"{part:<11}{nats:.4f} nats, {bits:.4f} bits per character, perplexity {perplexity:.3f}{was}"
                )
        if "from" in result:
            click.echo(_forgotten(result))
        typed = event.run.typed
        sample = ["sample", *(["--run", typed] if typed != event.run.name else [])]
        word = _first_word(self._context.corpus)
        sample += ["--prime", word] if word else []
        self._say(f"next: {cli.typed(*sample)}   or: {cli.typed('eval', operands=(typed,))}")


def _begins(before: "Before") -> str:
    """Say what a run learns on from."""
    known = f"{before.new_characters} characters it did not know" if before.new_characters else "all characters known"
    text = "its text is not here, so what it forgets cannot be told" if before.old_text is None else before.old_text
    return f"from      {before.base}: {known}; {text}"


def _forgotten(result: dict[str, Any]) -> str:
    """Say what a run that learned on from another makes of the other's text now."""
    before, after = result["old_nats_before"], result["old_nats"]
    if before is None or after is None:
        return f"old text   that of {result['from']} is not here, so what was forgotten cannot be told"
    change = after - before
    said = f"{change:.4f} forgotten" if change > 0 else f"nothing forgotten, {-change:.4f} gained"
    return f"old text   {after:.4f} nats on {result['old_text']}; {before:.4f} before: {said}"


def _first_word(corpus: "Corpus") -> str:
    """Return the first word of a text, to try completing; empty where it does not begin with any."""
    beginning = corpus.tokenizer.decode(corpus.ids("train")[: 10 * PRIME_IDS])
    found = re.search(r"[^\W\d_]{3,20}", beginning)
    return found[0] if found else ""


def _rounded(value: float) -> int:
    """To two digits: an expectation is no measurement."""
    return int(float(f"{value:.2g}"))


def _clock(seconds: float) -> str:
    """Return the time of day so many seconds from now."""
    then = datetime.now() + timedelta(seconds=seconds)
    return f"{then:%H:%M:%S}" if seconds < 24 * 3600 else f"{then:%Y-%m-%d %H:%M}"
