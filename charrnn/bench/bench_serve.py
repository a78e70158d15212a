"""A server and its clients: completions and characters a second, and how long the first character takes.

The server has a process of its own, as it has elsewhere; the clients share one. They ask again as soon as they are
answered. All of it runs on one machine: what the clients take of it is missing from the server, so they do little, and
how much it is, is told.
"""

import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from charrnn.bench.bench_decode import CHARACTERS, ROWS, rows_seconds
from charrnn.generate.compiled import CompiledDecoder
from charrnn.model.architecture import Architecture
from charrnn.serve.models import Served
from charrnn.text.tokenizer import BYTES, Tokenizer

WAYS = tuple((clients, streamed) for clients in (1, 8, ROWS) for streamed in (False, True))
PRIME = "Once upon a time there was"
PRIME_CHARS, CHARS = (8, 25), (128, 385)  # of a prime and of a completion, which are all as long as it happens
REQUESTS = 256  # different ones
OK = b"HTTP/1.1 200 "
NEVER = -30.0  # a bias with which a byte is not drawn


def measure(
    cell: str, hidden: int, layers: int, seconds: float, ways: Sequence[tuple[int, bool]] = WAYS
) -> list[dict[str, Any]]:
    """Measure a server of a fresh model of these sizes; return a row for each of the ways to ask it.

    ways: how many clients, and whether they stream. seconds: for each row, about. Before and after, ROWS rows are
    decoded without a server.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, cell, hidden, layers), daemon=True)
    process.start()
    try:
        port, token = here.recv()
        served = fresh_model(cell, hidden, layers)
        assert isinstance(served.decoder, CompiledDecoder)
        rows_per_char = rows_seconds(served.decoder, served.tokenizer, seconds / 2)
        rows = []
        for clients, streamed in ways:
            found = _asked(port, token, clients, streamed, seconds)
            rows.append({"cell": cell, "hidden": hidden, "layers": layers, "clients": clients, **found})
        rows_per_char = min(rows_per_char, rows_seconds(served.decoder, served.tokenizer, seconds / 2))
    finally:
        here.send(None)
        process.join()
    return [{**row, "share_of_rows": row["chars_per_s"] * rows_per_char} for row in rows]


def fresh_model(cell: str, hidden: int, layers: int) -> Served:
    """Make a model that writes letters, as one that was trained does."""
    tokenizer = Tokenizer.char(CHARACTERS)
    architecture = Architecture(cell, tokenizer.size, hidden, layers, min(hidden, 128))
    weights = dict(architecture.initial(seed=7))
    weights["head.b"] = np.concatenate([np.full(BYTES, NEVER, np.float32), weights["head.b"][BYTES:]])
    return Served("fresh", CompiledDecoder(architecture, weights), tokenizer, tokenizer.clean)


def _serve(pipe: Connection, cell: str, hidden: int, layers: int) -> None:
    from charrnn.serve.server import Server

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of clients that are stopped in the end
    with Server([fresh_model(cell, hidden, layers)]) as server:
        pipe.send((server.access.port, server.access.token))
        pipe.recv()


class _Done(NamedTuple):
    """A completion. at: when it was whole. first: after how many seconds its first characters came, where streamed."""

    at: float
    chars: int
    first: float | None


def _asked(port: int, token: str, clients: int, streamed: bool, seconds: float) -> dict[str, Any]:
    """Ask for so many seconds, counted from when every client has been answered once. Returns what was measured."""
    rng = np.random.default_rng(0)
    requests = [_request(token, rng, n, streamed) for n in range(REQUESTS)]
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        asking = [stack.enter_context(_Client(port, requests, n, streamed)) for n in range(clients)]
        for client in asking:
            waiting.register(client.connection, selectors.EVENT_READ, client)

        def answered(until: Callable[[], bool]) -> None:
            while not until():
                for key, _ in waiting.select(0.01):
                    key.data.read()

        answered(lambda: all(client.done for client in asking))
        began, used = time.perf_counter(), time.process_time()
        answered(lambda: time.perf_counter() >= began + seconds)
        ended, used = time.perf_counter(), time.process_time() - used
    counted = [each for client in asking for each in client.done if began < each.at <= ended]
    ms = [1000 * each.first for each in counted if each.first is not None]
    return {
        "answers": "streamed" if streamed else "whole",
        "completions_per_s": len(counted) / (ended - began),
        "chars_per_s": sum(each.chars for each in counted) / (ended - began),
        "first_char_ms": float(np.median(ms)) if ms else None,
        "first_char_ms_p99": float(np.percentile(ms, 99)) if ms else None,
        "share_of_clients": used / (ended - began) / (os.cpu_count() or 1),
    }


def _request(token: str, rng: np.random.Generator, seed: int, streamed: bool) -> tuple[bytes, int]:
    """Return a request as it is sent, and the number of characters it asks for."""
    prime, length = PRIME[: rng.integers(*PRIME_CHARS)], int(rng.integers(*CHARS))
    body = json.dumps({"model": "fresh", "prompt": prime, "max_tokens": length, "seed": seed, "stream": streamed})
    head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    return f"POST /v1/completions HTTP/1.1\r\n{head}{body}".encode(), length


class _Client:
    """Asks again as soon as it is answered, on one connection, and notes every completion.

    It does no more than that needs, because it takes its time from the server: requests are ready to be sent, and of
    an answer it looks at the status, at the end, and for the number of ids.
    """

    def __init__(self, port: int, requests: Sequence[tuple[bytes, int]], number: int, streamed: bool) -> None:
        self.done: list[_Done] = []
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rng = np.random.default_rng(number)
        self._requests = itertools.cycle([requests[n] for n in rng.permutation(len(requests))])
        self._streamed = streamed
        self._ask()

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.connection.close()

    def _ask(self) -> None:
        data, self._chars = next(self._requests)
        self._received = b""
        self._first: float | None = None
        self._began = time.perf_counter()
        self.connection.sendall(data)

    def read(self) -> None:
        """Take what has come of an answer; ask again where that is all of it."""
        data = self.connection.recv(1 << 16)
        assert data, "the server closed the connection"
        self._received += data
        if self._streamed and self._first is None and b"\ndata: " in self._received:
            self._first = time.perf_counter() - self._began
        if self._is_whole():
            self.done.append(_Done(time.perf_counter(), self._chars, self._first))
            self._ask()

    def _is_whole(self) -> bool:
        received = self._received
        if self._streamed:
            whole = received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert not whole or received.startswith(OK), received
            return whole
        if not received.endswith(b"}") or (end := received.find(b"\r\n\r\n")) < 0:
            return False
        length = int(received[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(received) < end + 4 + length:
            return False
        assert received.startswith(OK), received
        assert b'"completion_tokens": %d,' % self._chars in received, received
        return True


def available() -> bool:
    """Tell whether what serves is installed."""
    from importlib.util import find_spec

    return find_spec("starlette") is not None and find_spec("uvicorn") is not None
