"""Inputs that nobody would write, for everything that is read: each is taken, or refused by the one error there is.

python tests/fuzzing.py 100000                  # so many for each reader, and a table of figures
python tests/fuzzing.py 100000 corpora primes   # for these
JOBS=16 python tests/fuzzing.py 100000          # so many processes side by side
"""

import hashlib
import json
import multiprocessing
import os
import platform
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from charrnn import api, cli
from charrnn.compare.grid import Folder, Grid, read_json
from charrnn.errors import CharRNNError
from charrnn.text import catalogue, copies
from charrnn.text.cleaning import Cleaning
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import loop, metrics, run_json, tensor_files, tensor_header
from charrnn.training.config import Config, settings_from_json
from charrnn.training.run import Run
from charrnn.training.settings import Settings

READERS = (
    "tokenizer.json",
    "config.json",
    "run.json",
    "lines of metrics",
    "headers of tensors",
    "files of tensors",
    "corpora",
    "primes",
    "train --config",
    "comparisons",
    "answers of a server",
)
CORPUS = Path(__file__).parent.parent / "corpora" / "rekurentne.txt"
LONGEST_SECONDS = 60.0  # what takes longer hangs: the machine may be busy
MOST_MEGABYTES = 1000  # that reading one input after the other may add to the process
TIMEOUT_SECONDS = 5  # of a server that says nothing
BATCH = 10_000  # inputs that one process is given: Hypothesis keeps what it drew, and that must not count as a leak


@dataclass
class Figures:
    """What came of the inputs of one reader. longest_ms: the longest that one took. megabytes: added to the process."""

    reader: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    longest_ms: float = 0.0
    megabytes: float = 0.0


# Inputs

