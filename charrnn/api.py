"""The front door: a trained model as people use it, loading one, and training one."""

import contextlib
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from charrnn.devices import resolve as resolve_device
from charrnn.errors import DamageWarning, command
from charrnn.generate import scoring
from charrnn.generate.completer import ROWS as ROWS
from charrnn.generate.completer import Completer
from charrnn.generate.completion import Completion, CompletionStream
from charrnn.generate.copying import TrainingText
from charrnn.generate.decoder import Decoder
from charrnn.generate.decoders import STEPS as STEPS
from charrnn.generate.decoders import Decoders
from charrnn.generate.decoders import Kept as Kept
from charrnn.generate.decoders import prepare as prepare
from charrnn.generate.request import DEFAULT_CHARS, DEFAULT_SEED, DEFAULT_TEMPERATURE, Choices, Filters, Request
from charrnn.generate.sampling import Sampling
from charrnn.generate.scoring import COMPILE_IDS as COMPILE_IDS
from charrnn.generate.scoring import PIECE_IDS as PIECE_IDS
from charrnn.generate.scoring import StreamScoring as StreamScoring
from charrnn.interruption import Interruption, heard
from charrnn.model.architecture import Architecture
from charrnn.text import documents
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import identity, runs
from charrnn.training.config import Config
from charrnn.training.run import Run

if TYPE_CHECKING:  # scoring needs torch and reading texts, completing does not
    from charrnn.generate.units import Units
    from charrnn.model.evaluation import Mode, Score
    from charrnn.text.cleaning import Findings
    from charrnn.text.corpus import Part


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
    _completer: Completer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        decoders = Decoders(self.architecture, self.weights, self.device, self.kept)
        # Made now, so that threads that share the model share its decoders.
        object.__setattr__(self, "_completer", Completer(decoders, self.tokenizer, self.clean, self.config.document))

    @property
    def architecture(self) -> Architecture:
        """Return the shape of the model."""
        return Architecture.of(self.config, self.tokenizer.size)

    def decoder(self, characters: int | None = None) -> Decoder:
        """Return what computes next-character logits for this model: compiled code on a CPU, else torch.

        characters: how many are to be decoded; for few of them NumPy does it where nothing was compiled yet.
        """
        return self._completer.decoders.chosen(characters)

    def stream(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = DEFAULT_SEED,
        *,
        stop: Sequence[str] = (),
        **filters: Unpack[Filters],
    ) -> Iterator[str]:
        """Yield the characters of a completion as they are drawn. Raises CharRNNError for settings out of range."""
        request = Request(prime, chars, Sampling(temperature, seed=seed, **filters), stop)
        return (character for character, _ in self._completer.one(request))

    def complete(self, prime: str = "", chars: int = DEFAULT_CHARS, **settings: Unpack[Choices]) -> str:
        """Return the text that continues `prime`, without it; settings as in `stream`.

        A model that learned lines or paragraphs as documents ends its completion with the document.
        """
        return "".join(self.stream(prime, chars, **settings))

    def completion(
        self,
        prime: str = "",
        chars: int = DEFAULT_CHARS,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = DEFAULT_SEED,
        *,
        stop: Sequence[str] = (),
        alternatives: int | None = None,
        **filters: Unpack[Filters],
    ) -> Completion:
        """Complete a text as `complete` does. Returns the text with what it cost and why it ended.

        alternatives: how many of the likeliest characters to give for every place, as `next` gives them; None is none.
        Raises CharRNNError for settings out of range.
        """
        request = Request(prime, chars, Sampling(temperature, seed=seed, **filters), stop, alternatives)
        return self._completer.one(request).completion()

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
        request = Request(prime, chars, sampling, stop, max_copy=max_copy)
        return self._completer.several(request, count, first, self.training_text)

    def training_text(self) -> TrainingText:
        """Return what the model learned, to look for copies; raises CharRNNError where it is gone."""
        return TrainingText.of(self.config)

    def next(self, prime: str = "", k: int = 5) -> list[tuple[str, float]]:
        """Return the k likeliest characters after `prime` with their probabilities, likeliest first.

        A character's probability is the one that `score` gives it there: exp(-nats). What the list leaves out has the
        rest, up to 1.
        """
        return self._completer.likeliest(prime, k)

    def score(self, text: str) -> "Score":
        """Return what each character of a text costs the model, read as one stream from its first character.

        Documents in it, of the kind that the model learned, are each read from nothing.
        """
        from charrnn.text.corpus import encode_whole

        ids, starts = encode_whole(self.clean(text), self.config.document, self.tokenizer)
        return self.score_ids(ids, starts=starts)

    def score_ids(self, ids: NDArray[Any], mode: "Mode" = "stream", starts: Starts = documents.NONE) -> "Score":
        """Do as `score`, for text that is encoded already; mode 'cold' starts every training window from nothing.

        starts: the positions at which documents begin, each of which is read from nothing too.
        """
        from charrnn.model import evaluation

        config = self.config
        costs = scoring.costs(self._completer.decoders, config.engine, config.window, ids, mode, starts)
        return evaluation.score(costs, ids, self.tokenizer)

    def units(self, text: str) -> "Units":
        """Return what every unit of the model's state does on a text, and which property of it each follows."""
        from charrnn.generate import units
        from charrnn.text.corpus import encode_whole

        text = self.clean(text)
        ids, starts = encode_whole(text, self.config.document, self.tokenizer)
        return units.read(Decoder(self.architecture, self.weights, "numpy"), self.tokenizer, text, ids, starts)

    def clean(self, text: str) -> str:
        """Return a text with the line ends and in the normal form that the model's corpus was given."""
        if self.config.newline == "lf":
            from charrnn.text.cleaning import with_lf

            text = with_lf(text)
        return self.tokenizer.clean(text)


