"""Opening a web address: HTTP and HTTPS alone, and no other host is gone to without saying so."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib import request
from urllib.error import URLError
from urllib.parse import urlsplit

from charrnn.errors import CharRNNError

Told = Callable[[str], None]
SCHEMES = ("http", "https")
# What goes wrong on the way; the last two are addresses and lengths that a server made up.
TROUBLE = (URLError, TimeoutError, ConnectionError, HTTPException, ValueError, OverflowError)


class _Redirects(request.HTTPRedirectHandler):
    """Follows a server to other addresses of the web, and says where that is another host."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def http_error_302(self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> Any:
        """Follow where a server leads, without reading what else it says, which may be of any length."""
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in SCHEMES:
            raise CharRNNError(
                f"{req.full_url} leads to {newurl!r}, which is no address of the web",
                "get the file by other means, and train on its path",
            )
        if (after.scheme, after.hostname) != (before.scheme, before.hostname):
            self._told(f"{req.full_url} leads to {after.scheme}://{after.hostname}: what it gives counts by its digest")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opened(url: str, headers: dict[str, str], timeout_seconds: float, told: Told) -> Any:
    """Open an address of the web, to read its answer. told: is called with what to know on the way.

    Raises CharRNNError where it leads out of the web, HTTPError where the server refuses, TROUBLE for anything else.
    """
    opener = request.OpenerDirector()
    # Without the handlers of file:, ftp: and data:.
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        *([request.HTTPSHandler()] if hasattr(request, "HTTPSHandler") else []),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
        _Redirects(told),
    ):
        opener.add_handler(handler)
    with _as_trouble():
        return opener.open(request.Request(url, headers={"User-Agent": "charrnn", **headers}), timeout=timeout_seconds)


def read(answer: Any, most: int) -> bytes:
    """Return the next bytes of an answer, no more than `most`; none at its end. Raises TROUBLE."""
    with _as_trouble():
        data: bytes = answer.read1(most)
    return data


@contextmanager
def _as_trouble() -> Iterator[None]:
    """Tell what the system says of a connection from what it says of a disk: no way to a host, an error of TLS."""
    try:
        yield
    except (URLError, TimeoutError, ConnectionError):
        raise
    except OSError as error:
        raise URLError(error) from error
