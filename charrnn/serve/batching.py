"""The rows of a model that requests share, and the threads that decode them.

A completion waits for a row, joins the others, and leaves when it has ended or nobody wants it any more: between two
moves of some ids. What it draws depends on nothing but itself. Rows move in groups, one for each core, each with a
thread of its own: while one turns ids into text, or waits for the interpreter, the others go on.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charrnn.generate.completion import Ended
from charrnn.generate.decoder import State
from charrnn.generate.pieces import Pieces
from charrnn.generate.rows import Groups, Row, SideBySide
from charrnn.generate.sampling import Sampling, diverged
from charrnn.serve.errors import RequestError
from charrnn.serve.limits import Limits
from charrnn.serve.logprobs import Token, likely
from charrnn.serve.models import Served
from charrnn.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Piece:
    """What was drawn of a completion since the last piece. tokens: its ids, where logprobs are wanted.

    ended: why it has ended, in the last piece. ids: how many were drawn, all in all. error: why it cannot go on.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    ended: Ended | None = None
    ids: int = 0
    error: RequestError | None = None

    @property
    def is_last(self) -> bool:
        return self.ended is not None or self.error is not None


@dataclass(eq=False)
class Choice:
    """One completion to be drawn.

    state, given: where it begins: a state of one row, and what is read before anything is drawn. number: of the
    completion. pieces: its text. logprobs: how many of the likeliest ids are told, None for no logprobs. streamed:
    whether pieces are wanted as they come, and not only one in the end. to: who gets them.
    """

    state: State
    given: NDArray[np.int64]
    sampling: Sampling
    number: int
    pieces: Pieces
    to: Callable[[Piece], None]
    logprobs: int | None = None
    streamed: bool = False
    tokens: list[Token] = field(default_factory=list)
    told: int = 0
    kept: list[int] = field(default_factory=list)

    def moved(self, tokenizer: Tokenizer, ids: list[int], logits: Sequence[NDArray[np.float32]]) -> Piece | None:
        """Take what its row has drawn; return a piece where there is something to tell."""
        broken = None
        if -1 in ids:
            ids, broken = ids[: ids.index(-1)], RequestError(500, str(diverged()), code="not_finite")
        if self.logprobs is not None:
            self.tokens += likely(ids, logits, self.logprobs)
        if not self.streamed and broken is None and self.pieces.goes_on(len(self.kept) + len(ids)):
            self.kept += ids  # text is made of them once, in the end
            return None
        text = self.pieces.push(self.kept + ids)
        self.kept = []
        if self.pieces.ended is not None:
            return self._last(tokenizer, text)
        if broken is not None:
            return Piece("", ids=self.pieces.ids, error=broken)
        if not self.streamed or not text:
            return None
        spelled = len(tokenizer.encode(text)) if self.logprobs is not None else 0
        tokens, self.tokens = self.tokens[:spelled], self.tokens[spelled:]
        self.told += spelled
        return Piece(text, tuple(tokens), ids=self.pieces.ids)

    def _last(self, tokenizer: Tokenizer, text: str) -> Piece:
        pieces = self.pieces
        # A stop string is left out, the beginning of a character at the very end is told.
        end = len(tokenizer.encode(pieces.text)) if pieces.ended == "stop" else pieces.ids
        tokens = tuple(self.tokens[: end - self.told])
        return Piece(text if self.streamed else pieces.text, tokens, pieces.ended, pieces.ids)


Pairs = Sequence[tuple[Choice, Piece]]


