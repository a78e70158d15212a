"""Training in a real kernel: a picture that changes, and the stop button."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

SIZES = "cell='nn.RNN', hidden=8, batch=4, window=16, engine='loop', precision='float32', validate_every=20"


class Cell:
    """What a cell showed, as a front end keeps it: an update replaces what has the same id."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, Any]] = {}
        self.updates = 0
        self.stream = self.result = ""
        self.error: str | None = None

    def take(self, message: dict[str, Any]) -> bool:
        """Take a message of the kernel; False once the cell is done."""
        kind, content = message["msg_type"], message["content"]
        if kind in ("display_data", "update_display_data"):
            self.updates += kind == "update_display_data"
            self.shown[content["transient"]["display_id"]] = content["data"]
        elif kind == "stream":
            self.stream += content["text"]
        elif kind == "execute_result":
            self.result = content["data"].get("text/html", content["data"]["text/plain"])
        elif kind == "error":
            self.error = content["ename"]
        return not (kind == "status" and content["execution_state"] == "idle")


@pytest.fixture(scope="module")
def kernel() -> Any:
    from jupyter_client.manager import start_new_kernel
    from jupyter_core.utils import ensure_event_loop

    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    client.context.destroy(linger=0)  # what the library leaves to the end of the process is an error here
    ensure_event_loop().close()


def ran(kernel: Any, code: str, interrupted_after: int | None = None) -> Cell:
    """Run a cell; interrupt it, where asked to, after so many pictures."""
    manager, client = kernel
    cell, asked, sent = Cell(), client.execute(code), False
    while True:
        message = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") == asked and not cell.take(message):
            return cell
        if interrupted_after is not None and cell.updates >= interrupted_after and not sent:
            sent = True
            manager.interrupt_kernel()


def test_training_in_a_kernel_shows_itself_and_is_interrupted(kernel: Any, corpus: str, home: Path) -> None:
    ran(kernel, f"import os; os.environ['CHARRNN_HOME'] = {str(home)!r}; import charrnn")
    done = ran(kernel, f"model = charrnn.train({corpus!r}, name='whole', steps=60, {SIZES}); model")
    assert done.error is None, done.stream
    assert done.stream == ""
    (shown,) = done.shown.values()
    assert "step 60 of 60; complete" in shown["text/html"]
    assert "<svg" in shown["text/html"]
    assert done.updates > 3
    assert "whole" in done.result
    assert "validation" in done.result
    began = time.monotonic()
    code = f"model = charrnn.train({corpus!r}, name='cut', steps=1_000_000, {SIZES}); print(type(model).__name__)"
    cut = ran(kernel, code, interrupted_after=6)
    assert time.monotonic() - began < 100
    assert cut.error is None
    assert cut.stream == "TextModel\n"
    (shown,) = cut.shown.values()
    stopped = re.search(r"interrupted after step ([\d,]+); everything is saved", shown["text/html"])
    assert stopped is not None, shown["text/html"]
    assert "charrnn.resume(&#39;cut&#39;)" in shown["text/html"]
    assert "charrnn train --resume cut" in shown["text/html"]
    steps = int(stopped[1].replace(",", "")) + 5
    resumed = ran(kernel, f"print(charrnn.resume('cut', steps={steps}, progress=False).run.about()['step'])")
    assert resumed.stream == f"{steps}\n"
    assert resumed.shown == {}


def test_results_show_themselves_in_a_kernel(kernel: Any, corpus: str, home: Path) -> None:
    ran(kernel, f"import os; os.environ['CHARRNN_HOME'] = {str(home)!r}; import charrnn")
    ran(kernel, f"model = charrnn.train({corpus!r}, steps=3, {SIZES}, progress=False)")
    assert 'class="charrnn heat"' in ran(kernel, "model.score('Mreža <b>')").result
    assert "<b>M</b>" in ran(kernel, "model.completion('M', 5)").result
    assert 'class="bars"' in ran(kernel, "model.next('M')").result
    assert "activation" in ran(kernel, "model.units('Mreža (sve).')").result
    assert ran(kernel, "charrnn.cells.get('gru')").error is None
    assert "charrnn.cells.cell" not in ran(kernel, "model.score('Mreža').plot()").result
