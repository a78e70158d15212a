"""Training as lines: what it begins with, each validation with a sample, and the result."""

import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, assert_never

from charrnn import perplexity
from charrnn.errors import Command, command
from charrnn.generate.decoders import prepare
from charrnn.reporting.lines import Lines
from charrnn.reporting.sampling import PRIME_IDS, SAMPLE_CHARS, sample
from charrnn.terminal import one_line
from charrnn.text.corpus import Corpus
from charrnn.training import advice
from charrnn.training.events import (
    Diverged,
    Event,
    Finished,
    Planned,
    Saved,
    Started,
    Stepped,
    Stopped,
    StoppedEarly,
    Validated,
)
from charrnn.training.forgetting import Before


class TrainingLines:
    """Says the events of a run as lines. typed: how a command is typed, for what it advises."""

    _context: Started

    def __init__(self, lines: Lines, typed: Command = command) -> None:
        self._lines, self._typed = lines, typed

    def show(self, event: Event) -> None:
        """Say one event. The result is said by `result`, wherever it shall go."""
        match event:
            case Started():
                self._started(event)
            case Planned():
                self._planned(event)
            case Stepped():
                self._stepped(event)
            case Validated():
                self._validated(event)
            case Saved():
                pass  # it is no news: nothing is lost
            case StoppedEarly():
                self._stopped_early(event)
            case Diverged():
                self._diverged(event)
            case Stopped():
                self._lines.close()
                self._lines.say(f"stopped after step {event.step:,}; everything is saved")
                self._lines.say(f"to go on: {self._typed('train', '--resume', event.run.typed)}")
            case Finished():
                self._lines.close()
            case _:
                assert_never(event)

    def what_next(self, event: Finished) -> str:
        """Say what can be done with a complete run."""
        typed = event.run.typed
        words = ["sample", *(["--run", typed] if typed != event.run.name else [])]
        word = _first_word(self._context.corpus)
        words += ["--prime", word] if word else []
        return f"next: {self._typed(*words)}   or: {self._typed('eval', operands=(typed,))}"

    def _started(self, event: Started) -> None:
        self._context = event
        config, architecture, corpus = event.config, event.architecture, event.corpus
        sizes = ", ".join(f"{len(ids):,} {part}" for part, ids in corpus.parts.items() if len(ids))
        documents = sum(map(len, corpus.starts.values()))
        sizes += f" in {documents:,} documents" if documents else ""
        self._lines.say(
            f"corpus    {corpus.text.source}: {corpus.text.characters:,} characters, "
            f"{len(corpus.tokenizer.characters):,} different; ids: {sizes}"
        )
        shape = "one-hot" if config.one_hot else f"embedding {config.embedding_size}"
        self._lines.say(
            f"model     {config.cell}, hidden {config.hidden} x {config.layers}, {shape}: "
            f"{architecture.count_in_words()}"
        )
        steps = config.steps_in_all
        if event.before is not None:
            self._lines.say(_begins(event.before))
        self._lines.say(
            f"training  {f'{steps:,} steps' if steps else f'{config.budget:g} s'} of {config.batch} x {config.window} "
            f"characters, {config.optimizer} at {config.lr:g}, {config.schedule}, dropout {config.dropout:g}"
            f"{f' and {config.weight_dropout:g} of weights' if config.weight_dropout else ''}, seed {config.seed}"
        )
        speed = event.expected_chars_per_s
        seconds = (steps - event.step) * config.batch * config.window / speed if steps else config.budget or 0.0
        threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
        how = f"{config.device}, {config.precision}, {config.engine} engine, {threads}"
        self._lines.say(
            f"expected  {_rounded(speed):,} characters a second ({how}), "
            f"{_rounded(event.expected_bytes / 2**20):,} MB of memory, done about {_clock(seconds)}"
        )
        self._lines.say(f"run       {event.run.path}")
        if event.step:
            self._lines.say(f"resuming  after step {event.step:,}")
        for note in (*corpus.text.notes, *event.notes):
            self._lines.say(f"note: {note}")
        prepare(architecture)  # now, so that a budget knows what it takes, and no completion waits for it

    def _planned(self, event: Planned) -> None:
        if event.first:
            self._lines.say(f"planned   {event.steps:,} steps, {event.epochs:.3g} times through the text")
            if (end := advice.beforehand(event.epochs)) is not None:
                self._lines.say(f"note: {end}")
        bar = self._lines.shown_bar
        if bar is not None:
            bar.total = event.steps

    def _stepped(self, event: Stepped) -> None:
        bar = self._lines.bar(total=event.steps, initial=event.step - 1, unit="step", mininterval=0.2)
        if bar is not None and bar.update(1):  # true when the bar was drawn again
            bar.set_postfix_str(said_of_loss(float(event.loss), event.chars_per_s), refresh=False)

    def _validated(self, event: Validated) -> None:
        if event.step == 0 or not event.finite:
            return
        val = "" if event.val_nats is None else f"  val {event.val_nats:.4f} nats{' *' if event.best else ''}"
        figures = f"step {event.step:>6,}  train {event.train_nats:.4f}{val}  | "
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        room = shutil.get_terminal_size().columns - len(figures) - 1 if is_terminal else SAMPLE_CHARS
        self._lines.say(figures + one_line(sample(self._context, event.weights))[: max(0, room)])

    def _stopped_early(self, event: StoppedEarly) -> None:
        self._lines.say(
            f"early stopping after step {event.step:,}: validation is past its best; the best weights are kept"
        )

    def _diverged(self, event: Diverged) -> None:
        self._lines.say(f"step {event.step:>6,}  diverged: a loss or a weight is not finite; ending here")


def result(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a result."""
    yield f"run        {result['run']}"
    yield f"trained    {result['steps']:,} steps, {result['characters']:,} characters in {result['seconds']:.0f} s"
    for part in ("val", "test"):
        if result[f"{part}_nats"] is not None:
            nats, bits = result[f"{part}_nats"], result[f"{part}_bits_per_char"]
            before = result.get(f"{part}_nats_before")
            was = "" if before is None else f"; {before:.4f} nats before"
            score = f"{bits:.4f} bits per character, perplexity {perplexity.of_nats(nats):.3f}"
            yield f"{part:<11}{nats:.4f} nats, {score}{was}"
    if "from" in result:
        yield forgotten(result)
    if result.get("advice") is not None:
        yield f"would help {result['advice']}"


def said_of_loss(nats: float, chars_per_s: float) -> str:
    """Say a loss and the speed, beside a bar."""
    return f"loss {nats:.3f}, {nats / math.log(2):.2f} bits/char, {chars_per_s:,.0f} char/s"


def _begins(before: Before) -> str:
    """Say what a run learns on from."""
    known = f"{before.new_characters} characters it did not know" if before.new_characters else "all characters known"
    text = "its text is not here, so what it forgets cannot be told" if before.old_text is None else before.old_text
    return f"from      {before.base}: {known}; {text}"


def forgotten(result: Mapping[str, Any]) -> str:
    """Say what a run that learned on from another makes of the other's text now."""
    before, after = result["old_nats_before"], result["old_nats"]
    if before is None or after is None:
        return f"old text   that of {result['from']} is not here, so what was forgotten cannot be told"
    change = after - before
    said = f"{change:.4f} forgotten" if change > 0 else f"nothing forgotten, {-change:.4f} gained"
    return f"old text   {after:.4f} nats on {result['old_text']}; {before:.4f} before: {said}"


def _first_word(corpus: Corpus) -> str:
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
