"""What the body of a request may hold: read from JSON, checked, and handed on as values."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn import strict_json
from charrnn.errors import OptionError
from charrnn.generate.sampling import Sampling
from charrnn.serve.errors import bad
from charrnn.serve.limits import Limits

DEFAULT_MAX_TOKENS = 16  # the protocol's, as all defaults here
TOP_LOGPROBS = 5

# Parameters of the protocol, and of other servers, that are not supported: the values that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "best_of": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
}
IGNORED = ("user", "metadata")  # what changes no answer
KNOWN = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "echo", "logprobs",
    "stream", "stream_options",
}  # fmt: skip

GivenPrompt = str | tuple[int, ...]


@dataclass(frozen=True)
class CompletionRequest:
    """What completions are asked for. Choice i * n + j is completion j of prompt i.

    max_tokens: ids of a completion at the most. logprobs: how many of the likeliest ids to tell for every place; None
    is no logprobs at all.
    """

    model: str
    prompts: tuple[GivenPrompt, ...]
    max_tokens: int
    sampling: Sampling
    n: int = 1
    stop: tuple[str, ...] = ()
    echo: bool = False
    logprobs: int | None = None
    stream: bool = False
    include_usage: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], limits: Limits) -> "CompletionRequest":
        """Read a body. Raises RequestError, which names the parameter, for what cannot be or is not supported."""
        values = {name: value for name, value in body.items() if value is not None}
        _refuse_unsupported(values)
        prompts = _prompts(values.get("prompt", ""))
        n = _whole(values, "n", 1, 1, limits.choices)
        if len(prompts) * n > limits.choices:
            raise bad(f"{len(prompts)} prompts with n = {n} are more than {limits.choices} completions", "n")
        max_tokens = _whole(values, "max_tokens", DEFAULT_MAX_TOKENS, 0, limits.ids)
        if len(prompts) * n * max_tokens > limits.ids:
            raise bad(f"prompts x n x max_tokens are more than {limits.ids:,}: ask for fewer at a time", "max_tokens")
        logprobs = _whole(values, "logprobs", 0, 0, TOP_LOGPROBS) if "logprobs" in values else None
        stream = _truth(values, "stream")
        options = values.get("stream_options", {})
        if not isinstance(options, dict):
            raise bad("stream_options is no object", "stream_options")
        if options and not stream:
            raise bad("stream_options is given without stream", "stream_options")
        if unknown := sorted(set(options) - {"include_usage"}):
            raise bad(f"stream_options has {unknown[0]!r}, and only include_usage is known", "stream_options")
        return cls(
            model_of(values),
            prompts,
            max_tokens,
            _sampling(values),
            n,
            _stop(values.get("stop", ()), limits),
            _truth(values, "echo"),
            logprobs,
            stream,
            _truth(options, "include_usage"),
        )


def json_object(body: bytes) -> dict[str, Any]:
    """Read a body of JSON. Raises RequestError for anything that is no object of strict JSON."""
    try:
        value = strict_json.loads(body.decode("utf-8"), lenient=False)
    except ValueError as error:  # no UTF-8 is one, and a number of too many digits
        raise bad(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad("the body is not an object of JSON", code="invalid_json")
    return value


def model_of(values: Mapping[str, Any]) -> str:
    """Return the name of the model that is asked for; empty for none."""
    name = values.get("model", "")
    if not isinstance(name, str):
        raise bad("model is no string", "model")
    return name


def text_of(values: Mapping[str, Any], name: str) -> str:
    """Return a string of a body. Raises RequestError where there is none."""
    value = values.get(name)
    if not isinstance(value, str):
        raise bad(f"{name} is no string", name)
    return value


def ids_of(values: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Return a list of ids of a body. Raises RequestError where there is none."""
    value = values.get(name)
    if not isinstance(value, list) or not all(map(_is_whole, value)):
        raise bad(f"{name} is no list of ids", name)
    return tuple(value)


def _refuse_unsupported(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in KNOWN or name in IGNORED or value in NEUTRAL.get(name, ()):
            continue
        if name == "best_of" and value == values.get("n", 1):
            continue
        known = name in NEUTRAL
        told = "is not supported, and would change the answer" if known else "is no parameter of this server"
        raise bad(f"{_short(name)} {told}: leave it out", name, "unsupported_parameter")


def _prompts(value: Any) -> tuple[GivenPrompt, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if all(map(_is_whole, value)):
            return (tuple(value),)
        if all(isinstance(each, str) for each in value):
            return tuple(value)
        if all(isinstance(each, list) and all(map(_is_whole, each)) for each in value):
            return tuple(map(tuple, value))
    raise bad("prompt is none of: a string, a list of strings, a list of ids, a list of lists of ids", "prompt")


def _sampling(values: Mapping[str, Any]) -> Sampling:
    temperature, top_p, min_p = (_number(values, name) for name in ("temperature", "top_p", "min_p"))
    numbers = {
        "temperature": 1.0 if temperature is None else temperature,
        "top_k": _whole(values, "top_k", 1, 1, None) if "top_k" in values else None,
        "top_p": None if top_p == 1 else top_p,  # clients give these where they mean none
        "min_p": None if min_p == 0 else min_p,
        "seed": _whole(values, "seed", 0, 0, 2**64 - 1) if "seed" in values else secrets.randbits(32),
    }
    try:
        return Sampling(**numbers)  # type: ignore[arg-type]
    except OptionError as error:
        raise bad(str(error), error.problem.split()[0].replace("-", "_")) from None


def _stop(value: Any, limits: Limits) -> tuple[str, ...]:
    stop = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
    if stop is None or not all(isinstance(each, str) for each in stop):
        raise bad("stop is neither a string nor a list of strings", "stop")
    if "" in stop:
        raise bad("a stop string is empty: give at least one character, or leave it out", "stop")
    if len(stop) > limits.stops or any(len(each) > limits.stop_chars for each in stop):
        raise bad(f"up to {limits.stops} stop strings of up to {limits.stop_chars} characters are looked for", "stop")
    return stop


def _whole(values: Mapping[str, Any], name: str, default: int, least: int, most: int | None) -> int:
    value = values.get(name, default)
    if not _is_whole(value) or value < least or (most is not None and value > most):
        expected = f"of {least} or more" if most is None else f"from {least} to {most:,}"
        raise bad(f"{name} is {_short(value)}: expected a whole number {expected}", name)
    number: int = value
    return number


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        raise bad(f"{name} is {_short(value)}: expected a number", name)
    return float(value)


def _truth(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name) or False
    if not isinstance(value, bool):
        raise bad(f"{name} is {_short(value)}: expected true or false", name)
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    """Write a value for a message, however long it is."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of many digits"
    written = strict_json.dumps(value)
    return written if len(written) <= 40 else f"{written[:40]}..."


def shown(prompts: Sequence[GivenPrompt]) -> str:
    """Write prompts for a log whose reader asked for them: on one line, however long they are."""
    return strict_json.dumps([each if isinstance(each, str) else list(each) for each in prompts])[:1000]
