"""Corpora by name: Python's own, fetched ones, and what `corpora` says of a text."""

import errno
import hashlib
import io
import json
import lzma
import math
import socket
import ssl
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn import cli
from charrnn.errors import CharRNNError
from charrnn.generate.transliteration import to_cyrillic
from charrnn.text import catalogue, corpora, named_corpora, ngram, python_corpora, repeats, statistics
from charrnn.text.catalogue import Download, Entry
from charrnn.text.corpus import read
from charrnn.training.speed import Machine

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


# Python's own


def test_python_s_documentation_and_sources_are_corpora_whose_documents_are_topics_and_modules(home: Path) -> None:
    docs = read(("python-docs",), home, document="file")
    assert docs.characters > 100_000
    assert len(docs.starts()) > 50
    assert "iterator" in "".join(docs.chunks())
    sources = corpora.find("python-source").sources
    assert any(source.name.endswith("/json/decoder.py") for source in sources)
    assert not any("/test/" in source.name for source in sources)
    again = corpora.find("python-source").sources
    assert [source.name for source in sources] == [source.name for source in again]


def test_a_corpus_of_the_package_is_described_by_what_it_holds(home: Path) -> None:
    rows = {row.name: row for row in named_corpora.describe()}
    assert set(rows) == set(corpora.names())
    assert rows["rekurentne"].bytes == CORPUS.stat().st_size
    assert rows["rekurentne"].alphabet == len(set(CORPUS.read_text(encoding="utf-8")))
    assert all(row.language and row.about for row in rows.values())
    assert not rows["text8"].here


# Fetching, from a server of our own


class Server:
    """A web server that gives `content`, and misbehaves as asked: it cuts answers off, or ignores ranges."""

    def __init__(self) -> None:
        self.content, self.cut_after, self.ranges = b"", 0, True
        self.asked: list[str | None] = []
        self.leads: dict[str, str] = {}  # from a path to another address
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range") if server.ranges else None
                server.asked.append(self.headers.get("Range"))
                if self.path in server.leads:
                    self.send_response(302)
                    self.send_header("Location", server.leads[self.path])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if self.path.endswith("/missing"):
                    self.send_error(404)
                    return
                begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                body = server.content[begin:]
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cut_after] if server.cut_after else body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose content is in the catalogue as 'sample'."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


def entry(server: Server, content: bytes, member: str | None = None, path: str = "/sample") -> Entry:
    server.content = content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Entry("none", "a sample", (Download(server.url + path, len(content), digest, member),), len(content))


