"""The one error of a request: its status, and what the protocol says about it."""

from collections.abc import Mapping
from typing import Any


class RequestError(Exception):
    """A request that is not answered as it stands. param: the parameter that is at fault, code: a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the protocol."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(message: str, param: str | None = None, code: str | None = None) -> RequestError:
    """Return the refusal of a value that cannot be."""
    return RequestError(400, message, param, code)
