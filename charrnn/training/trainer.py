"""A model in training, in memory: its weights, moments, carried state and sums, and the step that moves them on.

It knows no clock and no disk. What a step does is a pure function of (configuration, its plan, step, what is here).
"""

import hashlib
import math

import torch
from torch import Tensor

from charrnn.model.architecture import Architecture, Weights
from charrnn.model.rnn import CharRNN, State, detach
from charrnn.text.corpus import Corpus, Streams
from charrnn.training.clipping import clip_gradients
from charrnn.training.config import Config
from charrnn.training.learning_rate import learning_rate
from charrnn.training.optimizers import Optimizer
from charrnn.training.start import initial_weights
from charrnn.training.tensor_files import Tensors


class Trainer:
    """The state of training: weights, moments, carried state, running sums, and how far it is.

    config: its plan may be replaced while training goes on. sum_nats, sum_characters: of the training text since the
    sums were last forgotten; sum_nats is on the device.
    """

    def __init__(self, config: Config, corpus: Corpus, weights: Weights | None = None) -> None:
        """Begin at step 0. weights: to start from; those of the configuration's seed when None."""
        self.config, self.corpus = config, corpus
        self.architecture = Architecture.of(config, corpus.tokenizer.size)
        self.device = torch.device(config.device)
        weights = initial_weights(config, corpus) if weights is None else weights
        self.model = CharRNN(self.architecture, weights, config.engine, config.dropout).to(self.device)
        self.optimizer = Optimizer(config, self.model.weights)
        ids, starts = corpus.ids("train"), corpus.starts["train"]
        self.streams = Streams(ids, config.batch, config.window, self.architecture.start, starts)
        self.step = 0
        self.characters = 0
        self.state: State = self.model.start(self.streams.batch)
        self.forget_sums()

    @property
    def steps(self) -> int | None:
        """The length of the run as planned now."""
        return self.config.steps_in_all

    def update(self) -> Tensor:
        """Take one step of truncated back-propagation through time. Returns the loss, nats per id, on the device."""
        inputs, targets, begins = self.streams.at(self.step)
        if begins:
            self.state = self.model.start(self.streams.batch)
        characters = self.corpus.tokenizer.characters_in(targets.ravel())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            ids = torch.from_numpy(inputs).to(self.device)
            logits, state = self.model(ids, self.state, self._dropout(), self.streams.cuts(inputs))
        self.state = detach(state)  # truncate: gradients stop at the window
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), torch.from_numpy(targets).to(self.device).flatten()
        )
        self.optimizer.forget_gradients()
        torch.autograd.backward(loss)
        clip_gradients(self.config, self.model.weights)
        self.optimizer.update(self.rate(self.step))
        self.step += 1
        self.characters += characters
        self.sum_nats += loss.detach().double() * targets.size
        self.sum_characters += characters
        return loss.detach()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, 0 the first."""
        return learning_rate(self.config, step, self.streams.steps_per_epoch)

    def weights(self) -> Tensors:
        """Copy the weights to the CPU."""
        return {name: w.detach().cpu().numpy().copy() for name, w in self.model.weights.items()}

    def take(self, weights: Tensors) -> None:
        """Replace the weights by others of the same shapes."""
        with torch.no_grad():
            for name, weight in self.model.weights.items():
                weight.copy_(torch.from_numpy(weights[name]))

    def is_finite(self) -> bool:
        """Tell whether the losses since the sums were forgotten and all weights are finite."""
        finite = math.isfinite(float(self.sum_nats))
        return finite and all(bool(w.isfinite().all()) for w in self.model.weights.values())

    def train_nats(self) -> float:
        """Return the mean loss since the sums were forgotten, nats per character; NaN before a step."""
        return float(self.sum_nats) / self.sum_characters if self.sum_characters else math.nan

    def forget_sums(self) -> None:
        """Begin the running sums behind `train_nats` anew."""
        self.sum_nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self.sum_characters = 0

    def _dropout(self) -> torch.Generator | None:
        """Return the source of this step's dropout masks: a pure function of the seed and the step."""
        if self.config.dropout == 0:
            return None
        digest = hashlib.sha256(f"dropout {self.config.seed} {self.step}".encode()).digest()
        return torch.Generator(self.device).manual_seed(int.from_bytes(digest[:7], "big"))