def test_a_corpus_is_fetched_verified_and_then_found_by_its_name(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CORPUS.read_bytes()
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, content))
    with pytest.raises(CharRNNError, match="corpora fetch sample"):
        corpora.find("sample")
    told: list[tuple[int, int]] = []
    path = catalogue.fetch("sample", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert catalogue.fetch("sample") == path
    assert len(server.asked) == 1  # nothing is fetched twice
    assert "".join(read(("sample",), home).chunks()) == content.decode()
    assert sorted(p.name for p in path.parent.iterdir()) == ["sample.txt"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_is_gone_on_with(
    ranges: bool, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CORPUS.read_bytes()
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, content))
    server.cut_after, server.ranges = 100_000, ranges
    with pytest.raises(CharRNNError, match="100,000") as raised:
        catalogue.fetch("sample")
    assert "resumes" in str(raised.value)
    server.cut_after = 0
    assert catalogue.fetch("sample").read_bytes() == content
    assert server.asked == [None, "bytes=100000-"]


def test_a_damaged_beginning_is_fetched_again_and_a_wrong_file_is_refused(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CORPUS.read_bytes()
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, content))
    part = catalogue.path_of("sample").with_name("sample-0.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    assert catalogue.fetch("sample").read_bytes() == content
    catalogue.path_of("sample").unlink()
    for wrong in (content[:-1] + b"!", content + b"!"):
        server.content = wrong
        with pytest.raises(CharRNNError, match="not the published file"):
            catalogue.fetch("sample")
        assert not list(part.parent.iterdir())


def test_archives_are_opened_and_several_files_become_one(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("text", "the text")
    zipped = entry(server, archive.getvalue(), "text")
    monkeypatch.setitem(catalogue.ENTRIES, "sample", zipped)
    assert catalogue.fetch("sample").read_text() == "the text"
    plain = entry(server, b"a part\n").downloads
    digest = f"md5:{hashlib.md5(b'a part' + bytes([10])).hexdigest()}"
    several = Entry("none", "two", (*plain, Download(f"{server.url}/2", 7, digest)), 14)
    monkeypatch.setitem(catalogue.ENTRIES, "several", several)
    assert catalogue.fetch("several").read_text() == "a part\na part\n"


def test_without_a_network_or_a_file_it_is_said_plainly(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    with socket.socket() as taken:  # bound, and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/text"
        monkeypatch.setitem(catalogue.ENTRIES, "nowhere", Entry("none", "", (Download(nobody, 5, "sha256:0"),), 5))
        code, out, err = run("corpora", "fetch", "nowhere")
        assert (code, out) == (1, "")
        assert "no network, or no way to http://127.0.0.1" in err
        assert "train on its path" in err
    monkeypatch.setitem(catalogue.ENTRIES, "missing", entry(server, b"text", path="/missing"))
    with pytest.raises(CharRNNError, match="404"):
        catalogue.fetch("missing")
    with pytest.raises(CharRNNError, match="text8"):
        catalogue.fetch("text9")


@pytest.mark.parametrize("error", [OSError(errno.EHOSTUNREACH, "No route to host"), ssl.SSLError("a bad record")])
def test_a_connection_that_breaks_is_not_taken_for_a_disk(
    error: OSError, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, b"the text"))

    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr("http.client.HTTPResponse.read1", broken)
    with pytest.raises(CharRNNError, match="no network, or no way to"):
        catalogue.fetch("sample")


def test_no_server_leads_to_another_host_unseen(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, b"the text", path="/away"))
    server.leads["/away"] = server.url.replace("127.0.0.1", "localhost") + "/sample"
    code, _, err = run("corpora", "fetch", "sample")
    assert code == 0
    assert f"note: {server.url}/away leads to http://localhost: what it gives counts by its digest" in err
    catalogue.path_of("sample").unlink()
    server.leads["/away"] = server.url + "/sample"
    assert "leads to" not in run("corpora", "fetch", "sample")[2]


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,the text", "/away", "http://[", "http://a b/", ""],
)
def test_no_server_leads_out_of_the_web(
    address: str, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setitem(catalogue.ENTRIES, "sample", entry(server, b"the text", path="/away"))
    server.leads["/away"] = address
    code, out, err = run("corpora", "fetch", "sample")
    assert (code, out) == (1, "")
    assert "error: " in err
    assert "hint: " in err
    assert "defect" not in err
    assert not catalogue.path_of("sample").exists()


def test_the_catalogue_is_whole() -> None:
    for name, known in catalogue.ENTRIES.items():
        assert known.about, name
        for download in known.downloads:
            algorithm, _, digest = download.digest.partition(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size
            assert download.url.startswith("http")
    shakespeare = catalogue.ENTRIES["tiny-shakespeare"].downloads[0]
    assert shakespeare.digest.startswith("sha256:86c4e6aa9db7")


# Statistics


def measure(text: str, home: Path) -> statistics.Stats:
    path = home.parent / "measured.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return statistics.measure(read((str(path),), home))


def test_entropies_are_those_of_counting_contexts(home: Path) -> None:
    text = CORPUS.read_text(encoding="utf-8")[:5000]
    stats = measure(text, home)
    for order in stats.orders:
        k = order.context
        grams = Counter(text[i : i + k + 1] for i in range(len(text) - k))
        contexts = Counter(text[i : i + k] for i in range(len(text) - k))
        bits = -sum(n * math.log2(n / contexts[gram[:k]]) for gram, n in grams.items()) / sum(grams.values())
        assert order.empirical_bits == pytest.approx(bits, abs=1e-9)
        assert order.once == pytest.approx(sum(n == 1 for n in contexts.values()) / (len(text) - k))
    assert stats.xz_bits == 8 * len(lzma.compress(text.encode(), preset=6)) / 5000
    assert stats.alphabet == "".join(sorted(set(text)))
    assert set(stats.rare) == {c for c, n in Counter(text).items() if n < 3}


def test_the_model_to_beat_never_saw_what_it_is_tested_on(home: Path) -> None:
    text = CORPUS.read_text(encoding="utf-8")[:3000]
    stats = measure(text, home)
    alphabet = sorted(set(text))
    learned, held_out = (np.array([alphabet.index(c) for c in part]) for part in (text[:2700], text[2700:]))
    models = ngram.costs_by_order(learned, [held_out], len(alphabet), statistics.ORDERS - 1)
    bits = [cost.mean() / math.log(2) for (cost,) in models]
    assert [order.held_out_bits for order in stats.orders] == pytest.approx(bits, abs=1e-9)
    assert stats.beat_bits == min(*(order.held_out_bits for order in stats.orders), stats.xz_bits)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(text=st.text(st.sampled_from("abč日\n"), min_size=1, max_size=300))
def test_any_text_can_be_measured(text: str, home: Path) -> None:
    stats = measure(text, home)
    assert stats.characters == stats.sampled == len(text)
    json.dumps(stats.as_dict(), allow_nan=False)


def test_repeated_passages_are_found_whole_wherever_they_stand(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = lambda n: "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyzčšž "), n))  # noqa: E731
    long, short = noise(3000), noise(100)
    text = f"{noise(70_000)}<{long}>{noise(50_000)}({short}){noise(999)}[{long}]{noise(70_000)}{{{short}}}{long[:500]}"
    share, found = repeats.find(read((_written(text, home),), home).path)
    assert [r.characters for r in found] == [3000, 100]
    content = text.encode()
    for repeat, passage in zip(found, (long, short), strict=True):
        encoded = passage.encode()
        assert content[repeat.first :].startswith(encoded)
        assert content[repeat.again :].startswith(encoded)
        assert repeat.first < repeat.again
        assert passage.startswith(repeat.text[:100])
    seeds = [content[i : i + 32] for i in range(len(content) - 31)]
    assert share == pytest.approx(1 - len(set(seeds)) / len(seeds), abs=1e-12)
    # Of a large text only some seeds are looked at: what is long is still found, and found whole.
    monkeypatch.setattr(repeats, "MAX_SEEDS", 1 << 12)
    sampled, found = repeats.find(read((_written(text, home),), home).path)
    assert found[0].characters == 3000
    assert sampled == pytest.approx(share, abs=0.01)


