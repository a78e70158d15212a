"""The front door: a trained model as people use it, loading one, and training one."""

import contextlib
import dataclasses
import signal
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.devices import resolve as resolve_device
from charrnn.errors import CharRNNError, DamageWarning, OptionError, command, did_you_mean
from charrnn.generate import scoring
from charrnn.generate.averaging import AveragingDecoders, averaged_costs
from charrnn.generate.completer import ROWS as ROWS
from charrnn.generate.completer import Completer
from charrnn.generate.completion import Completion as Completion
from charrnn.generate.completion import CompletionStream as CompletionStream
from charrnn.generate.copying import TrainingText
from charrnn.generate.decoder import Decoder, Stepping
from charrnn.generate.decoders import STEPS as STEPS
from charrnn.generate.decoders import Decoders
from charrnn.generate.decoders import Kept as Kept
from charrnn.generate.decoders import prepare as prepare
from charrnn.generate.language_model import LanguageModel
from charrnn.generate.request import DEFAULT_CHARS as DEFAULT_CHARS
from charrnn.generate.request import DEFAULT_SEED as DEFAULT_SEED
from charrnn.generate.request import DEFAULT_TEMPERATURE as DEFAULT_TEMPERATURE
from charrnn.generate.request import Choices as Choices
from charrnn.generate.request import Filters as Filters
from charrnn.generate.request import Request as Request
from charrnn.generate.sampling import Sampling as Sampling
from charrnn.generate.scoring import COMPILE_IDS as COMPILE_IDS
from charrnn.generate.scoring import PIECE_IDS as PIECE_IDS
from charrnn.generate.scoring import StreamScoring as StreamScoring
from charrnn.interruption import Interruption, heard
from charrnn.model.architecture import Architecture
from charrnn.progress import Progress
from charrnn.text.documents import Starts
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import identity, runs
from charrnn.training.config import NO_DIRECT, Config
from charrnn.training.run import Run

if TYPE_CHECKING:  # scoring needs torch and reading texts, completing does not
    from torch.nn import Module

    from charrnn.generate.units import Units
    from charrnn.model.evaluation import Mode, Score
    from charrnn.model.torch_module import TorchModel
    from charrnn.text.cleaning import Findings
    from charrnn.text.corpus import Part
    from charrnn.training.events import Event


FROM_TORCH = "a torch module"
WHICH = ["best", "last"]  # weights of a run
# What a configuration says of a training, for a model whose training nobody knows.
UNKNOWN: dict[str, Any] = {"dropout": 0.0, "bias_smoothing": 0.0, "batch": 1, "window": 128, "lr": 0.0, "warmup": 0}
UNKNOWN |= {
    **NO_DIRECT,
    "weight_dropout": 0.0,
    "unseen": "learned",
    "patience": 0,
    "threads": 1,
    "device": "cpu",
    "precision": "float32",
}