def load(
    run: str | Path | Run = "latest", device: str = "auto", which: str = "best", kept: Kept = "float32"
) -> TextModel:
    """Load the model of a run: its name, path or 'latest'. Raises CharRNNError where there is none or it is broken.

    kept: the dtype the matrices are kept in while completing text on a CPU: float32, bf16 or int8.
    Warns with DamageWarning where its newest checkpoint is damaged, and the one before it is used, and where the
    equations of its cell were changed since it was trained.
    """
    found = run if isinstance(run, Run) else runs.find_run(str(run))
    where: str = resolve_device(device)
    where = "auto" if (device, where) == ("auto", "cuda") else where
    config, tokenizer = found.config(), found.tokenizer()
    weights, note = found.whole_weights(Architecture.of(config, tokenizer.size), which)
    for said in (note, identity.note_of_equations(found.about(), config)):
        if said is not None:
            warnings.warn(said, DamageWarning, stacklevel=2)
    model = TextModel(config, tokenizer, weights, found, where, kept)
    return model


def score_run(
    model: TextModel, file: str | None, part: "Part | None", mode: "Mode", findings: "Findings | None" = None
) -> tuple[str, "Score"]:
    """Score a loaded run on a file, or on a part of its own corpus: test, or val where there is none, by default.

    findings: what is met while reading the file is added to them.
    Returns what was scored, in words, and the score. Raises CharRNNError where that text is missing or empty.
    """
    from charrnn.text.corpus import read_part

    what, ids, starts = read_part(model.config, model.tokenizer, file, part, findings)
    return what, model.score_ids(ids, mode, starts)


def train(
    *corpus: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    from_: str | Path | Run | None = None,
    **settings: Any,
) -> TextModel:
    """Train to the end, silently, and return the best model; settings are those of `charrnn.Settings`.

    corpus: files, or the name of an embedded corpus, which is the default. name: of the run in the home folder.
    out: a folder for the run instead. from_: a run to learn on from, which sets cell, sizes and characters.
    `charrnn.training.loop.new_run` does the same and reports on the way.
    Raises CharRNNError, with the run saved, where the losses or weights are no longer finite.
    Ctrl-C raises KeyboardInterrupt after the step that it came in was saved; a note on it says how to go on.
    """
    from charrnn.training import loop
    from charrnn.training.events import Finished, Stepped
    from charrnn.training.pretrained import Pretrained
    from charrnn.training.settings import Settings

    given = {**settings, **({"corpus": tuple(map(str, corpus))} if corpus else {})}
    pretrained = None
    if from_ is not None:
        pretrained = Pretrained.of(from_ if isinstance(from_, Run) else runs.find_run(str(from_)))
    asked = Settings.of(given) if pretrained is None else pretrained.settings(given)
    run = loop.open_run(asked, name, out)
    interruption = Interruption(raised=lambda *_: KeyboardInterrupt(), hurried=signal.default_int_handler)
    events = loop.new_run(asked, run, interruption, pretrained=pretrained)
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
            else f"saved after step {about['step']:,}; to go on: {command('train', '--resume', run.typed)}"
        )
        raise error
    return load(run)
