"""Several processes that train one model: ranks, as torchrun starts them. Rank 0 leads, the others follow.

torchrun tells every process by environment variables who it is. What ranks send each other is tensors and JSON, by
torch.distributed: gloo, and NCCL for what is on GPUs. torch.distributed is imported where ranks are, and only there.
"""

import atexit
import os
import platform
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from charrnn import strict_json
from charrnn.errors import CharRNNError
from charrnn.hardware import cores
from charrnn.training.heartbeat import EVERY_SECONDS, SILENT_LOOKS, Heartbeat, Watch

if TYPE_CHECKING:
    from torch import Tensor

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOOK = timedelta(seconds=EVERY_SECONDS)
JOINING = timedelta(minutes=5)  # until all have found each other
FOR_EVER = timedelta(days=365)  # a corpus is prepared for hours: who is there, the heartbeat tells
LEAVING_SECONDS = 2.0
MOST_MESSAGE_BYTES = 1 << 26  # a vocabulary of all characters there are is shorter


class Order(IntEnum):
    """What rank 0 tells the others to do."""

    END = 0
    BEGIN = 1  # make the trainer of a configuration
    STEP = 2
    GATHER = 3  # the carried state, by the rows of each
    TAKE = 4  # weights, moments and the state of its rows


class Told(NamedTuple):
    """An order of rank 0. number, value: what they are depends on the order."""

    order: Order
    number: int
    value: float


class LostError(CharRNNError):
    """Another rank ended, or cannot be reached, so that the others cannot train on."""


