"""Next-character logits, one character at a time, straight from the equations: on NumPy arrays or torch tensors."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.model.architecture import Architecture
from charrnn.text import contexts

# Per layer, bottom first, the cell's states, (B, H) or as it declares them; then, where direct connections look at more
# than one id, those before the next one: (B, N - 1), int64, the newest last.
State = tuple[tuple[Any, ...], ...]
Library = Literal["numpy", "torch"]


class Stepping(Protocol):
    """What is needed of a model, or of several as one, to complete text. notes, is_compiled: as `Decoder` has them."""

    notes: tuple[str, ...]

    @property
    def is_compiled(self) -> bool:
        """Whether it draws and scores in machine code."""

    def start(self, B: int = 1) -> State:
        """Return the state of B rows before any character."""

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[Any], State]:
        """Advance every row by one character. Returns logits (B, V) in nats, float32 or wider, and the new state."""

    def read(self, ids: NDArray[Any], state: State) -> State:
        """Advance one row through ids (T,) whose logits nobody needs."""


class Decoder:
    """Steps a model by one character in every row. It keeps no state: the state goes in and comes out.

    engine: what computes. is_compiled: whether it draws and scores in machine code. notes: what the user should know
    about it. first (V + 1, ...): all that the first layer makes of a character alone. head (H, V), bias (V,): what
    makes logits of the last layer's output. tables (N R, C): direct connections; None without any.
    """

    notes: tuple[str, ...] = ()
    is_compiled = False

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, NDArray[Any]],
        library: Library = "torch",
        device: str = "cpu",
    ):
        """weights: checked against the architecture. device: where torch computes; NumPy knows only 'cpu'."""
        architecture.check(weights)
        self.architecture, self.engine = architecture, str(library)
        self._torch: Any = None
        if library == "torch":
            import torch  # sampling on NumPy does without it

            self._torch = torch
        self._device = device
        w = {name: self._array(value) for name, value in weights.items()}
        cell = architecture.definition
        self._cell = cell
        names = cell.parameter_names
        self._p = [cell.pack([w[f"layers.{i}.{name}"] for name in names]) for i in range(architecture.layers)]
        table = (
            w["embedding"] if "embedding" in w else self._array(np.eye(architecture.vocabulary + 1, dtype=np.float32))
        )
        with self._no_grad():
            # All that the first layer makes of a character alone is looked up, not computed: (V + 1, ...).
            self.first = cell.inputs(table, self._p[0])
        self.head = table[:-1].T if architecture.tie else w["head.W"]
        self.bias = w["head.b"]
        self.tables = w.get("direct")

    def start(self, B: int = 1) -> State:
        """Return the state of B rows before any character."""
        shape, options = (B, self.architecture.hidden), self.architecture.cell_options
        one = tuple(self._array(s) for s in self._cell.start(shape, np.float32, **options))
        layers = (one,) * self.architecture.layers
        if not self.architecture.remembered:
            return layers
        before = np.full((B, self.architecture.remembered), self.architecture.start)
        return (*layers, (self._array(before),))

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Advance every row by one character.

        ids: (B,), V for the start token. state: as from `start(B)`; not modified.
        Returns logits (B, V) in nats, a NumPy array, and the new state.
        """
        with self._no_grad():
            index = self._index(ids)
            y, after = self._layers(index, state)
            logits = y @ self.head + self.bias
            if self.tables is not None:
                logits[:, self.architecture.columns] += self._direct(index, state)
        return (logits.cpu().numpy() if self._torch else logits), after

    def read(self, ids: NDArray[Any], state: State) -> State:
        """Advance one row through ids (T,) whose logits nobody needs; state: as from `start(1)`."""
        with self._no_grad():
            for i in range(len(ids)):
                state = self._layers(self._index(ids[i : i + 1]), state)[1]
        return state

    def logits(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Advance one row through ids (T,). Returns the logits after each of them, (T, V), and the new state."""
        rows = np.empty((len(ids), self.architecture.vocabulary), np.float32)
        for i in range(len(ids)):
            one, state = self.step(ids[i : i + 1], state)
            rows[i] = one[0]
        return rows, state

    def _layers(self, index: Any, state: State) -> tuple[Any, State]:
        z = self.first[index]
        after, x = [], None
        for layer, p in enumerate(self._p):
            y, new = self._cell.step(z if x is None else self._cell.inputs(x, p), state[layer], p)
            after.append(new)
            x = y + x if self.architecture.residual and x is not None else y
        if self.architecture.remembered:
            after.append((self._join([state[-1][0][:, 1:], index[:, None]]),))
        return x, tuple(after)

    def _direct(self, index: Any, state: State) -> Any:
        """Return what direct connections say after an id in every row, (B, C)."""
        assert self.tables is not None
        architecture = self.architecture
        before = state[-1][0] if architecture.remembered else index[:, None][:, :0]
        past = [index, *(before[:, n] for n in reversed(range(before.shape[1])))]
        return sum(self.tables[rows] for rows in contexts.rows(past, architecture.start, architecture.direct_rows))

    def _index(self, ids: NDArray[Any]) -> Any:
        index = ids.astype(np.int64)
        return self._torch.from_numpy(index).to(self._device) if self._torch else index

    def _join(self, columns: list[Any]) -> Any:
        return self._torch.cat(columns, dim=1) if self._torch else np.concatenate(columns, axis=1)

    def _array(self, value: NDArray[Any]) -> Any:
        return self._torch.tensor(value, device=self._device) if self._torch else value

    def _no_grad(self) -> Any:
        # What is not finite is found where a character is drawn, and said there.
        return self._torch.inference_mode() if self._torch else np.errstate(over="ignore", invalid="ignore")
