"""What this machine can do in training: its device, threads and memory, and how fast, by short measurements.

What was measured while no other work was in the way is kept, and not measured again: see `kept_speeds`.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch

from charrnn import __version__, cells, devices, engines, memory
from charrnn.compiler.processor import processor as compiled_for
from charrnn.engines import cuda
from charrnn.hardware import cores, processor
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import Corpus
from charrnn.training import candidates, kept_speeds, sizing, unseen
from charrnn.training.candidates import UNDISTURBED, Candidate, fastest
from charrnn.training.config import Config
from charrnn.training.ranks import Ranks
from charrnn.training.settings import Settings
from charrnn.training.waiting import Waiting

__all__ = ["Candidate", "Machine", "fastest", "memory_bytes", "processor"]

PROBE_SECONDS = 0.5
PROBE, GPU_PROBE = (256, 16), (512, 64)  # hidden size and time steps of a probe: a GPU waits for its orders in less
# As such a figure is called, and how often it was measured. A machine that is shared may be slower than it is for all
# of a measurement, and nothing says so: the best of several processes counts.
PRODUCTS_PER_S, MEASURED = "products a second", "measured"
MEASUREMENTS = 3
WORTH_COMPILING_SECONDS = 20.0  # a budget this long will probably choose the engine that has to compile
FASTER_BF16 = 0.7  # of float32's time, from which down bf16 products are taken without comparing engines
PRODUCTS = 8  # of each precision, in turns, for a first guess
BF16_UNITS = ("avx512bf16", "amx-bf16", "bf16")  # names that LLVM has for what multiplies bf16 numbers
# All measuring together takes no longer than the greater of these, and no more than the last: then it is long enough.
MEASURING_SECONDS, MEASURING_SHARE, MOST_MEASURING_SECONDS = 1.5, 0.02, 4.0
LEAST_SHARE = 1 / 2  # of that, for comparing, whatever was spent before


class Machine:
    """This machine, as far as training with some settings on a corpus asks. Figures are measured once, when asked for.

    device: as `devices.resolve` says. threads, precision, engine: those asked for, or what will probably be chosen, so
    that sizes fit the speed there will be. Where other ranks train too, each is taken to be as fast as this one.
    """

    def __init__(self, settings: Settings, corpus: Corpus, ranks: Ranks | None = None) -> None:
        """Raises CharRNNError for a device that is not there or an engine that cannot run the cell."""
        self._settings, self._vocabulary = settings, corpus.tokenizer.size
        self._corpus = corpus
        self.device = devices.resolve(settings.device)
        self._ranks, self._ranks_here = (1, 1) if ranks is None else (ranks.world, ranks.local_world)
        self.threads = settings.threads or torch.get_num_threads()
        if ranks is not None:  # a configuration of one process may name more than a rank has
            self.threads = min(self.threads, ranks.threads)
        self._measured_seconds = 0.0  # that measuring took so far
        self.engine = self._likely_engine()

    @property
    def _engine(self) -> engines.Engine:
        return engines.choose(cells.get(self._settings.cell), self.engine, self.device)

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
        if self.device == "mps":
            return "float32"
        if self.device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "float32"
        return "bf16" if has_bf16_units() and self.bf16_share < FASTER_BF16 else "float32"

    @cached_property
    def bf16_share(self) -> float:
        """How long a bf16 product takes on this CPU, as a share of the float32 one's time.

        One thread multiplies: beside other work two wait for each other longer than they compute.
        """
        pairs = {
            dtype: (torch.ones(64, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype))
            for dtype in (torch.float32, torch.bfloat16)
        }
        seconds = dict.fromkeys(pairs, float("inf"))
        with self._measuring(threads=1):
            for _ in range(PRODUCTS):
                for dtype, (a, b) in pairs.items():
                    began = time.perf_counter()
                    torch.mm(a, b)
                    seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
        return seconds[torch.bfloat16] / seconds[torch.float32]

    @cached_property
    def expected_products_per_s(self) -> float:
        """The same as `products_per_s`, of all ranks, or what was measured before: enough to say what to expect."""
        if "products_per_s" in self.__dict__:
            return self._ranks * self.products_per_s
        return self._ranks * (kept_speeds.known(self._measured_name) or self.products_per_s)

    @property
    def quiet_products_per_s(self) -> float:
        """The best of what is measured now and was before, when no other work was in the way: sizes follow from it.

        After MEASUREMENTS of them it is not measured again.
        """
        best, measured = self._best_kept()
        return self._ranks * (best if measured >= MEASUREMENTS else max(best, self.products_per_s))

    def _best_kept(self) -> tuple[float, float]:
        """Return the best products a second that were kept, and how often they were measured."""
        kept = kept_speeds.known_choice(self._measured_name) or {}
        return kept.get(PRODUCTS_PER_S, 0.0), kept.get(MEASURED, 0.0)

    @property
    def _measured_name(self) -> str:
        """All that `products_per_s` depends on, in words."""
        cell, options = self._settings.cell, sorted(self._settings.cell_options.items())
        sizes = f"{self._small.hidden} {self._learned} {options}"
        how = f"{self.device} {self.engine} {self.precision} {self.threads} threads"
        return f"{__version__} {torch.__version__} {self._processor} {how} {cell} {sizes}"

    @property
    def _processor(self) -> str:
        """Name what computes: the processor, with the GPU where it is that."""
        return f"{processor()}, {torch.cuda.get_device_name()}" if self.device == "cuda" else processor()

    @cached_property
    def _learned(self) -> int:
        """How many ids training works with."""
        return unseen.learned_ids(self._settings, self._corpus)

    @property
    def _small(self) -> Settings:
        hidden = min(self._settings.hidden or self._probe[0], 512)
        return self._settings.replace(hidden=hidden, layers=1, embedding=None, tie=False, direct=0, direct_rows=0)

    @property
    def _probe(self) -> tuple[int, int]:
        return GPU_PROBE if self.device == "cuda" else PROBE

    @cached_property
    def products_per_s(self) -> float:
        """Multiply-adds a second in training, by a few small steps of the cell in question."""
        small = self._small
        architecture = Architecture.of(small, self._learned)
        model = CharRNN(architecture, architecture.initial(small.seed), self._engine).to(self.device)
        ids = torch.zeros((self._probe[1], 32), dtype=torch.int64, device=self.device)
        bf16 = self.precision == "bf16"

        def step() -> float:
            cuda.wait(self.device)
            began = time.perf_counter()
            with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
                logits, _ = model(ids, model.start(32))
            torch.autograd.backward(logits.float().sum())
            cuda.wait(self.device)
            return time.perf_counter() - began

        repeatable = cuda.repeatable(self.device, self.precision)  # as training will be
        with repeatable, self._measuring(self.threads) as waiting:
            step()  # the first one compiles
            waiting.look()
            times: list[float] = []
            until = time.perf_counter() + PROBE_SECONDS
            # The least: other work comes and goes.
            while len(times) < 3 or (time.perf_counter() < until and len(times) < 20):
                times.append(step())
                waiting.look()
            quiet = waiting.delayed_share() < UNDISTURBED
        figure: float = 3 * architecture.count_network() * ids.numel() / min(times)
        kept_speeds.keep(self._measured_name, figure)
        if quiet:
            best, measured = self._best_kept()
            kept_speeds.keep_choice(self._measured_name, {PRODUCTS_PER_S: max(best, figure), MEASURED: measured + 1})
        return figure

    def candidates(self, asked: Settings) -> list[Candidate]:
        """List the ways to train a model on this device that what was asked leaves open."""
        cell = cells.get(asked.cell)
        names = engines.names_for(cell, self.device) if asked.engine == "auto" else [asked.engine]
        precisions = [asked.precision]
        if asked.precision == "auto" and self.device != "cpu":
            precisions = [self.precision]
        elif asked.precision == "auto":
            precisions = ["float32", "bf16"] if has_bf16_units() else ["float32"]
        counts = candidates.thread_counts(self.threads) if asked.threads is None else (asked.threads,)
        counts = counts if self.device == "cpu" else (self.threads,)
        return [Candidate(e, p, n) for n in counts for e in names for p in precisions]

    def compared(self, config: Config, corpus: Corpus, asked: Settings, run_seconds: float) -> dict[Candidate, float]:
        """Give the seconds of a step by candidate, fastest first: as they were kept, or measured now.

        config: of the run. run_seconds: that it will take about; measuring takes a small share of them.
        """
        known = self.candidates(asked)
        name = self._choice_name(config, known)
        kept = kept_speeds.known_choice(name)
        if kept is not None and set(kept) <= {str(c) for c in known}:  # those that ran
            found = {c: kept[str(c)] for c in known if str(c) in kept}
            return dict(sorted(found.items(), key=lambda item: item[1]))
        began, stages = time.perf_counter(), candidates.STAGES if self.device == "cpu" else candidates.ON_A_GPU
        repeatable = cuda.repeatable(self.device, config.precision)  # as training will be
        with repeatable, self._measuring(self.threads) as waiting:
            steps = candidates.Steps(config, corpus, waiting)
            for engine, precision in dict.fromkeys(c[:2] for c in known):
                steps.prepare(Candidate(engine, precision, self.threads))
            allowed = min(max(MEASURING_SECONDS, MEASURING_SHARE * run_seconds), MOST_MEASURING_SECONDS)
            spent = self._measured_seconds + time.perf_counter() - began  # compiling may take longer, the first time
            left = max(allowed - spent, LEAST_SHARE * allowed)
            seconds = candidates.compare(known, config.window, steps.timed, left, stages=stages)
            first = next(iter(seconds))
            whole = all(c in seconds for c in known if c[:2] == first[:2])  # its numbers of threads were told apart
            if whole and waiting.delayed_share() < UNDISTURBED:
                kept_speeds.keep_choice(name, {str(c): s for c, s in seconds.items()})
        if self.device != "cpu":  # recorded steps and their trainers know each other, and hold a GPU's memory
            del steps
            gc.collect()
        return seconds

    def _choice_name(self, config: Config, known: list[Candidate]) -> str:
        """All that the seconds of candidates depend on, in words."""
        architecture = Architecture.of(config, self._vocabulary)
        drops = [share > 0 for share in (config.dropout, config.weight_dropout, config.direct_dropout)]
        sizes = f"batch {config.batch}, window {config.window}, {config.optimizer}, dropout {drops}"
        where = f"{__version__} {torch.__version__} {self._processor} {cores()} cores"
        return f"{where} {architecture} {sizes}: {', '.join(map(str, known))}"

    @contextmanager
    def _measuring(self, threads: int) -> Iterator[Waiting]:
        """Compute with so many threads that wait as they will in training; then with as many as before."""
        before, began = torch.get_num_threads(), time.perf_counter()
        torch.set_num_threads(threads)
        try:
            with Waiting() as waiting:
                yield waiting
        finally:
            torch.set_num_threads(before)
            self._measured_seconds += time.perf_counter() - began

    def memory_bytes(self) -> int | None:
        """Give the memory that training may use on this machine, or this GPU; None where the system does not tell."""
        return memory_bytes(self.device)

    def needed_bytes(self, config: Config) -> int:
        """Estimate what training a configuration needs of that memory: several ranks may share it."""
        ranks = self._ranks_here if self.device == "cpu" else 1
        return ranks * sizing.memory_bytes(self.own(config), Architecture.of(config, self._vocabulary))

    def own(self, config: Config) -> Config:
        """Give the configuration with the rows that one rank trains."""
        return config if self._ranks == 1 else config.replace(batch=-(-config.batch // self._ranks))


def has_bf16_units() -> bool:
    """Tell whether this processor has units that multiply bf16 numbers; also where LLVM cannot tell what it has."""
    known = compiled_for().features
    return not known or any(known.get(name) for name in BF16_UNITS)


def memory_bytes(device: str) -> int | None:
    """Give the memory of a device that training may use; None where the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()  # what other processes leave
    return memory.total_bytes()