ODD: list[Any] = [
    *(0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400, 1e308, -5e-324, 0.5, float("nan"), float("inf"), 256, 99),
    *(None, True, False, [], {}, "", "nfc", "F32", "-", "../x", "/dev/zero", "a\0b", "lstm", "\ud800", "9" * 5000),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SEEDS = st.integers(0, 2**64 - 1)  # of what is drawn without Hypothesis, which would take far longer for it


def odd(source: random.Random, depth: int = 3) -> Any:
    """A value that is odd where it stands, or several of them."""
    if depth == 0 or source.random() < 0.7:
        return source.choice(ODD)
    several = [odd(source, depth - 1) for _ in range(source.choice([1, 2, 3, 20]))] if source.random() < 0.5 else []
    return several if source.random() < 0.5 else {str(source.choice(ODD))[:30]: value for value in several}


def edited(value: Any, other: Any, source: random.Random) -> Any:
    """A JSON value with something in it, at any depth, taken out, replaced or put beside the rest."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        key = source.choice(list(value))
        change = source.random()
        if change < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if change < 0.2:
            return {**value, str(source.choice(["format", "extra", "vocab", "", "🙂"])): other}
        return {**value, key: edited(value[key], other, source)}
    if isinstance(value, list) and value and source.random() < 0.9:
        at = source.randrange(len(value))
        return [*value[:at], edited(value[at], other, source), *value[at + 1 :]]
    return other


def spoiled(data: bytes, source: random.Random) -> bytes:
    """Bytes of which some are other ones, gone, or twice there."""
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        at = source.randrange(len(data) + 1)
        length = source.choice([0, 1, 1, 2, 8, 100])
        put = source.choice([b"", source.randbytes(1), source.randbytes(4), data[at : at + 20], b'"', b"{", b"9" * 30])
        data = data[:at] + put + data[at + length :]
    return data


@st.composite
def documents(draw: st.DrawFn, document: Any) -> bytes:
    """JSON that is nearly a document of ours, or nothing like it."""
    source = random.Random(draw(SEEDS))
    kind = source.random()
    if kind < 0.6:
        for _ in range(source.choice([1, 1, 2, 4])):
            document = edited(document, odd(source), source)
    elif kind < 0.7:
        document = draw(VALUES)
    data = json.dumps(document, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")
    return spoiled(data, source) if kind > 0.8 else data


@st.composite
def files(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that are nearly those of a file of ours, or any."""
    source = random.Random(draw(SEEDS))
    if source.random() < 0.1:
        return draw(st.binary(max_size=200))
    return data[: source.randrange(len(data))] if source.random() < 0.1 else spoiled(data, source)


@st.composite
def tensor_headers(draw: st.DrawFn, data: bytes) -> bytes:
    """Files of tensors whose header is nearly one of ours, or anything."""
    source = random.Random(draw(SEEDS))
    length = int.from_bytes(data[:8], "little")
    if source.random() < 0.3:
        return spoiled(data[: 8 + length + 64], source)
    header = draw(documents(json.loads(data[8 : 8 + length])))
    said = len(header) if source.random() < 0.9 else source.choice([0, 1, 2**24, 2**63, 2**64 - 1])
    return said.to_bytes(8, "little") + header + data[8 + length :]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[bytes, Cleaning, str]:
    """Bytes of a text, or of none, with a way of reading them."""
    import gzip

    source = random.Random(draw(SEEDS))
    text = draw(st.text(max_size=60))
    written = source.choice(["utf-8", "utf-16", "utf-16-le", "utf-32", "cp1250", "shift_jis"])
    data = source.choice(
        [text.encode(written, "replace"), draw(st.binary(max_size=80)), b"\xef\xbb\xbf" + b"a\r\n\r\r\n"]
    )
    if source.random() < 0.2:
        data = gzip.compress(data)
    if data and source.random() < 0.3:
        data = spoiled(data, source)
    how = Cleaning(
        newline=source.choice(["keep", "lf"]),
        errors=source.choice(["strict", "replace"]),
        normalize=source.choice(["none", "nfc"]),
        binary=source.random() < 0.2,
        settable=True,
        encoding=source.choice(["utf-8", "utf-8", "utf-16", "cp1250", "shift_jis", "utf-7"]),
        encodable=True,
    )
    return data, how, source.choice(["none", "line", "blank", "file"])


CONTENT = b"the text\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Answers of a web server that are nearly right, or anything."""
    source = random.Random(draw(SEEDS))
    if source.random() < 0.1:
        return draw(st.binary(max_size=200))
    status = source.choice(["200 OK", "206 Partial", "302 Found", "301 x", "404 no", "100 Continue", "999 ?", "0", "x"])
    fields = draw(
        st.lists(
            st.sampled_from(
                [
                    f"Content-Length: {len(CONTENT)}",
                    "Content-Length: -1",
                    "Content-Length: 99999999999999999999",
                    "Content-Length: nine",
                    "Transfer-Encoding: chunked",
                    "Content-Encoding: gzip",
                    "Location: file:///etc/passwd",
                    "Location: http://[",
                    "Location: ftp://127.0.0.1/",
                    "Location: //",
                    "Location: http://127.0.0.1:1/",
                    "Content-Range: bytes 5-/3",
                    " folded",
                    "no colon",
                    "",
                ]
            ),
            max_size=4,
        )
    )
    body = source.choice(
        [CONTENT, CONTENT[:4], CONTENT * 9, b"", b"9\r\n" + CONTENT + b"\r\n0\r\n\r\n", b"zz\r\n", b"-1\r\n"]
    )
    answer = f"HTTP/1.1 {status}\r\n{''.join(f'{field}{chr(13)}{chr(10)}' for field in fields)}\r\n".encode() + body
    return spoiled(answer, source) if source.random() < 0.3 else answer


# Readers


class Readers:
    """Everything that reads what a stranger may have written, with inputs for each, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        text = folder / "text.txt"
        text.write_text(CORPUS.read_text(encoding="utf-8")[:3000], encoding="utf-8")
        sizes = {"hidden": 8, "embedding": 4, "batch": 4, "window": 16, "steps": 2, "validate_every": 2}
        asked = Settings(corpus=(str(text),), precision="float32", warmup=1, **sizes)  # type: ignore[arg-type]
        run = Run(folder / "run")
        for _ in loop.new_run(asked, run):
            pass
        self._model = api.load(run)
        self._model.complete("R", 2)  # now, so that no input waits for what is compiled
        self._path = folder / "input"
        self._run = Run(folder / "tried")
        self._run.path.mkdir()
        weights = (run.path / run.about()["files"]["best"]["name"]).read_bytes()
        self._answer = b""
        config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
        tokenizer = json.loads((run.path / "tokenizer.json").read_text(encoding="utf-8"))
        about = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
        stored = Path(__file__).parent / "stored" / "format-1" / "compared" / "grid.json"
        grid = json.loads(stored.read_text(encoding="utf-8"))
        row = json.loads((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        self.all: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], object]]] = {
            "tokenizer.json": (documents(tokenizer), self._tokenizer),
            "config.json": (documents(config), self._config),
            "run.json": (documents(about), self._about),
            "lines of metrics": (st.lists(documents(row), max_size=3).map(b"\n".join), self._rows),
            "headers of tensors": (tensor_headers(weights), self._tensors),
            "files of tensors": (files(weights), self._tensors),
            "corpora": (corpora(), self._corpus),
            "primes": (st.text(st.characters(exclude_categories=()), max_size=20), self._prime),
            "train --config": (documents(config), self._command),
            "comparisons": (documents(grid), self._comparison),
            "answers of a server": (answers(), self._fetch),
        }

    def _tokenizer(self, data: bytes) -> None:
        read = Tokenizer.from_json(data.decode("utf-8", "surrogateescape"), "input")
        assert read.decode(read.encode("Mreža 日")) == "Mreža 日"

    def _config(self, data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        refusals = 0
        for read in (Config.from_json, settings_from_json):
            try:
                read(text, "input").replace(steps=1)
            except CharRNNError:
                refusals += 1
        if refusals:
            raise CharRNNError("refused")

    def _about(self, data: bytes) -> None:
        (self._run.path / "run.json").write_bytes(data)
        about = run_json.load(self._run.path)
        assert all(Path(entry["name"]).name == entry["name"] for entry in about["files"].values())

    def _rows(self, data: bytes) -> None:
        path = self._folder / "metrics.jsonl"
        path.write_bytes(data + b"\n")
        metrics.rows(path)
        metrics.truncate(path, 1)

    def _tensors(self, data: bytes) -> None:
        path = self._folder / "model-00000001.safetensors"
        path.write_bytes(data)
        declared = tensor_header.load(path)
        tensors = tensor_files.load(self._folder, {"name": path.name, "sha256": hashlib.sha256(data).hexdigest()})
        assert {name: tensor.shape for name, tensor in tensors.items()} == {n: e.shape for n, e in declared.items()}

    def _corpus(self, given: tuple[bytes, Cleaning, str]) -> None:
        data, how, document = given
        self._path.write_bytes(data)
        text = copies.read((str(self._path),), self._folder / "copies", how, document)
        assert sum(map(len, text.chunks())) == text.characters

    def _prime(self, text: str) -> None:
        assert len(self._model.complete(text, 2)) <= 2
        self._model.next(text, 3)

    def _comparison(self, data: bytes) -> None:
        self._path.write_bytes(data)
        compared = Grid.of(read_json(self._path), str(self._path))
        for entry in compared.entries:
            inside = Folder(self._folder).run(compared, entry, compared.seeds - 1).path
            assert inside.resolve().is_relative_to(self._folder.resolve() / "runs")

    def _command(self, data: bytes) -> None:
        """As it is typed; the text is missing, so that nothing is trained."""
        self._path.write_bytes(data)
        said = StringIO()
        with redirect_stdout(StringIO()), redirect_stderr(said):
            code = cli.run(["train", str(self._folder / "missing.txt"), "--config", str(self._path)])
        assert code in (1, 2)
        assert "error: " in said.getvalue()
        assert "defect" not in said.getvalue(), said.getvalue()
        if "missing.txt" not in said.getvalue():
            raise CharRNNError(said.getvalue())

    def _fetch(self, answer: bytes) -> None:
        self._answer = answer
        fetched = self._folder / "checkpoints" / ".corpora" / "fetched"
        for file in fetched.glob("*"):
            file.unlink()
        path = catalogue.fetch("of-a-server")
        assert path.read_bytes() == CONTENT

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A server that gives the answer of the moment, whatever it is asked, in the catalogue as 'of-a-server'."""
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

        def serve() -> None:
            while True:
                with suppress(OSError):
                    taken, _ = listening.accept()
                    with taken:
                        asked = taken.recv(1 << 16)
                        if asked == b"stop":
                            return
                        taken.sendall(self._answer)

        thread = threading.Thread(target=serve)
        thread.start()
        digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
        download = catalogue.Download(url, len(CONTENT), digest)
        catalogue.ENTRIES["of-a-server"] = catalogue.Entry("none", "", (download,), len(CONTENT))
        before = os.environ.get("CHARRNN_HOME")
        os.environ["CHARRNN_HOME"] = str(self._folder / "checkpoints")
        patience, catalogue.TIMEOUT_SECONDS = catalogue.TIMEOUT_SECONDS, TIMEOUT_SECONDS
        try:
            yield
        finally:
            catalogue.TIMEOUT_SECONDS = patience
            del catalogue.ENTRIES["of-a-server"]
            os.environ.pop("CHARRNN_HOME")
            if before is not None:
                os.environ["CHARRNN_HOME"] = before
            with socket.create_connection(listening.getsockname()) as last:
                last.sendall(b"stop")
            thread.join()
            listening.close()

    def fuzz(self, reader: str, examples: int, number: int | None = None) -> Figures:
        """Give a reader so many inputs; what it raises but CharRNNError, and what hangs, fails. number: of the seed."""
        figures, (inputs, read) = Figures(reader), self.all[reader]

        def tried(given: Any) -> None:
            began = time.monotonic()
            figures.inputs += 1
            try:
                read(given)
            except CharRNNError:
                figures.refused += 1
            taken = time.monotonic() - began
            figures.longest_ms = max(figures.longest_ms, 1000 * taken)
            assert taken < LONGEST_SECONDS, f"{taken:.0f} s"

        how = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            derandomize=number is None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )
        test = how(given(inputs)(tried))
        before, began = _megabytes(), time.monotonic()
        with self.serving():
            (test if number is None else seed(number)(test))()
        figures.seconds, figures.megabytes = time.monotonic() - began, _megabytes() - before
        assert figures.megabytes < MOST_MEGABYTES
        return figures


