"""The server: the text is sample's whatever else runs, the protocol is kept, and nobody can harm or slow it."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS, config
from serving import SECONDS, Client, Server, at_once, serving, until

from charrnn import api
from charrnn.api import TextModel
from charrnn.generate.rows import STEPS, Groups, Rows
from charrnn.training import loop

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from charrnn.serve.app import Delivery
from charrnn.serve.server import Together

ENDLESS = 250_000  # ids, of a completion that no test waits for; a server takes no more of one request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    place = tmp_path_factory.mktemp("served")
    (place / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    asked = config(str(place / "text.txt"), steps=30)
    run = loop.open_run(asked, out=place / "small")
    for _ in loop.new_run(asked, run):
        pass
    return api.load(run)


@pytest.fixture(scope="module")
def server(model: TextModel) -> Iterator[Server]:
    with serving(model) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


# Completions


def asked_of(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The n-th of many completions, all different: as the server is asked for it, and as `TextModel` is."""
    prime = ["", "Re", "Rekurentne mreže pamte", "x" * 70, "日本"][n % 5]
    filters = [{}, {"top_k": 4}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 9, "top_p": 0.9}][n % 7 % 5]
    more = {"temperature": [0.8, 1.0, 0.0, 1.7][n % 4], "seed": n // 2, **filters}
    chars = 3 + 29 * (n % 6)
    stop = ["", "a ", "kvadrat"][n % 3]
    return (
        {"prompt": prime, "max_tokens": chars, **more, **({"stop": stop} if stop else {})},
        {"prime": prime, "chars": chars, **more, "stop": [stop] if stop else []},
    )


def test_the_text_is_the_one_of_sample_whatever_else_runs(client: Client, model: TextModel) -> None:
    def answered(n: int) -> str:
        if n % 3 == 0:
            events = client.streamed(**asked_of(n)[0])
            return "".join(choice["text"] for event in events for choice in event["choices"])
        return str(client.complete(**asked_of(n)[0], logprobs=n % 4 or None)["choices"][0]["text"])

    served = at_once([lambda n=n: answered(n) for n in range(24)])
    whole = 0
    for n, text in enumerate(served):
        expected = model.complete(**asked_of(n)[1])
        assert expected.startswith(text), n  # an id is a character, but where that is spelled in bytes
        whole += text == expected
    assert whole > 12


def test_choices_are_the_completions_of_each_prompt_by_number(client: Client, model: TextModel) -> None:
    prompts = ["Re", "Mreža", ""]
    answer = client.complete(prompt=prompts, n=3, max_tokens=40, seed=5, temperature=0.9)
    assert [choice["index"] for choice in answer["choices"]] == list(range(9))
    from charrnn.generate.sampling import Sampling

    for i, prompt in enumerate(prompts):
        drawn = model.completions(prompt, 40, Sampling(0.9, seed=5), 3)
        texts = ["".join(c for c, _ in characters) for characters in drawn]
        assert [choice["text"] for choice in answer["choices"][3 * i : 3 * i + 3]] == texts
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 360, "total_tokens": 367}
    assert answer["model"] == "small"
    assert answer["object"] == "text_completion"


def test_a_prompt_may_be_ids(client: Client, model: TextModel) -> None:
    ids = client("/tokenize", {"prompt": "Rekur"}).json["tokens"]
    text = client.complete(prompt="Rekur", seed=1)["choices"][0]["text"]
    assert client.complete(prompt=ids, seed=1)["choices"][0]["text"] == text
    assert client.complete(prompt=[ids, ids], seed=1)["choices"][1]["text"] == text
    assert client.complete(prompt=[model.tokenizer.size, *ids], seed=1)["choices"][0]["text"] == text
    assert client("/detokenize", {"tokens": ids}).json["prompt"] == "Rekur"


