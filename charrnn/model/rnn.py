"""CharRNN: embedding -> L layers of one cell -> softmax head. The state goes in and comes out; the module keeps none.

Letters: T time steps, B rows, V vocabulary, E embedding, H hidden, L layers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn import engines
from charrnn.compiler.trace import state_matrices
from charrnn.compiler.training.row_gradient import RowGradient
from charrnn.engines import Engine
from charrnn.engines.sequence import Looked, run_documents
from charrnn.model import direct
from charrnn.model.architecture import Architecture
from charrnn.model.settings import ModelSettings
from charrnn.text import contexts

# Per layer, bottom first, the cell's states, (B, H) or as it declares them; then, where direct connections look at more
# than one id, those before the next one: (B, N - 1), int64.
State = tuple[tuple[Tensor, ...], ...]


class Part(NamedTuple):
    """Rows of a larger batch: dropout masks are those that they have in it. batch: B of all of it."""

    rows: slice
    batch: int


class Dropout(NamedTuple):
    """What is dropped while training: shares of each layer's outputs, of the weights between states, and of tables.

    per_window: whether a feature that is dropped is missing in all of a window (variational dropout: Gal and
    Ghahramani, 2016), and not at every character anew. weights: DropConnect, one mask for a window (Merity et al.,
    2018). tables: of direct connections, each as a whole in all of a row's window.
    """

    outputs: float = 0.0
    per_window: bool = True
    weights: float = 0.0
    tables: float = 0.0

    @classmethod
    def of(cls, config: ModelSettings) -> "Dropout":
        """Take it from settings in which it is decided."""
        tables = config.direct_dropout if config.direct else 0.0
        return cls(config.dropout or 0.0, config.dropout_per == "window", config.weight_dropout or 0.0, tables or 0.0)


NOTHING = Dropout()
LANES = 4  # numbers of 16 bits in one of 64


class Seen(NamedTuple):
    """The ids that a training text has: only these are looked up and learned, which is quicker than all.

    ids: (S,), rising. others: (V - S,). place: (V + 1,), where each id stands among `ids`; S for the start token and
    for all others. columns: (S - first,), those of direct connections that are theirs; first: the first of `ids` that
    has one.
    """

    ids: Tensor
    others: Tensor
    place: Tensor
    columns: Tensor
    first: int

    @classmethod
    def among(cls, seen: Tensor, columns: slice) -> "Seen":
        """Make it of which ids (V,) are seen, as truth values. columns: the ids that direct connections speak of."""
        ids, others = (which.nonzero().flatten() for which in (seen, ~seen))
        place = torch.full((len(seen) + 1,), len(ids), device=seen.device)
        place[ids] = torch.arange(len(ids), device=seen.device)
        of_table = ids[ids >= columns.start] - columns.start
        return cls(ids, others, place, of_table, len(ids) - len(of_table))


class CharRNN(nn.Module):
    """A character model under autograd. Weights are named as `Architecture.shapes` names them."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, NDArray[np.float32]],
        engine: str | Engine = "auto",
        dropout: Dropout = NOTHING,
    ) -> None:
        """Copy `weights` (checked against the architecture) into parameters; engine: see `charrnn.engines`."""
        super().__init__()
        architecture.check(weights)
        self.architecture, self.dropout = architecture, dropout
        self.cell = architecture.definition
        self._dropped = state_matrices(self.cell, architecture.cell_options) if dropout.weights else frozenset()
        # Whether tables get no gradient; `row_gradient` says then what it would be.
        self.keeps_read = False
        self._read: RowGradient | None = None
        self.engine = engine if isinstance(engine, Engine) else engines.choose(self.cell, engine)
        # A parameter's name must not hold a dot in torch; ours do, so they are kept in a plain dictionary beside. Its
        # order is one, whatever file they came from: sums over all weights depend on it in the last bit.
        self.weights = {name: nn.Parameter(torch.tensor(weights[name])) for name in architecture.shapes()}
        for name, parameter in self.weights.items():
            self.register_parameter(name.replace(".", "/"), parameter)
        if architecture.embedding is None:
            self.register_buffer("one_hot", torch.eye(architecture.vocabulary + 1), persistent=False)
            self.one_hot: Tensor

    def start(self, B: int) -> State:
        """Return the state of B rows before any character."""
        like, shape = self.weights["head.b"], (B, self.architecture.hidden)
        layers = tuple(
            tuple(torch.tensor(s).to(like) for s in self.cell.start(shape, **self.architecture.cell_options))
            for _ in range(self.architecture.layers)
        )
        if not self.architecture.remembered:
            return layers
        start = torch.full((B, self.architecture.remembered), self.architecture.start, device=like.device)
        return (*layers, (start,))

    def forward(
        self,
        ids: Tensor,
        state: State,
        generator: torch.Generator | None = None,
        cuts: Sequence[int] = (),
        part: Part | None = None,
        seen: Seen | None = None,
    ) -> tuple[Tensor, State]:
        """Read T characters in every row.

        ids: (T, B) int64, V for the start token. state: as from `start(B)` or an earlier call, not modified. generator:
        source of the dropout masks, one per window; without it nothing is dropped. cuts: the time steps, rising, at
        which some row has the start token inside its text: there that row begins anew. part: of which batch these rows
        are a part; they are all of it when None. seen: there are no others in `ids`, but the start token.
        Returns logits (T, B, V) in nats, float32 or wider, and the state after the last character. With `seen` they are
        (T, B, S + 1): of these ids, and the last one of all others together, by their bias alone.
        """
        x: Tensor | Looked = (self._table(), ids) if seen is None else self._looked(ids, seen)
        layers = [self._pack(i, generator) for i in range(self.architecture.layers)]
        state, remembered = self._apart(state, ids)
        untouched = not cuts and not self.architecture.residual and (generator is None or self.dropout.outputs == 0)
        if ids.is_cuda and untouched:  # a GPU has several layers at work at once
            at_once = self.engine.run_layers(self.cell, x, state, layers)
            if at_once is not None:
                tables, after_all = self._tables(ids, remembered, generator, part)
                return self._logits(at_once[0], tables, seen), (*at_once[1], *after_all)
        last = []
        for i in range(self.architecture.layers):
            if cuts:
                begins = ids == self.architecture.start
                y, after = run_documents(self.engine, self.cell, x, state[i], layers[i], cuts, begins)
            else:
                y, after = self.engine.run(self.cell, x, state[i], layers[i])
            last.append(after)
            if self.architecture.residual and isinstance(x, Tensor):
                y = y + x
            x = self._drop(y, generator, part)
        assert isinstance(x, Tensor)
        tables, after_all = self._tables(ids, remembered, generator, part)
        return self._logits(x, tables, seen), (*last, *after_all)

    def row_gradient(self) -> RowGradient | None:
        """Return the gradient of direct connections after a way back, once, where they get none; None without any."""
        read, self._read = self._read, None
        if read is None:
            return None
        assert read.of_sum.grad is not None
        return read._replace(of_sum=read.of_sum.grad)

    def _apart(self, state: State, ids: Tensor) -> tuple[State, Tensor]:
        """Return the layers of a state, and the ids before the next one, (B, N - 1)."""
        layers, more = state[: self.architecture.layers], state[self.architecture.layers :]
        return layers, more[0][0] if more else ids.new_empty(ids.shape[1], 0)

    def _tables(
        self, ids: Tensor, before: Tensor, generator: torch.Generator | None, part: Part | None
    ) -> tuple[Tensor | None, State]:
        """Return what direct connections say (T, B, C), None without any, and what the state has of them after."""
        if not self.architecture.direct:
            return None, ()
        from charrnn.compiler.training import tables  # models without any need none of it

        table, start, R = self.weights["direct"], self.architecture.start, self.architecture.direct_rows
        N, B, shares = self.architecture.direct, ids.shape[1], None
        if generator is not None and self.dropout.tables:
            shares = _mask(table, (N, B if part is None else part.batch), self.dropout.tables, generator)
            shares = shares if part is None else shares[:, part.rows]
        learns = torch.is_grad_enabled() and table.requires_grad
        if learns and not self.keeps_read:
            rows = contexts.rows_of_window(ids, before, start, R, torch)
            # A window reads few rows, so their gradient is sparse; a GPU passes over all of them as fast.
            summed = direct.summed(table, rows, shares, sparse=table.device.type == "cpu")
        else:
            rows, summed = tables.look_up(table, ids, before, shares, start, R)
            if learns:
                self._read = RowGradient(rows, shares, summed.requires_grad_())
        after = contexts.after_window(ids, before, torch).contiguous()
        return summed, ((after,),) if self.architecture.remembered else ()

    def _looked(self, ids: Tensor, seen: Seen) -> Looked:
        """Return the rows of the table that are seen, the start token's last, and which of them is read where."""
        start = seen.ids.new_full((1,), self.architecture.start)
        return self._table()[torch.cat([seen.ids, start])], seen.place[ids]

    def _logits(self, x: Tensor, tables: Tensor | None, seen: Seen | None) -> Tensor:
        head, bias = self._head(), self.weights["head.b"]
        if seen is None:
            logits = x @ head + bias
            if tables is not None:
                logits[..., self.architecture.columns] += tables
            return logits
        logits = x @ head[:, seen.ids] + bias[seen.ids]
        if tables is not None:
            all_seen = len(seen.columns) == tables.shape[-1]
            logits[..., seen.first :] += tables if all_seen else tables[..., seen.columns]
        rest = bias.detach()[seen.others].logsumexp(0).to(logits)
        return torch.cat([logits, rest.expand(*logits.shape[:-1], 1)], dim=-1)

    def _table(self) -> Tensor:
        """Return what the first layer reads for each id: (V + 1, E), or (V + 1, V + 1) with one-hot input."""
        return self.one_hot if self.architecture.embedding is None else self.weights["embedding"]

    def _head(self) -> Tensor:
        return self.weights["embedding"][:-1].t() if self.architecture.tie else self.weights["head.W"]

    def _pack(self, layer: int, generator: torch.Generator | None) -> object:
        weights: list[Tensor] = []
        for name in self.cell.parameter_names:
            weight: Tensor = self.weights[f"layers.{layer}.{name}"]
            if generator is not None and name in self._dropped:
                weight = weight * _mask(weight, weight.shape, self.dropout.weights, generator)
            weights.append(weight)
        return self.cell.pack(weights)

    def _drop(self, y: Tensor, generator: torch.Generator | None, part: Part | None) -> Tensor:
        if generator is None or self.dropout.outputs == 0:
            return y
        T, B, H = y.shape
        shape = (1 if self.dropout.per_window else T, B if part is None else part.batch, H)
        draw = _mask if self.dropout.per_window else _mask_as_ever
        mask = draw(y, shape, self.dropout.outputs, generator)
        return y * (mask if part is None else mask[:, part.rows])


def _mask(like: Tensor, shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Draw what numbers are multiplied by: 0 for a share of them, and for the others what keeps their mean."""
    if like.device.type != "cpu":
        return _mask_as_ever(like, shape, share, generator)
    # A CPU draws a number of 64 bits as fast as one decision, and it decides four times.
    keep, count = 1 - share, math.prod(shape)
    kept = min(round(keep * 2**16), 2**16 - 1)  # of 2^16 numbers: all of them would be no number of 16 bits
    words = torch.empty(-(-count // LANES), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    drawn = words.view(torch.int16)[:count].view(shape)
    return (drawn < kept - 2**15).to(like.dtype).mul_(1 / keep)


def _mask_as_ever(like: Tensor, shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Draw the same by torch, as runs of older formats have it: they go on to the end that they would have had."""
    keep = 1 - share
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep, generator=generator).div_(keep)


def detach(state: State) -> State:
    """Cut a state from the graph: gradients stop at the window."""
    return tuple(tuple(s.detach() for s in layer) for layer in state)
