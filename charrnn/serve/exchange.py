"""What routes share: reading a body within bounds, answering with JSON, giving up when nobody waits."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.errors import CharRNNError
from charrnn.serve import answers
from charrnn.serve.errors import RequestError, bad
from charrnn.serve.limits import Limits
from charrnn.serve.requests import json_object

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

GONE = 499  # a status that nobody sees but the log
DRAINED = 32  # times as many bytes as a body may have are read, and dropped, before it is refused


async def read_object(request: "Request", limits: Limits, most: int | None = None) -> dict[str, Any]:
    """Read the object that a body is. Raises RequestError for any other, and for one that is too long or slow.

    most: bytes that it may have, where that is not as the limits say.
    """
    from starlette.requests import ClientDisconnect

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, "the Content-Type is not application/json", code="wrong_type")
    most, length, body = most or limits.body_bytes, 0, bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                length += len(piece)
                body += piece if length <= most else b""
                if length > DRAINED * most:
                    break
    except ClientDisconnect:
        raise RequestError(GONE, "the client went away") from None
    except TimeoutError:
        headers = {"Connection": "close"}
        raise RequestError(408, "the body did not come in time", code="too_slow", headers=headers) from None
    if length > most:
        headers = {"Connection": "close"}
        raise RequestError(413, f"the body has more than {most:,} bytes", code="too_large", headers=headers)
    return json_object(bytes(body))


async def unless_gone(request: "Request", answer: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer, and give it up when its client goes away."""
    working, is_gone = asyncio.current_task(), False
    assert working is not None

    async def leave() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        working.cancel()

    leaving = asyncio.ensure_future(leave())
    try:
        return await answer
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            raise RequestError(GONE, "the client went away") from None
        raise
    finally:
        leaving.cancel()


@contextlib.contextmanager
def refusing(param: str) -> Iterator[None]:
    """Refuse a parameter that the model cannot read."""
    try:
        yield
    except CharRNNError as error:
        raise bad(str(error), param) from None


def json_response(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> "Response":
    """Return an answer of JSON."""
    from starlette.responses import Response

    return Response(answers.json_bytes(value), status, headers, "application/json")
