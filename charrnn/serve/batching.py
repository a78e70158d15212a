"""The rows of a model that requests share, and the one thread that decodes them.

A completion waits for a row, joins the others, and leaves when it has ended or nobody wants it any more: between two
moves of some ids. What it draws depends on nothing but itself. While rows move, what they drew before becomes text; so
one that a stop string ends moves once more, in vain.
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
from charrnn.generate.rows import Row, SideBySide
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
    drawn: int = 0

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
    """The rows of one model, which a thread of its own moves on while there are any. Threads may share it."""

    def __init__(self, served: Served, rows: SideBySide, limits: Limits, deliver: Callable[[Pairs], None]) -> None:
        """rows: of the model. deliver: gets, in the thread of the rows, what there is to tell after every move."""
        self._served, self._rows, self._limits, self._deliver = served, rows, limits, deliver
        self._waiting: deque[Choice] = deque()
        self.here: dict[Choice, Row] = {}
        self._gone: set[Choice] = set()
        self._untold: deque[tuple[Choice, list[int], Sequence[NDArray[np.float32]]]] = deque()  # of the last move
        self._ended: RequestError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"rows of {served.name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """How many completions have a row."""
        return len(self.here)

    @property
    def waiting(self) -> int:
        """How many completions wait for one."""
        return len(self._waiting)

    def submit(self, choices: Sequence[Choice]) -> None:
        """Let completions wait for rows. Raises RequestError where too many do already, or where the server ends."""
        with self._changed:
            if self._ended is not None:
                raise self._ended
            free = self._limits.rows - len(self.here)
            if len(self._waiting) + len(choices) > self._limits.waiting + free:
                raise RequestError(
                    503, "too many completions wait already: try again", None, "busy", {"Retry-After": "1"}
                )
            self._waiting.extend(choices)
            self._changed.notify()

    def leave(self, choices: Sequence[Choice]) -> None:
        """Give up completions that nobody wants any more; of those that have ended, nothing is left to do."""
        with self._changed:
            for choice in choices:
                if choice in self.here:
                    self._gone.add(choice)
                elif choice in self._waiting:
                    self._waiting.remove(choice)

    def end(self, refusal: RequestError) -> None:
        """End all completions, and the thread; who submits another is refused."""
        with self._changed:
            self._ended = refusal
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._ended is None and not self.here and not self._waiting:
                    self._changed.wait()
                ended = self._ended
                if ended is None:
                    self._change_rows()
            try:
                if ended is not None:
                    self._tell()
                elif self.here:
                    self._rows.move_on(self._tell)
                    self._take()
                if not self.here:
                    self._tell()
            except Exception as error:  # memory, perhaps: those that are here pay for it, and the next ones are served
                logging.getLogger(__name__).exception("the rows of %s failed", self._served.name)
                with self._changed:
                    self._give_up(RequestError(500, f"the rows of the model failed: {type(error).__name__}"))
            if ended is not None:
                with self._changed:
                    self._give_up(ended)
                return

    def _change_rows(self) -> None:
        """Take out who has gone, and let in who waits."""
        for choice in self._gone & self.here.keys():
            self._rows.leave(self.here.pop(choice))
        self._gone.clear()
        while self._waiting and len(self.here) < self._limits.rows:
            choice = self._waiting.popleft()
            noting = choice.logprobs is not None
            row = self._rows.join(choice.state, choice.given, choice.sampling, choice.number, noting)
            self.here[choice] = row

    def _take(self) -> None:
        """Take what a move has drawn. Who can draw no more leaves, before the next move."""
        for choice, row in list(self.here.items()):
            if choice.pieces.ended is None and row.ids:
                self._untold.append((choice, row.ids, row.logits))
                choice.drawn += len(row.ids)
            if choice.pieces.ended is not None or choice.drawn >= choice.pieces.most or -1 in row.ids:
                with self._changed:
                    self._rows.leave(self.here.pop(choice))

    def _tell(self) -> None:
        """Tell what the last move has drawn."""
        told = []
        try:
            while self._untold:
                choice, ids, logits = self._untold[0]
                piece = choice.moved(self._served.tokenizer, ids, logits)
                if piece is not None:
                    told.append((choice, piece))
                self._untold.popleft()
        finally:
            if told:
                self._deliver(told)

    def _give_up(self, refusal: RequestError) -> None:
        """Tell all that have not ended, and where the server ends those that wait, that they get no more."""
        waiting = self._waiting if self._ended is not None else ()
        untold = [choice for choice, _, _ in self._untold]
        running = [choice for choice in self.here if choice.pieces.ended is None]
        for row in self.here.values():
            self._rows.leave(row)
        self.here.clear()
        self._untold.clear()
        choices = dict.fromkeys([*untold, *running, *waiting])
        self._waiting = deque() if self._ended is not None else self._waiting
        self._deliver([(choice, Piece("", ids=choice.pieces.ids, error=refusal)) for choice in choices])
