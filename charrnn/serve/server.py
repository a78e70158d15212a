"""The server: a socket, uvicorn with bounds of time, an end that lets finish what runs."""

import asyncio
import os
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from charrnn.errors import CharRNNError
from charrnn.serve.app import Service, application
from charrnn.serve.limits import Limits
from charrnn.serve.models import Served
from charrnn.serve.page.routes import Page
from charrnn.serve.safety import Access, is_loopback, new_token

BACKLOG = 2048  # connections that wait to be accepted
SWITCH_SECONDS = 5e-4  # a thread that moves rows needs the interpreter for moments, and all rows wait with it
ENDING = 0.8  # of the time there is for ending: then what still runs is told, which takes a moment too


@dataclass(frozen=True)
class Tls:
    """The files of a certificate and its key."""

    certfile: str
    keyfile: str | None = None
    keyfile_password: str | None = None


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. port: 0 for any. Raises CharRNNError for a host or port that cannot be had."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, kind, protocol, _, address = info
        # Not socket.create_server: it leaves the protocol open, and asyncio sends small pieces at once of TCP alone.
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CharRNNError(f"{host} port {port} cannot be listened to: {reason}", "give another --port") from None


class Server:
    """Models behind a socket. url: where it answers. access: who may ask, with the token."""

    def __init__(
        self,
        models: Sequence[Served],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        limits: Limits | None = None,
        tls: Tls | None = None,
        log_prompts: bool = False,
        allow_train: bool = False,
    ) -> None:
        """token: a new one when None. allow_train: whether the page may train though other machines reach it.

        Raises CharRNNError for a host or port that cannot be had, and equal names.
        """
        named: dict[str, Served] = {served.name: served for served in models}
        if len(named) < len(models):
            raise CharRNNError("two models have the same name", "serve one of them, or give a run another name")
        self.limits = limits or Limits()
        self._socket = listening(host, port)
        port = self._socket.getsockname()[1]
        names = () if is_loopback(host) else (socket.gethostname(), socket.getfqdn())
        self.access = Access(token or new_token(), host, port, names, tls is not None)
        self.service = Service(named, self.limits, log_prompts)
        self.page = Page(self.service, is_loopback(host) or allow_train)
        try:
            self.server = _Ending(self.service, self._config(tls))
        except CharRNNError:
            self.close()
            raise
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it answers, as this machine names it."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.access.host, self.access.host)
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.access.secure else 'http'}://{host}:{self.access.port}"

    def run(self) -> None:
        """Serve until a signal asks to end; the signal is raised once more then."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            self.server.run(sockets=[self._socket])
        finally:
            sys.setswitchinterval(interval)
            self.page.end()
            self.close()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> "Server":
        """Serve in a thread, until the context ends. Raises CharRNNError where it cannot start."""
        self._thread = threading.Thread(target=self.run, name="server", daemon=True)
        self._thread.start()
        while not self.server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                raise CharRNNError("the server did not start", "its log says why")
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._thread is not None
        self.server.should_exit = True
        self._thread.join()

    def _config(self, tls: Tls | None) -> uvicorn.Config:
        files: dict[str, Any] = {}
        if tls is not None:
            files = {"ssl_certfile": tls.certfile, "ssl_keyfile": tls.keyfile}
            files |= {"ssl_keyfile_password": tls.keyfile_password}
        limits = self.limits
        config = uvicorn.Config(
            application(self.service, self.access, self.page.routes()),
            http=_patient(limits),
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=int(limits.head_seconds),
            timeout_graceful_shutdown=int(limits.ending_seconds),
            **files,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise CharRNNError(f"the certificate or its key cannot be read: {error}", "give PEM files") from None
        return config


class _Ending(uvicorn.Server):
    """A server that ends what runs too long when it is to end itself, and says so to its client."""

    def __init__(self, service: Service, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs finish, as long as there is time."""
        seconds = self._service.limits.ending_seconds * ENDING
        ending = asyncio.get_running_loop().call_later(seconds, self._end)
        await super().shutdown(sockets)
        ending.cancel()

    def _end(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._service.end)


def _patient(limits: Limits) -> type[H11Protocol]:
    """Return the protocol of a connection that waits for nobody longer than the limits say."""

    class Patient(H11Protocol):
        """A connection whose client must send the head of a request in time, and read its answer.

        uvicorn waits for ever for a head that has begun, and for a client that does not read.
        """

        _head: asyncio.TimerHandle | None = None
        _sending: asyncio.TimerHandle | None = None

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.access_log = False  # it would show the token, whatever the log is set to

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.transport = cast(asyncio.Transport, Together(transport, self.loop))
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._head)
            _cancel(self._sending)
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                _cancel(self._head)

        def on_response_complete(self) -> None:
            self._expect()
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            _cancel(self._sending)
            self._sending = self.loop.call_later(limits.send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._sending)

        def _expect(self) -> None:
            """Wait for the head of a request."""
            _cancel(self._head)
            self._head = self.loop.call_later(limits.head_seconds, self.transport.abort)

    return Patient


class Together:
    """A transport that sends at once what is written in one turn of the event loop, as an answer's head and body are.

    uvicorn writes each of them by itself, and every time a client is woken.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send some bytes, when the loop turns."""
        if data and not self.written:
            self._loop.call_soon(self.send)
        if data:
            self.written.append(data)

    def close(self) -> None:
        """Send what was written, and close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what was written since the last time."""
        if self.written:
            data = b"".join(self.written)
            self.written.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
