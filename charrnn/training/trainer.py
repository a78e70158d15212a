"""A model in training, in memory: its weights, moments, carried state and sums, and the step that moves them on.

It knows no clock and no disk. What a step does is a pure function of (configuration, its plan, step, what is here).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn import engines
from charrnn.compiler.training.row_gradient import RowGradient
from charrnn.model.architecture import Architecture, Weights
from charrnn.model.rnn import CharRNN, Dropout, Part, Seen, State, detach
from charrnn.text.corpus import Corpus, Streams
from charrnn.training.clipping import clip_gradients
from charrnn.training.config import Config
from charrnn.training.learning_rate import learning_rate
from charrnn.training.optimizers import Optimizer
from charrnn.training.ranks import Order, Ranks
from charrnn.training.start import initial_weights
from charrnn.training.tensor_files import Tensors

HALF = 12  # bits of a row's number that are sent apart from the others


class Graphed(Protocol):
    """Takes the steps of a trainer on a GPU, most of them as one piece of work."""

    def advance(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], rate: float) -> Tensor:
        """Take a step of the trainer on a window (T, B). Returns the loss, nats per id, on the device."""


class Trainer:
    """The state of training: weights, moments, carried state, running sums, and how far it is.

    config: its plan may be replaced while training goes on. sum_nats, sum_characters: of the training text since the
    sums were last forgotten; sum_nats is on the device. ranks: the processes that train together, None where this one
    trains alone. Then `state` is that of the rows of this rank, and whatever rank 0 does the others have to follow.
    """

    def __init__(
        self, config: Config, corpus: Corpus, weights: Weights | None = None, ranks: Ranks | None = None
    ) -> None:
        """Begin at step 0. weights: to start from; those of the configuration's seed when None.

        Raises CharRNNError where there are more ranks than rows.
        """
        self.config, self.corpus, self.ranks = config, corpus, ranks
        self.architecture = Architecture.of(config, corpus.tokenizer.size)
        self.device = torch.device(config.device)
        weights = initial_weights(config, corpus) if weights is None else weights
        engine = engines.choose(self.architecture.definition, config.engine, config.device)
        self.model = CharRNN(self.architecture, weights, engine, Dropout.of(config)).to(self.device)
        # On a GPU alone a step is recorded: there the gradient of tables is one like all others.
        self.model.keeps_read = self.device.type == "cpu" or ranks is not None
        self._in_text = torch.from_numpy(corpus.counts("train") > 0).to(self.device)
        self.seen: Seen | None = None
        self.seen = self._seen()
        self.optimizer = Optimizer(config, self.model.weights)
        ids, starts = corpus.ids("train"), corpus.starts["train"]
        self.streams = Streams(ids, config.batch, config.window, self.architecture.start, starts)
        if ranks is not None:
            ranks.refuse_too_many(self.streams.batch)
        self.rows = slice(0, self.streams.batch) if ranks is None else ranks.rows(self.streams.batch)
        self.step = 0
        self.characters = 0
        self.state: State = self._start()
        self.forget_sums()
        self.graphed: Graphed | None = None
        if self.device.type == "cuda" and ranks is None:
            from charrnn.training.graphed import GraphedSteps  # only a GPU needs it

            self.graphed = GraphedSteps(self)

    @property
    def steps(self) -> int | None:
        """The length of the run as planned now."""
        return self.config.steps_in_all

    def update(self) -> Tensor:
        """Take one step of truncated back-propagation through time. Returns the loss, nats per id, on the device."""
        rate = self.rate(self.step)
        if self.ranks is not None:
            self.ranks.tell(Order.STEP, self.step, rate)
        return self.advance(rate)

    def advance(self, rate: float, wish: bool = False) -> Tensor:
        """Take one step at a learning rate, as `update` does; with other ranks, all do so at once.

        wish: whether rank 0 shall know that this rank was asked to end.
        """
        inputs, targets, begins = self.streams.at(self.step)
        if begins:
            self.state = self._start()
        characters, count = self.corpus.tokenizer.characters_in(targets.ravel()), targets.size
        if self.graphed is not None:
            loss = self.graphed.advance(inputs, targets, rate)
        else:
            loss = self._advance(inputs, targets, rate, wish)
        self.step += 1
        self.characters += characters
        nats = loss.detach()
        self.sum_nats += (nats.cpu() if self.device.type == "mps" else nats).double() * count
        self.sum_characters += characters
        return loss.detach()

    def _advance(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], rate: float, wish: bool) -> Tensor:
        """Take a step as it is written, an operation after the other. Returns the loss of all rows."""
        count = targets.size
        if self.ranks is not None:
            inputs, targets = (np.ascontiguousarray(each[:, self.rows]) for each in (inputs, targets))
        ids, wanted = (torch.from_numpy(each).to(self.device) for each in (inputs, targets))
        seed = self.dropout_seed()
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        loss, state = self.loss(ids, wanted, self.state, generator, self.streams.cuts(inputs))
        self.state = detach(state)  # truncate: gradients stop at the window
        self.optimizer.forget_gradients()
        if self.ranks is not None:
            loss = loss * (targets.size / count)  # so that the sum over ranks is the mean over all rows
        torch.autograd.backward(loss)
        tables = self.model.row_gradient()
        if self.ranks is not None:
            loss, tables = self._sum(loss, tables, self.ranks, wish)
        clip_gradients(self.config, self.model.weights)
        self.optimizer.update(rate, tables)
        return loss

    def loss(
        self, ids: Tensor, targets: Tensor, state: State, generator: torch.Generator | None, cuts: Sequence[int] = ()
    ) -> tuple[Tensor, State]:
        """Return the mean loss of a window in nats per id, under autograd, and the state after it.

        ids, targets: (T, B) on the device. generator: of dropout masks. cuts: where rows begin anew.
        """
        with self.rounding():
            logits, after = self.model(ids, state, generator, cuts, self._part(), self.seen)
        wanted = targets if self.seen is None else self.seen.place[targets]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten()), after

    def rounding(self) -> torch.autocast:
        """Return the context in which the model's products are of the precision that it is trained in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, 0 the first."""
        return learning_rate(self.config, step, self.streams.steps_per_epoch)

    def weights(self) -> Tensors:
        """Copy the weights to the CPU."""
        return {name: w.detach().to("cpu", copy=True).numpy() for name, w in self.model.weights.items()}

    def take(self, weights: Tensors) -> None:
        """Replace the weights by others of the same shapes."""
        with torch.no_grad():
            for name, weight in self.model.weights.items():
                weight.copy_(torch.from_numpy(weights[name]))
        self.seen = self._seen()

    def is_finite(self) -> bool:
        """Tell whether the losses since the sums were forgotten and all weights are finite."""
        return math.isfinite(float(self.sum_nats)) and all(map(_is_finite, self.model.weights.values()))

    def train_nats(self) -> float:
        """Return the mean loss since the sums were forgotten, nats per character; NaN before a step."""
        return float(self.sum_nats) / self.sum_characters if self.sum_characters else math.nan

    def forget_sums(self) -> None:
        """Begin the running sums behind `train_nats` anew."""
        device = "cpu" if self.device.type == "mps" else self.device  # which has no float64
        self.sum_nats = torch.zeros((), dtype=torch.float64, device=device)
        self.sum_characters = 0

    # Among ranks

    def whole_state(self) -> State:
        """Return the carried state of all rows: with other ranks, rank 0 asks them for theirs."""
        if self.ranks is not None and self._carried:
            self.ranks.tell(Order.GATHER)
        return self.gathered_state()

    def gathered_state(self) -> State:
        """Return on rank 0 the carried state of all rows; others send that of theirs."""
        if self.ranks is None or not self._carried:
            return self.state
        return self._apart(self.ranks.gathered_rows(_side_by_side(self.state).cpu(), self.streams.batch))

    def hand_out(self, state: State | None = None) -> None:
        """Give weights, moments and step of rank 0 to all, which changes nothing where they are alike.

        state: the carried state of all rows, of which each rank takes its own; None: all keep what they have.
        """
        if self.ranks is None:
            self.state = self.state if state is None else state
            return
        parts = bool(self.optimizer.moments) + 2 * (state is not None)
        self.ranks.tell(Order.TAKE, self.step, parts)
        self.take_over(self.step, parts, state)

    def take_over(self, step: int, parts: int, state: State | None = None) -> None:
        """Become what rank 0 is. parts: 1 with moments, 2 with state, 3 with both. state: of all rows, on rank 0."""
        assert self.ranks is not None
        self.step = step
        if parts & 1:
            self.optimizer.begin()
        moments = self.optimizer.moments if parts & 1 else {}
        held = [*self.model.weights.values(), *(moments[name] for name in sorted(moments))]
        flat = torch.cat([each.detach().flatten().cpu() for each in held])
        self.ranks.broadcast(flat)
        if not self.ranks.leads:
            with torch.no_grad():
                for each, values in zip(held, torch.split(flat, [each.numel() for each in held]), strict=True):
                    each.copy_(values.view(each.shape))
            self.seen = self._seen()
        if parts & 2 and self._carried:
            whole = torch.empty(self.streams.batch, self._carried) if state is None else _side_by_side(state).cpu()
            self.ranks.broadcast(whole)
            self.state = self._apart(whole[self.rows])

    def _sum(
        self, loss: Tensor, tables: RowGradient | None, ranks: Ranks, wish: bool
    ) -> tuple[Tensor, RowGradient | None]:
        """Replace the gradients by their sum over the ranks, in one message.

        tables: the gradient of direct connections. Returns the sum of the losses, and that gradient of all ranks.
        """
        found = [w for w in self.model.weights.values() if w.grad is not None]
        read = loss.new_empty(0) if tables is None else self._of_all(tables)
        more = torch.stack([loss.detach(), torch.full_like(loss, float(wish))])
        flat = torch.cat([*(w.grad.flatten() for w in found if w.grad is not None), read.flatten(), more])
        ranks.sum(flat)
        *parts, whole, _ = torch.split(flat, [*(w.numel() for w in found), read.numel(), 2])
        for w, gradient in zip(found, parts, strict=True):
            w.grad = gradient.view(w.shape)
        ranks.wished = ranks.wished or bool(flat[-1] > 0)
        return flat[-2].clone(), None if tables is None else self._taken_apart(whole.view(read.shape))

    def _of_all(self, own: RowGradient) -> Tensor:
        """Return room for what all ranks read of direct connections, with what this one did: (T, B, C + 3 N).

        Of each character: the gradient at the logits, the rows in two parts, which float32 has exactly, and their
        shares. It is a small part of the weight, whose gradient every rank makes of it.
        """
        rows = own.rows.permute(1, 2, 0)
        shares = torch.ones_like(rows[0]) if own.shares is None else own.shares.t()
        parts = (own.of_sum, rows >> HALF, rows % (1 << HALF), shares.expand(rows.shape))
        numbers = torch.cat([each.float() for each in parts], dim=-1)
        whole = torch.zeros(len(rows), self.streams.batch, numbers.shape[-1], device=self.device)
        whole[:, self.rows] = numbers
        return whole

    def _taken_apart(self, whole: Tensor) -> RowGradient:
        """Return what all ranks read, as `_of_all` has it."""
        N = self.architecture.direct
        of_sum, *parts = torch.split(whole, [whole.shape[-1] - 3 * N, N, N, N], dim=-1)
        high, low, shares = (each.permute(2, 0, 1) for each in parts)
        return RowGradient((high.long() << HALF) + low.long(), shares[:, 0], of_sum.contiguous())

    @property
    def _carried(self) -> int:
        """Return how many numbers of each row are carried from window to window."""
        return sum(self._sizes) + self.architecture.remembered

    @property
    def _sizes(self) -> list[int]:
        """Return how many numbers each row has in every state of every layer, in the order of the carried state."""
        return [math.prod(shape) for shape in self.architecture.states.values()] * self.architecture.layers

    def _start(self) -> State:
        return self.model.start(self.rows.stop - self.rows.start)

    def _apart(self, columns: Tensor) -> State:
        """Take a carried state (rows, N) apart that `_side_by_side` put together."""
        shapes, remembered = self.architecture.states.values(), self.architecture.remembered
        *parts, ids = torch.split(columns.to(self.device), [*self._sizes, remembered], dim=1)
        held = iter(parts)
        layers = tuple(
            tuple(next(held).reshape(-1, *shape).contiguous() for shape in shapes)
            for _ in range(self.architecture.layers)
        )
        return (*layers, (ids.long(),)) if remembered else layers

    def _seen(self) -> Seen | None:
        """Return the ids that are learned, where others are not: those of the text, and those that have weights."""
        if self.config.unseen != "fixed":
            return None
        learned = self._in_text | (self.model.weights["head.W"] != 0).any(dim=0)
        if bool(learned.all()):
            return None
        seen, before = Seen.among(learned, self.architecture.columns), self.seen
        # What was recorded for a GPU reads the tensors that there were then.
        return before if before is not None and torch.equal(before.place, seen.place) else seen

    def _part(self) -> Part | None:
        return None if self.ranks is None else Part(self.rows, self.streams.batch)

    def dropout_seed(self) -> int | None:
        """Return what this step's dropout masks begin with: a pure function of the seed and the step."""
        if not self.config.drops:
            return None
        digest = hashlib.sha256(f"dropout {self.config.seed} {self.step}".encode()).digest()
        return int.from_bytes(digest[:7], "big")


def _is_finite(w: Tensor) -> bool:
    """Tell whether all numbers are finite: where their sum is, they are, and a sum is soon made."""
    return math.isfinite(float(w.detach().sum())) or bool(w.isfinite().all())


def _side_by_side(state: State) -> Tensor:
    """Put a carried state together in one tensor (rows, N), to be sent at once; ids become numbers as good."""
    return torch.cat([each.float().flatten(1) for layer in state for each in layer], dim=1)
