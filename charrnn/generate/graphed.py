"""Completing on a GPU: the steps of many characters, with filters and draw, recorded once and repeated in one call.

What is drawn is fed back on the GPU. Of a layer's step, products are torch's, in float32, and what stands between them
is one kernel each, made from the equations; for a few rows the kernels make the products too, which leaves one for most
cells. A cell that Triton cannot have is run as it is written. Rows share all weights that are read, so thousands of
them take little longer than one.
"""

import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn.cells.cell import Cell, hidden_size
from charrnn.compiler.blocks import UnsupportedError
from charrnn.compiler.targets import triton as target
from charrnn.engines import cuda, on_chip
from charrnn.errors import NotRecordedWarning
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Primed, Sampling, filters
from charrnn.model.architecture import Architecture
from charrnn.text.tokenizer import Tokenizer

STEPS = 32  # characters of one repetition
MOST_ROWS = 1024  # side by side
FEW_ROWS = 4  # up to so many, each of which reads all weights by itself
PROGRAM, ALONE = (16, 64), (1, 4)  # rows and columns of a program between two products, and of one that makes them
ADDED = 512  # numbers of a product that it adds at a time
CHUNK = 32  # ids that a row's ids are compared with at a time
Ids = Iterator[tuple[int, float]]


class Place(NamedTuple):
    """Where a completion's numbers begin: the two words of Philox's key, and how many were drawn before."""

    seed: int
    completion: int
    drawn: int = 0

    @classmethod
    def of(cls, us: np.random.Generator) -> "Place":
        """Read where a source of draws is, of `sampling.draws`."""
        inner: Any = us.bit_generator.state
        key, counter = inner["state"]["key"], int(inner["state"]["counter"][0])
        return cls(int(key[0]), int(key[1]), 4 * counter - 4 + inner["buffer_pos"] if counter else 0)


