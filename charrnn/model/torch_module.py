"""A character model as a plain torch module, and the parts of such a module: embedding, recurrent layers, linear head.

embedding.weight    (V + 1, E)   row V is that of the start token; with one-hot input the unit matrix, frozen
rnn.weight_ih_l0 ...             torch's own nn.RNN, nn.LSTM or nn.GRU, where one is the twin of the cell
rnn.layers.0.W ...               else the parameters of the cell, whose equations are run
head.weight         (V, H)       a copy of the embedding where they were tied
head.bias           (V,)
direct.weight       (N R, C)     tables of the last 1..N characters, where the model has direct connections
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn import cells
from charrnn.cells.cell import Cell
from charrnn.engines import loop
from charrnn.errors import CharRNNError
from charrnn.model import torch_layers
from charrnn.model.architecture import Architecture, Weights
from charrnn.text import contexts

M = TypeVar("M", bound=nn.Module)


class CellLayers(nn.Module):
    """Layers of one cell, run by its equations: for cells that no torch layer computes, and for residual layers."""

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        """Copy the weights of the layers."""
        super().__init__()
        self.architecture = architecture
        names = architecture.definition.parameter_names
        layers = ({name: torch.tensor(weights[f"layers.{i}.{name}"]) for name in names} for i in range(len(self)))
        self.layers = nn.ModuleList(nn.ParameterDict(parameters) for parameters in layers)

    def __len__(self) -> int:
        return self.architecture.layers

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run over a sequence x (T, B, I). state: per layer the cell's states, as (B, H); None: the start of a text.

        Returns the output (T, B, H) and the state after it.
        """
        cell = self.architecture.definition
        shape, options = (x.shape[1], self.architecture.hidden), self.architecture.cell_options
        start = tuple(torch.tensor(s).to(x) for s in cell.start(shape, **options))
        state = (start,) * len(self) if state is None else state
        after = []
        for i, parameters in enumerate(self.layers):
            assert isinstance(parameters, nn.ParameterDict)
            p = cell.pack([parameters[name] for name in cell.parameter_names])
            y, last = loop.run(cell, x, state[i], p)
            after.append(last)
            x = y + x if self.architecture.residual and i > 0 else y
        return x, tuple(after)