@dataclass(frozen=True)
class TextModel(LanguageModel):
    """Weights with the vocabulary and the configuration they belong to. Threads may share it.

    It completes and scores by the methods of `LanguageModel`. A notebook shows what it is and its learning curve.

    run: where they were loaded from. device: 'cpu', 'cuda', or 'auto' on a machine that has a GPU: there the faster of
    the two, measured. kept: the dtype the matrices are kept in while completing text on a CPU.
    """

    config: Config
    tokenizer: Tokenizer
    weights: dict[str, NDArray[np.float32]] = field(repr=False)
    run: Run | None = None
    device: str = "cpu"
    kept: Kept = "float32"
    _decoders: Decoders = field(init=False, repr=False, compare=False)
    _completer: Completer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made now, so that threads that share the model share its decoders.
        decoders = Decoders(self.architecture, self.weights, self.device, self.kept)
        object.__setattr__(self, "_decoders", decoders)
        object.__setattr__(self, "_completer", Completer(decoders, self.tokenizer, self.clean, self.config.document))

    @property
    def architecture(self) -> Architecture:
        """Return the shape of the model."""
        return Architecture.of(self.config, self.tokenizer.size)

    def decoder(self, characters: int | None = None) -> Decoder:
        """Return what computes next-character logits for this model: compiled code on a CPU, else torch.

        characters: how many are to be decoded; for few of them NumPy does it where nothing was compiled yet.
        """
        return self._decoders.chosen(characters)

    def training_text(self) -> TrainingText:
        """Return what the model learned, to look for copies; raises CharRNNError where it is gone."""
        return TrainingText.of(self.config)

    def _costs(self, ids: NDArray[Any], mode: "Mode", starts: Starts, progress: Progress) -> NDArray[np.float64]:
        """As `LanguageModel._costs`."""
        return scoring.costs(self._decoders, self.config.engine, self.config.window, ids, mode, starts, progress)

    def adapted(self, text: str) -> "TextModel":
        """As `LanguageModel.adapted`."""
        from charrnn.text.corpus import encode_whole

        learner = scoring.adapting(self._decoders, self.config.engine)
        learner.costs(*encode_whole(self.clean(text), self.config.document, self.tokenizer))
        return dataclasses.replace(self, weights=learner.weights())

    def to_pandas(self) -> Any:
        """Return the history of the model's run, as `Run.to_pandas` does. Raises CharRNNError where it has no run."""
        return self._own_run().to_pandas()

    def plot(self) -> Any:
        """Draw the learning curve of the model's run, as `Run.plot` does. Raises CharRNNError where it has no run."""
        return self._own_run().plot()

    def _own_run(self) -> Run:
        if self.run is None:
            raise CharRNNError("this model has no run, so nothing is known of its training", "train one, or load a run")
        return self.run

    def _repr_html_(self) -> str:
        from charrnn.training import description  # a notebook alone asks for it

        return description.of_model(self.run, self.config, self.architecture)

    def units(self, text: str) -> "Units":
        """Return what every unit of the model's state does on a text, and which property of it each follows.

        `.gates` has the same of the cell's gates, with how far and how often each is open.
        """
        from charrnn.generate import units
        from charrnn.text.corpus import encode_whole

        text = self.clean(text)
        coded = encode_whole(text, self.config.document, self.tokenizer)
        decoder = Decoder(self.architecture, self.weights, "numpy")
        return units.read(decoder, self.weights, self.tokenizer, text, coded)

    def torch(self) -> "TorchModel":
        """Return a plain torch module that computes the same: `embedding`, `rnn`, `head`, with weights of its own.

        forward(ids (T, B), state=None) gives logits (T, B, V) and the state. A text is preceded by the start token,
        id V, for which the embedding has a row of its own. rnn is torch's nn.LSTM, nn.GRU or nn.RNN where one computes
        the cell, else the cell's equations. `direct` has the tables of direct connections, where the model has some.
        """
        from charrnn.model import torch_module

        return torch_module.to_module(self.architecture, self.weights)

    def clean(self, text: str) -> str:
        """Return a text with the line ends and in the normal form that the model's corpus was given."""
        if self.config.newline == "lf":
            from charrnn.text.cleaning import with_lf

            text = with_lf(text)
        return self.tokenizer.clean(text)


@dataclass(frozen=True)
class Ensemble(LanguageModel):
    """Several models as one: their probabilities of the next character, averaged with equal weights.

    It completes and scores by the methods of `LanguageModel`; every model reads every character. One that is given
    twice counts twice. Threads may share it. config: the first one's, of which what it says of text holds for all.
    Raises CharRNNError where the vocabulary, the documents or the line ends of the models differ.
    """

    models: tuple[TextModel, ...]
    config: Config = field(init=False, repr=False, compare=False)
    tokenizer: Tokenizer = field(init=False, repr=False, compare=False)
    _completer: Completer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.models:
            raise CharRNNError("an ensemble of no models", "give one at least")
        for i, model in enumerate(self.models):
            if differences := _differences(self.models[0], model):
                names = [m.run.name if m.run else f"model {n}" for n, m in ((1, self.models[0]), (i + 1, model))]
                raise CharRNNError(
                    f"{names[1]} and {names[0]} cannot be one model: {'; '.join(differences)}",
                    "give runs that were trained on the same text in the same form",
                )
        object.__setattr__(self, "config", self.models[0].config)
        object.__setattr__(self, "tokenizer", self.models[0].tokenizer)
        decoders = AveragingDecoders([model._decoders for model in self.models])
        object.__setattr__(self, "_completer", Completer(decoders, self.tokenizer, self.clean, self.config.document))

    def _repr_html_(self) -> str:
        from charrnn.training import description  # a notebook alone asks for it

        return description.of_models([(model.run, model.config, model.architecture) for model in self.models])

    def decoder(self, characters: int | None = None) -> Stepping:
        """Return what computes the logs of averaged probabilities; characters: as in `TextModel.decoder`."""
        return self._completer.decoders.chosen(characters)

    def _costs(self, ids: NDArray[Any], mode: "Mode", starts: Starts, progress: Progress) -> NDArray[np.float64]:
        """As `LanguageModel._costs`, of the averaged probabilities."""
        return averaged_costs([model._costs(ids, mode, starts, progress) for model in self.models])

    def adapted(self, text: str) -> "Ensemble":
        """As `LanguageModel.adapted`: each model learns by itself."""
        return Ensemble(tuple(model.adapted(text) for model in self.models))

    def training_text(self) -> TrainingText:
        """Return what the models learned, to look for copies; raises CharRNNError where it is gone, or not one text."""
        if len({model.config.fingerprint for model in self.models}) > 1:
            raise CharRNNError("the models learned different texts", "leave --max-copy out, or give one run")
        return self.models[0].training_text()

    def clean(self, text: str) -> str:
        """As `TextModel.clean`."""
        return self.models[0].clean(text)


