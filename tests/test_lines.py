"""Line ends, lines and documents that are not what they seem to be are said; a prime is read as the text was."""

import io
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api, cli
from charrnn.text import copies, documents
from charrnn.text.cleaning import Cleaning
from charrnn.text.copies import Text
from charrnn.training.checkpoint import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process; text that is given is its standard input. Gives exit code, stdout, stderr."""

    def call(*arguments: str, piped: str | None = None) -> tuple[int, str, str]:
        stream = io.TextIOWrapper(io.BytesIO((piped or "").encode()))
        if piped is None:
            monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", stream)
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def read(tmp_path: Path, content: str, document: str = "none", name: str = "text.txt", **how: Any) -> Text:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    return copies.read((str(tmp_path / name),), tmp_path / "home", Cleaning(**how), document)


def said(text: Text, words: str) -> bool:
    return any(words in note for note in text.notes)


# Line ends


@pytest.mark.parametrize("document", ["none", "line"])
def test_a_cr_alone_is_said_to_end_nothing(document: str, tmp_path: Path) -> None:
    text = read(tmp_path, "one\rtwo\rthree\r\nfour\r", document)
    assert said(text, "3 times there is a CR alone")
    assert said(text, "--newline lf")
    text = read(tmp_path, "one\rtwo\rthree\r\nfour\r", document, newline="lf")
    assert said(text, "3 line ends of CR alone were turned into LF")
    assert said(text, "1 line ends of CR LF were turned into LF")
    assert document == "none" or len(text.starts()) == 4
    assert read(tmp_path, "one\ntwo\n", document).notes == ()


def test_a_text_without_any_line_end_is_said(tmp_path: Path) -> None:
    assert said(read(tmp_path, "many words " * 1000), "one line of 11,000 characters")
    assert read(tmp_path, "few words").notes == read(tmp_path, "many words\n" * 1000).notes == ()


# Documents


def test_one_document_that_holds_most_of_the_text_is_said(tmp_path: Path) -> None:
    assert said(read(tmp_path, "many words " * 1000, "line"), "the only document has 11,000 of all 11,000")
    assert said(read(tmp_path, "a\n" + "many words " * 1000, "line"), "one of 2 documents has 11,000 of all 11,002")
    assert said(read(tmp_path, "many words\n" * 1000, "blank"), "the only document")
    assert said(read(tmp_path, "many words\n" * 1000, "file"), "the only document")
    assert read(tmp_path, "many words\n" * 1000, "line").notes == ()
    assert read(tmp_path, "one short line", "line").notes == ()


def test_documents_that_are_empty_lines_are_said(tmp_path: Path) -> None:
    text = read(tmp_path, "one\n\ntwo\n \t\r\nthree\n" * 9, "line")
    assert said(text, "18 of 45 documents are empty lines")
    assert said(text, "--document blank")
    assert not said(read(tmp_path, "one\n\ntwo\n \t\nthree\n" * 9, "blank"), "empty")
    assert read(tmp_path, "one\n" * 90 + "\n" * 9, "line").notes == ()


@given(st.text(st.sampled_from("ab \t\n\r"), max_size=40), st.integers(1, 9))
def test_empty_lines_are_counted_however_the_text_is_cut(text: str, chunk: int) -> None:
    pieces = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    expected = sum(not line.strip() for line in text.split("\n")[:-1])
    assert documents.empty_lines(pieces) == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("name,sex,count\nMara,F,12\nVuk,M,7\nAna,F,103\n", "names.txt"),
        ("ime;godina\nMara;1990\nVuk;2001\nAna;1987\n", "imena.txt"),
        ('"Name"\t"Born"\n"Mara"\t"1990-01-02"\n"Vuk"\t"2001-11-30"\n"Ana"\t"1987-05-06"\n', "names"),
        ("name\nMara\nVuk\nAna\n", "names.csv"),
    ],
)
def test_the_header_of_a_table_is_said_to_be_a_document(content: str, name: str, tmp_path: Path) -> None:
    first = content.split("\n")[0]
    assert said(read(tmp_path, content, "line", name), repr(first))
    assert said(read(tmp_path, content, "line", name), "tail -n +2")
    assert not said(read(tmp_path, content, "none", name), "header")


@pytest.mark.parametrize(
    "content",
    [
        "Mara\nVuk\nAna\n",
        "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you\n",
        "Mara,F,12\nVuk,M,7\nAna,F,103\n",
        "one, two\nthree, four\nfive, six\n",
        "a,b\n1,2\n",
    ],
)
def test_lines_that_are_no_table_are_not_called_one(content: str, tmp_path: Path) -> None:
    assert read(tmp_path, content, "line").notes == ()


def test_notes_on_documents_are_of_the_kind_that_is_read(tmp_path: Path) -> None:
    content = "name,count\n" + "Mara,1\n\n" * 9
    lines = read(tmp_path, content, "line")
    none = read(tmp_path, content)
    assert lines.path == none.path
    assert len(lines.notes) == 2
    assert none.notes == ()
    assert np.array_equal(lines.starts(), [0, *itertools.accumulate([11, *[7, 1] * 9])][:-1])


# Primes


def test_a_prime_has_the_line_ends_of_the_text(trained: Callable[..., Run], run: Command) -> None:
    model = api.load(trained(newline="lf", steps=4))
    assert model.clean("a\r\nb\rc") == "a\nb\nc"
    assert model.complete("Mreža\r\nšumi\r", 20) == model.complete("Mreža\nšumi\n", 20)
    assert model.next("Mreža\r\n") == model.next("Mreža\n")
    assert model.score("Mreža\r\nšumi\r\n").nats == model.score("Mreža\nšumi\n").nats
    code, out, err = run("sample", "--prime", "Mreža\r\n", "--chars", "5")
    assert (code, out) == (0, "Mreža\n" + model.complete("Mreža\n", 5) + "\n") or "\r" not in out
    assert "line ends of the prime" in err
    kept = api.load(trained("kept", steps=4))
    assert kept.clean("a\r\nb") == "a\r\nb"
    assert "line ends" not in run("sample", "--prime", "Mreža\r\n", "--chars", "5")[2]


def test_the_last_line_end_of_a_pipe_is_no_part_of_the_prime(trained: Callable[..., Run], run: Command) -> None:
    trained(steps=4)
    for command in (["complete", "-"], ["next", "-"], ["sample", "--prime", "-"], ["sample"], ["next"]):
        for piped, prime in (("mar\n", "mar"), ("mar\r\n", "mar"), ("mar\n\n", "mar\n"), ("mar", "mar"), ("\n", "")):
            code, out, _ = run(*command, "--json", piped=piped)
            assert (code, json.loads(out)["prime"]) == (0, prime)
            code, out, _ = run(*command, "--json", "--prime-as-is", piped=piped)
            assert (code, json.loads(out)["prime"]) == (0, piped)


def test_a_line_end_that_is_spelled_out_is_said(trained: Callable[..., Run], run: Command) -> None:
    trained(steps=4)
    code, out, err = run("sample", "--prime", r"it's\n", "--chars", "2")
    assert (code, out[:6]) == (0, r"it's\n")
    assert r"the prime has \n in it" in err
    assert r"$'it\'s\n'" in err
    assert r"$'\\d\t'" in run("next", r"\d\t")[2]
    assert r"a --stop text has \n" in run("sample", "--stop", r"\n", "--chars", "2")[2]
    assert r"the text has \t" in run("score", "--text", r"a\tb")[2]
    assert "spell" not in run("sample", "--prime", "a\nb", "--chars", "2")[2]
    assert r"\n in it" not in run("sample", "--prime", r"a\n", "--chars", "2", "--prime-as-is")[2]


def test_the_end_of_a_document_is_an_end(trained: Callable[..., Run], run: Command, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("".join(f"{a}{b}{c}\n" for a in "MVAJ" for b in "aeiou" for c in "rnmkv") * 30)
    trained(corpus=str(tmp_path / "names"), document="line", steps=150, lr=0.02)
    code, out, _ = run("complete", "M", "--json", "--count", "4")
    assert code == 0
    for completion in json.loads(out)["completions"]:
        assert (completion["finished"], completion["ended"]) == (True, "document"), completion
    assert "…" not in run("complete", "M", "--count", "4")[1]
