"""The JSON of the protocol: models, completions, pieces of streams."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from charrnn import strict_json
from charrnn.generate.completion import Ended
from charrnn.serve.logprobs import Token
from charrnn.serve.models import START, Served

DONE = b"data: [DONE]\n\n"


def model(served: Served) -> dict[str, Any]:
    """Describe a model."""
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "charrnn"}


def models(all_: Mapping[str, Served]) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [model(served) for served in all_.values()]}


def tokenizer_info(served: Served) -> dict[str, Any]:
    """Describe a tokenizer, with its start token, which precedes every text."""
    return {
        "model": served.name,
        "tokenizer_class": f"charrnn {served.tokenizer.kind}",
        "vocab_size": served.tokenizer.size,
        "bos_token": START,
        "bos_token_id": served.start,
        "eos_token": None,
        "eos_token_id": None,
        "pad_token": None,
        "chat_template": None,
    }


class Answer:
    """The answer to one request, with what all its parts have in common."""

    def __init__(self, served: Served, seed: int) -> None:
        self._common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
            "seed": seed,
        }

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """Return all of it."""
        return {**self._common, "choices": list(choices), "usage": usage}

    def piece(
        self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None, include_usage: bool
    ) -> dict[str, Any]:
        """Return a piece of a stream. include_usage: whether it has a field for usage."""
        return {**self._common, "choices": list(choices), **({"usage": usage} if include_usage else {})}


def choice(index: int, text: str, ended: Ended | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    """Return one completion, or a piece of it. ended: None where it goes on."""
    reason = None if ended is None else "length" if ended == "length" else "stop"
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Count ids."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


class Logprobs:
    """The logprobs of one choice, in the protocol's form, with offsets that go on from piece to piece."""

    def __init__(self, served: Served) -> None:
        self._served, self._characters = served, 0

    def of(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return them for the next tokens of the text."""
        name, offsets = self._served.token, []
        for token in tokens:
            continues = 0x80 <= token.id < 0xC0  # a byte inside a character
            offsets.append(self._characters - 1 if continues else self._characters)
            self._characters += not continues and token.id != self._served.start
        return {
            "tokens": [name(token.id) for token in tokens],
            "token_logprobs": [None if token.nats is None else -token.nats for token in tokens],
            "top_logprobs": [
                None if token.nats is None else {name(id_): -nats for id_, nats in token.top} for token in tokens
            ],
            "text_offset": offsets,
        }


def event(value: Mapping[str, Any]) -> bytes:
    """Write a server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Write JSON as UTF-8; what is no text, half a surrogate pair, as an escape."""
    return strict_json.dumps(value).encode("utf-8")