class GraphedDecoder(Decoder):
    """A decoder that draws on a GPU. `step` and `read` are those of a Decoder. Threads may share it."""

    most_rows = MOST_ROWS

    def __init__(self, architecture: Architecture, weights: Mapping[str, NDArray[Any]], device: str = "cuda"):
        """weights: checked against the architecture."""
        super().__init__(architecture, weights, "torch", device)
        self.device = device
        self._layers_alone = [_Layer(self._cell, p, self._width(n), n > 0) for n, p in enumerate(self._p)]
        self._spare: dict[tuple[int, bool], list[_Text]] = {}

    def drawn(self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, us: np.random.Generator) -> Ids:
        """Return ids after a prime, without end, each with its cost in nats; -1 where the logits are not finite."""
        return self._drawn(primed, tokenizer, sampling, [Place.of(us)])[0]

    def drawn_together(
        self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, completions: Sequence[int]
    ) -> list[Ids]:
        """Return, for each completion by number, what `drawn` yields; who asks first moves all of them on."""
        return self._drawn(primed, tokenizer, sampling, [Place(sampling.seed, n) for n in completions])

    def trial(self, characters: int) -> None:
        """Draw so many characters, or some more, to see how long that takes."""
        for _ in range(-(-characters // STEPS)):
            self._tried.move_on()

    def advance(self, ids: Tensor, state: list[tuple[Tensor, ...]]) -> Tensor:
        """Move rows on by an id each, (R,), and replace their states in the list. Returns logits (R, V)."""
        x: Tensor | None = None
        for n, layer in enumerate(self._layers_alone):
            y, state[n] = layer.step(self.first[ids] if x is None else x, state[n])
            x = y + x if self.architecture.residual and x is not None else y
        assert x is not None
        logits = torch.addmm(self.bias, x, self.head)
        if self.tables is not None:
            state[len(self._layers_alone) :] = self._add_direct(logits, ids, state)
        return logits

    def _add_direct(self, logits: Tensor, ids: Tensor, state: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Add to logits what direct connections say. Returns what the state has of them after: nothing for one id."""
        from charrnn.generate.direct_kernel import add_direct  # wakes Triton

        assert self.tables is not None
        architecture, C = self.architecture, self.tables.shape[1]
        before = state[-1][0].contiguous() if architecture.remembered else ids.new_empty(len(ids), 0)
        after = torch.empty_like(before)
        about = architecture.vocabulary, architecture.start, architecture.columns.start, architecture.direct_rows, C
        sizes = {"N": architecture.direct, "CP": max(16, 1 << (C - 1).bit_length())}
        add_direct[(len(ids),)](logits, ids, before, after, self.tables, *about, **sizes)
        return [(after,)] if architecture.remembered else []

    @cached_property
    def _tried(self) -> "_Text":
        """A row whose automaton allows everything: no completion is to find it."""
        V = self.architecture.vocabulary
        with torch.inference_mode():
            return _Text(self, 1, (np.ones((1, V), np.bool_), np.zeros((1, V), np.int16)), ordered=False)

    def _width(self, layer: int) -> int:
        """Return how many numbers a layer's `inputs` makes of a row; 0 where they are not one row."""
        with torch.inference_mode():
            row = torch.zeros(1, self.architecture.input_size(layer), device=self.device)
            z = self.first if layer == 0 else self._cell.inputs(row, self._p[layer])
        return int(z.shape[1]) if z.ndim == 2 else 0

    def _drawn(self, primed: Primed, tokenizer: Tokenizer, sampling: Sampling, places: list[Place]) -> list[Ids]:
        ordered = sampling.top_k is not None or sampling.top_p is not None
        text = self._text(len(places), (tokenizer.allowed, tokenizer.next_state), ordered)
        with torch.inference_mode():
            text.begin(primed, filters(sampling, self.architecture.vocabulary), places)
        shared = _Shared(text, [deque() for _ in places])
        weakref.finalize(shared, self._give_back, text)  # another completion will find it recorded
        return [shared.of(row) for row in range(len(places))]

    def _text(self, R: int, automaton: tuple[NDArray[np.bool_], NDArray[np.int16]], ordered: bool) -> "_Text":
        waiting = self._spare.setdefault((R, ordered), [])
        try:
            return waiting.pop()
        except IndexError:
            with torch.inference_mode():
                return _Text(self, R, automaton, ordered)

    def _give_back(self, text: "_Text") -> None:
        self._spare[text.rows, text.ordered].append(text)


class _Shared:
    """Rows that move on together, and what was drawn of each but not yet asked for."""

    def __init__(self, text: "_Text", waiting: list[deque[tuple[int, float]]]) -> None:
        self._text, self._waiting, self._moving = text, waiting, threading.Lock()

    def of(self, row: int) -> Ids:
        queue = self._waiting[row]
        while True:
            if not queue:
                with self._moving:
                    if not queue:  # still, after another thread moved all of them on
                        for other, ids, costs in zip(self._waiting, *self._text.move_on(), strict=True):
                            other.extend(zip(ids, costs, strict=True))
            yield queue.popleft()


class _Layer:
    """One layer's step: kernels, with products between them or in them, or the equations as they are."""

    def __init__(self, cell: Cell, p: Any, width: int, reads_a_layer: bool) -> None:
        """width: of a row that `inputs` makes. reads_a_layer: it reads the output of another one, else such rows."""
        self._cell, self._p, self._reads_a_layer = cell, p, reads_a_layer
        params = {name: getattr(p, name) for name in p._fields}
        self._steps: dict[bool, _Kernels | None] = dict.fromkeys((False, True))  # by whether a row is alone
        self._whole = False
        if not width or not on_chip.has_triton() or cell.state_shapes:
            return
        H = hidden_size(cell, params)
        for whole, Z in ((True, H), (False, width))[0 if reads_a_layer else 1 :]:
            try:
                self._steps = {alone: _Kernels(cell, params, Z, H, whole, alone) for alone in (False, True)}
            except UnsupportedError:
                continue
            self._whole = whole
            return

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output (R, Y) and the state (R, H) after a step. x: (R, I), or (R, Z) for the first layer."""
        if self._reads_a_layer and not self._whole:
            x = self._cell.inputs(x, self._p)
        kernels = self._steps[len(x) <= FEW_ROWS]
        if kernels is not None:
            return kernels.step(x.contiguous(), state)
        y, after = self._cell.step(x, state, self._p)
        return y.contiguous(), tuple(after)


class _Kernels:
    """What Triton made of a layer's step, and the weights as it reads them."""

    def __init__(self, cell: Cell, params: Mapping[str, Tensor], Z: int, H: int, whole: bool, alone: bool) -> None:
        """Raises UnsupportedError."""
        shapes = {name: tuple(value.shape) for name, value in params.items()}
        self._stages, space = on_chip.compiled_step(cell, shapes, Z, H, whole, alone)
        self._kernels = [None if name is None else space[name] for name in self._stages.names]
        self._vectors = [_of(params, vector).contiguous() for vector in self._stages.vectors]
        self._matrices = {product.number: _of(params, product.weight) for product in self._stages.products}
        self._transposed = [m.t().contiguous() for m in self._matrices.values()] if alone else []

    def step(self, z: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        stages, (R, H) = self._stages, state[0].shape
        after = tuple(torch.empty_like(held) for held in state)
        given = {"z": z} | {f"state{j}": held for j, held in enumerate(state)}
        lefts = [
            z.new_empty(R, H * self._blocks(n)) if name is None else given[name]
            for n, name in enumerate(stages.left_names)
        ]
        outs = {product.number: z for product in stages.products}  # until it is made, nothing reads it
        if stages.alone:
            outs = {product.number: z.new_empty(R, H * len(product.outputs)) for product in stages.products}
        y = z.new_empty(R, H * stages.outputs)
        rows, columns = ALONE if stages.alone else PROGRAM
        grid, sizes = (-(-R // rows), -(-H // columns)), {"H": H, "BR": rows, "BH": columns}
        sizes |= {"BK": min(ADDED, 1 << (H - 1).bit_length())} if stages.alone else {}
        for kernel, products in zip(self._kernels, stages.after, strict=True):
            if kernel is not None:
                made = [outs[p.number] for p in stages.products]
                kernel[grid](z, *self._vectors, *self._transposed, *state, *after, *lefts, *made, y, R, **sizes)
            for product in () if stages.alone else products:
                left = lefts[stages.lefts[stages.products.index(product)]]
                outs[product.number] = left @ self._matrices[product.number]
        return y, after

    def _blocks(self, left: int) -> int:
        return len(self._stages.products[self._stages.lefts.index(left)].left)


def _of(params: Mapping[str, Tensor], weight: target.Weight) -> Tensor:
    name, index = weight
    return params[name] if index is None else params[name][index]


class _Text:
    """Rows of text that are drawn side by side: what is theirs, where it stays, and the recorded steps."""

    def __init__(
        self, decoder: GraphedDecoder, R: int, automaton: tuple[NDArray[np.bool_], NDArray[np.int16]], ordered: bool
    ) -> None:
        self.rows, self.ordered, self._decoder = R, ordered, decoder
        V, device = decoder.architecture.vocabulary, decoder.device
        self._V, self._VP = V, max(16, 1 << (V - 1).bit_length())
        self._allowed = torch.tensor(automaton[0], device=device).to(torch.uint8)
        self._following = torch.tensor(automaton[1], device=device)

        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def exact(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._ids, self._automaton, self._position = (whole(R) for _ in range(3))
        self._keys, self._drawn, self._costs = whole(R, 2), whole(STEPS, R), exact(STEPS, R)
        self._filters, self._scratch = exact(R, 4) + 1, exact(R if ordered else 0, 2, self._VP)
        self._state = [tuple(held.clone() for held in layer) for layer in decoder.start(R)]
        self._repeat = self._recorded()

    def begin(self, primed: Primed, settings: tuple[float, ...], places: list[Place]) -> None:
        """Let every row go on from a prime. settings: as `sampling.filters` gives them."""
        for layer, begun in zip(self._state, primed.state, strict=True):
            for held, value in zip(layer, begun, strict=True):
                held.copy_(torch.as_tensor(value).expand_as(held))
        self._ids.fill_(primed.last)
        self._automaton.zero_()
        keys = np.array([[place.seed, place.completion] for place in places], np.uint64)
        cuda.sent(keys.view(np.int64), self._keys)
        cuda.sent(np.array([place.drawn for place in places], np.int64), self._position)
        cuda.sent(np.tile(np.array(settings), (self.rows, 1)), self._filters)

    def move_on(self) -> tuple[list[list[int]], list[list[float]]]:
        """Draw STEPS ids in every row. Returns them row by row, and their nats."""
        with torch.inference_mode():
            self._repeat()
            return self._drawn.t().tolist(), self._costs.t().tolist()

    def _recorded(self) -> Callable[[], None]:
        try:
            return cuda.recorded(self._work, self._work)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            warnings.warn(
                f"completing cannot be recorded on this GPU ({str(error).splitlines()[0]}): every operation is "
                "started by itself, which is slower",
                NotRecordedWarning,
                stacklevel=2,
            )
            return self._work

    def _work(self) -> None:
        from charrnn.generate.draw_kernel import draw  # wakes Triton

        state = list(self._state)
        for drawn, costs in zip(self._drawn, self._costs, strict=True):
            logits = self._decoder.advance(self._ids, state)
            tables = self._allowed, self._following, self._filters, self._keys
            moving = self._automaton, self._position, self._ids, drawn, costs
            sizes = {"VP": self._VP, "ORDERED": self.ordered, "CHUNK": min(CHUNK, self._VP)}
            draw[(self.rows,)](logits, *tables, *moving, self._scratch, self._V, **sizes)
        for layer, last in zip(self._state, state, strict=True):
            for held, value in zip(layer, last, strict=True):
                held.copy_(value)
