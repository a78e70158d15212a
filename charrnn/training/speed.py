"""What this machine can do in training: its device, threads and memory, and how fast, by short measurements.

Engines and precisions are compared at the model's own sizes: every candidate runs a few characters of a window forwards
and backwards. Those that are not far behind run a longer piece, in turns, and the fastest of each one's times counts.
"""

import platform
import time
from functools import cached_property
from pathlib import Path

import torch

from charrnn import __version__, cells, devices, engines, memory
from charrnn.engines import cuda
from charrnn.model.architecture import Architecture, Weights
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Corpus
from charrnn.training import kept_speeds
from charrnn.training.config import Config
from charrnn.training.settings import Settings

PROBE_SECONDS = 0.5
WORTH_COMPILING_SECONDS = 20.0  # a budget this long will probably choose the engine that has to compile
FASTER_BF16 = 0.7  # of float32's time, from which down bf16 products are taken without comparing engines

GLANCE, PIECE = 4, 32  # characters of a window
BEHIND = 1.6  # so many times the fastest's time at first, and a candidate does not run the longer piece
TURNS, AT_LEAST_SECONDS = 2, 0.25  # of each length, together: a hiccup of a busy machine is not to decide
CLEARLY = 0.87  # fewer bits are worth it from this share of float32's time down

Candidate = tuple[str, str]  # engine, precision


