"""Corpora: reading, splitting, encoding to disk; every error names what was given and what to do."""

import gzip
import itertools
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn import api
from charrnn.errors import CharRNNError
from charrnn.text import copies as texts
from charrnn.text import corpora, documents
from charrnn.text.cleaning import Cleaning, Findings, text_of
from charrnn.text.corpus import PARTS, Text, encode, learn_tokenizer, open_text, prepare, read, read_whole
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import loop
from charrnn.training.run import Run
from charrnn.training.settings import Settings

TrainedRun = Callable[..., Run]


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    return str(path)


def read_one(corpus: str, home: Path) -> Text:
    return read((corpus,), home)


def test_the_embedded_corpus_is_found_by_name_and_is_what_the_repository_holds(home: Path) -> None:
    assert "".join(read_one("rekurentne", home).chunks()) == CORPUS.read_text(encoding="utf-8")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(min_size=1).filter(lambda t: not t.startswith("\ufeff")), st.integers(1, 7))
def test_reading_loses_nothing_however_the_bytes_arrive(tmp_path: Path, text: str, chunk: int) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    (source,) = corpora.find(write(tmp_path, encoded)).sources
    assert "".join(text_of(source, Cleaning(binary=True), Findings(), chunk)) == text


@pytest.mark.parametrize("split", [(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("kind", ["char", "byte"])
def test_the_parts_together_are_the_text(
    split: tuple[float, ...], kind: str, home: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    monkeypatch.setattr(texts, "CHUNK_CHARACTERS", 997)  # parts begin inside pieces
    text = read_one(corpus, home)
    encoded = encode(text, learn_tokenizer(text, kind, split), split)
    whole = "".join(encoded.tokenizer.decode(encoded.parts[part]) for part in PARTS)
    assert whole == Path(corpus).read_text(encoding="utf-8")
    lengths = [encoded.tokenizer.characters_in(encoded.parts[part]) for part in PARTS]
    assert all(abs(n - share * 6000) <= 1 for n, share in zip(lengths, split, strict=True))


def test_the_vocabulary_comes_from_the_training_part_alone(tmp_path: Path, home: Path) -> None:
    text = read_one(write(tmp_path, ("abc" * 300 + "ž" * 100).encode()), home)
    assert learn_tokenizer(text, "char", (0.8, 0.1, 0.1)).characters == ("a", "b", "c")


def test_characters_seen_once_or_twice_are_spelled_in_bytes(tmp_path: Path, home: Path) -> None:
    text = read_one(write(tmp_path, ("ab" * 300 + "čč" + "ššš").encode()), home)
    assert learn_tokenizer(text, "char", (1.0, 0.0, 0.0)).characters == ("a", "b", "š")


def test_a_corpus_is_encoded_once_and_its_source_may_vanish(corpus: str, home: Path) -> None:
    config = Settings(corpus=(corpus,))
    text = open_text(config)
    first = encode(text, Tokenizer.byte(), config.split)
    Path(corpus).unlink()
    config = config.replace(fingerprint=text.fingerprint)
    again = prepare(config, Tokenizer.byte())
    assert isinstance(again.parts["train"], np.memmap)
    assert again.parts["train"].filename == first.parts["train"].filename  # type: ignore[attr-defined]


def test_a_byte_order_mark_is_dropped_and_said_and_crlf_is_kept_and_said(tmp_path: Path, home: Path) -> None:
    text = read_one(write(tmp_path, b"\xef\xbb\xbfone\r\ntwo\r\n"), home)
    assert "".join(text.chunks()) == "one\r\ntwo\r\n"
    assert len(text.notes) == 2
    assert texts.copy_of(text.fingerprint, home) == text


def test_a_copy_that_does_not_say_where_its_files_begin_is_none_of_files(tmp_path: Path, home: Path) -> None:
    text = read_one(write(tmp_path, b"one\ntwo\n"), home)  # of one file: as a document it has the same fingerprint
    assert texts.copy_of(text.fingerprint, home, "line") is not None
    assert texts.copy_of(text.fingerprint, home, "file") is None
    files = read((str(tmp_path / "corpus.txt"),), home, document="file")
    assert texts.copy_of(text.fingerprint, home, "file") == files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"abc" * 2000 + b"\xff" + b"abc", "byte 6000 is not UTF-8"),
        ("ab\u010d".encode()[:-1], "byte 2 is not UTF-8"),
        (b"short", "too little to train on: 4 of at least 20 characters"),
    ],
)
def test_a_bad_corpus_is_refused_in_words(content: bytes, message: str, tmp_path: Path, home: Path) -> None:
    corpus = write(tmp_path, content)
    with pytest.raises(CharRNNError, match=message) as raised:
        encode(read_one(corpus, home), Tokenizer.byte(), (0.8, 0.1, 0.1))
    assert raised.value.hint
    assert "corpus.txt" in raised.value.problem
    assert not list(home.glob(".text.utf8.*"))  # nothing half-read is left behind


def test_a_missing_corpus_is_refused_with_the_nearest_name(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CharRNNError, match="rekurentne"):
        read_one("rekurentna", home)
    with pytest.raises(CharRNNError, match="no file"):
        read_one(str(tmp_path / "missing.txt"), home)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CharRNNError, match=r"the folder .* holds no files"):
        read_one(str(tmp_path / "nothing"), home)


