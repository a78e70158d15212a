"""serve: models for other programs, in the way of OpenAI's completions API."""

import contextlib
import html
import logging
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.errors import CharRNNError, OptionError, how_to_install
from charrnn.interruption import Interruption, heard

TOKEN = "CHARRNN_TOKEN"  # the variable that may name a token: other users see a command line, but no environment
TOKEN_LEAST = 16  # characters


@click.command()
@click.argument("runs", nargs=-1, shell_complete=options.complete_runs)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="NAME",
    help="The address to listen to: other machines reach this one only by another than the default.",
)
@click.option("--port", default=8765, show_default=True, metavar="N", help="The port; 0 takes any that is free.")
@click.option(
    "--open", "opening", is_flag=True, help="Open the page in a browser: complete, look inside, train, compare."
)
@click.option(
    "--weights",
    "kept",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="Quantization of the weights: fewer bytes are faster and a little less exact.",
)
@click.option("--allow-train", is_flag=True, help="Let the page train, though other machines reach it by --host.")
@click.option("--log-prompts", is_flag=True, help="Write prompts into the log, which has none otherwise.")
@click.option("--ssl-certfile", metavar="FILE", help="Speak TLS, with this certificate (PEM), as uvicorn takes it.")
@click.option("--ssl-keyfile", metavar="FILE", help="The key of the certificate, where it is in another file.")
@click.option("--ssl-keyfile-password", metavar="TEXT", help="What the key is encrypted with.")
@options.device
def command(
    runs: tuple[str, ...],
    host: str,
    port: int,
    opening: bool,
    kept: Literal["float32", "bf16", "int8"],
    allow_train: bool,
    log_prompts: bool,
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    ssl_keyfile_password: str | None,
    device: str,
) -> None:
    """Serve models to other programs, in the way of OpenAI's completions API.

    A browser gets a page: complete as you type, look inside, train, compare. RUNS are names or paths of runs, or
    'latest', which is the default; they are served side by side. Who asks must give the token that is printed: a new
    one every time, or the one in the environment variable CHARRNN_TOKEN. Ctrl-C or TERM ends it, and lets finish what
    runs.
    """
    if not 0 <= port < 1 << 16:
        raise OptionError(f"port is {port}", "expected a whole number from 0 to 65535")
    token = _given_token()
    if ssl_certfile is None and (ssl_keyfile or ssl_keyfile_password):
        raise OptionError("--ssl-keyfile is given without --ssl-certfile", "give both")
    try:
        from charrnn.serve.server import Server, Tls
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise CharRNNError(f"serving needs {error.name}, which is not installed", how_to_install("serve")) from None
    from charrnn.serve.models import Served
    from charrnn.serve.safety import is_loopback

    tls = None if ssl_certfile is None else Tls(ssl_certfile, ssl_keyfile, ssl_keyfile_password)
    models = [Served.of(options.loaded(run, device, None, kept)) for run in dict.fromkeys(runs or ("latest",))]
    server = Server(models, host, port, token=token, tls=tls, log_prompts=log_prompts, allow_train=allow_train)
    if not is_loopback(host):
        cli.note(
            f"whoever reaches {host} port {server.access.port} can ask for completions with the token"
            + ("" if tls else "; without --ssl-certfile the token and all texts can be read on the way")
        )
    log_to_stderr()
    address = f"{server.url}/?token={quote(server.access.token, safe='')}"
    click.echo(f"models   {', '.join(model.name for model in models)}")
    click.echo(f"API      {server.url}/v1")
    click.echo(f"token    {'the one in ' + TOKEN if token else server.access.token}")
    if not token:
        click.echo(f"browser  {address}")
    page = _opened(address) if opening else contextlib.nullcontext()
    with contextlib.closing(server), heard(Interruption()), page:
        server.run()


def _given_token() -> str | None:
    token = os.environ.get(TOKEN)
    if token is not None and not (
        len(token) >= TOKEN_LEAST and token.isascii() and token.isprintable() and token == token.strip()
    ):
        raise OptionError(
            f"the token in {TOKEN} is too short, has other characters than ASCII's, or begins or ends with a blank",
            f"give {TOKEN_LEAST} or more, or unset {TOKEN} for a new one",
        )
    return token


def log_to_stderr() -> None:
    """Write what is logged to stderr: a line for each request."""
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name, level in (("charrnn.serve", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class _Stderr:
    """Writes to what stderr is at the moment, as click does."""

    def write(self, text: str) -> None:
        click.echo(text, err=True, nl=False)

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open an address in a browser, through a file that this user alone can read: others see the command line."""
    descriptor, name = tempfile.mkstemp(prefix="charrnn-", suffix=".html")
    page = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            quoted = html.escape(address)
            file.write(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={quoted}">\n')
            file.write(f'<title>charrnn</title><a href="{quoted}">charrnn</a>\n')
        threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        yield
    finally:
        page.unlink(missing_ok=True)
