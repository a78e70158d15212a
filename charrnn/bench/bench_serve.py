"""A server and its clients: completions and characters a second, and how long the first character takes.

The server has a process of its own, as it has elsewhere; the clients share one. They ask again as soon as they are
answered. All of it runs on one machine: what the clients take of it is missing from the server.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from charrnn.bench.bench_decode import CHARACTERS, ROWS, rows_seconds
from charrnn.generate.compiled import CompiledDecoder
from charrnn.model.architecture import Architecture
from charrnn.serve.models import Served
from charrnn.text.tokenizer import BYTES, Tokenizer

CLIENTS = (1, 8, ROWS)
PRIME = "Once upon a time there was"
PRIME_CHARS, CHARS = (8, 25), (128, 385)  # of a prime and of a completion, which are all as long as it happens
NEVER = -30.0  # a bias with which a byte is not drawn


def measure(cell: str, hidden: int, layers: int, seconds: float) -> list[dict[str, Any]]:
    """Measure a server of a fresh model of these sizes; return a row for so many clients, streaming or not.

    seconds: for each row, about. Before and after, ROWS rows are decoded without a server.
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
        for clients in CLIENTS:
            for streamed in (False, True):
                found = asyncio.run(_asked(port, token, clients, streamed, seconds))
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


async def _asked(port: int, token: str, clients: int, streamed: bool, seconds: float) -> dict[str, Any]:
    """Ask for so many seconds, counted from when every client has been answered once. Returns what was measured."""
    done: list[list[_Done]] = [[] for _ in range(clients)]
    asking = [asyncio.create_task(_client(port, token, n, streamed, done[n])) for n in range(clients)]
    while not all(done):
        await asyncio.sleep(0.01)
        for task in asking:
            if task.done():
                task.result()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    counted = [each for own in done for each in own if began < each.at <= ended]
    ms = [1000 * each.first for each in counted if each.first is not None]
    return {
        "answers": "streamed" if streamed else "whole",
        "completions_per_s": len(counted) / (ended - began),
        "chars_per_s": sum(each.chars for each in counted) / (ended - began),
        "first_char_ms": float(np.median(ms)) if ms else None,
        "first_char_ms_p99": float(np.percentile(ms, 99)) if ms else None,
    }


async def _client(port: int, token: str, number: int, streamed: bool, done: list[_Done]) -> None:
    """Ask again and again on one connection; note every completion."""
    rng = np.random.default_rng(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    with contextlib.closing(writer):
        while True:
            prime, length = PRIME[: rng.integers(*PRIME_CHARS)], int(rng.integers(*CHARS))
            body = {"model": "fresh", "prompt": prime, "max_tokens": length, "seed": number, "stream": streamed}
            data = json.dumps(body).encode()
            head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(data)}\r\n\r\n"
            began, first = time.perf_counter(), None
            writer.write(f"POST /v1/completions HTTP/1.1\r\n{head}".encode() + data)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            if streamed:
                await reader.readuntil(b"data: ")
                first = time.perf_counter() - began
                await reader.readuntil(b"[DONE]")
                await reader.readuntil(b"0\r\n\r\n")
            else:
                size = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                whole = json.loads(await reader.readexactly(size))
                assert whole["usage"]["completion_tokens"] == length
            done.append(_Done(time.perf_counter(), length, first))


def available() -> bool:
    """Tell whether what serves is installed."""
    from importlib.util import find_spec

    return find_spec("starlette") is not None and find_spec("uvicorn") is not None