class DirectConnections(nn.Module):
    """Tables of rows that a hash of the last 1..N ids chooses: what these ids by themselves say of the next one."""

    def __init__(self, architecture: Architecture, weight: Tensor) -> None:
        """Take the weight (N R, C) of all tables. architecture: says what N and R are, and which ids have columns."""
        super().__init__()
        self.architecture, self.weight = architecture, nn.Parameter(weight)

    def forward(self, ids: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what is to be added to the logits of the characters, (T, B, C), and the ids before the next one.

        ids: (T, B). before: the last N - 1 ids before them, (B, N - 1), the newest last; None: the start of a text.
        """
        start, R = self.architecture.start, self.architecture.direct_rows
        if before is None:
            before = ids.new_full((ids.shape[1], self.architecture.remembered), start)
        rows = contexts.rows_of_window(ids, before, start, R, torch)
        return nn.functional.embedding(rows, self.weight).sum(dim=0), contexts.after_window(ids, before, torch)


class TorchModel(nn.Module):
    """A character model of three torch modules. embedding: V + 1 rows. rnn: what runs over time. head: V outputs.

    direct: tables of the last characters, whose rows are added to what the head gives; None without any.
    """

    def __init__(
        self, embedding: nn.Embedding, rnn: nn.Module, head: nn.Linear, direct: DirectConnections | None = None
    ) -> None:
        """Hold the modules."""
        super().__init__()
        self.embedding, self.rnn, self.head, self.direct = embedding, rnn, head, direct

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Read T characters in every row.

        ids: (T, B), V for the start token, which precedes a text. state: as it was returned; None before a text.
        Returns logits (T, B, V) in nats, and the state after the last character in the form of `rnn`; with direct
        connections that state and the last N - 1 ids, (B, N - 1).
        """
        if self.direct is None:
            y, state = self.rnn(self.embedding(ids), state)
            return self.head(y), state
        of_rnn, before = (None, None) if state is None else state
        y, of_rnn = self.rnn(self.embedding(ids), of_rnn)
        said, before = self.direct(ids, before)
        logits = self.head(y)
        logits[..., self.direct.architecture.columns] += said
        return logits, (of_rnn, before)


def to_module(architecture: Architecture, weights: Weights) -> TorchModel:
    """Make the torch module that computes the same as a model. Its weights are copies, and train."""
    cell, V = architecture.definition, architecture.vocabulary
    table = torch.tensor(weights["embedding"]) if "embedding" in weights else torch.eye(V + 1)
    rnn: nn.Module
    if cell.twin is None or architecture.residual:
        rnn = CellLayers(architecture, weights)
    else:
        names = cell.parameter_names
        layers = [
            {name: torch.tensor(weights[f"layers.{i}.{name}"]) for name in names} for i in range(architecture.layers)
        ]
        rnn = torch_layers.to_torch(cell, layers)
    head = nn.Linear(architecture.hidden, V)
    with torch.no_grad():
        head.weight.copy_(table[:-1] if architecture.tie else torch.tensor(weights["head.W"]).T)
        head.bias.copy_(torch.tensor(weights["head.b"]))
    embedding = nn.Embedding(*table.shape)
    embedding.weight = nn.Parameter(table, requires_grad="embedding" in weights)
    tables = DirectConnections(architecture, torch.tensor(weights["direct"])) if architecture.direct else None
    return TorchModel(embedding, rnn, head, tables)


def from_module(module: nn.Module, vocabulary: int) -> tuple[Architecture, dict[str, NDArray[np.float32]]]:
    """Copy the weights of a module that has one nn.Embedding, one recurrent stack and one nn.Linear, and no other ones.

    It may have the direct connections of a `TorchModel` beside them. vocabulary: V. Raises CharRNNError where it has
    something else, or sizes that do not fit.
    """
    embedding, head = _only(module, nn.Embedding), _only(module, nn.Linear)
    own = [each for each in module.modules() if isinstance(each, CellLayers)]
    rnn = own[0] if len(own) == 1 else _only(module, nn.RNNBase)
    tables = [each for each in module.modules() if isinstance(each, DirectConnections)]
    if len(tables) > 1:
        raise CharRNNError(f"the module has {len(tables)} parts with direct connections, expected 1 at most", PARTS)
    if tables and tables[0].architecture.vocabulary != vocabulary:
        raise CharRNNError(
            f"the direct connections are of a vocabulary of {tables[0].architecture.vocabulary} ids, not {vocabulary}",
            "make them for the vocabulary of the other parts",
        )
    known = {id(p) for part in (embedding, rnn, head, *tables) for p in part.parameters()}
    if others := [name for name, p in module.named_parameters() if id(p) not in known]:
        raise CharRNNError(f"the module has parameters beside its three parts: {', '.join(others[:3])}", PARTS)
    if embedding.max_norm is not None or getattr(rnn, "nonlinearity", "tanh") != "tanh":
        raise CharRNNError("the module bounds the norm of its embedding, or has a relu", "leave out that option")
    rows, outputs = embedding.num_embeddings, head.out_features
    if (rows, outputs) != (vocabulary + 1, vocabulary):
        raise CharRNNError(
            f"the embedding has {rows} rows and the head {outputs} outputs, of a vocabulary of {vocabulary} ids",
            f"give them {vocabulary + 1}, of which the last is the start token's, and {vocabulary}",
        )
    if isinstance(rnn, CellLayers):
        cell, hidden, count = rnn.architecture.definition, rnn.architecture.hidden, rnn.architecture.layers
        residual, options = rnn.architecture.residual, rnn.architecture.cell_options
        layers: list[Mapping[str, Tensor]] = [dict(parameters.items()) for parameters in rnn.layers]  # type: ignore[operator]
    else:
        cell, hidden, count, residual, options = _cell_of(rnn), rnn.hidden_size, rnn.num_layers, False, {}
        layers = list(torch_layers.from_torch(cell, rnn))
    architecture = Architecture(
        cell.name,
        vocabulary,
        hidden,
        count,
        embedding.embedding_dim,
        residual=residual,
        cell_options=options,
        direct=tables[0].architecture.direct if tables else 0,
        direct_rows=tables[0].architecture.direct_rows if tables else 0,
    )
    weights = {
        "embedding": embedding.weight,
        **{f"layers.{i}.{name}": value for i, layer in enumerate(layers) for name, value in layer.items()},
        "head.W": head.weight.T,
        "head.b": torch.zeros(vocabulary) if head.bias is None else head.bias,
    }
    if tables:
        weights["direct"] = tables[0].weight
    arrays = {name: np.array(value.detach().cpu().float().numpy(), order="C") for name, value in weights.items()}
    if differences := architecture.differences({name: value.shape for name, value in arrays.items()}):
        raise CharRNNError(
            f"the sizes of the parts do not fit: {differences[0]}", "give each what the one before gives"
        )
    return architecture, arrays


PARTS = "give one with an nn.Embedding, an nn.LSTM, nn.GRU or nn.RNN, and an nn.Linear, each once and nothing else"


def _only(module: nn.Module, kind: type[M]) -> M:
    found = [each for each in module.modules() if isinstance(each, kind)]
    if len(found) != 1:
        raise CharRNNError(f"the module has {len(found)} parts of the kind nn.{kind.__name__}, expected 1", PARTS)
    return found[0]


def _cell_of(rnn: nn.RNNBase) -> Cell:
    """Return the cell that can hold whatever a torch layer holds."""
    for cell in map(cells.get, cells.names()):
        if cell.twin is not None and cell.twin.from_torch is not None and cell.twin.layer == type(rnn).__name__:
            return cell
    raise CharRNNError(f"no cell is the twin of a {type(rnn).__name__}", PARTS)
