"""The shape of a character model: embedding -> L layers of one cell -> softmax head. Every weight, by name.

    embedding        (V + 1, E)   row V is that of the start token; absent with one-hot input
    layers.0.W ...   as the cell declares them, layer 0 nearest the characters
    head.W           (H, V)       absent when tied: then it is the first V rows of the embedding, transposed
    head.b           (V,)
    direct           (N R, C)     tables of R rows for the last 1..N characters; absent where N is 0

C is the number of characters: ids of bytes have no columns, unless there are no others.

The start token, id V, precedes the first character of a text. It is an input only: the embedding has a row for it, the
head has none, so it is never predicted and never drawn.

Torch-free: training, decoding and comparison all build on this one description.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charrnn import blas, cells
from charrnn.cells.cell import Cell, Param
from charrnn.cells.initialisation import Init, constant, normal, uniform, zeros
from charrnn.cells.shapes import drawn
from charrnn.errors import CharRNNError
from charrnn.model.settings import ModelSettings
from charrnn.text.utf8 import BYTES

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Architecture:
    """Sizes and options of a model; raises CharRNNError where they contradict each other.

    vocabulary: V, how many ids there are; id V is the start token. embedding: E, None for one-hot input. direct: N, the
    most last characters that have a table of direct connections; direct_rows: R, the rows of each.
    """

    cell: str
    vocabulary: int
    hidden: int
    layers: int = 1
    embedding: int | None = None
    tie: bool = False
    residual: bool = False
    cell_options: Mapping[str, int] = field(default_factory=dict)
    direct: int = 0
    direct_rows: int = 0

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary: int) -> "Architecture":
        """Give the architecture that settings and a vocabulary determine; hidden and layers must be decided."""
        assert settings.hidden is not None
        assert settings.layers is not None
        return cls(
            cell=settings.cell,
            vocabulary=vocabulary,
            hidden=settings.hidden,
            layers=settings.layers,
            embedding=settings.embedding_size,
            tie=settings.tie,
            residual=settings.residual,
            cell_options=settings.cell_options,
            direct=settings.direct or 0,
            direct_rows=settings.direct_rows or 0,
        )

    def __post_init__(self) -> None:
        if self.tie and self.embedding != self.hidden:
            raise CharRNNError(
                f"tied weights with embedding {self.embedding or 'one-hot'} and hidden {self.hidden}",
                "they share one matrix: give both the same size",
            )
        if self.direct < 0 or (self.direct and self.direct_rows < 1):
            raise CharRNNError(
                f"{self.direct} tables of direct connections, of {self.direct_rows} rows each",
                "give direct-rows of 1 or more, or direct 0",
            )
        self.shapes()  # an unknown cell or option is refused here, before any work

    @property
    def definition(self) -> Cell:
        """The cell's definition, from the registry."""
        return cells.get(self.cell)

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """The shape of each state of one row in one layer, by name."""
        return self.definition.states(self.hidden, **self.cell_options)

    @property
    def start(self) -> int:
        """The id of the start token, which is an input only: no character is drawn as it."""
        return self.vocabulary

    @property
    def remembered(self) -> int:
        """N - 1, the ids before the last that direct connections look at: a part of the state, where there are any."""
        return max(0, self.direct - 1)

    @property
    def columns(self) -> slice:
        """The ids that direct connections speak of: the characters."""
        return slice(BYTES if self.vocabulary > BYTES else 0, self.vocabulary)

    def input_size(self, layer: int) -> int:
        """Return I of a layer: E (V + 1 with one-hot input) for the first, H above."""
        if layer > 0:
            return self.hidden
        return self.vocabulary + 1 if self.embedding is None else self.embedding

    def shapes(self) -> dict[str, Param[tuple[int, ...]]]:
        """Return every weight's shape and initialisation by name, in the order in which they are stored."""
        V, H = self.vocabulary, self.hidden
        shapes: dict[str, Param[tuple[int, ...]]] = {}
        if self.embedding is not None:
            # A tied embedding is also the head, whose logits should start small.
            deviation = self.embedding**-0.5 if self.tie else 1.0
            shapes["embedding"] = Param((V + 1, self.embedding), normal(deviation))
        for layer in range(self.layers):
            declared = self.definition.shapes(self.input_size(layer), H, H, **self.cell_options)
            shapes |= {f"layers.{layer}.{name}": param for name, param in declared.items()}
        if not self.tie:
            # Wider than torch's 1 / sqrt(H): the outputs of gated cells are small at first (docs/results/starts.md).
            shapes["head.W"] = Param((H, V), uniform(3 * H**-0.5))
        shapes["head.b"] = Param((V,), zeros)
        if self.direct:
            shapes["direct"] = Param((self.direct * self.direct_rows, V - self.columns.start), zeros)
        return shapes

    def count(self) -> int:
        """Count the numbers that the weights hold."""
        return sum(math.prod(shape) for shape, _ in self.shapes().values())

    def count_network(self) -> int:
        """Count them without direct connections, of which a character needs a few rows alone."""
        return sum(math.prod(shape) for name, (shape, _) in self.shapes().items() if name != "direct")

    def count_in_words(self) -> str:
        """Say how many numbers the weights hold, and how many of them are in tables of direct connections."""
        network = self.count_network()
        tables = self.count() - network
        more = f", and {tables:,} in {self.direct} tables of the last characters" if tables else ""
        return f"{network:,} parameters{more}"

    def initial(
        self, seed: int, bound: float | None = None, head_bias: NDArray[np.float64] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Draw fresh weights, each by its own rule, or all uniform within +-bound when that is given.

        A weight depends on the seed and on its own name and shape alone: changing one leaves the others as they are.
        head_bias: what the head's bias (V,) starts at instead, as `log_shares` gives it.
        """

        def draw(name: str, shape: tuple[int, ...], init: Init) -> NDArray[np.float32]:
            rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
            what = f"parameter {name.rpartition('.')[2]} of cell {self.cell!r}"
            return drawn(what, Param(shape, init), rng).astype(np.float32)

        rule = None if bound is None else uniform(bound) if bound > 0 else constant(0)
        with blas.one_thread():  # which decomposes a matrix
            shapes = self.shapes()
            tables = shapes.pop("direct", None)
            weights = {name: draw(name, shape, rule or init) for name, (shape, init) in shapes.items()}
        if tables is not None:  # zeros by any rule, and memory that is not touched yet
            weights["direct"] = np.zeros(tables.shape, np.float32)
        return weights if head_bias is None else {**weights, "head.b": head_bias.astype(np.float32)}

    def check(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raise CharRNNError unless the weights have exactly this architecture's names and shapes."""
        self.check_shapes({name: tuple(value.shape) for name, value in weights.items()})

    def check_shapes(self, given: Mapping[str, tuple[int, ...]]) -> None:
        """Raise CharRNNError unless weights of these shapes, by name, are exactly this architecture's."""
        if found := self.differences(given):
            raise CharRNNError(
                found[0], "the weights and the configuration are of different runs: restore either from a copy"
            )

    def differences(self, given: Mapping[str, tuple[int, ...]]) -> list[str]:
        """List where weights of these shapes, by name, are not this architecture's."""
        expected = {name: shape for name, (shape, _) in self.shapes().items()}
        return [
            f"weight {name!r} has shape {given.get(name, 'none (it is missing)')}, "
            f"the configuration asks for {expected.get(name, 'no such weight')}"
            for name in dict.fromkeys([*expected, *given])
            if expected.get(name) != given.get(name)
        ]


def log_shares(counts: NDArray[np.int64], smoothing: float) -> NDArray[np.float64]:
    """Return the log of each id's share, log((count + a) / (N + a V)): what a model says that sees no context.

    counts: (V,), how often each id comes; N is their sum. smoothing: a, above 0: the share of what never came.
    """
    shares = (counts + smoothing) / (counts.sum() + smoothing * len(counts))
    logs: NDArray[np.float64] = np.log(np.maximum(shares, np.finfo(np.float64).tiny))  # the least `a` is divided away
    return logs