class Machine:
    """This machine, as far as training with some settings on a corpus asks. Figures are measured once, when asked for.

    device: 'cpu' or 'cuda'. threads: that torch computes with. precision, engine: those asked for, or what will
    probably be chosen, so that sizes fit the speed there will be.
    """

    def __init__(self, settings: Settings, corpus: Corpus) -> None:
        """Raises CharRNNError for a device that is not there or an engine that cannot run the cell."""
        self._settings, self._vocabulary = settings, corpus.tokenizer.size
        self.device = devices.resolve(settings.device)
        self.threads = settings.threads or torch.get_num_threads()
        self.engine = self._likely_engine()

    def _likely_engine(self) -> str:
        cell = cells.get(self._settings.cell)
        if self._settings.engine == "auto" and (self._settings.budget or 0) >= WORTH_COMPILING_SECONDS:
            for engine in engines.engines(cell, self.device):
                if engine.compiles:
                    return engine.name
        return engines.choose(cell, self._settings.engine, self.device).name

    @cached_property
    def precision(self) -> str:
        """The precision asked for, or bf16 where its products are clearly faster than float32's."""
        if self._settings.precision != "auto":
            return self._settings.precision
        if self.device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "float32"
        return "bf16" if self._bf16_share < FASTER_BF16 else "float32"

    @cached_property
    def _bf16_share(self) -> float:
        """How long a bf16 product takes on this CPU, as a share of the float32 one's time."""
        seconds = {}
        for dtype in (torch.float32, torch.bfloat16):
            a, b = torch.ones(64, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
            times = []
            for _ in range(3):
                began = time.perf_counter()
                torch.mm(a, b)
                times.append(time.perf_counter() - began)
            seconds[dtype] = min(times)
        return seconds[torch.bfloat16] / seconds[torch.float32]

    @cached_property
    def expected_products_per_s(self) -> float:
        """The same as `products_per_s`, or what was measured before: good enough to say what to expect."""
        if "products_per_s" in self.__dict__:
            return self.products_per_s
        return kept_speeds.known(self._measured_name) or self.products_per_s

    @property
    def _measured_name(self) -> str:
        """All that `products_per_s` depends on, in words."""
        cell, options = self._settings.cell, sorted(self._settings.cell_options.items())
        sizes = f"{self._small.hidden} {self._vocabulary} {options}"
        how = f"{self.device} {self.engine} {self.precision} {self.threads} threads"
        return f"{__version__} {torch.__version__} {processor()} {how} {cell} {sizes}"

    @property
    def _small(self) -> Settings:
        hidden = min(self._settings.hidden or 256, 512)
        return self._settings.replace(hidden=hidden, layers=1, embedding=None, tie=False)

    @cached_property
    def products_per_s(self) -> float:
        """Multiply-adds a second in training, by a few small steps of the cell in question."""
        small = self._small
        architecture = Architecture.of(small, self._vocabulary)
        model = CharRNN(architecture, architecture.initial(small.seed), self.engine).to(self.device)
        ids = torch.zeros((16, 32), dtype=torch.int64, device=self.device)
        times: list[float] = []
        until = time.perf_counter() + PROBE_SECONDS
        bf16 = self.precision == "bf16"
        with cuda.repeatable(self.device, tf32=bf16):  # as fast as training, not faster
            # The least: other work comes and goes.
            while len(times) < 3 or (time.perf_counter() < until and len(times) < 20):
                cuda.wait(self.device)
                began = time.perf_counter()
                with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
                    logits, _ = model(ids, model.start(32))
                torch.autograd.backward(logits.float().sum())
                cuda.wait(self.device)
                times.append(time.perf_counter() - began)
        figure: float = 3 * architecture.count() * ids.numel() / min(times)
        kept_speeds.keep(self._measured_name, figure)
        return figure

    def compared(
        self, architecture: Architecture, config: Config, engine: str, precision: str
    ) -> "dict[Candidate, float]":
        """Give the seconds of a window by (engine, precision), fastest first. engine, precision: all where 'auto'."""
        if precision == "auto" and self._bf16_share > 1:  # without bf16 units its products take many times as long
            precision = "float32"
        weights = architecture.initial(config.seed, config.uniform)
        return measure(architecture, weights, config.batch, config.window, engine, precision)

    def memory_bytes(self) -> int | None:
        """Give the memory that training may use; None where the system does not tell."""
        return memory_bytes(self.device)


def memory_bytes(device: str) -> int | None:
    """Give the memory of a device that training may use; None where the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()  # what other processes leave
    return memory.total_bytes()


def processor() -> str:
    """Name the processor of this machine."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def measure(
    architecture: Architecture, weights: Weights, batch: int, window: int, engine: str, precision: str
) -> dict[Candidate, float]:
    """Seconds of a window's forward and backward pass by (engine, precision), fastest first, on this CPU.

    engine, precision: which to try, all there are where 'auto'.
    """
    names = engines.names_for(architecture.definition) if engine == "auto" else [engine]
    precisions = ["float32", "bf16"] if precision == "auto" else [precision]
    models = {e: CharRNN(architecture, weights, e) for e in names}
    ids = torch.arange(batch * window).view(window, batch) % architecture.vocabulary

    def seconds(candidate: Candidate, steps: int) -> float:
        steps = min(steps, window)
        began = time.perf_counter()
        _pass(models[candidate[0]], ids[:steps], candidate[1])
        return (time.perf_counter() - began) * window / steps

    candidates = [(e, p) for e in names for p in precisions]
    for candidate in candidates:
        seconds(candidate, 1)  # the first time compiles, and wakes up memory and caches
    best = dict.fromkeys(candidates, float("inf"))
    for steps in (GLANCE, PIECE):
        left = [c for c in candidates if best[c] <= BEHIND * min(best.values())]
        best |= dict.fromkeys(left, float("inf"))
        began, turn = time.perf_counter(), 0
        while turn < TURNS or time.perf_counter() - began < AT_LEAST_SECONDS:
            turn += 1
            for candidate in left:
                best[candidate] = min(best[candidate], seconds(candidate, steps))
    return dict(sorted(best.items(), key=lambda item: item[1]))


def fastest(seconds: dict[Candidate, float]) -> Candidate:
    """Return the fastest in float32, unless bf16 products are clearly faster."""
    best = min(seconds, key=lambda c: seconds[c])
    exact = min((c for c in seconds if c[1] == "float32"), key=lambda c: seconds[c], default=best)
    return best if seconds[best] <= CLEARLY * seconds[exact] else exact


def _pass(model: CharRNN, ids: torch.Tensor, precision: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, _ = model(ids, model.start(ids.shape[1]))
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten()))
