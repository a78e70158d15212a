"""Who may ask: the token, and the hosts and origins that a browser names; headers that every answer has.

A page of another site can make a browser send a request here, and so can a name of that site that suddenly leads to
this machine (DNS rebinding). It cannot choose the Host and Origin that the browser tells, nor know the token.
"""

import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrnn.serve import answers
from charrnn.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("charrnn.serve")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PATH_SHOWN = 200  # characters of a path in the log


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


@dataclass(frozen=True)
class Access:
    """Who may ask a server. host: that it listens to. names: other names of it. secure: whether it speaks TLS."""

    token: str
    host: str
    port: int
    names: Sequence[str] = ()
    secure: bool = False

    @property
    def cookie(self) -> str:
        """The cookie's name: a browser keeps those of all ports of a host together."""
        return f"charrnn-{self.port}"

    def check(self, request: "Request") -> None:
        """Raise RequestError for a request that does not come from whom it should."""
        host = request.headers.get("host", "")
        if not self._is_ours(_without_port(host)):
            raise RequestError(403, "the Host header names another host than this server's", code="wrong_host")
        origins = request.headers.getlist("origin")
        if any(origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()) for origin in origins):
            raise RequestError(403, "a page of another origin may not ask this server", code="wrong_origin")
        given = self._given(request)
        if given is None or not self.is_token(given):
            raise RequestError(
                401,
                "give the token that the server printed: Authorization: Bearer TOKEN",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def is_token(self, given: str) -> bool:
        """Tell whether this is the token, in a time that says nothing about where it differs."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode("utf-8"))

    def _given(self, request: "Request") -> str | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return token.strip()
        if request.method == "GET" and request.scope["path"] == "/" and "token" in request.query_params:
            return request.query_params["token"]
        return request.cookies.get(self.cookie)

    def _is_ours(self, host: str) -> bool:
        """Tell whether a name may stand in Host. No site is named by an address: where others may come, each may."""
        if host.lower() in (self.host.lower(), *(name.lower() for name in self.names)):
            return True
        return is_loopback(host) or (not is_loopback(self.host) and _address(host) is not None)


class Guard:
    """Lets through what may ask, adds headers to every answer, makes answers of errors, and writes the log."""

    def __init__(self, app: "ASGIApp", access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, as ASGI asks it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.exceptions import HTTPException
        from starlette.requests import Request

        began, status = time.monotonic(), 0

        async def told(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}  # the page has a policy of its own
                message["headers"] = [*message["headers"], *(each for each in _HEADERS if each[0] not in own)]
            await send(message)

        scope["app"] = self  # then the router raises where there is no route
        try:
            try:
                self._access.check(Request(scope))
                await self._app(scope, receive, told)
            except RequestError as error:
                await refuse(error, told)
            except HTTPException as error:
                await refuse(RequestError(error.status_code, error.detail, headers=error.headers), told)
            except Exception:  # an answer that has begun is cut off
                LOG.exception("a request failed")
                if not status:
                    await refuse(RequestError(500, "the server failed; its log says how"), told)
        finally:
            path = scope.get("raw_path", b"").decode("ascii", "replace")[:PATH_SHOWN]  # quoted, and without the token
            LOG.info("%s %s %s %.0f ms", scope["method"], path, status or "gone", 1000 * (time.monotonic() - began))


async def refuse(error: RequestError, send: "Send") -> None:
    """Answer with an error."""
    body = answers.json_bytes(error.body())
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    raw = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


_HEADERS = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in HEADERS.items()]


def _without_port(host: str) -> str:
    """Return the name or the address in a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _address(host: str) -> Any:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
