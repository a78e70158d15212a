"""train: from a text to a run, with what happens on the way shown on stderr."""

import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options, progress
from charrnn.interruption import Interruption, heard

PRIME_IDS = 60
SAMPLE_CHARS = 70


@click.command()
@click.argument("corpus", nargs=-1, shell_complete=options.complete_corpora)
@options.settings
@click.option("--name", help="Call the run this; the default says what it is.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the run in this folder instead of the home folder.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Take settings from a run's config.json."
)
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=options.complete_runs,
    help="Go on with a run exactly where it was; --steps N lengthens it, --device moves it.",
)
@options.as_json
def command(
    corpus: tuple[str, ...],
    name: str | None,
    out: Path | None,
    config_file: Path | None,
    resume: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Learn a text: train a model on CORPUS and keep it as a run.

    CORPUS is one or more UTF-8 files (.gz too), folders, patterns in quotes, - for standard input, or a name that
    `corpora list` shows; without it, the embedded Serbian one is learned.
    """
    from charrnn.errors import CharRNNError

    values = options.given(settings)
    if corpus:
        values["corpus"] = corpus
    if resume is not None:
        extra = [key for key in values if key not in ("steps", "device")]
        extra += [key for key, value in (("name", name), ("out", out)) if value]
        if extra or config_file:
            raise CharRNNError(
                f"--resume takes the run's own settings, not other {', '.join(extra) or 'ones'}",
                "give no more than --steps and --device beside it, or train a new run with --config",
            )
    with interruptible() as stopped, progress.bars() as prepared:
        show = _Show(as_json)
        # Closed, so that it tidies up before a signal's exception is handled.
        with closing(_reports(values, name, out, config_file, resume, stopped, prepared)) as reports:
            for report in reports:
                if type(report).__name__ == "Stepped":
                    stopped.can_save()
                show(report)
    return stopped.exit_code if show.stopped else 0


def _reports(
    values: dict[str, Any],
    name: str | None,
    out: Path | None,
    config_file: Path | None,
    resume: str | None,
    stopped: Callable[[], bool],
    prepared: Callable[[str, int, int | None], None],
) -> Generator[Any, None, None]:
    from charrnn.errors import CharRNNError
    from charrnn.training import loop
    from charrnn.training.checkpoint import find_run
    from charrnn.training.config import Config

    if resume is not None:
        steps, device = values.get("steps"), values.get("device")
        return loop.resume(find_run(resume), steps, stopped, cli.STARTED, prepared, device)
    config = Config()
    if config_file is not None:
        try:
            text = config_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CharRNNError(f"{config_file} cannot be read: {error}", "give the config.json of a run") from None
        config = Config.from_json(text, str(config_file))
    config = config.replace(**values)
    return loop.new_run(config, loop.open_run(config, name, out), stopped, cli.STARTED, prepared)


class _Show:
    """Prints the reports of a run: a progress bar on a terminal, plain lines elsewhere, the result on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Any = None
        self._context: Any = None
        self.stopped = False

    def __call__(self, report: Any) -> None:
        getattr(self, f"_{type(report).__name__.lower()}")(report)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def _started(self, report: Any) -> None:
        self._context = report
        config, architecture, corpus = report.config, report.architecture, report.corpus
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
        steps = config.plan[-1][1] if config.plan else None
        self._say(
            f"training  {f'{steps:,} steps' if steps else f'{config.budget:g} s'} of {config.batch} x {config.window} "
            f"characters, {config.optimizer} at {config.lr:g}, {config.schedule}, dropout {config.dropout:g}, "
            f"seed {config.seed}"
        )
        speed = report.expected_chars_per_s
        seconds = (steps - report.step) * config.batch * config.window / speed if steps else config.budget
        threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
        how = f"{config.device}, {config.precision}, {config.engine} engine, {threads}"
        self._say(
            f"expected  {_rounded(speed):,} characters a second ({how}), "
            f"{_rounded(report.expected_bytes / 2**20):,} MB of memory, done about {_clock(seconds)}"
        )
        self._say(f"run       {report.run.path}")
        if report.step:
            self._say(f"resuming  after step {report.step:,}")
        for note in (*corpus.text.notes, *report.notes):
            self._say(f"note: {note}")
        from charrnn.api import prepare

        prepare(architecture)  # now, so that a budget knows what it takes, and no completion waits for it

    def _planned(self, report: Any) -> None:
        if report.first:
            self._say(f"planned   {report.steps:,} steps, {report.epochs:.3g} times through the text")
        if self._bar is not None:
            self._bar.total = report.steps

    def _stepped(self, report: Any) -> None:
        if self._bar is None:
            if not sys.stderr.isatty():
                return
            from tqdm import tqdm

            self._bar = tqdm(
                total=report.steps,
                initial=report.step - 1,
                unit="step",
                dynamic_ncols=True,
                leave=False,
                mininterval=0.2,
            )
        if self._bar.update(1):  # true when the bar was drawn again
            nats = float(report.loss)
            self._bar.set_postfix_str(
                f"loss {nats:.3f}, {nats / math.log(2):.2f} bits/char, {report.chars_per_s:,.0f} char/s", refresh=False
            )

    def _validated(self, report: Any) -> None:
        if report.step == 0 or not report.finite:
            return
        val = "" if report.val_nats is None else f"  val {report.val_nats:.4f} nats{' *' if report.best else ''}"
        figures = f"step {report.step:>6,}  train {report.train_nats:.4f}{val}  | "
        room = shutil.get_terminal_size().columns - len(figures) - 1 if sys.stderr.isatty() else SAMPLE_CHARS
        self._say(figures + self._sample(report)[: max(0, room)])

    def _sample(self, report: Any) -> str:
        from charrnn.api import TextModel
        from charrnn.errors import CharRNNError

        corpus = self._context.corpus
        # As `sample` would without --device.
        device = "cpu" if self._context.config.device == "cpu" else "auto"
        model = TextModel(self._context.config, corpus.tokenizer, report.weights, device=device)
        # After a few words: how a text begins is seen once an epoch, and learned late.
        prime = corpus.tokenizer.decode(corpus.ids("train")[:PRIME_IDS])
        try:
            return options.one_line(model.complete(prime, SAMPLE_CHARS))
        except CharRNNError as error:  # a look at the model, which must not end its training
            return f"({error.problem})"

    def _turned(self, report: Any) -> None:
        self._say(f"step {report.step:>6,}  early stopping: validation is past its best; ending with the best weights")

    def _diverged(self, report: Any) -> None:
        self._say(f"step {report.step:>6,}  diverged: a loss or a weight is not finite; ending here")

    def _stopped(self, report: Any) -> None:
        self._close()
        self._say(f"stopped after step {report.step:,}; everything is saved")
        self._say(f"to go on: {cli._program()} train --resume {shlex.quote(report.run.typed)}")
        self.stopped = True

    def _finished(self, report: Any) -> None:
        self._close()
        result = report.result
        if self._as_json:
            options.print_json(result)
        if result["diverged"] is not None:
            from charrnn.training.loop import diverged

            raise diverged(report.run, result["diverged"])
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
                click.echo(f"{part:<11}{nats:.4f} nats, {bits:.4f} bits per character, perplexity {perplexity:.3f}")
        typed = shlex.quote(report.run.typed)
        sample = ["sample", *(["--run", typed] if report.run.typed != report.run.name else [])]
        word = _first_word(self._context.corpus)
        sample += ["--prime", f'"{word}"'] if word else []
        self._say(f"next: {cli._program()} {' '.join(sample)}   or: eval {typed}, runs, train --help")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _first_word(corpus: Any) -> str:
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


def interruptible() -> AbstractContextManager[Interruption]:
    """Let Ctrl-C, `kill` and a terminal that closes end a command at once, or where it can save after its step."""
    return heard(Interruption(saving=_say_saving))


def _say_saving() -> None:
    # Not through the stream: the signal may have come in the middle of writing to it.
    with suppress(OSError):
        os.write(sys.stderr.fileno(), b"\nfinishing this step and saving; press Ctrl-C again to stop at once\n")
