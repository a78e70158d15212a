"""Corpora: reading, splitting, encoding to disk; every error names what was given and what to do."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn import corpora, data
from charrnn.config import Config
from charrnn.errors import CharRNNError
from charrnn.tokenizer import Tokenizer


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    return str(path)


def read(corpus: str, home: Path) -> data.Text:
    return data.read((corpus,), home)


def test_the_embedded_corpus_is_found_by_name_and_is_what_the_repository_holds(home: Path) -> None:
    assert "".join(read("rekurentne", home).chunks()) == CORPUS.read_text(encoding="utf-8")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(min_size=1).filter(lambda t: not t.startswith("\ufeff")), st.integers(1, 7))
def test_reading_loses_nothing_however_the_bytes_arrive(tmp_path: Path, text: str, chunk: int) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    source = corpora.find(write(tmp_path, encoded))
    assert "".join(corpora.read_text(source, chunk)) == text


@pytest.mark.parametrize("split", [(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("kind", ["char", "byte"])
def test_the_parts_together_are_the_text(
    split: tuple[float, ...], kind: str, home: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    monkeypatch.setattr(data, "CHUNK_CHARACTERS", 997)  # parts begin inside pieces
    text = read(corpus, home)
    encoded = data.encode(text, data.learn_tokenizer(text, kind, split), split)
    whole = "".join(encoded.tokenizer.decode(encoded.parts[part]) for part in data.PARTS)
    assert whole == Path(corpus).read_text(encoding="utf-8")
    lengths = [encoded.tokenizer.characters_in(encoded.parts[part]) for part in data.PARTS]
    assert all(abs(n - share * 6000) <= 1 for n, share in zip(lengths, split, strict=True))


def test_the_vocabulary_comes_from_the_training_part_alone(tmp_path: Path, home: Path) -> None:
    text = read(write(tmp_path, ("abc" * 300 + "ž" * 100).encode()), home)
    assert data.learn_tokenizer(text, "char", (0.8, 0.1, 0.1)).characters == ("a", "b", "c")


def test_characters_seen_once_or_twice_are_spelled_in_bytes(tmp_path: Path, home: Path) -> None:
    text = read(write(tmp_path, ("ab" * 300 + "čč" + "ššš").encode()), home)
    assert data.learn_tokenizer(text, "char", (1.0, 0.0, 0.0)).characters == ("a", "b", "š")


def test_a_corpus_is_encoded_once_and_its_source_may_vanish(corpus: str, home: Path) -> None:
    config = Config(corpus=(corpus,))
    text = data.open_text(config)
    first = data.encode(text, Tokenizer.byte(), config.split)
    Path(corpus).unlink()
    config = config.replace(fingerprint=text.fingerprint)
    again = data.reopen(config, Tokenizer.byte())
    assert isinstance(again.parts["train"], np.memmap)
    assert again.parts["train"].filename == first.parts["train"].filename  # type: ignore[attr-defined]


def test_a_byte_order_mark_is_dropped_and_said_and_crlf_is_kept_and_said(tmp_path: Path, home: Path) -> None:
    text = read(write(tmp_path, b"\xef\xbb\xbfone\r\ntwo\r\n"), home)
    assert "".join(text.chunks()) == "one\r\ntwo\r\n"
    assert len(text.notes) == 2
    assert data.copy_of(text.fingerprint, home) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"abc" * 2000 + b"\xff" + b"abc", "byte 6000 is not UTF-8"),
        ("ab\u010d".encode()[:-1], "byte 2 is not UTF-8"),
        (b"short", "4 characters to train on"),
    ],
)
def test_a_bad_corpus_is_refused_in_words(content: bytes, message: str, tmp_path: Path, home: Path) -> None:
    corpus = write(tmp_path, content)
    with pytest.raises(CharRNNError, match=message) as raised:
        data.encode(read(corpus, home), Tokenizer.byte(), (0.8, 0.1, 0.1))
    assert raised.value.hint
    assert "corpus.txt" in raised.value.problem
    assert not list(home.glob("reading-*"))  # nothing half-read is left behind


def test_a_missing_corpus_is_refused_with_the_nearest_name(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CharRNNError, match="rekurentne"):
        read("rekurentna", home)
    with pytest.raises(CharRNNError, match="no file"):
        read(str(tmp_path / "missing.txt"), home)
    with pytest.raises(CharRNNError, match="folder"):
        read(str(tmp_path), home)