class Batch:
    """The rows of one model, in groups that threads move on while there are any. Threads may share it."""

    def __init__(self, served: Served, groups: Groups, limits: Limits, deliver: Callable[[Pairs], None]) -> None:
        """groups: of the model. deliver: gets, in the thread of a group, what there is to tell after a move of it."""
        self.served, self.limits, self.deliver = served, limits, deliver
        self._groups = groups
        self._waiting: deque[Choice] = deque()
        self._changed = threading.Condition()
        self._ended: RequestError | None = None
        self._moved = [_Group(self, rows) for rows in groups.each]
        names = [f"rows of {served.name}, {n}" for n in range(len(self._moved))]
        self._threads = [
            threading.Thread(target=self._run, args=(group,), name=name, daemon=True)
            for group, name in zip(self._moved, names, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def here(self) -> list[Choice]:
        """The completions that have a row."""
        return [choice for group in self._moved for choice in list(group.here)]

    @property
    def running(self) -> int:
        """How many completions have a row."""
        return sum(len(group.here) for group in self._moved)

    @property
    def waiting(self) -> int:
        """How many completions wait for one."""
        return len(self._waiting)

    def submit(self, choices: Sequence[Choice]) -> None:
        """Let completions wait for rows. Raises RequestError where too many do already, or where the server ends."""
        with self._changed:
            if self._ended is not None:
                raise self._ended
            free = self.limits.rows - self.running
            if len(self._waiting) + len(choices) > self.limits.waiting + free:
                raise RequestError(
                    503, "too many completions wait already: try again", None, "busy", {"Retry-After": "1"}
                )
            self._waiting.extend(choices)
            self._changed.notify(len(choices))

    def leave(self, choices: Sequence[Choice]) -> None:
        """Give up completions that nobody wants any more; of those that have ended, nothing is left to do."""
        with self._changed:
            for choice in choices:
                if choice in self._waiting:
                    self._waiting.remove(choice)
                for group in self._moved:
                    if choice in group.here:
                        group.gone.add(choice)

    def end(self, refusal: RequestError) -> None:
        """End all completions, and the threads; who submits another is refused."""
        with self._changed:
            self._ended = refusal
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        self.deliver([(choice, Piece("", error=refusal)) for choice in waiting])
        for thread in self._threads:
            thread.join()

    def _run(self, group: "_Group") -> None:
        while True:
            with self._changed:
                while self._ended is None and not group.here and not self._may_take(group):
                    self._changed.wait()
                group.let_go()
                ended = self._ended
                while ended is None and self._may_take(group):
                    group.take(self._waiting.popleft())
            if ended is not None:
                group.give_up(ended)
                return
            try:
                group.move_on()
            except Exception as error:  # memory, perhaps: those that are here pay for it, and the next ones are served
                logging.getLogger(__name__).exception("the rows of %s failed", self.served.name)
                group.give_up(RequestError(500, f"the rows of the model failed: {type(error).__name__}"))

    def _may_take(self, group: "_Group") -> bool:
        """Tell whether a group is to take the next one that waits, so that groups are as large as each other."""
        running = self.running
        if not self._waiting or running >= self.limits.rows:
            return False
        return len(group.here) < self._groups.size(min(self.limits.rows, running + len(self._waiting)))


class _Group:
    """Rows of one model that move together. here: whose they are. gone: who of them is not wanted any more."""

    def __init__(self, batch: Batch, rows: SideBySide) -> None:
        self._batch, self._rows = batch, rows
        self.here: dict[Choice, Row] = {}
        self.gone: set[Choice] = set()

    def take(self, choice: Choice) -> None:
        """Let in a completion."""
        noting = choice.logprobs is not None
        self.here[choice] = self._rows.join(choice.state, choice.given, choice.sampling, choice.number, noting)

    def let_go(self) -> None:
        """Take out who is not wanted any more."""
        for choice in self.gone & self.here.keys():
            self._rows.leave(self.here.pop(choice))
        self.gone.clear()

    def move_on(self) -> None:
        """Move all on, let go who has ended, and tell what was drawn."""
        if not self.here:
            return
        self._rows.move_on()
        told = []
        try:
            for choice, row in list(self.here.items()):
                piece = choice.moved(self._batch.served.tokenizer, row.ids, row.logits)
                if piece is not None:
                    told.append((choice, piece))
                    if piece.is_last:
                        self._rows.leave(self.here.pop(choice))
        finally:
            if told:
                self._batch.deliver(told)

    def give_up(self, refusal: RequestError) -> None:
        """Tell all that they get no more."""
        choices = list(self.here)
        for choice in choices:
            self._rows.leave(self.here.pop(choice))
        if choices:
            self._batch.deliver([(choice, Piece("", ids=choice.pieces.ids, error=refusal)) for choice in choices])
