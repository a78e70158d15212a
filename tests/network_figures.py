"""Seconds of summing gradients between hosts of a network that is slowed down, beside what a model on paper says.

    python tests/network_figures.py                # as root: hosts are network namespaces, slowed down by tc

Prints JSON, a line for each network, number of ranks and number of bytes: the median of sums of torch.distributed with
gloo, and 2 (N - 1) (latency + bytes / (N bandwidth)), as a ring of N ranks takes them. The latency is what the smallest
sum says, the bandwidth what one connection carries there. Then steps of two ranks that train. A network that delays is
a switch in Python, so it carries less at once than one that does not.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from hosts import Host, delayed, network

HERE = Path(__file__)
SIZES = (4, 2_079_512, 14_484_248)  # one number; the gradients of lstm 256 x 1 and of 512 x 2
TIMES = 9
PORT = 29600
NETWORKS = (  # name, bits a second, seconds on the way
    ("as it is", None, None),
    ("1 Gbit/s", 1_000_000_000, None),
    ("switch", None, 0.0),
    ("switch, 1 ms", None, 0.001),
    ("switch, 1 ms, 1 Gbit/s", 1_000_000_000, 0.001),
)


def work(rank: int, world: int) -> None:
    """Sum tensors with the other ranks; rank 0 prints the median of the seconds for each size."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    medians = []
    for size in SIZES:
        tensor, seconds = torch.ones(size // 4), []
        for _ in range(TIMES):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            seconds.append(time.perf_counter() - began)
        medians.append(statistics.median(seconds))
    if rank == 0:
        print(json.dumps(medians))
    dist.destroy_process_group()


def environment(hosts: list[Host]) -> dict[str, str]:
    where = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "eth0"}
    return {**os.environ, **where, "PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}


def together(hosts: list[Host], commands: list[list[str]]) -> str:
    """Run a command on each host. Returns what the first one printed last."""
    with ExitStack() as stack:
        begun = []
        for host, command in zip(hosts, commands, strict=True):
            words = host.command(*command)
            begun.append(
                stack.enter_context(
                    subprocess.Popen(
                        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(hosts)
                    )
                )
            )
        said = [process.communicate()[0] for process in begun]
    return next(each for each in said if each.strip()).splitlines()[-1]


def receive() -> None:
    """Print how many bytes a second come by one connection."""
    with socket.create_server(("", PORT)) as server:
        connection, _ = server.accept()
        began, count = time.perf_counter(), 0
        while data := connection.recv(1 << 20):
            count += len(data)
        connection.close()
        print(json.dumps(count / (time.perf_counter() - began)))


def send(address: str) -> None:
    """Send by one connection."""
    time.sleep(1)  # until the other side listens
    with socket.create_connection((address, PORT)) as connection:
        for _ in range(60):
            connection.sendall(bytes(1 << 20))


def bandwidth(hosts: list[Host]) -> float:
    """Bytes a second from the second host to the first."""
    commands = [[sys.executable, str(HERE), "--receive"], [sys.executable, str(HERE), "--send", hosts[0].address]]
    return float(json.loads(together(hosts[:2], commands)))


def sums(hosts: list[Host]) -> list[float]:
    commands = [[sys.executable, str(HERE), "--rank", str(rank), str(len(hosts))] for rank in range(len(hosts))]
    return list(json.loads(together(hosts, commands)))


def steps(hosts: list[Host], hidden: int, layers: int, count: int) -> dict[str, float]:
    """Time steps of ranks that train, one thread each."""
    commands = []
    for host in hosts:
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(hosts)), "--nproc-per-node", "1"]
        words += ["--rdzv-backend", "c10d", "--rdzv-id", "a", "--rdzv-endpoint", f"{hosts[0].address}:29400"]
        words += ["--local-addr", host.address, "--rdzv-conf", f"is_host={int(host is hosts[0])}"]
        words += [str(HERE.with_name("ranks_figures.py")), "--worker", str(hidden), str(layers), str(count), "1"]
        commands.append(words)
    found = json.loads(together(hosts, commands))
    return {name: round(1000 * found[name], 1) for name in ("least", "median")}


def main() -> None:
    if sys.argv[1:2] == ["--rank"]:
        work(*map(int, sys.argv[2:]))
        return
    if sys.argv[1:2] == ["--receive"]:
        receive()
        return
    if sys.argv[1:2] == ["--send"]:
        send(sys.argv[2])
        return
    for name, bits, seconds_on_the_way in NETWORKS:
        for count in (2, 4):
            with network(count) if seconds_on_the_way is None else delayed(count, seconds_on_the_way) as hosts:
                for host in hosts if bits is not None else []:
                    host.slow_down(bits)
                found, carried = sums(hosts), bandwidth(hosts)
                for size, seconds in zip(SIZES, found, strict=True):
                    line = {
                        "network": name,
                        "ranks": count,
                        "MB/s": round(carried / 1e6, 1),
                        "bytes": size,
                        "ms": round(1000 * seconds, 2),
                    }
                    line["paper ms"] = round(1000 * (found[0] + 2 * (count - 1) / count * size / carried), 2)
                    print(json.dumps(line), flush=True)
                if count == 2:
                    print(json.dumps({"network": name, "step": "256 x 1", **steps(hosts, 256, 1, 8)}), flush=True)


if __name__ == "__main__":
    main()