# Sources


def test_a_folder_is_its_text_files_in_order_whatever_their_depth_and_compression(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "books"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "b.txt").write_text("second\n")
    (folder / "a.txt").write_text("first")  # without a line end
    (folder / "deep" / "c.txt.gz").write_bytes(gzip.compress("third ž\n".encode()))
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\0\0\0")
    (folder / ".hidden" / "d.txt").write_text("hidden")
    text = read_one(str(folder), home)
    assert "".join(text.chunks()) == "first\nsecond\nthird ž\n"
    assert any("cover.jpg" in note for note in text.notes)
    assert any("line end was added" in note for note in text.notes)
    assert "".join(read_one(f"{folder}/*.txt", home).chunks()) == "first\nsecond\n"
    everything = read_one(f"{folder}/*", home)
    assert "".join(everything.chunks()) == "first\nsecond\n"
    assert any("cover.jpg" in note for note in everything.notes)
    assert "".join(read_one(f"{folder}/**/*.gz", home).chunks()) == "third ž\n"
    several = read((f"{folder}/b.txt", f"{folder}/a.txt"), home)
    assert "".join(several.chunks()) == "second\nfirst"
    assert corpora.stem(str(folder)) == corpora.stem(f"{folder}/**/*.gz") == "books"
    assert corpora.stem("x/deep.txt.gz") == "deep"
    assert corpora.stem("-") == "stdin"