def test_a_stream_is_the_same_answer_in_pieces(client: Client) -> None:
    asked = {"prompt": "Re", "n": 3, "max_tokens": 90, "seed": 2, "logprobs": 2, "echo": True}
    whole = client.complete(**asked)
    events = client.streamed(**asked, stream_options={"include_usage": True})
    assert events.pop() == {**{k: whole[k] for k in ("object", "model", "seed", "usage")}, "choices": []} | {
        "id": events[0]["id"], "created": events[0]["created"]
    }  # fmt: skip
    assert all(event["usage"] is None for event in events)
    assert len(events) > 9
    for choice in whole["choices"]:
        pieces = [c for event in events for c in event["choices"] if c["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
        for name, values in choice["logprobs"].items():
            assert [value for piece in pieces for value in piece["logprobs"][name]] == values, name


def test_a_stop_string_ends_and_is_left_out(client: Client, model: TextModel) -> None:
    text = model.complete("Re", 200, seed=4, temperature=1.0)
    stop = text[50:54]
    asked = {"prompt": "Re", "seed": 4, "max_tokens": 200, "stop": [stop, "\ud800"], "logprobs": 0}
    choice = client.complete(**asked)["choices"][0]
    before = text[: text.index(stop)]
    assert choice["text"] == before
    assert choice["finish_reason"] == "stop"
    assert "".join(choice["logprobs"]["tokens"]) == before
    events = client.streamed(**asked)
    assert "".join(c["text"] for e in events for c in e["choices"]) == before
    assert "".join(t for e in events for c in e["choices"] for t in c["logprobs"]["tokens"]) == before


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_wherever_moves_do(client: Client, model: TextModel, stream: bool) -> None:
    """A prime of one id leaves 14 draws of the first move: strings around there, and over two moves."""
    text = model.complete("Re", 100, seed=8, temperature=1.0)
    for start, length in [(0, 1), (11, 3), (12, 3), (13, 1), (14, 1), (13, 18), (28, 3), (29, 2), (45, 20), (12, 40)]:
        asked = {"prompt": "Re", "seed": 8, "max_tokens": 100, "stop": text[start : start + length]}
        expected = text[: text.index(asked["stop"])]
        if stream:
            choices = [choice for event in client.streamed(**asked) for choice in event["choices"]]
        else:
            choices = client.complete(**asked)["choices"]
        assert "".join(choice["text"] for choice in choices) == expected
        assert choices[-1]["finish_reason"] == "stop"


def test_no_seed_is_another_one_every_time_and_is_told(client: Client) -> None:
    first, second = (client.complete(prompt="Re", max_tokens=60) for _ in range(2))
    assert first["choices"][0]["text"] != second["choices"][0]["text"]
    again = client.complete(prompt="Re", max_tokens=60, seed=first["seed"])
    assert again["choices"] == first["choices"]


# Logprobs


def test_echo_with_logprobs_has_an_entry_for_every_id(client: Client, model: TextModel) -> None:
    text = "Rekurentne mreže; 日本."
    told = client.complete(prompt=text, max_tokens=1, echo=True, logprobs=3, seed=1, temperature=0)["choices"][0]
    ids, logprobs = model.tokenizer.encode(text), told["logprobs"]
    assert {name: len(values) for name, values in logprobs.items()} == dict.fromkeys(logprobs, len(ids) + 1)
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    nats = -np.array(logprobs["token_logprobs"][1:-1])
    per_char = np.bincount(model.tokenizer.character_index(ids)[1:], nats)[1:]
    assert per_char == pytest.approx(model.score(text).per_char[1:], abs=1e-5)  # float32, in two orders
    for token, number, top in zip(
        *(logprobs[k][1:] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert top[token] == number  # the identical number
        assert 3 <= len(top) <= 4
        assert max(top.values()) == sorted(top.values())[-1] >= number
    assert told["text"] == text + told["text"][-1]
    offsets = logprobs["text_offset"]
    for token, offset in zip(logprobs["tokens"], offsets, strict=True):
        if not token.startswith("bytes:"):
            assert told["text"][offset : offset + len(token)] == token
    assert [o for t, o in zip(logprobs["tokens"], offsets, strict=True) if t.startswith("bytes:")] == [18] * 3 + [
        19
    ] * 3


def test_the_start_token_gives_the_first_character_its_logprob(client: Client, model: TextModel) -> None:
    info = client("/tokenizer_info").json
    start = client("/tokenize", {"prompt": info["bos_token"], "add_special_tokens": False}).json["tokens"]
    assert start == [info["bos_token_id"]] == [model.tokenizer.size]
    ids = [*start, *model.tokenizer.encode("Rekurentne").tolist()]
    told = client.complete(prompt=ids, max_tokens=1, echo=True, logprobs=1)["choices"][0]
    numbers = told["logprobs"]["token_logprobs"]
    assert len(numbers) == len(ids) + 1
    assert -sum(numbers[1:-1]) == pytest.approx(model.score("Rekurentne").per_char.sum(), abs=1e-4)
    assert told["text"].startswith("Rekurentne")


@pytest.mark.parametrize("document", ["line", "blank"])
def test_documents_of_a_prompt_are_echoed_each_from_nothing(model: TextModel, document: str) -> None:
    reads = dataclasses.replace(model, config=dataclasses.replace(model.config, document=document))
    with serving(reads) as server:
        for prompt in ("", "Re", "Re\n", "Re\n\nku\n"):
            asked = {"prompt": prompt, "max_tokens": 2, "echo": True, "logprobs": 1, "seed": 1}
            told = Client(server).complete(**asked)["choices"][0]["logprobs"]["token_logprobs"]
            assert len(told) == len(prompt) + 2
            costs = -np.array(told[1 : len(prompt)])
            assert costs == pytest.approx(reads.score(prompt).per_char[1:], abs=1e-5), prompt


def test_nothing_drawn_is_a_prompt_that_is_scored(client: Client) -> None:
    choice = client.complete(prompt="Re", max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert choice["text"] == "Re"
    assert len(choice["logprobs"]["tokens"]) == 2
    assert choice["finish_reason"] == "length"
    assert client.streamed(prompt="Re", max_tokens=0, n=2)[1]["choices"][0]["index"] == 1


# What is refused


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**400}, "n"),
        ({"n": 100, "prompt": ["a", "b"]}, "n"),
        ({"n": 100, "max_tokens": 100_000}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 70_000, "logprobs": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"seed": -1}, "seed"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x" * 129]}, "stop"),
        ({"stop": 3}, "stop"),
        ({"echo": "yes"}, "echo"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_use": True}}, "stream_options"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": {"file": "/etc/passwd"}}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [0xC5]}, "prompt"),  # half a character
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "a" * 300_000}, "prompt"),
        ({"prompt": "a" * 70_000, "echo": True, "logprobs": 1}, "prompt"),
        ({"model": ["small"]}, "model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: Client, values: dict[str, Any], param: str) -> None:
    answered = client("/v1/completions", {"model": "small", **values})
    assert answered.status == 400
    error = answered.json["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 300


def test_ids_that_are_none_are_refused_wherever_they_are_given(client: Client) -> None:
    for ids in ([10**30], [-1], [10**9], [0xC5], [True], "a", None):
        answered = client("/detokenize", {"tokens": ids})
        assert (answered.status, answered.json["error"]["param"]) == (400, "tokens")


def test_what_changes_nothing_may_be_given(client: Client) -> None:
    neutral = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "suffix": "", "best_of": 2, "n": 2}
    more = {"user": "somebody", "top_p": 1, "min_p": 0.0, "stop": None, "logprobs": None, "top_k": None, "echo": False}
    plain = client.complete(prompt="Re", seed=4, n=2)
    assert client.complete(prompt="Re", seed=4, **neutral, **more)["choices"] == plain["choices"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'{"model": NaN}',
        b'{"n": Infinity}',
        b'{"n": 1, "n": 2}',
        b"\xff\xfe",
        b"{} {}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"n": 1' + b"0" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: Client, body: bytes) -> None:
    answered = client("/v1/completions", body)
    assert answered.status == 400
    assert answered.json["error"]["code"] == "invalid_json"


def test_a_model_that_is_not_there_is_not_found(client: Client) -> None:
    for answered in (client("/v1/completions", {"model": "../../etc"}), client("/v1/models/%2e%2e%2fsmall")):
        assert answered.status == 404
        assert answered.json["error"]["code"] == "model_not_found"
    assert client("/v1/models/small").json["id"] == "small"
    assert [each["id"] for each in client("/v1/models").json["data"]] == ["small"]
    assert client("/nothing").status == 404
    assert client("/v1/completions").status == 405


# Who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic x"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \u00ff"},
        {"Cookie": "charrnn-1=x"},
    ],
)
def test_nothing_is_answered_without_the_token(client: Client, headers: dict[str, str]) -> None:
    for path, body in [("/", None), ("/v1/models", None), ("/v1/completions", {}), ("/tokenize", {}), ("/x", None)]:
        answered = client(path, body, headers=headers)
        assert answered.status == 401
        assert answered.headers["www-authenticate"] == "Bearer"
        assert b"small" not in answered.body