class Ranks:
    """The processes that train one model, seen from one of them.

    rank: of this process. world: how many there are. local_rank, local_world: the same, among those of this machine.
    threads: that each of them may compute with. wished: whether another rank was asked to end, so that rank 0 saves.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        local_rank: int = 0,
        local_world: int = 1,
        heartbeat: Heartbeat | None = None,
        store: Any = None,
        restarts: int = 0,
    ) -> None:
        """Join others, whose process group there is already. store: that outlives a restart of the processes."""
        import torch

        self.rank, self.world, self.local_rank, self.local_world = rank, world, local_rank, local_world
        self.restarts, self.wished, self.threads = restarts, False, 1
        self._heartbeat, self._store = heartbeat, store
        self._order = torch.zeros(3, dtype=torch.float64)
        self._of_gpus: Any = None  # the process group of NCCL
        self.lost = False

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def rows(self, batch: int, rank: int | None = None) -> slice:
        """Return which rows of a batch are a rank's own: this one's when None."""
        rank = self.rank if rank is None else rank
        return slice(rank * batch // self.world, (rank + 1) * batch // self.world)

    def refuse_too_many(self, batch: int) -> None:
        """Raise CharRNNError where a rank would have no row."""
        if batch < self.world:
            raise CharRNNError(
                f"a batch of {batch} rows is trained by {self.world} ranks: every rank needs a row of its own",
                f"give --batch {self.world} or more, or start no more than {batch} processes",
            )

    # Orders and values

    def tell(self, order: Order, number: int = 0, value: float = 0.0) -> None:
        """Tell all others what to do."""
        self._order[0], self._order[1], self._order[2] = float(order), float(number), value
        self.broadcast(self._order)

    def told(self) -> Told:
        """Wait for the next order of rank 0."""
        self.broadcast(self._order)
        order, number, value = self._order.tolist()
        return Told(Order(int(order)), int(number), value)

    def tell_value(self, order: Order, value: Mapping[str, Any]) -> None:
        """Give an order with a value, as JSON."""
        message = _as_bytes(value)
        self.tell(order, len(message))
        self.broadcast(message)

    def value_of(self, told: Told) -> dict[str, Any]:
        """Receive the value of an order."""
        message = _space(told.number)
        self.broadcast(message)
        return _as_value(message)

    def answers(self, own: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Send a value to rank 0, which gets those of all ranks in their order; the others get none. All call this."""
        import torch
        import torch.distributed as dist

        message = strict_json.dumps(own).encode()
        length = torch.tensor([len(message)])
        self._wait(dist.all_reduce(length, dist.ReduceOp.MAX, async_op=True))
        padded = torch.frombuffer(bytearray(message.ljust(int(length))), dtype=torch.uint8)
        return [_as_value(each) for each in self.gathered(padded)]

    # Tensors

    def sum(self, tensor: "Tensor") -> None:
        """Replace a tensor, on every rank, by the sum of those of all ranks."""
        import torch.distributed as dist

        group = self._of_gpus if tensor.is_cuda else None
        self._wait(dist.all_reduce(tensor, group=group, async_op=True))

    def broadcast(self, tensor: "Tensor") -> None:
        """Replace a tensor, on every rank, by that of rank 0. It is on the CPU."""
        import torch.distributed as dist

        self._wait(dist.broadcast(tensor, 0, async_op=True))

    def gathered_rows(self, own: "Tensor", batch: int) -> "Tensor":
        """Return on rank 0 what all ranks have for their rows, (batch, N); elsewhere what was given. All call this.

        own: (rows of this rank, N), on the CPU.
        """
        import torch

        most = -(-batch // self.world)  # all send as much
        padded = torch.nn.functional.pad(own, (0, 0, 0, most - len(own)))
        sizes = [self.rows(batch, rank) for rank in range(self.world)]
        parts = [each[: rows.stop - rows.start] for each, rows in zip(self.gathered(padded), sizes, strict=False)]
        return torch.cat(parts) if parts else own

    def refuse_without_gpu(self) -> None:
        """Raise CharRNNError where this rank has no GPU of its own."""
        import torch

        there = torch.cuda.device_count()
        if self.local_rank >= there:
            raise CharRNNError(
                f"rank {self.rank} has no GPU of its own: {platform.node()} has {there}, and {self.local_world} ranks",
                f"start no more than {there} processes there, or train with --device cpu",
            )
        torch.cuda.set_device(self.local_rank)

    def use_gpus(self) -> None:
        """Let sums of what is on GPUs go by NCCL. All ranks call this."""
        import torch.distributed as dist

        if self._of_gpus is None:
            self._of_gpus = dist.new_group(backend="nccl", timeout=JOINING)

    # What outlives a restart

    def keep_run(self, path: str) -> None:
        """Let processes that torchrun starts in place of these know which run they train."""
        if self._store is not None:
            self._store.set("charrnn/run", f"{platform.node()}\n{path}")

    def kept_run(self) -> str | None:
        """Return the run that the processes before a restart trained; None where they had none yet.

        Raises CharRNNError where it is on another machine.
        """
        if not self.restarts or self._store is None or not self._store.check(["charrnn/run"]):
            return None
        host, _, path = self._store.get("charrnn/run").decode().partition("\n")
        if host != platform.node() and not Path(path).exists():
            raise CharRNNError(
                f"rank 0 was on {host}, with the run {path}, and is on {platform.node()} now",
                "let the machines share CHARRNN_HOME, or start torchrun again so that rank 0 is there, with --resume",
            )
        return str(path)

    # Waiting

    def gathered(self, own: "Tensor") -> "list[Tensor]":
        """Return on rank 0 the tensors of all ranks, which are of one size; elsewhere none."""
        import torch
        import torch.distributed as dist

        found = [torch.empty_like(own) for _ in range(self.world)] if self.leads else []
        self._wait(dist.gather(own, found or None, 0, async_op=True))
        return found

    def _wait(self, work: Any) -> None:
        """Wait for what was begun, while the others are there. Raises LostError where one is not any more."""
        watch = None
        while not work.is_completed():
            with suppress(RuntimeError):  # not yet, or never: the wait at the end says which
                work.wait(LOOK)
            if self._heartbeat is not None and not work.is_completed():
                watch = watch or Watch(self._heartbeat)
                if silent := watch.look():
                    self.lost = True
                    ranks = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
                    raise LostError(f"nothing was heard of {ranks} for {SILENT_LOOKS * EVERY_SECONDS:.0f} seconds")
        try:
            work.wait()
        except RuntimeError as error:
            self.lost = True
            said = str(error).splitlines()[0].rpartition("] ")[0].rpartition("cc:")[2].partition("] ")[2]
            raise LostError(f"another rank ended or cannot be reached{f' ({said}])' if said else ''}") from None

    def end(self) -> None:
        """Let go of the others, and tell them to end where this is rank 0."""
        import torch.distributed as dist

        lost = self.lost  # before: who has left already is not missed now

        def leave() -> None:
            with suppress(Exception):
                if self.leads and not lost:
                    self.tell(Order.END)
                dist.destroy_process_group()

        leaving = threading.Thread(target=leave, name="charrnn-leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVING_SECONDS)
        if self._heartbeat is not None:
            self._heartbeat.end()
        if leaving.is_alive() or lost:  # threads of gloo wait for a rank that is silent, and for them the exit
            atexit.register(_exit_at_once)


def asked(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process was started as a rank, by torchrun or in its way."""
    return all(environment.get(name) for name in VARIABLES)


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """Find the other ranks, as the environment says where they are, and let go of them in the end.

    Raises CharRNNError where they cannot be found.
    """
    rank, world, port = (_number(environment, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    local_rank, local_world = (_number(environment, f"LOCAL_{name}", d) for name, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    restarts = _number(environment, "TORCHELASTIC_RESTART_COUNT", 0)
    host, agents = environment["MASTER_ADDR"], environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    if not (dist.is_available() and dist.is_gloo_available()):
        raise CharRNNError(
            "this torch has no torch.distributed with gloo", "install a torch that has, or start one process"
        )
    try:
        store = TCPStore(host, port, None, rank == 0 and not agents, JOINING, wait_for_workers=False)
        # A call of a store may wait, so the heartbeat has its own.
        beating = PrefixStore(f"charrnn/{restarts}", TCPStore(host, port, None, False, JOINING, wait_for_workers=False))
        heartbeat = Heartbeat(beating, rank, range(1, world) if rank == 0 else (0,))
        own = PrefixStore(f"charrnn/{restarts}/group", store)
        dist.init_process_group("gloo", store=own, rank=rank, world_size=world, timeout=FOR_EVER)
    except (RuntimeError, ValueError) as error:
        raise CharRNNError(
            f"rank {rank} of {world} does not find the others at {host}:{port}: {str(error).splitlines()[0]}",
            "check that the machines reach each other there, and GLOO_SOCKET_IFNAME: docs/machines.md",
        ) from None
    ranks = Ranks(rank, world, local_rank, local_world, heartbeat, store, restarts)
    heartbeat.start()
    try:
        may = torch.tensor([own_threads(local_world, environment)])
        dist.all_reduce(may, dist.ReduceOp.MIN)
        ranks.threads = int(may)
        torch.set_num_threads(ranks.threads)
        yield ranks
    finally:
        ranks.end()


def own_threads(local_world: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return how many threads a rank may compute with: its share of the cores, or fewer where OMP_NUM_THREADS says so.

    A 1 there is what torchrun sets by itself, and says nothing.
    """
    share = max(1, cores() // local_world)
    said = environment.get("OMP_NUM_THREADS", "1")
    return min(share, int(said)) if said.isdecimal() and int(said) > 1 else share


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = environment.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        raise CharRNNError(
            f"the environment variable {name} is {value!r}, a number is expected", "start it by torchrun"
        )
    return int(value)


def _as_bytes(value: Mapping[str, Any]) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(strict_json.dumps(value).encode()), dtype=torch.uint8)


def _space(length: int) -> "Tensor":
    import torch

    if not 0 < length <= MOST_MESSAGE_BYTES:
        raise CharRNNError(f"another rank sends {length} bytes", "start the same version of charrnn everywhere")
    return torch.empty(length, dtype=torch.uint8)


def _as_value(message: "Tensor") -> dict[str, Any]:
    hint = "start the same version of charrnn everywhere"
    return strict_json.loads_object(message.numpy().tobytes(), "what another rank sends", hint)


def _exit_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)
