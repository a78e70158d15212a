"""A server of a small model on a port of its own, and a client that says exactly what it is told to."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from charrnn.api import TextModel
from charrnn.cli import serve
from charrnn.serve.limits import Limits
from charrnn.serve.models import Served
from charrnn.serve.server import Server

ROOT = Path(__file__).parent.parent
SECONDS = 60  # after which a test that waits has failed


class Answered(NamedTuple):
    """An answer: its status, headers with names in small letters, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one server, with the right token unless other headers are given."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(
        self, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> Answered:
        """Ask once. body: bytes as they are, anything else as JSON; None is a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.access.port, timeout=SECONDS)
        given = {"Authorization": f"Bearer {self.server.access.token}"} if headers is None else headers
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given = {"Content-Type": "application/json", **given}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, given)
            answer = connection.getresponse()
            return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def complete(self, **values: Any) -> Any:
        """Complete with the first model; returns the JSON of an answer that has to be a good one."""
        name = next(iter(self.server.service.models))
        answered = self("/v1/completions", {"model": name, **values})
        assert answered.status == 200, answered
        return answered.json

    def streamed(self, **values: Any) -> list[Any]:
        """Return the events of a stream, which ends as it should."""
        name = next(iter(self.server.service.models))
        answered = self("/v1/completions", {"model": name, "stream": True, **values})
        assert answered.headers["content-type"].startswith("text/event-stream")
        lines = answered.body.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def raw(self, data: bytes) -> socket.socket:
        """Send bytes as they are; returns the open connection."""
        connection = socket.create_connection(("127.0.0.1", self.server.access.port), timeout=SECONDS)
        connection.sendall(data)
        return connection

    def request(self, body: Any, path: str = "/v1/completions", **headers: str) -> bytes:
        """Return a whole request as bytes."""
        data = json.dumps(body).encode()
        lines = {"Host": "127.0.0.1", "Authorization": f"Bearer {self.server.access.token}"}
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What each piece of work gives, all begun together."""
    together = threading.Barrier(len(works))
    with ThreadPoolExecutor(len(works), initializer=together.wait) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]


def until(true: Callable[[], bool]) -> float:
    """Wait until something is so; returns the seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < SECONDS, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - began


def serving(*models: TextModel, **settings: Any) -> Server:
    """A server of models, on any port. settings: fields of Limits, and of Server."""
    bounds = {name: settings.pop(name) for name in list(settings) if name in Limits.__dataclass_fields__}
    return Server([Served.of(model) for model in models], limits=Limits(**bounds), **settings)


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command in a process of its own, and what it prints, by the first word of each line."""
    process = subprocess.Popen(
        [sys.executable, "cli.py", "serve", "--port", "0", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3 if serve.TOKEN in environment else 4)]
        yield process, {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}
    finally:
        process.kill()
        process.communicate()