def test_the_address_that_is_printed_gives_a_browser_its_cookie(client: Client) -> None:
    token = client.server.access.token
    answered = client(f"/?token={token}", headers={})
    assert answered.status == 303
    assert answered.headers["location"] == "/"
    cookie = answered.headers["set-cookie"]
    assert re.search(r"; HttpOnly(;|$)", cookie)
    assert re.search(r"; SameSite=lax(;|$)", cookie)
    given = {"Cookie": cookie.partition(";")[0]}
    assert client("/", headers=given).status == 200
    assert client("/v1/models", headers=given).status == 200
    assert client("/?token=wrong", headers={}).status == 401
    assert client(f"/v1/models?token={token}", headers={}).status == 401  # in the address of the page alone
    assert client(f"//evil.example/?token={token}", headers={}).status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:1", 200), ("localhost:8765", 200), ("LOCALHOST", 200), ("[::1]:8765", 200),
        ("evil.example", 403), ("evil.example:8765", 403), ("127.0.0.1.evil.example", 403), ("192.168.1.7", 403),
        ("", 403), ("localhost.evil.example", 403), ("2130706433", 403), ("[::1", 200), ("\u00ff", 403),
    ],
)  # fmt: skip
def test_another_host_than_ours_is_refused(client: Client, host: str, status: int) -> None:
    token = {"Authorization": f"Bearer {client.server.access.token}"}
    assert client("/v1/models", headers={**token, "Host": host}).status == status


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:1", "https://127.0.0.1.evil.example", "file://"]
)
def test_a_page_of_another_origin_is_refused(client: Client, origin: str) -> None:
    token = {"Authorization": f"Bearer {client.server.access.token}", "Origin": origin}
    answered = client("/v1/completions", {"model": "small"}, headers=token)
    assert answered.status == 403
    preflight = client("/v1/completions", method="OPTIONS", headers={"Origin": origin})
    for headers in (answered.headers, preflight.headers):
        assert not [name for name in headers if name.startswith("access-control")]
    own = f"http://127.0.0.1:{client.server.access.port}"
    assert client("/v1/models", headers={**token, "Origin": own}).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_of_a_page_can_send_is_refused(client: Client, kind: str) -> None:
    token = {"Authorization": f"Bearer {client.server.access.token}"}
    answered = client("/v1/completions", {"model": "small"}, headers={**token, "Content-Type": kind})
    assert answered.status == 415


