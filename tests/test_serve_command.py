"""The command: what it prints, how it ends, and what it says of what cannot be."""

import html
import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from serving import command

from charrnn import cli
from charrnn.cli import serve
from charrnn.training.run import Run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
TrainedRun = Callable[..., Run]


def ask(printed: dict[str, str], token: str, body: Any) -> Any:
    port = int(re.findall(r":(\d+)/", printed["API"])[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(connection):
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_server_says_where_it_is_and_ends_when_it_is_told_to(trained: TrainedRun, number: int, code: int) -> None:
    trained("mine")
    with command("mine") as (process, printed):
        assert printed["models"] == "mine"
        assert printed["browser"].endswith(f"/?token={printed['token']}")
        answer = ask(printed, printed["token"], {"model": "mine", "prompt": "sekret", "max_tokens": 20})
        assert answer["choices"][0]["finish_reason"] == "length"
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert time.monotonic() - began < 30
        assert out == ""
        assert re.search(r"^\d\d:\d\d:\d\d POST /v1/completions 200 \d+ ms$", err, re.MULTILINE)
        assert "sekret" not in err
        assert printed["token"] not in err


@pytest.mark.slow
def test_a_token_of_ones_own_is_not_printed(trained: TrainedRun) -> None:
    trained("mine")
    token = "correct-horse-battery"
    with command("mine", **{serve.TOKEN: token}) as (process, printed):
        assert ask(printed, token, {"model": "mine"})["usage"]["completion_tokens"] == 16
        process.send_signal(signal.SIGTERM)
        assert token not in "".join(process.communicate(timeout=60)) + str(printed)


@pytest.mark.parametrize(
    ("arguments", "environment", "problem", "code"),
    [
        (["--port", "70000"], {}, "port is 70000", 2),
        (["nowhere"], {}, "nowhere", 1),
        ([], {serve.TOKEN: "short"}, "too short", 2),
        ([], {serve.TOKEN: "correct-horse-battery "}, "begins or ends with a blank", 2),
        (["--ssl-keyfile", "key.pem"], {}, "without --ssl-certfile", 2),
        (["--ssl-certfile", "/nowhere.pem"], {}, "certificate", 1),
        (["--host", "no such host"], {}, "cannot be listened to", 1),
        (["mine", "latest"], {}, "same name", 1),
    ],
)
def test_what_cannot_be_served_is_said(
    trained: TrainedRun,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    problem: str,
    code: int,
) -> None:
    trained("mine")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["serve", *arguments]) == code
    assert problem in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(trained: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    trained("mine")
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert cli.run(["serve", "--port", str(other.getsockname()[1])]) == 1
    assert "give another --port" in capsys.readouterr().err


def test_other_hosts_and_browsers_are_told_and_opened(
    trained: TrainedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from charrnn.serve.server import Server

    opened: list[str] = []
    pages: list[str] = []

    def run(server: Server) -> None:
        while not opened:
            time.sleep(0.01)
        page = Path(opened[0].removeprefix("file://"))
        assert page.stat().st_mode & 0o077 == 0
        pages.append(page.read_text())

    monkeypatch.setattr(Server, "run", run)
    monkeypatch.setattr(serve, "log_to_stderr", lambda: None)  # it would stay for other tests
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    trained("mine")
    assert cli.run(["serve", "--host", "0.0.0.0", "--port", "0", "--open"]) == 0
    printed = capsys.readouterr()
    token = re.findall(r"^token +(\S+)$", printed.out, re.MULTILINE)[0]
    assert "can be read on the way" in printed.err
    assert token in pages[0]
    assert token not in opened[0]
    assert not Path(opened[0].removeprefix("file://")).exists()
    # A token of one's own may have what means something else in an address.
    opened.clear()
    own = "a+b/c=d&e#f %41;g"
    monkeypatch.setenv(serve.TOKEN, own)
    assert cli.run(["serve", "--port", "0", "--open"]) == 0
    (address,) = re.findall('href="([^"]+)"', pages[1])
    assert parse_qs(urlsplit(html.unescape(address)).query) == {"token": [own]}


@pytest.mark.slow
def test_tls_is_spoken_with_a_certificate(trained: TrainedRun, tmp_path: Path) -> None:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *files],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    trained("mine")
    tls = ["--ssl-certfile", str(tmp_path / "cert.pem"), "--ssl-keyfile", str(tmp_path / "key.pem")]
    with command("mine", *tls) as (_, printed):
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        context.check_hostname = False
        port = int(re.findall(r":(\d+)/", printed["API"])[0])
        assert printed["API"].startswith("https://")
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
        connection.request("GET", f"/?token={printed['token']}")
        answer = connection.getresponse()
        assert answer.status == 303
        assert "; Secure" in answer.headers["set-cookie"]
        connection.close()