def _differences(one: TextModel, other: TextModel) -> list[str]:
    """List in what two models differ that would have to read the same ids."""
    found = []
    if one.tokenizer.canonical_json() != other.tokenizer.canonical_json():
        known, own = set(one.tokenizer.characters), set(other.tokenizer.characters)
        for what, characters in (("more", own - known), ("fewer", known - own)):
            if characters:
                some = " ".join(map(repr, sorted(characters)[:5])) + (" ..." if len(characters) > 5 else "")
                found.append(f"its vocabulary has {len(characters)} {what} characters: {some}")
        if one.tokenizer.normalize != other.tokenizer.normalize:
            found.append(f"normalize is {other.tokenizer.normalize}, not {one.tokenizer.normalize}")
    for name in ("document", "newline"):
        if (value := getattr(other.config, name)) != (expected := getattr(one.config, name)):
            found.append(f"{name} is {value}, not {expected}")
    return found


def ensemble(
    *models: str | Path | Run | TextModel, device: str = "auto", which: str = "best", kept: Kept = "float32"
) -> Ensemble:
    """Load several models as one: their probabilities of the next character are averaged, with equal weights.

    models: runs as `load` takes them, or models. device, which, kept: as `load`, for the runs.
    Raises CharRNNError where a run is missing or broken, and where their vocabulary, documents or line ends differ.
    """
    each = (model if isinstance(model, TextModel) else load(model, device, which, kept) for model in models)
    return Ensemble(tuple(each))


def from_torch(module: "Module", vocabulary: Tokenizer | str) -> TextModel:
    """Make a model of a torch module that has an nn.Embedding, an nn.LSTM, nn.GRU or nn.RNN, and an nn.Linear.

    module: as `TextModel.torch` gives it, or of your own with the same parts, connected in that order; direct
    connections are taken where they are one of its parts. Of a vocabulary
    of V ids the embedding has V + 1 rows, the last for the start token, and the linear part V outputs. Weights are
    copied. vocabulary: the tokenizer, or the characters of one.
    Raises CharRNNError where the module has other parts or sizes that do not fit. The model belongs to no run and knows
    no corpus.
    """
    from charrnn import engines
    from charrnn.model import torch_module

    tokenizer = Tokenizer.char(vocabulary) if isinstance(vocabulary, str) else vocabulary
    architecture, weights = torch_module.from_module(module, tokenizer.size)
    config = Config(
        corpus=(FROM_TORCH,),
        fingerprint="0" * 64,
        tokenizer=tokenizer.kind,
        normalize=tokenizer.normalize,
        cell=architecture.cell,
        cell_options=architecture.cell_options,
        hidden=architecture.hidden,
        layers=architecture.layers,
        embedding=architecture.embedding,
        residual=architecture.residual,
        engine=engines.choose(architecture.definition, "auto").name,
        **{**UNKNOWN, "direct": architecture.direct, "direct_rows": architecture.direct_rows},
    )
    return TextModel(config, tokenizer, weights)


def load(
    run: str | Path | Run = "latest", device: str = "auto", which: str = "best", kept: Kept = "float32"
) -> TextModel:
    """Load the model of a run: its name, path or 'latest'. Raises CharRNNError where there is none or it is broken.

    which: the weights that validated 'best', or the 'last' ones. kept: the dtype the matrices are kept in while
    completing text on a CPU: float32, bf16 or int8.
    Warns with DamageWarning where its newest checkpoint is damaged, and the one before it is used, and where the
    equations of its cell were changed since it was trained.
    """
    if which not in WHICH:
        raise OptionError(f"which is {which!r}", did_you_mean(which, WHICH))
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
    model: TextModel | Ensemble, file: str | None, part: "Part | None", mode: "Mode", findings: "Findings | None" = None
) -> tuple[str, "Score"]:
    """Score a loaded run on a file, or on a part of its own corpus: test, or val where there is none, by default.

    findings: what is met while reading the file is added to them.
    Returns what was scored, in words, and the score. Raises CharRNNError where that text is missing or empty, and where
    the models of an ensemble have no part in common.
    """
    what, ids, starts = text_to_score(model, file, part, findings)
    return what, model.score_ids(ids, mode, starts)


