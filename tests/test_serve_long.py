"""A server for hours, and clients that die at any moment: nothing is kept of what is over. By hand, with -m long.

CHARRNN_SOAK_SECONDS and CHARRNN_KILLS make them shorter, CHARRNN_SOAK_CLIENTS gentler.
"""

import json
import os
import random
import re
import socket
import subprocess
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
MEAN_SECONDS = 0.5  # that a client lives before it is killed
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


def request(token: str, seed: int, most: int = 3000) -> bytes:
    """One of many different requests, for up to so many ids."""
    rng = random.Random(seed)
    asked: dict[str, Any] = {"model": "mine", "prompt": "Re" * rng.randrange(40), "seed": seed}
    asked |= {"max_tokens": rng.randrange(1, most), "stream": rng.random() < 0.5, "n": rng.randrange(1, 4)}
    asked |= {"logprobs": 2, "echo": True} if rng.random() < 0.2 else {}
    body = json.dumps(asked).encode()
    head = (
        f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    return f"POST /v1/completions HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer(port: int, data: bytes) -> bytes:
    """Send a request, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# A client that starts soon, and says when it has asked.
CLIENT = """
import os, socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
os.close(1)
while connection.recv(65536):
    pass
"""


def client(port: int, data: bytes) -> subprocess.Popen[bytes]:
    """Start a process that asks once; it has asked when this returns."""
    command = [sys.executable, "-I", "-S", "-c", CLIENT, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(data)
    process.stdin.close()
    with process.stdout:
        process.stdout.read()
    return process


def test_memory_stays_where_it_is(trained: TrainedRun) -> None:
    trained("mine")
    with command("mine") as (process, printed):
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        port, token = int(re.findall(r":(\d+)/", printed["API"])[0]), printed["token"]
        began, answered, wrong = time.monotonic(), [0] * CLIENTS, list[bytes]()

        def ask(number: int) -> None:
            while time.monotonic() - began < SOAK_SECONDS:
                received = answer(port, request(token, number + CLIENTS * answered[number]))
                if not received.startswith(b"HTTP/1.1 200"):
                    wrong.append(received[:300])
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
        log: list[str] = []
        threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()  # type: ignore[arg-type]
        port, token = int(re.findall(r":(\d+)/", printed["API"])[0]), printed["token"]
        for n in range(CLIENTS):
            assert answer(port, request(token, n)).startswith(b"HTTP/1.1 200")
        until(lambda: is_idle(process.pid))
        before, opened = memory(process.pid), files(process.pid)
        rng, living = random.Random(0), list[tuple[float, subprocess.Popen[bytes]]]()
        for n in range(KILLS + CLIENTS):
            if n < KILLS:
                each = client(port, request(token, n, 20_000))
                living.append((time.monotonic() + rng.expovariate(1 / MEAN_SECONDS), each))
            for moment, each in [pair for pair in living if len(living) > CLIENTS or n >= KILLS]:
                time.sleep(max(0.0, min(moment - time.monotonic(), 1.0)))
                each.kill()
                each.wait()
                living.remove((moment, each))
        assert not living
        until(lambda: is_idle(process.pid))
        assert files(process.pid) <= opened + 1
        asked = [line.split()[3] for line in log if "POST /v1/completions" in line][CLIENTS:]
        print(f"{KILLS} killed, {len(asked)} of which had asked, {asked.count('499')} for a whole answer; ", end="")
        print(f"megabytes before {before >> 20}, after {memory(process.pid) >> 20}")
        assert len(asked) == KILLS
        assert memory(process.pid) - before < GROWTH
        assert answer(port, request(token, 1)).startswith(b"HTTP/1.1 200")
