"""A server and its clients: completions and characters a second, and how long the first character takes.

The server has a process of its own, as it has elsewhere; the clients share one. They ask again as soon as they are
answered. All of it runs on one machine: what the clients take of it is missing from the server.
"""

import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

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

    with Server([fresh_model(cell, hidden, layers)]) as server:
        pipe.send((server.access.port, server.access.token))
        pipe.recv()


async def _asked(port: int, token: str, clients: int, streamed: bool, seconds: float) -> dict[str, Any]:
    """Ask for about so many seconds. Returns what was measured."""
    firsts, chars = list[float](), list[int]()
    began = time.perf_counter()
    many = (_client(port, token, n, streamed, began + seconds, firsts, chars) for n in range(clients))
    await asyncio.gather(*many)
    took = time.perf_counter() - began
    ms = [1000 * first for first in firsts]
    return {
        "answers": "streamed" if streamed else "whole",
        "completions_per_s": len(chars) / took,
        "chars_per_s": sum(chars) / took,
        "first_char_ms": float(np.median(ms)) if ms else None,
        "first_char_ms_p99": float(np.percentile(ms, 99)) if ms else None,
    }


async def _client(
    port: int, token: str, number: int, streamed: bool, until: float, firsts: list[float], chars: list[int]
) -> None:
    """Ask again and again on one connection, at least once; note what is measured."""
    rng = np.random.default_rng(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    asked = False
    while not asked or time.perf_counter() < until:
        prime, length = PRIME[: rng.integers(*PRIME_CHARS)], int(rng.integers(*CHARS))
        body = {"model": "fresh", "prompt": prime, "max_tokens": length, "seed": number, "stream": streamed}
        data = json.dumps(body).encode()
        head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        began = time.perf_counter()
        writer.write(f"POST /v1/completions HTTP/1.1\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 200"), answer
        if streamed:
            await reader.readuntil(b"data: ")
            firsts.append(time.perf_counter() - began)
            await reader.readuntil(b"[DONE]")
            await reader.readuntil(b"0\r\n\r\n")
        else:
            size = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            whole = json.loads(await reader.readexactly(size))
            assert whole["usage"]["completion_tokens"] == length
        asked = True
        chars.append(length)
    writer.close()
    await writer.wait_closed()


def available() -> bool:
    """Tell whether what serves is installed."""
    from importlib.util import find_spec

    return find_spec("starlette") is not None and find_spec("uvicorn") is not None