def _megabytes() -> float:
    """The most memory that the process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def fuzz(readers: Sequence[str], examples: int, number: int, jobs: int = 1) -> Iterator[Figures]:
    """Give readers so many inputs each, in batches, each in a process of its own; yield what came of a reader.

    number: of the first batch's seed. jobs: processes side by side.
    """
    starts = range(0, examples, BATCH)
    # A batch must begin with the memory of a new process.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        batches = {
            reader: [pool.submit(_batch, reader, min(BATCH, examples - at), number + at // BATCH) for at in starts]
            for reader in readers
        }
        for reader, submitted in batches.items():
            figures = Figures(reader)
            for one in (each.result() for each in submitted):
                figures.inputs += one.inputs
                figures.refused += one.refused
                figures.seconds += one.seconds
                figures.longest_ms = max(figures.longest_ms, one.longest_ms)
                figures.megabytes = max(figures.megabytes, one.megabytes)
            yield figures


def _batch(reader: str, examples: int, number: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        return Readers(Path(folder)).fuzz(reader, examples, number)


def _main(examples: int, readers: list[str]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"- commit: {commit}\n- machine: {platform.platform()}, Python {platform.python_version()}\n", flush=True)
    print(
        "| reader | inputs | refused | seconds | longest (ms) | added to a process (MB) |\n|---|---|---|---|---|---|",
        flush=True,
    )
    number, jobs = int.from_bytes(os.urandom(4), "big"), int(os.environ.get("JOBS", "1"))
    for f in fuzz(readers or READERS, examples, number, jobs):
        row = (
            f.reader,
            f"{f.inputs:,}",
            f"{f.refused:,}",
            f"{f.seconds:.0f}",
            f"{f.longest_ms:.0f}",
            f"{f.megabytes:.0f}",
        )
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