def text_to_score(
    model: TextModel | Ensemble, file: str | None, part: "Part | None", findings: "Findings | None" = None
) -> tuple[str, NDArray[Any], Starts]:
    """Return what `score_run` scores: its name in words, its ids (N,), and where documents begin in them."""
    from charrnn.text.corpus import read_part

    texts = {(each.config.fingerprint, each.config.split) for each in getattr(model, "models", ())}
    if file is None and len(texts) > 1:  # what tests one of them may have taught another
        raise CharRNNError("the runs have different texts, or split them otherwise", "give a FILE to score")
    return read_part(model.config, model.tokenizer, file, part, findings)


def train(
    *corpus: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    from_: str | Path | Run | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> TextModel:
    """Train to the end and return the best model; settings are those of `charrnn.Settings`.

    corpus: files, or the name of an embedded corpus, which is the default. name: of the run in the home folder.
    out: a folder for the run instead. from_: a run to learn on from, which sets cell, sizes and characters.
    progress: True says on stderr what the command line says, or shows it in a notebook; False is silent. None, the
    default, shows it in a notebook and is silent elsewhere.
    `charrnn.training.loop.new_run` does the same and yields events on the way.
    Raises CharRNNError, with the run saved, where the losses or weights are no longer finite.
    Ctrl-C raises KeyboardInterrupt after the step that it came in was saved; a note on it says how to go on. In a
    notebook that shows progress, interrupting returns the model so far instead, and the notebook says how to resume.
    """
    from charrnn.training import loop
    from charrnn.training.pretrained import Pretrained
    from charrnn.training.settings import Settings

    given = {**settings, **({"corpus": tuple(map(str, corpus))} if corpus else {})}
    pretrained = None
    if from_ is not None:
        pretrained = Pretrained.of(from_ if isinstance(from_, Run) else runs.find_run(str(from_)))
    asked = Settings.of(given) if pretrained is None else pretrained.settings(given)
    run = loop.open_run(asked, name, out)

    def events(stop: Callable[[], bool], prepared: "Progress") -> Generator["Event", None, None]:
        return loop.new_run(asked, run, stop, progress=prepared, pretrained=pretrained)

    return _followed(events, run, progress)


def resume(
    run: str | Path | Run = "latest",
    *,
    steps: int | None = None,
    epochs: float | None = None,
    budget: float | str | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> TextModel:
    """Go on with a run exactly where it stopped, to its end, and return the best model.

    run: its name or path, or 'latest' for the newest that was interrupted. steps, epochs: how many it shall have in
    all, which lengthens it. budget: seconds from now on, or a text such as '3m', instead. device: 'cpu' or 'cuda', to
    move it. progress, and interrupting: as in `train`.
    Raises CharRNNError where the run is complete and not lengthened, damaged, in use, diverged, or its corpus is gone.
    """
    from charrnn.training import loop
    from charrnn.training.settings import Settings

    if isinstance(run, Run):
        found = run
    elif run == "latest":
        found = runs.newest_interrupted()
    else:
        found = runs.find_run(str(run), own=True, saved=False)
    asked = {"steps": steps, "epochs": epochs, "budget": budget}
    length = Settings.of({key: value for key, value in asked.items() if value is not None})

    def events(stop: Callable[[], bool], prepared: "Progress") -> Generator["Event", None, None]:
        epochs, seconds = length.epochs, length.budget
        return loop.resume(found, length.steps, stop, None, prepared, device, epochs=epochs, budget=seconds)

    return _followed(events, found, progress)


def _followed(
    begin: "Callable[[Callable[[], bool], Progress], Generator[Event, None, None]]", run: Run, progress: bool | None
) -> TextModel:
    """Train to the end, or to an interruption, and return the best model; arguments and errors as in `train`."""
    from charrnn.reporting import following, notebook
    from charrnn.training import loop
    from charrnn.training.events import Finished, Stepped

    interruption = Interruption(raised=lambda *_: KeyboardInterrupt(), hurried=signal.default_int_handler)
    listener = following.listener(progress)
    events = begin(interruption, listener.preparing)
    with heard(interruption, [signal.SIGINT]), contextlib.closing(listener), contextlib.closing(events):
        for event in events:
            if isinstance(event, Stepped):
                interruption.can_save()
            listener.show(event)
            if isinstance(event, Finished) and event.result["diverged"] is not None:
                raise loop.diverged(run, event.result["diverged"])
    if interruption() and not isinstance(listener, notebook.TrainingPicture):
        error = KeyboardInterrupt()
        about = run.about()
        error.add_note(
            f"the run is complete; charrnn.load({run.typed!r}) gives the model"
            if about["result"]
            else f"saved after step {about['step']:,}; to go on: {command('train', '--resume', run.typed)}"
        )
        raise error
    return load(run)