def test_requests_that_name_no_host_or_two_are_refused(client: Client) -> None:
    token = f"Authorization: Bearer {client.server.access.token}\r\n".encode()
    for head in (
        b"GET /v1/models HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.0\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
    ):
        with client.raw(head + token + b"\r\n") as connection:
            assert connection.recv(100).split()[1] in (b"400", b"403")


def test_every_answer_has_the_headers_that_keep_a_browser_from_harm(client: Client) -> None:
    for answered in (client("/v1/models"), client("/v1/models", headers={}), client("/nothing")):
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert answered.headers["content-security-policy"].startswith("default-src 'none'")
        assert answered.headers["cache-control"] == "no-store"
        assert "server" not in answered.headers


def test_the_log_tells_neither_the_token_nor_prompts(
    client: Client, caplog: pytest.LogCaptureFixture, model: TextModel
) -> None:
    caplog.set_level(logging.DEBUG)
    token = client.server.access.token
    client.complete(prompt="sekret")
    client("/v1/completions", {"model": "small", "prompt": "sekret", "n": 0})
    client(f"/?token={token}", headers={})
    client(f"/%0aforged?token={token}", headers={})
    until(lambda: "forged" in caplog.text)
    assert "POST /v1/completions 200" in caplog.text
    assert "sekret" not in caplog.text
    assert token not in caplog.text
    assert "\nforged" not in caplog.text
    with serving(model, log_prompts=True) as other:
        Client(other).complete(prompt="a\nsekret")
    assert r'prompts: ["a\nsekret"]' in caplog.text


