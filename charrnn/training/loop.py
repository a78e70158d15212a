"""Beginning a run and resuming one: stateful truncated back-propagation through time, as a generator of events.

The batch, the rate and the randomness of step k are pure functions of (configuration, its plan, k), and whatever was
decided by timing is written into the configuration before a step depends on it: a run can be repeated from its
config.json to the last byte, and one that was cut off goes on as if it had not been.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from charrnn import files
from charrnn.errors import CharRNNError, OptionError
from charrnn.model.architecture import Architecture
from charrnn.progress import Progress, silent
from charrnn.text.corpus import prepare
from charrnn.training import final_scores, followers, identity, memory, resolve, run_json, training_state
from charrnn.training.config import Config
from charrnn.training.events import Event
from charrnn.training.forgetting import Before
from charrnn.training.metrics import METRICS, TIMINGS
from charrnn.training.pretrained import Pretrained, refuse_without
from charrnn.training.ranks import Ranks
from charrnn.training.run import Run
from charrnn.training.runs import open_run
from charrnn.training.settings import Settings
from charrnn.training.speed import Machine
from charrnn.training.threads import threads_of
from charrnn.training.trainer import Trainer
from charrnn.training.training_loop import TrainingLoop

# What stood here before it had a module of its own is imported from here too.
__all__ = ["Trainer", "diverged", "new_run", "open_run", "resume", "threads_of"]

BEGUN_AGAIN = "nothing of this run was saved: it begins again"
DIVERGED_HINT = "train a new run with a lower --lr"


def new_run(
    settings: Settings,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
    pretrained: Pretrained | None = None,
    ranks: Ranks | None = None,
) -> Generator[Event, None, None]:
    """Train from the beginning into an empty folder, yielding events.

    stop() is asked after every step: when it is true the run is saved, and `resume` continues it. began: a reading
    of time.monotonic() from which the budget counts, now when None. progress: called while the corpus is prepared.
    pretrained: weights to learn on from, whose `settings` gave these settings. ranks: other processes that train with
    this one, which is rank 0; they are in `followers.follow`.
    Where it ends before anything was saved, the folder is removed.
    Raises CharRNNError for a corpus that cannot be read or is too short, and a folder that is taken.
    """
    began = time.monotonic() if began is None else began
    run.refuse_taken()
    refuse_without(settings, pretrained)
    corpus = prepare(settings, progress=progress, known=pretrained.tokenizer.characters if pretrained else ())
    settings = resolve.with_length(settings)
    machine = Machine(settings, corpus, ranks)
    config = resolve.resolve(settings, corpus, machine)
    notes = followers.begin(ranks, run, config, corpus)
    with memory.explained(config, corpus):
        trainer = Trainer(config, corpus, pretrained.start(config, corpus) if pretrained else None, ranks)
        notes += pretrained.notes(corpus.tokenizer) if pretrained else ()
        with threads_of(config):
            most = final_scores.most_ids(config.budget)
            before = Before.of(trainer.model, corpus, pretrained, most) if pretrained else None
        loop = TrainingLoop(run, trainer, machine, began, notes=notes, before=before)
    with run.held():
        run.create(config, corpus.tokenizer)
        try:
            if pretrained is not None:  # from here on it needs no other run
                loop.record.save()
            with threads_of(config), memory.explained(config, corpus), followers.resumable(run):
                trainer.hand_out()
                yield from loop.events(stop)
        finally:
            if not run.exists():
                run.abandon()


def resume(
    run: Run,
    steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    began: float | None = None,
    progress: Progress = silent,
    device: str | None = None,
    *,
    epochs: float | None = None,
    budget: float | None = None,
    ranks: Ranks | None = None,
) -> Generator[Event, None, None]:
    """Go on with a run exactly where its last checkpoint is; `steps` lengthens (or shortens) it to that many in all.

    One that died before its first checkpoint begins again, with all that was decided then.
    device: 'cpu' or 'cuda'; that of the run, where it is here, when None. On another one the last bits differ.
    epochs: passes over the training part, in all, instead of steps. budget: seconds from now on, instead of steps.
    ranks: as in `new_run`; any number resumes any run, and the same one exactly.
    Raises CharRNNError where the run is complete, damaged, in use or diverged, its corpus is gone, it was trained with
    something else than its folder says, or there is no such device.
    """
    began = time.monotonic() if began is None else began
    length = Length(steps, epochs, budget)
    saved = run.exists()
    if saved:  # before anything is locked: it must be a run
        run.refuse_resuming()
    else:
        run.config()
    with run.held():
        yield from (_resumed if saved else _begun_again)(run, length, stop, began, progress, device, ranks)


@dataclass(frozen=True)
class Length:
    """A new length of a run: steps in all, epochs in all, or seconds from now on; all None: as it was planned."""

    steps: int | None
    epochs: float | None
    budget: float | None

    def __post_init__(self) -> None:
        if sum(value is not None for value in dataclasses.astuple(self)) > 1:
            raise OptionError("steps, epochs and budget each set the length of the run", "give one of them")

    @property
    def is_new(self) -> bool:
        return dataclasses.astuple(self) != (None, None, None)

    def steps_in_all(self, name: str, done: int, steps_per_epoch: int) -> int | None:
        """Return the steps that it means, None where seconds decide. Raises CharRNNError where they are done already.

        name, done: of the run.
        """
        steps = self.steps
        if self.epochs is not None:
            steps = max(1, round(self.epochs * steps_per_epoch))
        if steps is not None and steps <= done:
            more = f"--steps more than {done}"
            if self.epochs is not None:
                more = f"--epochs more than {done / steps_per_epoch:.4g}"
            raise CharRNNError(f"{name} has {done} steps already", f"give {more}")
        return steps


def _resumed(
    run: Run,
    length: Length,
    stop: Callable[[], bool],
    began: float,
    progress: Progress,
    device: str | None,
    ranks: Ranks | None,
) -> Iterator[Event]:
    about, config = run.about(), run.config()
    if about.get("diverged") is not None and (length.is_new or about["result"]):
        raise CharRNNError(f"{run.name} diverged at step {about['diverged']}, and would again", DIVERGED_HINT)
    if not length.is_new and about.get("result") and not _was_lengthened(config, about["step"]):
        raise CharRNNError(
            f"{run.name} is complete after {about['step']} steps", "give --steps for how many it shall have in all"
        )
    before = Before.read(about.get("before_training"), str(run.path / run_json.NAME))
    restored = run.restore()
    checkpoint, notes = restored.checkpoint, restored.notes
    step = checkpoint.step
    if length.steps is not None:
        length.steps_in_all(run.name, step, 1)  # before a long text is read for nothing
    config, moved = resolve.moved(config, device)
    config, others = followers.resumed_by(ranks, config, about.get("made_with"))
    if (note := identity.note_of_equations(about, config)) is not None:
        notes = (*notes, note)
    corpus = prepare(config, run.tokenizer(), progress=progress)
    if length.is_new:
        config = dataclasses.replace(config, **dataclasses.asdict(length))
        steps = length.steps_in_all(run.name, step, resolve.steps_per_epoch(config, corpus))
        if steps is not None:
            config = resolve.planned(config, corpus, since=step, steps=steps)
    differences = identity.differences(about, identity.of(config, corpus.tokenizer))
    batch, architecture = resolve.rows(config, corpus), Architecture.of(config, corpus.tokenizer.size)
    # Before anything is made as large as the configuration says.
    training_state.refuse([*differences, *training_state.differences(config, architecture, batch, restored)], run.name)
    machine = Machine(config, corpus, ranks)
    resolve.refuse_what_does_not_fit(config, corpus, machine)
    notes = (*notes, *moved, *others)
    notes += followers.begin(ranks, run, config, corpus)
    with memory.explained(config, corpus, is_new=False), followers.resumable(run):
        trainer = Trainer(config, corpus, restored.weights, ranks)  # fresh ones take long to draw
        training_state.restore(trainer, restored, run.name)
        del restored  # while it trains, memory is for that
        loop = TrainingLoop(run, trainer, machine, began, checkpoint.seconds, notes, before)
        with threads_of(config):
            if length.budget is not None and config.budget is not None:  # as a number
                # Read anew: a step changes moments where they are.
                loop.extend(config.budget, lambda: training_state.restore(trainer, run.restore(), run.name))
            if about.get("diverged") is None:
                run.truncate(step or -1)  # what is before the first step is validated again
            loop.record.resume(checkpoint, about.get("diverged"))
            loop.record.plan(trainer.config)
            run.sweep()
            yield from loop.events(stop)


def _begun_again(
    run: Run,
    length: Length,
    stop: Callable[[], bool],
    began: float,
    progress: Progress,
    device: str | None,
    ranks: Ranks | None,
) -> Iterator[Event]:
    """Train a run that was never saved from its beginning, into its own folder."""
    run.refuse_lost()
    config, moved = resolve.moved(run.config(), device)
    refuse_without(config, None)
    # config.json is written first, tokenizer.json after it.
    tokenizer = run.tokenizer() if (run.path / "tokenizer.json").exists() else None
    corpus = prepare(config, tokenizer, progress=progress)
    machine = Machine(config, corpus, ranks)
    if length.is_new:
        given = {name: value for name, value in dataclasses.asdict(length).items() if value is not None}
        config = resolve.resolve(config.as_settings().replace(**given), corpus, machine)
    resolve.refuse_what_does_not_fit(config, corpus, machine)
    notes = (BEGUN_AGAIN, *moved, *followers.begin(ranks, run, config, corpus))
    with memory.explained(config, corpus, is_new=False), followers.resumable(run):
        trainer = Trainer(config, corpus, ranks=ranks)
        loop = TrainingLoop(run, trainer, machine, began, notes=notes)
        run.write_tokenizer(corpus.tokenizer)
        for file in (METRICS, TIMINGS):
            files.remove(run.path / file)
        loop.record.plan(config)
        run.sweep()
        with threads_of(config):
            trainer.hand_out()
            yield from loop.events(stop)


def _was_lengthened(config: Config, step: int) -> bool:
    """Tell whether a complete run was given more steps, and cut off before it was saved again."""
    return bool(config.plan) and config.plan[-1].since >= step and config.plan[-1].steps > step


def diverged(run: Run, step: int) -> CharRNNError:
    """Make the error for a run that diverged at a step."""
    return CharRNNError(f"training diverged at step {step:,} of {run.path}", DIVERGED_HINT)
