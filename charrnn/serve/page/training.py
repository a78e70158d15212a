"""The one training that the page began: the ordinary command, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, Any

from charrnn.errors import CharRNNError
from charrnn.home import home

LINES = 40  # of what a training said that are remembered
LINE_CHARACTERS = 500
ENDING_SECONDS = 20.0  # for a training that saves itself when the server ends


class Training:
    """Begins and stops trainings, one at a time. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._run: str | None = None
        self._said: deque[str] = deque(maxlen=LINES)

    def begin(self, run: str, arguments: list[str], text: str | None = None) -> None:
        """Train `run` by the command with these arguments. text: given to it as standard input.

        Raises CharRNNError where another training of the page is at work.
        """
        with self._lock:
            if self.is_running:
                raise CharRNNError(f"{self._run} is being trained", "stop it, or wait for its end")
            self._said.clear()
            self._run = run
            # A session of its own: Ctrl-C where the server runs reaches it once, through `end`.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "charrnn", "train", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "CHARRNN_HOME": str(home().resolve()), "PYTHONIOENCODING": "utf-8"},
                start_new_session=True,
            )
            process = self._process
            threading.Thread(target=_feed, args=(process.stdin, text), daemon=True).start()
            self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
            self._reader.start()

    def stop(self, run: str) -> None:
        """Ask the training of `run` to save and end. Raises CharRNNError where the page trains no such run."""
        with self._lock:
            if not self.is_running or run != self._run:
                raise CharRNNError(
                    f"{run} is not trained by this page", "stop it where it was started: Ctrl-C saves it"
                )
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Let a training that runs save itself, and wait for that."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:  # it goes on saving by itself
                return

    @property
    def is_running(self) -> bool:
        """Whether a training of the page is at work."""
        return self._process is not None and self._process.poll() is None

    def state(self) -> dict[str, Any]:
        """Return the run that was begun last, whether it runs, how it ended, and what it said to a person."""
        code = None if self._process is None else self._process.poll()
        if code is not None and self._reader is not None:
            self._reader.join(1.0)  # what it said last
        return {"run": self._run, "running": self.is_running, "code": code, "said": list(self._said)}

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                shown = re.split(r"\r", line.decode("utf-8", "replace").rstrip("\r\n"))[-1]
                if shown.strip():
                    self._said.append(shown[:LINE_CHARACTERS])
        process.wait()


def _feed(stream: IO[bytes] | None, text: str | None) -> None:
    """Give a process its standard input; one that has ended wants none."""
    assert stream is not None
    try:
        if text is not None:
            stream.write(text.encode("utf-8"))
        stream.close()
    except OSError:
        pass