# What would slow it


def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    body = json.dumps({"model": "small", "prompt": "a" * 10_000_000}).encode()
    answered = client("/v1/completions", body)
    assert answered.status == 413
    assert answered.headers["connection"] == "close"


def test_heads_and_bodies_that_come_slowly_are_given_up(model: TextModel) -> None:
    with serving(model, body_seconds=0.3, head_seconds=0.4) as server:
        client = Client(server)
        whole = client.request({"model": "small"})
        with client.raw(whole[:-5]) as connection:
            assert connection.recv(1000).split()[1] == b"408"
        for begun in (b"", b"POST /v1", whole[: whole.index(b"\r\n\r\n")]):
            with client.raw(begun) as connection:
                assert connection.recv(1000) == b""
        with client.raw(whole) as connection:  # one that has been answered, and trickles on
            assert connection.recv(100).split()[1] == b"200"
            assert seconds_of_trickling(connection) < SECONDS
        assert client("/v1/models").status == 200


def seconds_of_trickling(connection: socket.socket) -> float:
    """Send a head byte by byte, until the server has enough of it."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began < SECONDS:
            connection.sendall(b"G")
            time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_rows(model: TextModel, stream: bool) -> None:
    with serving(model, rows=4) as server:
        client = Client(server)
        asked = {"model": "small", "prompt": "Re", "max_tokens": ENDLESS // 8, "n": 8, "stream": stream}
        with client.raw(client.request(asked)):
            until(lambda: server.service.running == 4)
        until(lambda: server.service.running == 0)
        assert client.complete(prompt="Re", max_tokens=5)["choices"][0]["finish_reason"] == "length"


def test_a_client_that_goes_away_while_it_asks_is_no_failure(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with client.raw(client.request({"model": "small"})[:-3]):
        pass
    until(lambda: "499" in caplog.text)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_row_is_free_a_move_after_it_was_given_up(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in moves, which a busy machine does not change."""
    moves, real = [], Rows.move_on

    def counted(rows: Rows) -> None:
        real(rows)
        moves.append(len(rows))

    monkeypatch.setattr(Rows, "move_on", counted)
    with serving(model, rows=2) as server:
        client = Client(server)
        asked = {"model": "small", "max_tokens": ENDLESS, "stream": True}
        with client.raw(client.request(asked)):
            until(lambda: server.service.running == 1)
            batch = server.service.batch(server.service.models["small"])
            here = list(batch.here)
            batch.leave(here)
            began = len(moves)
            until(lambda: server.service.running == 0)
        assert len(moves) - began <= 2  # the one that ran, and perhaps one that began meanwhile
    assert STEPS == 16


