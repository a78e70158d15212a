"""A trained model as people use it: complete, stream, next, score."""

import contextlib
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charrnn.devices import resolve as resolve_device
from charrnn.errors import CharRNNError
from charrnn.generate import fastest
from charrnn.generate.completion import Completion, CompletionStream
from charrnn.generate.copying import CopyLimit, TrainingText
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Alternatives, Forbidden, Primed, Sampling, generate, likeliest, read_prime
from charrnn.interruption import Interruption, heard
from charrnn.model.architecture import Architecture
from charrnn.text import corpus as data
from charrnn.text import documents
from charrnn.text.corpus import Part
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import runs
from charrnn.training.config import Config
from charrnn.training.run import Run

if TYPE_CHECKING:  # scoring needs torch, completing does not
    from charrnn.model.evaluation import Mode, Score
    from charrnn.model.rnn import CharRNN

Kept = Literal["float32", "bf16", "int8"]

Ids = Iterator[tuple[int, float]]

ROWS = 64  # completions drawn side by side
COMPILE_IDS = 4096  # a shorter text is scored by torch in less time than compiling may take
STEPS, PIECE_IDS = 32, 512  # of one row, by which a CPU and a GPU are compared: completing, scoring
DEFAULT_CHARS = 200
DEFAULT_TEMPERATURE = 0.8

_making = threading.Lock()  # of threads that need a model's decoder at once, one makes it and the others wait


@runtime_checkable
class StreamScoring(Protocol):
    """A decoder that scores texts by itself."""

    def stream_costs(self, ids: NDArray[Any], starts: Starts) -> NDArray[np.float64]:
        """As `charrnn.model.evaluation.stream_costs`."""


