"""train: from a text to a run, with what happens on the way shown on stderr."""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.cli.event_printer import EventPrinter, interruptible, say_saving
from charrnn.interruption import Interruption, heard
from charrnn.reporting import bars

if TYPE_CHECKING:
    from charrnn.training import events
    from charrnn.training.ranks import Ranks

INTERRUPTED = ""  # for --resume without a name, which no run has


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
    from charrnn.training import ranks

    if not ranks.asked():
        with interruptible() as stopped, bars.bars() as prepared:
            events = _events(values, name, out, config_file, base, resume, stopped, prepared)
            return _Printer(as_json, stopped).follow(events)
    with _interruptible_rank() as stopped, ranks.joined() as group:
        if not group.leads:
            _follow(group, stopped)
            return 0
        with bars.bars() as prepared:

            def stop() -> bool:
                if group.wished and stopped.number is None:  # another rank heard a signal that this one did not
                    stopped.number = signal.SIGTERM
                return stopped()

            events = _events(values, name, out, config_file, base, resume, stop, prepared, group)
            return _Printer(as_json, stopped).follow(events)


@contextmanager
def _interruptible_rank() -> Iterator[Interruption]:
    """Let signals end a rank once the run is saved. torchrun passes them on, some twice: that is no hurry."""
    saving = say_saving if os.environ["RANK"] == "0" else lambda: None
    with heard(Interruption(saving, hurried=signal.SIG_IGN)) as interruption:
        yield interruption


def _follow(group: "Ranks", stopped: Interruption) -> None:
    """Follow rank 0. Where it is lost, one process of every machine says so; rank 0 says all else."""
    from charrnn.training import followers
    from charrnn.training.ranks import LostError

    try:
        followers.follow(group, stopped, stopped.can_save)
    except LostError as error:
        if group.local_rank and group.rank != 1:
            raise click.exceptions.Exit(1) from error
        raise


def _events(
    values: dict[str, Any],
    name: str | None,
    out: Path | None,
    config_file: Path | None,
    base: str | None,
    resume: str | None,
    stopped: Callable[[], bool],
    prepared: Callable[[str, int, int | None], None],
    ranks: "Ranks | None" = None,
) -> Generator["events.Event", None, None]:
    from charrnn.errors import CharRNNError
    from charrnn.training import loop
    from charrnn.training.config import read, settings_from_json, values_of
    from charrnn.training.pretrained import Pretrained
    from charrnn.training.run import Run
    from charrnn.training.runs import find_run, newest_interrupted
    from charrnn.training.settings import Settings

    begun = ranks and ranks.kept_run()
    if begun and Run(Path(begun)).begun():  # torchrun started the processes again
        return loop.resume(Run(Path(begun)), None, stopped, cli.STARTED, prepared, values.get("device"), ranks=ranks)
    if resume is not None:
        run = newest_interrupted() if resume == INTERRUPTED else find_run(resume, own=True, saved=False)
        length = Settings.of({key: value for key, value in values.items() if key != "device"})
        lengths = {"epochs": length.epochs, "budget": length.budget}
        device = values.get("device")
        return loop.resume(run, length.steps, stopped, cli.STARTED, prepared, device, **lengths, ranks=ranks)
    settings, given = Settings(), set(values)
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
        given |= set(read(text, str(config_file)))
    settings = settings.replace(**values)
    pretrained = None
    if base is not None:
        pretrained = Pretrained.of(find_run(base))
        settings = pretrained.settings({name: v for name, v in values_of(settings).items() if name in given})
    run = loop.open_run(settings, name, out)
    return loop.new_run(settings, run, stopped, cli.STARTED, prepared, pretrained, ranks)


class _Printer(EventPrinter["events.Event"]):
    """Prints the events of a run."""

    def __init__(self, as_json: bool, interruption: Interruption) -> None:
        super().__init__(as_json, interruption)
        from charrnn.reporting.training import TrainingLines

        self._training = TrainingLines(self.lines, cli.typed)

    def show(self, event: "events.Event") -> None:
        from charrnn.training import events

        if isinstance(event, events.Stepped):
            self._interruption.can_save()
        self._training.show(event)
        if isinstance(event, events.Stopped):
            self._was_stopped = True
        if isinstance(event, events.Finished):
            self._finished(event)

    def _finished(self, event: "events.Finished") -> None:
        if self._as_json:
            options.print_json(event.result)
        if event.result["diverged"] is not None:
            from charrnn.training.loop import diverged

            raise diverged(event.run, event.result["diverged"])
        if self._as_json:
            return
        from charrnn.reporting.training import result

        for line in result(event.result):
            click.echo(line)
        self.lines.say(self._training.what_next(event))