def _written(text: str, home: Path) -> str:
    path = home.parent / "written.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_text_of_one_letter_is_one_long_repeat(home: Path) -> None:
    stats = measure("a" * 5000, home)
    assert stats.repeats[0].characters == 4999
    assert stats.orders[0].empirical_bits == 0
    assert stats.beat_bits == 0


@pytest.mark.parametrize("more", [0, 10, 32, 5000])  # bytes past whole pieces
def test_looking_for_repeats_tells_when_it_is_done(
    more: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "CHUNK_BYTES", 1 << 13)
    (tmp_path / "text").write_bytes(b"a" * (2 * repeats.CHUNK_BYTES + more))
    told: list[tuple[int, int | None]] = []
    repeats.find(tmp_path / "text", lambda what, done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert sorted(told) == told


def test_repeats_are_ordered_by_their_characters_not_their_bytes(home: Path) -> None:
    latin, cyrillic = CORPUS.read_text(encoding="utf-8")[:400], to_cyrillic(CORPUS.read_text(encoding="utf-8")[:300])
    found = measure(f"{latin}1{cyrillic}2{cyrillic}3{latin}", home).repeats
    assert [repeat.characters for repeat in found] == [len(latin), len(cyrillic)]


@pytest.mark.parametrize(
    ("text", "to_beat"),
    [
        ("a", "to beat    0.000 bits (0.000 nats) per character: how often each character occurs"),
        ("ab" * 500, "nats) per character: a model of the last 6 characters"),
    ],
)
def test_the_smallest_texts_are_described_in_plain_words(text: str, to_beat: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text)
    out = run("corpora", "stats", str(tmp_path / "text.txt"))[1]
    assert to_beat in out
    assert "-0.000" not in out
    assert ("the longest:" in out) == (len(text) > 100)


def test_a_longer_text_is_sampled_evenly_and_counted_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE_CHARACTERS", 16_000)
    text = CORPUS.read_text(encoding="utf-8")
    stats = measure(text, home)
    assert (stats.characters, stats.sampled) == (len(text), 16_000)
    whole = Counter(text)
    assert dict(stats.common) == {c: n / len(text) for c, n in whole.most_common(10)}


@pytest.mark.timing
def test_a_megabyte_is_measured_in_seconds(home: Path) -> None:
    text = CORPUS.read_text(encoding="utf-8") * 5
    began = time.process_time()
    stats = measure(text, home)
    assert time.process_time() - began < 8
    assert stats.repeated > 0.8


# The command line


def test_corpora_list_and_stats_say_what_the_library_found(
    run: Run, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(python_corpora.READERS, "python-source")  # the longest, and no other than the others
    code, out, _ = run("corpora", "list", "--json")
    names = [row["name"] for row in json.loads(out)["corpora"]]
    assert (code, sorted(names)) == (0, corpora.names())
    table = run("corpora", "list")[1]
    assert all(name in table for name in names)
    code, out, _ = run("corpora", "stats", corpus, "--json")
    measured = json.loads(out)
    assert (code, measured["characters"], len(measured["orders"])) == (0, 6000, 7)
    code, out, _ = run("corpora", "stats", corpus)
    assert code == 0
    assert f"{measured['beat_bits']:.3f} bits" in out


def test_a_forecast_says_what_each_budget_comes_to(run: Run, corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "products_per_s", 1e9)
    code, out, _ = run("corpora", "stats", corpus, "--forecast", "--json")
    rows = json.loads(out)["forecast"]
    assert (code, [row["budget"] for row in rows]) == (0, [60, 180, 600, 3600])
    table = run("corpora", "stats", corpus, "--forecast")[1].splitlines()[-4:]
    for row, line in zip(rows, table, strict=True):
        assert line.split()[:2] == [f"{row['budget'] / 60:g}", "min"]
        assert f"{row['cell']} {row['hidden']} x {row['layers']}" in line
        assert f"{row['read']:,}" in line
        assert f"{row['nats']:.3f}" in line
    assert "forecast" not in json.loads(run("corpora", "stats", corpus, "--json")[1])


def test_a_text_too_short_to_train_on_is_measured_without_a_forecast(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ten.txt").write_text("0123456789", "utf-8")
    code, out, _ = run("corpora", "stats", str(tmp_path / "ten.txt"), "--forecast", "--json")
    measured = json.loads(out)
    assert (code, measured["forecast"], len(measured["notes"])) == (0, [], 1)
    code, out, err = run("corpora", "stats", str(tmp_path / "ten.txt"), "--forecast")
    assert code == 0
    assert "10 characters" in out
    assert "no forecast: " in err
    assert "leaves too little to train on" in err