def test_standard_input_is_read_once_and_kept(tmp_path: Path) -> None:
    code = (
        "import sys; from charrnn.text import corpus, copies as texts;"
        "from charrnn.training.settings import Settings; c = Settings(corpus=('-',));"
        "t = corpus.open_text(c); again = corpus.open_text(c.replace(fingerprint=t.fingerprint));"
        "assert again.path == t.path; print(''.join(again.chunks()), end='')"
    )
    for content in (CORPUS.read_bytes(), gzip.compress(CORPUS.read_bytes())):
        done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
        assert done.stdout == CORPUS.read_bytes()


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (("-", "-"), "named twice"),
        (("missing/*.txt",), "no file matches"),
        (("text9",), "text8"),
        (("text8",), "not fetched yet"),
        (("damaged.gz",), "damaged gzip"),
        (("pictures",), "pictures holds one file, which is no text"),
        (("pictures/*.png",), r"pictures/\*.png stands for one file, which is no text"),
        (("a text instead of its path " * 20,), "cannot be read"),
    ],
)
def test_a_source_that_is_none_is_refused_in_words(
    corpus: tuple[str, ...], message: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged.gz").write_bytes(gzip.compress(CORPUS.read_bytes())[:500])
    Path("pictures").mkdir()
    Path("pictures/a.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(CharRNNError, match=message) as raised:
        read(corpus, home)
    assert raised.value.hint


def test_a_source_that_shrinks_while_it_is_trained_on_changes_nothing(corpus: str, trained: TrainedRun) -> None:
    run = trained(steps=10)
    Path(corpus).write_text("short")
    list(loop.resume(run, steps=12))
    assert api.score_run(api.load(run), None, "val", "stream")[1].characters == 600


def test_progress_is_told_to_the_end(corpus: str, home: Path) -> None:
    told: dict[str, list[tuple[int, int | None]]] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        told.setdefault(what, []).append((done, total))

    config = Settings(corpus=(corpus,))
    text = open_text(config, progress)
    tokenizer = learn_tokenizer(text, "char", config.split, progress=progress)
    encode(text, tokenizer, config.split, progress)
    size = Path(corpus).stat().st_size
    assert {what: steps[-1] for what, steps in told.items()} == {
        "reading": (size, size),
        "counting": (6000, 6000),
        "encoding": (6000, 6000),
    }


# Cleaning


def cleaned(tmp_path: Path, content: bytes, chunk: int = 1 << 22, **settings: Any) -> tuple[str, tuple[str, ...]]:
    cleaning, findings = Cleaning(**{"settable": True, **settings}), Findings()
    (source,) = corpora.find(write(tmp_path, content)).sources
    return "".join(text_of(source, cleaning, findings, chunk)), findings.notes(cleaning)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_line_ends_are_kept_or_converted_as_asked(tmp_path: Path, chunk: int) -> None:
    content = b"one\r\ntwo\rthree\n\r\n\r"
    kept, notes = cleaned(tmp_path, content, chunk)
    assert (kept, "2 lines end in CR LF" in notes[0], "--newline lf" in notes[0]) == (content.decode(), True, True)
    assert cleaned(tmp_path, content, chunk, newline="lf")[0] == "one\ntwo\nthree\n\n\n"


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_bytes_that_are_not_utf8_are_refused_or_replaced_and_counted(tmp_path: Path, chunk: int) -> None:
    content = "ž\ufffd".encode() + b"\xff" + "č".encode() + b"\xc4"
    with pytest.raises(CharRNNError, match=r"corpus.txt: byte 5 is not UTF-8.*--errors replace"):
        cleaned(tmp_path, content, chunk)
    text, notes = cleaned(tmp_path, content, chunk, errors="replace")
    assert text == content.decode(errors="replace")
    assert notes[0].startswith("2 times")
    assert "byte 5 of" in notes[0]


@pytest.mark.parametrize("content", [b"text \xff", b"\0text" * 100])
def test_settings_are_advised_only_where_they_can_be_given(content: bytes, tmp_path: Path) -> None:
    for settable in (True, False):
        with pytest.raises(CharRNNError) as raised:
            cleaned(tmp_path, content, settable=settable)
        assert ("--" in raised.value.hint) == settable


def test_what_is_not_text_is_refused_unless_bytes_are_learned(tmp_path: Path) -> None:
    for content, hint in (("some words".encode("utf-16-le"), "UTF-16"), (b"\0\1\2" * 500, "--tokenizer byte")):
        with pytest.raises(CharRNNError, match=rf"not text.*{hint}"):
            cleaned(tmp_path, content)
        assert cleaned(tmp_path, content, binary=True)[0].encode() == content
    with pytest.raises(CharRNNError, match="UTF-16"):
        cleaned(tmp_path, "some words".encode("utf-16"))
    with pytest.raises(CharRNNError) as raised:  # a picture is not UTF-8: its bytes could not be learned either
        cleaned(tmp_path, bytes(range(256)) * 20)
    assert raised.value.hint == "name a text"
    text, notes = cleaned(tmp_path, b"a" * 2000 + b"\0")
    assert (len(text), "1 NUL" in notes[0]) == (2001, True)


PIECES = st.text(
    st.sampled_from("aesčžš\u0301\u030c\u0323\u1100\u1161\u11a8가각日 \nÅ\u212b\u0958が\u3099か"), min_size=1
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(PIECES, st.integers(1, 9))
def test_the_normal_form_of_a_text_is_that_of_no_piece_alone(tmp_path: Path, text: str, chunk: int) -> None:
    got, _ = cleaned(tmp_path, text.encode(), chunk, normalize="nfc")
    assert got == unicodedata.normalize("NFC", text)


def test_a_model_of_composed_text_reads_primes_and_scores_composed(trained: TrainedRun, tmp_path: Path) -> None:
    source = CORPUS.read_text(encoding="utf-8")[:6000]
    path = tmp_path / "decomposed.txt"
    path.write_text(unicodedata.normalize("NFD", source), encoding="utf-8")
    notes = read((str(path),), tmp_path).notes
    assert any("--normalize nfc" in note for note in notes)
    run = trained(corpus=(str(path),), normalize="nfc")
    model = api.load(run)
    assert model.tokenizer.normalize == "nfc"
    assert set("čšž") <= set(model.tokenizer.characters)
    assert not set("\u030c") & set(model.tokenizer.characters)
    nfd = unicodedata.normalize("NFD", "Mreža čuva")
    assert model.complete(nfd, 20) == model.complete("Mreža čuva", 20)
    assert model.next(nfd) == model.next("Mreža čuva")
    assert model.score(nfd).nats == model.score("Mreža čuva").nats
    (tmp_path / "other.txt").write_text(nfd, encoding="utf-8")
    _, scored = api.score_run(model, str(tmp_path / "other.txt"), None, "stream")
    assert scored.nats == pytest.approx(model.score(nfd).nats, abs=1e-9)
    list(loop.resume(run, steps=14))


# Documents


@given(st.text(st.sampled_from("ab \n\r\t"), max_size=60), st.integers(1, 9))
def test_documents_are_found_however_the_text_is_cut(text: str, chunk: int) -> None:
    pieces = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    for kind in ("line", "blank"):
        found = np.concatenate(list(documents.starts(pieces, kind))).tolist()
        lines, expected, offset, blank = text.splitlines(keepends=True) if "\r" not in text else [], [0], 0, False
        if "\r" in text:  # splitlines knows more line ends than documents do
            lines = re.findall("[^\n]*\n|[^\n]+", text)
        for line in lines:
            solid = bool(line.strip(" \t\r\n"))
            begins = offset > 0 and (kind == "line" or (solid and blank and text[:offset].strip(" \t\r\n") != ""))
            expected += [offset] * begins
            blank = not solid
            offset += len(line)
        assert found == expected


def test_parts_begin_with_a_document_where_one_is_near(tmp_path: Path, home: Path) -> None:
    lines = [f"line number {n}\n" for n in range(500)]
    text = read((write(tmp_path, "".join(lines).encode()),), home, document="line")
    encoded = encode(text, Tokenizer.byte(), (0.8, 0.1, 0.1))
    for part in PARTS:
        decoded = encoded.tokenizer.decode(encoded.parts[part])
        assert decoded.startswith("line number")
        starts = encoded.starts[part].tolist()
        assert starts == [m.start() for m in re.finditer("line", decoded)]


def test_documents_stand_where_their_ids_are_also_where_characters_are_bytes(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "CHUNK_CHARACTERS", 7)
    content = "žaba\n日本\nčas\n" * 20
    text = read((write(tmp_path, content.encode()),), home, document="line")
    tokenizer = Tokenizer.char("žabčs\n")
    encoded = encode(text, tokenizer, (0.5, 0.5, 0.0))
    for part in ("train", "val"):
        cuts = [*encoded.starts[part].tolist(), len(encoded.parts[part])]  # type: ignore[index]
        pieces = [tokenizer.decode(encoded.parts[part][a:b]) for a, b in itertools.pairwise(cuts)]  # type: ignore[index]
        assert pieces == tokenizer.decode(encoded.parts[part]).splitlines(keepends=True)  # type: ignore[index]
    ids, starts = read_whole(write(tmp_path, content.encode()), Settings(document="line"), tokenizer)
    assert np.array_equal(starts, np.searchsorted(tokenizer.character_index(ids), text.starts()))


def test_files_are_documents_and_their_borders_are_part_of_what_a_run_is_made_for(tmp_path: Path, home: Path) -> None:
    (tmp_path / "a").write_text("one, two")
    (tmp_path / "b").write_text("three")
    (tmp_path / "c").write_text("")
    both = Settings(corpus=(str(tmp_path / "a"), str(tmp_path / "c"), str(tmp_path / "b")), document="file")
    text = open_text(both)
    assert "".join(text.chunks()) == "one, twothree"
    assert text.starts().tolist() == [0, 8]
    (tmp_path / "a").write_text("one, ")
    (tmp_path / "b").write_text("twothree")
    other = open_text(both)
    assert other.starts().tolist() == [0, 5]
    assert other.fingerprint != text.fingerprint
    reopened = open_text(both.replace(seed=1, fingerprint=text.fingerprint))
    assert reopened.starts().tolist() == [0, 8]
    assert text.fingerprint != read(both.corpus, home).fingerprint


# Memory


# Prints the MB of its own that it has at the most, after preparing a text and after training on it. How much of a file
# stays in memory, the system decides.
OF_A_LARGE_TEXT = """
import re, sys, threading, time
from charrnn.text import corpus
from charrnn.training.settings import Settings

most = 0

def watch():
    global most
    while True:
        with open("/proc/self/status") as status:
            most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) // 1024)
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
c = Settings(corpus=(sys.argv[1],), document=sys.argv[2], split=(0.9, 0.05, 0.05))
text = corpus.open_text(c)
encoded = corpus.encode(text, corpus.learn_tokenizer(text, "char", c.split), c.split)
streams = corpus.Streams(encoded.ids("train"), 32, 64, encoded.tokenizer.size, encoded.starts["train"])
for k in range(500):
    streams.at(k)
print(most)
from charrnn.training import loop  # torch comes with it

c = c.replace(steps=3, hidden=16, split=(0.9999, 0.0001, 0))
for _ in loop.new_run(c, loop.open_run(c)):
    pass
print(most)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_text_of_200_mb_is_read_encoded_and_trained_on_in_little_memory(tmp_path: Path, home: Path) -> None:
    page = CORPUS.read_bytes()
    with (tmp_path / "large.txt").open("wb") as stream:
        for number in range(200_000_000 // len(page) + 1):
            stream.write(b"%d\n" % number + page)
    for document in ("none", "line"):
        command = [sys.executable, "-c", OF_A_LARGE_TEXT, str(tmp_path / "large.txt"), document]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        preparing, training_ = map(int, done.stdout.split())
        assert (preparing < 150, training_ < 500) == (True, True), done.stdout
