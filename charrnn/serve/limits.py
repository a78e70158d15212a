"""How much one request, one connection and all of them together may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that keep a server answering.

    rows: completions of a model side by side. waiting: completions that wait for a row of a model, of all requests.
    choices: prompts times n of one request. ids: that one request may read, and may draw, in all its choices. scored:
    ids of prompts whose logprobs are wanted. stops, stop_chars: stop strings, and characters of one. body_bytes: of a
    request. body_seconds: for all of it to arrive. head_seconds: for the head of a request, and between two of a
    connection. send_seconds: for a client that does not read. connections: at once. ending_seconds: for what runs when
    the server is to end.
    """

    rows: int = 64
    waiting: int = 256
    choices: int = 128
    ids: int = 1 << 18
    scored: int = 1 << 16
    stops: int = 16
    stop_chars: int = 128
    body_bytes: int = 1 << 20
    body_seconds: float = 10.0
    head_seconds: float = 10.0
    send_seconds: float = 30.0
    connections: int = 512
    ending_seconds: float = 5.0
