"""Texts that are not UTF-8: what they may be is shown, --encoding reads them, and a run remembers it."""

import dataclasses
import gzip
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, config

from charrnn import api, cli
from charrnn.errors import CharRNNError
from charrnn.text import copies, corpora, encodings
from charrnn.text import corpus as data
from charrnn.text.cleaning import Cleaning, Findings, decoded, text_of
from charrnn.training import loop
from charrnn.training.checkpoint import Run
from charrnn.training.config import Config
from charrnn.training.settings import Settings

Command = Callable[..., tuple[int, str, str]]
TEXTS = {
    "French": "Où êtes-vous allée, chère Zoé ? L'été dernier, le garçon rêvait déjà près de la forêt.\n",
    "German": "Müde Bären schlafen über den Dächern; größere Füchse hören süße Träume und Äpfel fallen.\n",
    "Czech": "Příští týden půjdeme k řece, kde žluté květy šumí a děti si hrají až do večera.\n",
    "Serbian": "Učenici čitaju priču o žabi, a ćutljivi đak šapuće da će sutra doći kući pešice.\n",
    "Russian": "Вечером мы пойдём к реке, чтобы увидеть лодку и послушать, как поют птицы.\n",
    "Greek": "Το βράδυ θα πάμε στο ποτάμι για να δούμε τη βάρκα και να ακούσουμε τα πουλιά.\n",
    "Turkish": "Akşam ırmağa gideceğiz, kayığı göreceğiz ve kuşların şarkısını dinleyeceğiz.\n",
    "Hebrew": "בערב נלך אל הנהר כדי לראות את הסירה ולשמוע את שירת הציפורים.\n",
    "Arabic": "في المساء سنذهب إلى النهر لنرى القارب ونسمع غناء الطيور.\n",
    "Japanese": "夕方になったら川へ行って、舟を見たり鳥の歌を聞いたりしましょう。\n",
    "Chinese": "晚上我们去河边看船，听鸟儿唱歌，然后慢慢走回家。\n",
    "Taiwanese": "晚上我們去河邊看船，聽鳥兒唱歌，然後慢慢走回家。\n",
    "Korean": "저녁에 우리는 강으로 가서 배를 보고 새들의 노래를 들을 것이다.\n",
    "English": "In the evening we walk to the river, look at the boat and hear the birds.\n",
}
WRITTEN = [
    *(("French", name) for name in ("latin-1", "cp1252", "mac-roman", "cp850")),
    *(("German", name) for name in ("latin-1", "mac-roman")),
    *(("Czech", name) for name in ("cp1250", "iso8859-2")),
    *(("Serbian", name) for name in ("cp1250", "iso8859-2", "utf-16-be")),
    *(("Russian", name) for name in ("cp1251", "koi8-r", "cp866", "utf-16-le")),
    *(("Greek", name) for name in ("cp1253", "iso8859-7")),
    ("Turkish", "cp1254"),
    *(("Hebrew", name) for name in ("cp1255", "iso8859-8")),
    ("Arabic", "cp1256"),
    *(("Japanese", name) for name in ("shift_jis", "euc_jp", "utf-16-be")),
    *(("Chinese", name) for name in ("gb18030", "utf-16-le", "utf-32-be")),
    ("Taiwanese", "big5"),
    ("Korean", "euc_kr"),
    *(("English", name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")),
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process; bytes that are given are its standard input. Gives exit code, stdout, stderr."""

    def call(*arguments: str, piped: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def write(folder: Path, content: bytes, name: str = "text.txt") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def read(path: str, encoding: str, chunk: int = 1 << 22, **how: Any) -> tuple[str, tuple[str, ...]]:
    (source,) = corpora.find(path).sources
    cleaning, findings = Cleaning(encoding=encodings.text_encoding(encoding), encodable=True, **how), Findings()
    return "".join(text_of(source, cleaning, findings, chunk)), findings.notes(cleaning)


def offered(hint: str) -> dict[str, str]:
    """The encodings of a hint, each with the line as it reads in it."""
    return dict(re.findall(r"--encoding (\S+) +(.*)", hint))


@pytest.mark.parametrize("lines", [1, 40])
@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_the_hint_shows_a_line_as_it_reads_and_the_encoding_that_reads_all_of_it(
    language: str, encoding: str, lines: int, tmp_path: Path
) -> None:
    text = TEXTS[language] * lines
    path = write(tmp_path, text.encode(encoding))
    with pytest.raises(CharRNNError) as raised:
        read(path, "utf-8")
    readings = offered(raised.value.hint)
    right = [name for name, line in readings.items() if line and text.startswith(line)]
    assert len(right) == 1, raised.value.hint
    assert list(readings).index(right[0]) < 6
    assert read(path, right[0])[0] == text
    for name in readings:  # what is advised does not lead to the next error
        read(path, name)


def test_what_is_written_in_units_of_two_or_four_bytes_is_called_by_its_name(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-be", "utf-32", "utf-32-le"):
        with pytest.raises(CharRNNError, match=encoding[:6].upper()) as raised:
            read(write(tmp_path, TEXTS["English"].encode(encoding)), "utf-8")
        assert next(iter(offered(raised.value.hint))) == encoding


def test_utf_16_without_its_mark_is_not_taken_for_that_of_this_machine(tmp_path: Path) -> None:
    for encoding in ("utf-16-be", "utf-16-le"):
        path = write(tmp_path, TEXTS["English"].encode(encoding))
        with pytest.raises(CharRNNError, match="mark") as raised:
            read(path, "utf-16")
        assert next(iter(offered(raised.value.hint))) == encoding


@pytest.mark.parametrize("encoding", ["rot13", "base64", "zip", "hex", "idna", "undefined", "unicode_escape"])
def test_what_is_no_encoding_of_text_is_refused(encoding: str) -> None:
    with pytest.raises(CharRNNError, match=f"'{encoding}'.*no encoding of text"):
        Settings(encoding=encoding)


@pytest.mark.parametrize("encoding", ["", "latin-9000", "a\0b", "\udce8", "../os", None, 8, ["utf-8"]])
def test_any_other_name_is_refused_in_words(encoding: Any) -> None:
    with pytest.raises(CharRNNError) as raised:
        Settings(encoding=encoding)
    assert raised.value.hint


def test_names_of_one_encoding_are_one_setting() -> None:
    assert Settings(encoding="Latin1").encoding == Settings(encoding="iso-8859-1").encoding
    assert Settings(encoding="windows-1255").encoding == "cp1255"
    for name in ("UTF8", "utf_8", "U8", "utf-8-sig"):
        assert Settings(encoding=name) == Settings()


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("content", "encoding", "at"),
    [
        ("Müde ".encode("cp1252") + b"\x81" + b"x" * 9, "cp1252", 5),
        (TEXTS["Japanese"].encode("shift_jis") + b"\xff" * 3, "shift_jis", len(TEXTS["Japanese"]) * 2 - 1),
        ("\ufeffab".encode("utf-16-le") + b"\x00\xdcab", "utf-16", 6),
        (TEXTS["Korean"].encode("utf-32-be") + b"\x7f" * 4, "utf-32-be", 4 * len(TEXTS["Korean"])),
        (b"abc" + b"\xe9" + b"d" * 9, "ascii", 3),
    ],
)
def test_a_declared_encoding_that_does_not_fit_is_refused_with_the_byte(
    content: bytes, encoding: str, at: int, chunk: int, tmp_path: Path
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(CharRNNError, match=rf"text.txt: byte {at} is not {encoding}"):
        read(path, encoding, chunk)
    text, notes = read(path, encoding, chunk, errors="replace")
    assert text == content.decode(encoding, "replace").removeprefix("\ufeff")
    assert f"first at byte {at} of" in notes[0]


@pytest.mark.parametrize("encoding", ["cp1250", "shift_jis", "utf-16", "utf-32-be", "gb18030", "utf-7", "iso2022_jp"])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_declared_encoding_is_read_however_the_bytes_arrive(encoding: str, chunk: int, tmp_path: Path) -> None:
    text = TEXTS["Serbian" if encoding == "cp1250" else "Japanese"].replace("\n", "\r\n") * 3
    for content in (text.encode(encoding), gzip.compress(text.encode(encoding))):
        assert read(write(tmp_path, content), encoding, chunk)[0] == text
        assert read(write(tmp_path, content), encoding, chunk, newline="lf")[0] == text.replace("\r\n", "\n")


def test_utf_8_that_is_read_as_something_else_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, TEXTS["French"].encode())
    assert any("UTF-8 too" in note for note in read(path, "cp1252")[1])
    assert read(write(tmp_path, b"plain"), "cp1252")[1] == ()
    assert read(write(tmp_path, TEXTS["French"].encode("cp1252")), "cp1252")[1] == ()


def test_quotes_of_windows_in_latin_1_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, "“Où ?”".encode("cp1252"))
    assert any("cp1252 may be meant" in note for note in read(path, "latin-1")[1])
    assert read(path, "cp1252")[1] == ()


def test_utf_8_with_a_few_damaged_bytes_is_taken_for_nothing_else(tmp_path: Path) -> None:
    content = TEXTS["Czech"].encode()
    path = write(tmp_path, content + b"\xff" + content)
    with pytest.raises(CharRNNError, match="damaged") as raised:
        read(path, "utf-8", settable=True)
    assert "--errors replace" in raised.value.hint
    assert not offered(raised.value.hint)


def test_nothing_is_offered_for_what_is_no_text() -> None:
    assert encodings.advice_on_nuls(encodings.Misfit(b"\0\1\2\3text" * 300, 0), option=True) == ""


def test_corpora_with_names_are_utf_8_whatever_is_declared(home: Path) -> None:
    text = data.read(("rekurentne",), home, Cleaning(encoding="cp1252"))
    assert "".join(text.chunks()) == CORPUS.read_text(encoding="utf-8")


# Runs


def test_a_run_remembers_the_encoding_and_reads_other_files_in_it(
    trained: Callable[..., Run], tmp_path: Path, run: Command
) -> None:
    source = CORPUS.read_text(encoding="utf-8")[:6000]
    path = write(tmp_path, source.encode("cp1250", "ignore"))
    one = trained(corpus=path, encoding="windows-1250")
    kept = source.encode("cp1250", "ignore").decode("cp1250")
    assert one.config().encoding == "cp1250"
    assert json.loads((one.path / "config.json").read_text())["encoding"] == "cp1250"
    assert "".join(data.private_copy(one.config()).chunks()) == kept
    utf8 = write(tmp_path, kept.encode(), "utf8.txt")
    other = trained("other", corpus=utf8)
    assert other.config().fingerprint == one.config().fingerprint  # the same text: the same weights
    assert all((other.weights()[name] == value).all() for name, value in one.weights().items())
    expected = api.score_run(api.load(other), utf8, None, "stream")[1].nats
    assert api.score_run(api.load(one), path, None, "stream")[1].nats == expected
    for words in (("eval", "run", path), ("eval", "other", path, "--encoding", "cp1250")):
        code, out, _ = run(*words, "--json")
        assert (code, json.loads(out)["nats_per_char"]) == (0, expected)
    _, out, _ = run("score", path, "--run", "other", "--encoding", "cp1250", "--json")
    assert json.loads(out)["text"] == kept
    code, _, err = run("eval", "other", path)
    assert (code, "cp1250" in offered(err)) == (1, True)
    assert "UTF-8 too" in run("eval", "run", utf8)[2]
    assert run("eval", "run", "--encoding", "cp1250")[0] == 2
    list(loop.resume(one, steps=14))
    Path(path).unlink()
    list(loop.resume(one, steps=15))


def test_a_text_declared_anew_is_another_text(tmp_path: Path) -> None:
    path = write(tmp_path, (TEXTS["French"] * 9).encode("cp1252"))
    asked = config(path, encoding="cp1252")
    first = copies.open_text(asked)
    asked = asked.replace(fingerprint=first.fingerprint)
    assert copies.open_text(asked) == first
    other = asked.replace(encoding="cp1257")
    assert other.fingerprint is None
    assert copies.open_text(other).fingerprint != first.fingerprint


def test_configurations_from_before_are_of_utf_8(trained: Callable[..., Run]) -> None:
    config_of = trained(steps=2).config()
    values = json.loads(config_of.to_json())
    del values["encoding"]
    assert Config.from_json(json.dumps(values), "old") == config_of
    assert dataclasses.asdict(config_of)["encoding"] == "utf-8"


def test_commands_that_read_files_take_the_encoding(trained: Callable[..., Run], tmp_path: Path, run: Command) -> None:
    trained(steps=2)
    content = "mreža čuva".encode("cp1250")
    path = write(tmp_path, content)
    for command in ("sample", "complete", "next"):
        for words in ((command, "--prime-file", path), (command, *(["--prime"] * (command == "sample")), "-")):
            words = (*words, "--json", "--encoding", "cp1250")
            code, out, err = run(*words, piped=content)
            assert code == 0, err
            assert json.loads(out)["prime"] == "mreža čuva"
            code, _, err = run(*words[:-2], piped=content)
            assert (code, "cp1250" in offered(err)) == (1, True), err
    assert run("next", "Rek", "--encoding", "cp1250")[0] == 2
    long = write(tmp_path, TEXTS["Russian"].encode("koi8-r") * 20, "long.txt")
    code, out, _ = run("corpora", "stats", long, "--encoding", "koi8-r", "--json")
    assert (code, "ё" in json.loads(out)["alphabet"]) == (0, True)
    code, _, err = run("corpora", "stats", long)
    assert (code, "koi8-r" in offered(err)) == (1, True)


def test_a_source_in_memory_is_decoded_whole() -> None:
    assert decoded(corpora.memory("it", "\ufeffab\0\r\n".encode()), "utf-8") == "\ufeffab\0\r\n"