@dataclass(frozen=True)
class TextModel:
    """Weights with the vocabulary and the configuration they belong to. Threads may share it.

    run: where they were loaded from. device: 'cpu', 'cuda', or 'auto' on a machine that has a GPU: there the faster of
    the two, measured. kept: the dtype the matrices are kept in while completing text on a CPU.
    """

    config: Config
    tokenizer: Tokenizer
    weights: dict[str, NDArray[np.float32]]
    run: Run | None = None
    device: str = "cpu"
    kept: Kept = "float32"

    @property
    def architecture(self) -> Architecture:
        """Return the shape of the model."""
        return Architecture.of(self.config, self.tokenizer.size)

    def decoder(self) -> Decoder:
        """Return what computes next-character logits for this model: compiled code on a CPU, else torch."""
        with _making:  # of two threads that ask first, one makes it
            ways = {"cpu": lambda: self._on_cpu, "cuda": lambda: self._on_cuda, "auto": lambda: self._faster}
            return ways[self.device]()

    @cached_property
    def _faster(self) -> Decoder:
        """Return the decoder that takes one row a step in less time; the CPU's where it alone has such weights."""
        if self.kept != "float32":
            return self._on_cpu
        if not self._on_cpu.is_compiled:
            return self._on_cuda
        works = {name: partial(_step, decoder) for name, decoder in (("CPU", self._on_cpu), ("GPU", self._on_cuda))}
        seconds = fastest.seconds(f"step {self.architecture}", works)
        if seconds["GPU"] < seconds["CPU"]:
            return self._on_cuda
        ms = {name: f"{1000 * s / STEPS:.2g} ms" for name, s in seconds.items()}
        note = f"the CPU completes: {ms['CPU']} a character, the GPU {ms['GPU']}; --device cuda takes that"
        self._on_cpu.notes = (*self._on_cpu.notes, note)
        return self._on_cpu

    @cached_property
    def _on_cuda(self) -> Decoder:
        return self._made("cuda")

    @cached_property
    def _on_cpu(self) -> Decoder:
        return self._made("cpu")

    def _made(self, device: str) -> Decoder:
        note = None
        if device == "cpu":
            try:
                from charrnn.generate.compiled import CompiledDecoder

                return CompiledDecoder(self.architecture, self.weights, self.kept)
            except CharRNNError as error:
                note = f"{error.problem}: torch decodes, which is slower"
        if self.kept != "float32":
            raise CharRNNError(
                f"{self.kept} weights on {device}" + (f" ({note})" if note else ""),
                "only the compiled decoder keeps them so: use --device cpu, or float32",
            )
        decoder = Decoder(self.architecture, self.weights, device=device)
        decoder.notes = (note,) if note else ()
        return decoder

    def stream(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = 7,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Yield the characters of a completion as they are drawn. Raises CharRNNError for settings out of range."""
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        return (character for character, _ in self._drawn(self._primed(prime), chars, sampling, stop))

    def complete(self, prime: str = "", chars: int = DEFAULT_CHARS, **settings: Any) -> str:
        """Return the text that continues `prime`, without it; settings as in `stream`.

        A model that learned lines or paragraphs as documents ends its completion with the document.
        """
        return "".join(self.stream(prime, chars, **settings))

    def completion(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = 7,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: Sequence[str] = (),
        alternatives: int | None = None,
    ) -> Completion:
        """Complete a text as `complete` does. Returns the text with what it cost and why it ended.

        alternatives: how many of the likeliest characters to give for every place, as `next` gives them; None is none.
        Raises CharRNNError for settings out of range.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        noted = None if alternatives is None else Alternatives(self.tokenizer, alternatives)
        return self._drawn(self._primed(prime), chars, sampling, stop, alternatives=noted).completion()

    def completions(
        self,
        prime: str,
        chars: int,
        sampling: Sampling,
        count: int = 1,
        stop: Sequence[str] = (),
        *,
        first: int = 0,
        max_copy: int | None = None,
    ) -> Iterator[CompletionStream]:
        """Return `count` different completions, each an iterator of characters with their cost in nats.

        Once one of them has ended, its `ended` says why; its `completion()` draws it to the end and gives the value.
        first: the number of the first one. max_copy: none has so many characters in a row from the training text.
        """
        if count < 1:
            raise CharRNNError(f"count is {count}", "expected a whole number of 1 or more")
        if max_copy is not None and max_copy < 2:
            raise CharRNNError(f"max-copy is {max_copy}", "expected a whole number of 2 or more")
        source = None if max_copy is None else self.training_text()
        primed = self._primed(prime)

        rows = self._rows(primed, sampling, range(first, first + count)) if source is None else None

        def completion(n: int) -> CompletionStream:
            forbidden = source and max_copy and CopyLimit(source, self.tokenizer, max_copy).forbidden
            return self._drawn(primed, chars, sampling, stop, n, forbidden or None, next(rows) if rows else None)

        return map(completion, range(first, first + count))

    def _rows(self, primed: Primed, sampling: Sampling, completions: range) -> Iterator[Ids] | None:
        """Return the ids of each completion, drawn side by side; None where one after the other is as fast."""
        decoder = self.decoder()
        if not decoder.is_compiled:
            return None
        from charrnn.generate import compiled as native
        from charrnn.generate import rows as native_batch

        if len(completions) < native_batch.AT_LEAST:
            return None
        assert isinstance(decoder, native.CompiledDecoder)
        together = native_batch.RowsDecoder(decoder)
        groups = (completions[i : i + ROWS] for i in range(0, len(completions), ROWS))
        return (ids for group in groups for ids in together.drawn(primed, self.tokenizer, sampling, group))

    def training_text(self) -> TrainingText:
        """Return what the model learned, to look for copies; raises CharRNNError where it is gone."""
        return TrainingText.of(self.config)

    def next(self, prime: str = "", k: int = 5) -> list[tuple[str, float]]:
        """Return the k likeliest characters after `prime` with their probabilities, likeliest first.

        Probabilities are of all that may follow: a character spelled in bytes has its share but is not listed.
        """
        primed = self._primed(prime)
        logits, _ = self.decoder().step(np.array([primed.last]), primed.state)
        return list(likeliest(logits[0], self.tokenizer, k))

    def score(self, text: str) -> "Score":
        """Return what each character of a text costs the model, read as one stream from its first character.

        Documents in it, of the kind that the model learned, are each read from nothing.
        """
        ids, starts = data.encode_whole(self.tokenizer.clean(text), self.config.document, self.tokenizer)
        return self.score_ids(ids, starts=starts)

    def score_ids(self, ids: NDArray[Any], mode: "Mode" = "stream", starts: Starts = documents.NONE) -> "Score":
        """Do as `score`, for text that is encoded already; mode 'cold' starts every training window from nothing.

        starts: the positions at which documents begin, each of which is read from nothing too.
        """
        from charrnn.model import evaluation

        if mode == "stream" and len(ids) >= COMPILE_IDS and self.device != "cuda":
            with _making:
                decoder = self._on_cpu
            if isinstance(decoder, StreamScoring) and self._scores_faster(decoder, ids):
                return evaluation.score(decoder.stream_costs(ids, starts), ids, self.tokenizer)
        model = self._network()
        costs = (
            evaluation.stream_costs(model, ids, starts=starts)
            if mode == "stream"
            else evaluation.cold_costs(model, ids, self.config.window, starts)
        )
        return evaluation.score(costs, ids, self.tokenizer)

    def _network(self) -> "CharRNN":
        """Return the model under torch, on the GPU where that may be used."""
        from charrnn.engines import names_for
        from charrnn.model.rnn import CharRNN

        device = "cpu" if self.device == "cpu" else "cuda"
        known = names_for(self.architecture.definition, device)
        engine = self.config.engine if self.config.engine in known else "auto"  # trained elsewhere, perhaps
        return CharRNN(self.architecture, self.weights, engine).to(device)

    def _scores_faster(self, decoder: StreamScoring, ids: NDArray[Any]) -> bool:
        """Tell whether a decoder reads a text in less time than torch: measured where that has a GPU."""
        from charrnn.model import evaluation

        if self.device != "auto" or self.kept != "float32":
            return True
        some = ids[:PIECE_IDS]
        works = {
            "CPU": partial(decoder.stream_costs, some, documents.NONE),
            "GPU": partial(evaluation.stream_costs, self._network(), some),
        }
        seconds = fastest.seconds(f"score {self.architecture}", works)
        return seconds["CPU"] <= seconds["GPU"]

    def _primed(self, text: str) -> Primed:
        """Return the prime in the model's normal form, read from where its last document begins."""
        text = documents.current(self.tokenizer.clean(text), self.config.document)
        return read_prime(self.decoder(), self.tokenizer, text)

    def _drawn(
        self,
        primed: Primed,
        chars: int,
        sampling: Sampling,
        stop: Sequence[str],
        completion: int = 0,
        forbidden: Forbidden | None = None,
        ids: Ids | None = None,
        alternatives: Alternatives | None = None,
    ) -> CompletionStream:
        drawn = generate(self.decoder(), self.tokenizer, primed, sampling, completion, forbidden, ids, alternatives)
        document = self.config.document
        return CompletionStream(drawn, chars, stop, prime=primed.text, document=document, alternatives=alternatives)


def load(
    run: str | Path | Run = "latest", device: str = "auto", which: str = "best", kept: Kept = "float32"
) -> TextModel:
    """Load the model of a run: its name, path or 'latest'. Raises CharRNNError where there is none or it is broken.

    kept: the dtype the matrices are kept in while completing text on a CPU: float32, bf16 or int8.
    """
    found = run if isinstance(run, Run) else runs.find_run(str(run))
    where: str = resolve_device(device)
    where = "auto" if (device, where) == ("auto", "cuda") else where
    model = TextModel(found.config(), found.tokenizer(), found.weights(which), found, where, kept)
    model.architecture.check(model.weights)
    return model


def _step(decoder: Decoder) -> None:
    """Complete a little, as far as a decoder is concerned."""
    state = decoder.start()
    for id_ in np.arange(STEPS) % decoder.architecture.vocabulary:
        _, state = decoder.step(np.array([id_]), state)


def prepare(architecture: Architecture) -> None:
    """Compile what completing text with a model of these sizes needs, so that no completion waits for that.

    What was compiled before is on disk. Where torch will decode instead, nothing is done.
    """
    with contextlib.suppress(CharRNNError):  # whoever completes a text is told
        from charrnn.generate import compiled as native

        native.prepare(architecture)


def score_run(model: TextModel, file: str | None, part: Part | None, mode: "Mode") -> tuple[str, "Score"]:
    """Score a loaded run on a file, or on a part of its own corpus: test, or val where there is none, by default.

    Returns what was scored, in words, and the score. Raises CharRNNError where that text is missing or empty.
    """
    if file is not None:
        if part is not None:
            raise CharRNNError(f"both the file {file} and the part {part} are given", "give one of them")
        ids, starts = data.read_whole(file, model.config, model.tokenizer)
        return file, model.score_ids(ids, mode, starts)
    corpus = data.prepare(model.config, model.tokenizer, private=True)
    if part is None:
        part = "test" if len(corpus.parts["test"]) else "val"
    return f"the {part} part of {corpus.text.source}", model.score_ids(corpus.ids(part), mode, corpus.starts[part])


def train(*corpus: str | Path, name: str | None = None, out: str | Path | None = None, **settings: Any) -> TextModel:
    """Train to the end, silently, and return the best model; settings are those of `charrnn.Settings`.

    corpus: files, or the name of an embedded corpus, which is the default. name: of the run in the home folder.
    out: a folder for the run instead. `charrnn.training.loop.new_run` does the same and reports on the way.
    Raises CharRNNError, with the run saved, where the losses or weights are no longer finite.
    Ctrl-C raises KeyboardInterrupt after the step that it came in was saved; a note on it says how to go on.
    """
    from charrnn.training import loop
    from charrnn.training.events import Finished, Stepped
    from charrnn.training.settings import Settings

    asked = Settings.of({**settings, **({"corpus": tuple(map(str, corpus))} if corpus else {})})
    run = loop.open_run(asked, name, out)
    interruption = Interruption(raised=lambda *_: KeyboardInterrupt(), hurried=signal.default_int_handler)
    events = loop.new_run(asked, run, interruption)
    with heard(interruption, [signal.SIGINT]), contextlib.closing(events):
        for event in events:
            if isinstance(event, Stepped):
                interruption.can_save()
            elif isinstance(event, Finished) and event.result["diverged"] is not None:
                raise loop.diverged(run, event.result["diverged"])
    if interruption():
        error = KeyboardInterrupt()
        about = run.about()
        error.add_note(
            f"the run is complete; charrnn.load({run.typed!r}) gives the model"
            if about["result"]
            else f"saved after step {about['step']:,}; "
            f"to go on: python -m charrnn train --resume {shlex.quote(run.typed)}"
        )
        raise error
    return load(run)