def test_more_than_may_wait_are_told_to_come_again(model: TextModel) -> None:
    with serving(model, rows=2, waiting=3) as server:
        client = Client(server)
        asked = {"model": "small", "max_tokens": ENDLESS // 8, "n": 5, "stream": True}
        with client.raw(client.request(asked)):
            until(lambda: server.service.running == 2)
            for stream in (True, False):
                answered = client("/v1/completions", {"model": "small", "stream": stream})
                assert answered.status == 503
                assert int(answered.headers["retry-after"]) > 0
                assert answered.json["error"]["code"] == "busy"
        until(lambda: server.service.running == 0)
        assert client.complete(prompt="Re")


def test_more_connections_than_there_may_be_are_refused(model: TextModel) -> None:
    with serving(model, connections=4) as server:
        client = Client(server)
        held = [client.raw(b"GET") for _ in range(5)]
        assert client("/v1/models").status == 503
        for connection in held:
            connection.close()
        until(lambda: client("/v1/models").status == 200)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_given_up(model: TextModel) -> None:
    with serving(model, send_seconds=0.5) as server:
        client = Client(server)
        asked = {"model": "small", "max_tokens": 16_000, "stream": True, "n": 4, "logprobs": 5}
        with client.raw(client.request(asked)):
            until(lambda: server.service.running > 0)
            until(lambda: server.service.running == 0 and not server.server.server_state.connections)


def test_requests_that_follow_each_other_on_one_connection_are_answered_in_turn(client: Client) -> None:
    asked = [client.request({"model": "small", "prompt": "Re", "seed": n, "max_tokens": 9}) for n in range(3)]
    with client.raw(b"".join(asked)) as connection:
        received = b""
        while received.count(b'"usage"') < 3:
            received += connection.recv(10_000)
    assert re.findall(rb'"seed": (\d+)', received) == [b"0", b"1", b"2"]


def test_small_pieces_are_sent_at_once(client: Client) -> None:
    with client.raw(b""):
        connections = client.server.server.server_state.connections
        until(lambda: bool(connections))
        sockets = [each.transport.get_extra_info("socket") for each in connections]
        assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)


def test_what_is_written_in_one_turn_of_the_loop_is_sent_at_once() -> None:
    sent: list[bytes] = []

    class Transport(asyncio.Transport):
        def write(self, data: Any) -> None:
            sent.append(data)

        def close(self) -> None:
            sent.append(b"closed")

    async def write() -> None:
        together = Together(Transport(), asyncio.get_running_loop())
        together.write(b"head, ")
        together.write(b"body")
        assert not sent
        await asyncio.sleep(0)
        together.write(b"last")
        together.close()
        await asyncio.sleep(0)

    asyncio.run(write())
    assert sent == [b"head, body", b"last", b"closed"]


def test_an_answer_is_one_piece(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    real = Together.send

    def noted(together: Together) -> None:
        sent.append(b"".join(together.written))
        real(together)

    monkeypatch.setattr(Together, "send", noted)
    answered = client("/v1/completions", {"model": "small", "prompt": "Re"})
    (piece,) = (each for each in sent if each)
    assert piece.startswith(b"HTTP/1.1 200 ")
    assert piece.endswith(b"}")
    assert answered.json["usage"]


def test_what_threads_tell_while_the_loop_is_busy_wakes_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    wakes: list[Any] = []

    class Told:
        def to(self, piece: int) -> None:
            told.append(piece)

    async def tell() -> None:
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda call: wakes.append(real(call)))
        delivery = Delivery()
        for n in range(3):
            delivery([(Told(), n)])  # type: ignore[list-item]
        await asyncio.sleep(0)
        assert (told, len(wakes)) == ([0, 1, 2], 1)
        delivery([(Told(), 3)])  # type: ignore[list-item]
        await asyncio.sleep(0)

    asyncio.run(tell())
    assert (told, len(wakes)) == ([0, 1, 2, 3], 2)


