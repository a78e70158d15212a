"""The decoders of a model: compiled code or torch, on a CPU or a GPU, and which of them is the faster here."""

import contextlib
import importlib.util
import threading
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CharRNNError, OptionError
from charrnn.generate import fastest
from charrnn.generate.decoder import Decoder
from charrnn.model.architecture import Architecture

Kept = Literal["float32", "bf16", "int8"]

STEPS = 32  # of one row, by which a CPU and a GPU are compared
# A text of fewer products is decoded by NumPy sooner than its model is compiled.
QUICK_PRODUCTS = 10**9

_making = threading.Lock()  # of threads that need a model's decoder at once, one makes it and the others wait


class Decoders:
    """The decoders of one model, each made when it is first asked for. Threads may share them."""

    def __init__(
        self, architecture: Architecture, weights: Mapping[str, NDArray[np.float32]], device: str, kept: Kept
    ) -> None:
        """Hold what decoders are made of.

        device: 'cpu', 'cuda', 'mps', or 'auto' for the faster of CPU and CUDA. kept: the dtype of matrices on a CPU.
        Raises CharRNNError for another dtype.
        """
        if kept not in get_args(Kept):
            raise OptionError(f"kept is {kept!r}", f"choose from: {', '.join(get_args(Kept))}")
        self.architecture, self.weights, self.device, self.kept = architecture, weights, device, kept

    def chosen(self, characters: int | None = None) -> Decoder:
        """Return the decoder of the device. Raises CharRNNError where it cannot have such weights.

        characters: how many are to be read and drawn. For few of them nothing is compiled: NumPy decodes, where no
        compiled code is on disk. None: that is not known.
        """
        ways = {
            "cpu": lambda: self._on_cpu,
            "cuda": lambda: self._on_cuda,
            "mps": lambda: self._on_mps,
            "auto": lambda: self._faster,
        }
        with _making:
            if characters is not None and self._is_quick(characters):
                return self._by_numpy
            return ways[self.device]()

    def on_cpu(self) -> Decoder:
        """Return the decoder of the CPU, whatever the device."""
        with _making:
            return self._on_cpu

    def _is_quick(self, characters: int) -> bool:
        """Tell whether NumPy decodes so many characters before compiled code would be there."""
        if self.device != "cpu" or self.kept != "float32" or "_on_cpu" in vars(self):
            return False
        return characters * self.architecture.count_network() <= QUICK_PRODUCTS and not self._is_prepared

    @cached_property
    def _is_prepared(self) -> bool:
        """Whether compiled code is on disk, or there will be none."""
        try:
            from charrnn.generate import compiled

            return compiled.is_prepared(self.architecture, self.kept)
        except CharRNNError:  # making the decoder says why
            return True

    @cached_property
    def _by_numpy(self) -> Decoder:
        # In float64, so that it is no further from compiled code, or from torch, than those are from the equations.
        # Tables are looked up alone, so they are as they were.
        weights = {
            name: value if name == "direct" else value.astype(np.float64) for name, value in self.weights.items()
        }
        return Decoder(self.architecture, weights, "numpy")

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
        return make(self.architecture, self.weights, "cuda", self.kept)

    @cached_property
    def _on_mps(self) -> Decoder:
        return make(self.architecture, self.weights, "mps", self.kept)

    @cached_property
    def _on_cpu(self) -> Decoder:
        return make(self.architecture, self.weights, "cpu", self.kept)


def make(
    architecture: Architecture, weights: Mapping[str, NDArray[np.float32]], device: str, kept: Kept = "float32"
) -> Decoder:
    """Make the decoder of a device: compiled code on a CPU, torch elsewhere and for what cannot be compiled.

    Raises CharRNNError where the matrices are to be kept in another dtype than float32 and nothing is compiled.
    """
    note = None
    if device == "cpu":
        try:
            from charrnn.generate.compiled import CompiledDecoder

            return CompiledDecoder(architecture, weights, kept)
        except CharRNNError as error:
            note = f"{error.problem}: torch decodes, which is slower"
    if kept != "float32":
        raise CharRNNError(
            f"{kept} weights on {device}" + (f" ({note})" if note else ""),
            "only the compiled decoder keeps them so: use --device cpu, or float32",
        )
    decoder: Decoder
    if device == "cuda" and importlib.util.find_spec("triton"):
        from charrnn.generate.graphed import GraphedDecoder

        decoder = GraphedDecoder(architecture, weights)
    else:
        decoder = Decoder(architecture, weights, device=device)
    decoder.notes = (note,) if note else ()
    return decoder


def prepare(architecture: Architecture) -> None:
    """Compile what completing text with a model of these sizes needs, so that no completion waits for that.

    What was compiled before is on disk. Where torch will decode instead, nothing is done.
    """
    with contextlib.suppress(CharRNNError):  # whoever completes a text is told
        from charrnn.generate import compiled

        compiled.prepare(architecture)


def _step(decoder: Decoder) -> None:
    """Complete a little, as far as a decoder is concerned."""
    if (trial := getattr(decoder, "trial", None)) is not None:  # it does many steps at once
        trial(STEPS)
        return
    state = decoder.start()
    for id_ in np.arange(STEPS) % decoder.architecture.vocabulary:
        _, state = decoder.step(np.array([id_]), state)
