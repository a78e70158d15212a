"""A server for hours, and clients that die at any moment: nothing is kept of what is over. By hand, with -m long.

CHARRNN_SOAK_SECONDS and CHARRNN_KILLS make them shorter, CHARRNN_SOAK_CLIENTS gentler.
"""

import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import command, until

from charrnn.training.run import Run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process uses is read from /proc"),
]
SOAK_SECONDS = float(os.environ.get("CHARRNN_SOAK_SECONDS", "3600"))
KILLS = int(os.environ.get("CHARRNN_KILLS", "1000"))
CLIENTS = int(os.environ.get("CHARRNN_SOAK_CLIENTS", "12"))
GROWTH = 24 << 20  # bytes that fragments of memory may take; what each of so many requests left would be far more
TrainedRun = Callable[..., Run]


def memory(process: int) -> int:
    """Bytes that a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


def files(process: int) -> int:
    """Files and connections that a process has open."""
    return len(os.listdir(f"/proc/{process}/fd"))


def is_idle(process: int) -> bool:
    """Tell whether a process computes next to nothing for a while."""

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    time.sleep(0.5)
    return ticks() - before <= 0.1 * 0.5 * os.sysconf("SC_CLK_TCK")


def asking(port: int, token: str, seed: int) -> socket.socket:
    """Send one of many different requests; returns its connection."""
    rng = random.Random(seed)
    asked: dict[str, Any] = {"model": "mine", "prompt": "Re" * rng.randrange(40), "seed": seed}
    asked |= {"max_tokens": rng.randrange(1, 3000), "stream": rng.random() < 0.5, "n": rng.randrange(1, 4)}
    asked |= {"logprobs": 2, "echo": True} if rng.random() < 0.2 else {}
    body = json.dumps(asked).encode()
    head = (
        f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def read(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def client(port: int, token: str, seed: int) -> None:
    read(asking(port, token, seed))


def test_memory_stays_where_it_is(trained: TrainedRun) -> None:
    trained("mine")
    with command("mine") as (process, printed):
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        port, token = int(re.findall(r":(\d+)/", printed["API"])[0]), printed["token"]
        began, answered, wrong = time.monotonic(), [0] * CLIENTS, list[bytes]()

        def ask(number: int) -> None:
            while time.monotonic() - began < SOAK_SECONDS:
                answer = read(asking(port, token, number + CLIENTS * answered[number]))
                if not answer.startswith(b"HTTP/1.1 200"):
                    wrong.append(answer[:300])
                answered[number] += 1

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(SOAK_SECONDS / 40)
            sizes.append(memory(process.pid))
        print(f"{sum(answered):,} requests; megabytes: {[size >> 20 for size in sizes]}")
        assert not wrong
        assert sum(answered) > CLIENTS
        assert max(sizes[len(sizes) // 2 :]) - max(sizes[: len(sizes) // 2]) < GROWTH
        until(lambda: is_idle(process.pid))


def test_clients_that_are_killed_leave_nothing(trained: TrainedRun) -> None:
    trained("mine")
    with command("mine") as (process, printed):
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        port, token = int(re.findall(r":(\d+)/", printed["API"])[0]), printed["token"]
        for n in range(CLIENTS):
            assert read(asking(port, token, n)).startswith(b"HTTP/1.1 200")
        until(lambda: is_idle(process.pid))
        before, opened = memory(process.pid), files(process.pid)
        rng, context = random.Random(0), multiprocessing.get_context("forkserver")
        living: list[tuple[float, Any]] = []
        for n in range(KILLS + CLIENTS):
            if n < KILLS:
                each = context.Process(target=client, args=(port, token, n))
                each.start()
                living.append((time.monotonic() + rng.expovariate(5), each))
            for moment, each in [pair for pair in living if len(living) > CLIENTS or n >= KILLS]:
                time.sleep(max(0.0, min(moment - time.monotonic(), 0.2)))
                os.kill(each.pid, signal.SIGKILL)
                each.join()
                living.remove((moment, each))
        assert not living
        until(lambda: is_idle(process.pid))
        assert files(process.pid) <= opened + 1
        print(f"{KILLS} killed; megabytes before {before >> 20}, after {memory(process.pid) >> 20}")
        assert memory(process.pid) - before < GROWTH
        assert read(asking(port, token, 1)).startswith(b"HTTP/1.1 200")