def test_rows_that_fail_cost_those_that_were_there(
    model: TextModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = Rows.move_on, [MemoryError("no room")]

    def fail(rows: Rows) -> None:
        if failures:
            raise failures.pop()
        real(rows)

    monkeypatch.setattr(Rows, "move_on", fail)
    with serving(model) as server:
        client = Client(server)
        answered = client("/v1/completions", {"model": "small", "prompt": "Re"})
        assert answered.status == 500
        assert answered.json["error"]["type"] == "server_error"
        assert client.complete(prompt="Re")
    assert "no room" in caplog.text


def test_rows_that_fail_cost_those_of_their_group_alone(
    model: TextModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, first, failures = Rows.move_on, list[Rows](), [MemoryError("no room")]

    def fail(rows: Rows) -> None:
        if first and rows is not first[0] and failures:
            raise failures.pop()
        first.append(rows)
        real(rows)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Rows, "move_on", fail)
    with serving(model, rows=2) as server:
        client = Client(server)
        with client.raw(client.request({"model": "small", "max_tokens": ENDLESS // 64, "stream": True})) as connection:
            until(lambda: server.service.running == 1)
            monkeypatch.setattr(Groups, "size", lambda groups, rows: 1)
            assert client("/v1/completions", {"model": "small", "max_tokens": 20}).status == 500
            received = b""
            while b"[DONE]" not in received:
                received += connection.recv(65536)
        assert b'"server_error"' not in received
        assert client.complete(prompt="Re")["usage"]["completion_tokens"] == 16
    assert "no room" in caplog.text


def test_groups_of_rows_are_as_large_as_each_other(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    sizes: dict[int, int] = {}
    real = Rows.move_on

    def noted(rows: Rows) -> None:
        sizes[id(rows)] = len(rows)
        real(rows)

    monkeypatch.setattr(Rows, "move_on", noted)
    with serving(model, rows=20) as server:
        client = Client(server)
        with client.raw(client.request({"model": "small", "max_tokens": ENDLESS // 32, "n": 32, "stream": True})):
            until(lambda: server.service.running == 20 and sorted(sizes.values()) == [10, 10])


# The end


def test_the_end_lets_finish_what_has_the_time_and_tells_the_rest(model: TextModel) -> None:
    with serving(model, ending_seconds=1, rows=64) as server:
        client = Client(server)
        slow = client.raw(client.request({"model": "small", "max_tokens": ENDLESS, "stream": True}))
        quick = client.raw(client.request({"model": "small", "max_tokens": 1500, "stream": True}))
        with slow, quick:
            for connection in (slow, quick):
                assert connection.recv(10).startswith(b"HTTP/1.1 2")
            server.server.should_exit = True
            received = {}
            for name, connection in {"quick": quick, "slow": slow}.items():
                received[name] = b"".join(iter(lambda c=connection: c.recv(65536), b""))
    assert b'"finish_reason": "length"' in received["quick"]
    assert b'"code": "ending"' in received["slow"]
    assert all(b"data: [DONE]\n\n" in data for data in received.values())


def test_two_models_are_served_side_by_side(model: TextModel, tmp_path: Path) -> None:
    from charrnn.errors import CharRNNError
    from charrnn.serve.models import Served

    with pytest.raises(CharRNNError, match="same name"):
        serving(model, model)
    one = Served.of(model)
    other = Served("other/name", one.decoder, one.tokenizer, one.clean, "line")
    with Server([one, other], token="x" * 20) as server:
        client = Client(server)
        answers = at_once(
            [
                lambda name=name: client("/v1/completions", {"model": name, "prompt": "Re", "seed": 1}).json
                for name in ("small", "other/name")
            ]
        )
        texts = [answer["choices"][0]["text"] for answer in answers]
        assert texts[0] == texts[1] or "\n" in texts[1]
        assert client("/v1/models/other/name").json["id"] == "other/name"
