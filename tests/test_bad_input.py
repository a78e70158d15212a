"""Bad input of every kind, in one table: what is typed, the exit code, and the words that must be said."""

import contextlib
import ctypes
import gzip
import io
import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, SMALL, config

from charrnn import api, cli
from charrnn.cli import streams
from charrnn.text import copies
from charrnn.training import loop, runs

TEXT = CORPUS.read_text(encoding="utf-8")[:3000]
TINY = {**SMALL, "hidden": 8, "embedding": 4, "steps": 2}
# What a case of training adds, so that one that is no error is over soon.
BRIEF = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in TINY.items())

# The files that cases name, in the folder in which commands are typed.
FILES: dict[str, bytes] = {
    "text": TEXT.encode(),
    "empty": b"",
    "mark-alone": b"\xef\xbb\xbf",
    "one-character": b"a",
    "short": b"a" * 19,
    "shorter-than-a-window": b"abcdefghi\n" * 3,
    "one-letter": b"a" * 3000,
    "accents": "\u0301".encode() * 500,
    "binary": bytes(range(256)) * 20,
    "nuls": bytes(99),
    "invalid": b"a" * 1000 + b"\xff" + b"b" * 1000,
    "surrogates": b"ab\xed\xa0\x80" * 300,
    "utf-16": TEXT.encode("utf-16"),
    "cp1250": "čvor mreža šuma\n".encode("cp1250") * 9,
    "cut.gz": gzip.compress(TEXT.encode())[:-9],
    "folder/empty/.hidden": b"hidden",
    "pictures/one.png": bytes(99),
    "pictures/two.png": bytes(99),
    "broken.json": b"{",
    "list.json": b"[]",
    "misspelt.json": b'{"hiden": 3}',
    "newer.json": b'{"format": 99}',
    "twice.json": b'{"hidden": 3, "hidden": 4}',
    "text.json": b'{"hidden": "3"}',
    "null.json": b'{"seed": null}',
    "range.json": b'{"hidden": 0}',
    "deep.json": b"[" * 100_000,
    "nan.json": b'{"lr": NaN}',
    "infinite.json": b'{"lr": 1e999}',
    "digits.json": b'{"steps": ' + b"9" * 5000 + b"}",
    "bytes.json": b"\xff\xfe{}",
    "layers.json": b'{"layers": 1000000000}',
    "pickled.pt": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
}

Case = tuple[str, int, tuple[str, ...]]  # what is typed, the exit code, the words on stderr

CASES: dict[str, list[Case]] = {
    "corpus": [
        ("train missing.txt", 1, ("there is no file missing.txt", "check the path")),
        ("train ''", 1, ("the name of a text is empty", "'.' is this folder")),
        ("train rekurente", 1, ("there is no file rekurente", "did you mean 'rekurentne'")),
        ("train text8", 1, ("was not fetched yet", "corpora fetch text8")),
        ("train text/inside", 1, ("there is no file text/inside",)),
        ("train '*.nothing'", 1, ("no file matches *.nothing", "check the pattern")),
        ("train - -", 1, ("standard input is named twice", "give '-' one time")),
        ("train empty", 1, ("empty is empty", "give a text to learn")),
        ("train mark-alone", 1, ("mark-alone is empty", "give a text to learn")),
        ("train one-character", 1, ("too little to train on: 1 of at least 20", "give a longer text")),
        ("train short", 1, ("too little to train on: 15 of at least 20", "--split")),
        (f"train shorter-than-a-window {BRIEF} --window 64", 0, ("24 characters are very few",)),
        (f"train one-letter {BRIEF}", 0, ("1 different",)),
        (f"train accents {BRIEF}", 0, ("1 different",)),
        ("train folder", 1, ("the folder folder holds no files", "name a folder of text files")),
        ("train pictures", 1, ("pictures holds 2 files, none of them text", "or the files themselves")),
        ("train binary", 1, ("binary is not text: it is full of NUL bytes", "name a text")),
        ("train nuls", 1, ("nuls is not text", "--tokenizer byte")),
        ("train invalid", 1, ("invalid: byte 1000 is not UTF-8", "--errors replace")),
        (f"train invalid {BRIEF} --errors replace", 0, ("1 times bytes that do not fit", "first at byte 1000")),
        ("train surrogates", 1, ("surrogates: byte 2 is not UTF-8", "--errors replace")),
        ("train utf-16", 1, ("it looks like UTF-16", "--encoding utf-16")),
        ("train cp1250", 1, ("cp1250: byte 0 is not UTF-8", "--encoding cp1250  ")),
        ("train text --encoding klingon", 2, ("encoding is 'klingon'", "give one such as utf-8")),
        ("train text --encoding base64", 2, ("encoding is 'base64'", "no encoding of text")),
        ("train cut.gz", 1, ("cut.gz is a damaged gzip file", "restore it from a copy")),
        ("corpora stats missing.txt", 1, ("no file missing.txt", "check the path")),
        ("corpora stats empty", 1, ("empty is empty",)),
        ("corpora stats", 2, ("Missing argument",)),
        ("corpora stat", 2, ("did you mean 'stats'",)),
        ("corpora fetch text9", 1, ("there is no corpus 'text9'", "did you mean 'text8'")),
    ],
    "options": [
        ("trian", 2, ("there is no command 'trian'", "did you mean 'train'")),
        ("train --hiden 5", 2, ("--hiden", "--hidden")),
        ("train --hidden 0", 2, ("hidden is 0", "a whole number of 1 or more")),
        ("train --hidden -1", 2, ("hidden is -1", "a whole number of 1 or more")),
        ("train --hidden many", 2, ("'many' is not a valid integer",)),
        (f"train text {BRIEF} --hidden 1000000000000", 1, ("GB of memory; there are", "a smaller --hidden")),
        (f"train text {BRIEF} --batch 1000000000000", 1, ("GB of memory; there are", "--batch")),
        ("train --layers 0", 2, ("layers is 0", "from 1 to 1000")),
        ("train --layers 1000000000", 2, ("layers is 1000000000", "from 1 to 1000")),
        ("train --batch 0", 2, ("batch is 0", "1 or more")),
        ("train --window 0", 2, ("window is 0", "1 or more")),
        ("train --steps 0", 2, ("steps is 0", "1 or more")),
        ("train --steps 1000000000000000000000", 2, ("steps is 1000000000000000000000", "below 2^63")),
        ("train --steps 5 --epochs 2", 2, ("steps and epochs both set the length", "give one of them")),
        ("train --epochs nan", 2, ("epochs is nan", "a number of 0 or more")),
        ("train --epochs 0", 2, ("epochs is 0", "a number above 0")),
        ("train --budget 0", 2, ("budget is 0.0", "a number of 1 or more")),
        ("train --budget soon", 2, ("'soon' is not a length of time", "90, 90s, 3m, 1h30m")),
        ("train --lr nan", 2, ("lr is nan", "a number of 0 or more")),
        ("train --lr -1", 2, ("lr is -1.0", "a number of 0 or more")),
        ("train --dropout 2", 2, ("dropout is 2.0", "from 0 to 0.95")),
        ("train --seed -1", 2, ("seed is -1", "from 0 to 9223372036854775807")),
        ("train --clip nan", 2, ("clip is nan", "a number of 0 or more")),
        ("train --optimizer adam", 2, ("'adam' is not one of", "adamw")),
        ("train --document page", 2, ("'page' is not one of", "blank")),
        ("train --errors ignore", 2, ("'ignore' is not one of", "replace")),
        ("train --split 1,2", 2, ("split 1.0,2.0 is not three shares", "0.8,0.1,0.1")),
        ("train --split nan,0,1", 2, ("split nan,0.0,1.0 is not three shares", "0.8,0.1,0.1")),
        ("train --split a,b", 2, ("split is 'a,b'", "three shares")),
        ("train --cell lstn", 1, ("there is no cell 'lstn'", "did you mean 'lstm'")),
        ("train --cell ''", 1, ("there is no cell ''", "choose from")),
        ("train --cell-option depth", 2, ("'depth' is not name=value", "depth=3")),
        ("train --cell lstm --cell-option depth=2", 1, ("no option 'depth'",)),
        ("train text --cell rhn --cell-option depth=9999 --steps 2 --hidden 8", 1, ("depth", "up to 1000")),
        ("train text --engine fused --cell rnn", 1, ("cannot run",)),
        (f"eval {'a' * 300}", 1, ("File name too long", "name another place")),
        (f"export rekurentne --to {'a' * 300}", 1, ("File name too long", "name another place")),
        ("train text --device cpu --precision tf32", 2, ("precision is tf32, and this trains on cpu", "use float32")),
        ("train --name a/b", 2, ("'a/b' cannot be the name of a run", "use letters")),
        ("train --name ''", 2, ("'' cannot be the name of a run", "use letters")),
        ("train --name ..", 2, ("'..' cannot be the name of a run", "use letters")),
        ("train --name latest", 2, ("'latest' cannot be the name of a run", "use letters")),
        (f"train text --name {'x' * 300}", 1, ("no run can be kept in", "File name too long", "another --name")),
        (f"train text --hidden 6 {BRIEF} --out twice", 0, ("hidden 8 x 1",)),  # the last one counts
        (f"train text {BRIEF} --out text", 1, ("no run can be kept in text", "choose another --name, --out")),
        ("train --resume small --hidden 3", 2, ("--resume takes the run's own settings, not other hidden",)),
        ("cells lstn", 1, ("there is no cell 'lstn'", "did you mean 'lstm'")),
        ("cells --hidden 0", 2, ("whole numbers of 1 or more",)),
        ("cells rhn --cell-option depth=0", 2, ("'depth=0' is not name=value with a whole number of 1 or more",)),
        ("inspect gradient", 2, ("did you mean 'gradients'",)),
        ("inspect gradients --hidden 0", 2, ("hidden is 0",)),
        ("compare --seeds 0", 2, ("seeds is 0", "1 or more")),
        ("compare --jobs 0", 2, ("jobs",)),
        ("bench train --hidden 0", 2, ("hidden is 0",)),
        ("completion tcsh", 2, ("'tcsh' is not one of", "bash")),
    ],
    "drawing": [
        ("sample --run small --prime R --chars 3 --temperature 0", 0, ()),
        ("sample --run small --prime R --chars 3 --temperature 1e-320", 0, ()),
        ("sample --run small --temperature -1", 2, ("temperature is -1.0", "a number of 0 or more")),
        ("sample --run small --temperature nan", 2, ("temperature is nan", "a number of 0 or more")),
        ("sample --run small --temperature inf", 2, ("temperature is inf", "a number of 0 or more")),
        ("sample --run small --top-p 0", 2, ("top-p is 0.0", "above 0, up to 1")),
        ("sample --run small --top-p 1.5", 2, ("top-p is 1.5", "above 0, up to 1")),
        ("sample --run small --top-p nan", 2, ("top-p is nan", "above 0, up to 1")),
        ("sample --run small --top-k 0", 2, ("top-k is 0", "1 or more")),
        ("sample --run small --min-p 2", 2, ("min-p is 2.0", "from 0 to 1")),
        ("sample --run small --seed -1", 2, ("seed is -1", "from 0 to 2^64 - 1")),
        ("sample --run small --chars -1", 2, ("chars is -1", "0 or more")),
        ("sample --run small --chars 9223372036854775808", 2, ("chars is 9223372036854775808", "below 2^63")),
        ("sample --run small --chars many", 2, ("'many' is not a valid integer",)),
        ("sample --run small --count 0", 2, ("count is 0", "1 or more")),
        ("sample --run small --count 9223372036854775808", 2, ("count is 9223372036854775808", "below 2^63")),
        ("sample --run small --max-copy 1", 2, ("max-copy is 1", "2 or more")),
        ("sample --run small --stop ''", 2, ("a stop string is empty", "at least one character")),
        ("sample --run small --device tpu", 2, ("there is no device 'tpu'", "cpu or auto")),
        ("sample --run small --device cuda:1", 2, ("there is no device 'cuda:1'", "CUDA_VISIBLE_DEVICES=1")),
        ("train own.txt --device cuda:1", 2, ("there is no device 'cuda:1'", "CUDA_VISIBLE_DEVICES=1")),
        ("bench train --device cuda:0", 2, ("there is no device 'cuda:0'", "CUDA_VISIBLE_DEVICES=0")),
        ("sample --run small --weights int3", 2, ("'int3' is not one of", "int8")),
        ("sample --run small --prime R --separator , --json", 2, ("--separator is for plain text",)),
        ("sample --run small --prime R --out folder", 1, ("folder cannot be written: Is a directory", "another --out")),
        ("sample --run small --prime R --adapt --out no/such", 1, ("there is no folder", "another --out")),
        ("sample --run small --prime R --out no/such", 1, ("no/such cannot be written", "another --out")),
        ("complete R --run small --top-p 2", 2, ("top-p is 2.0",)),
        ("next R --run small --k 0", 2, ("--k is a whole number of 1 or more",)),
        ("chat --run small --min-p 3", 2, ("min-p is 3.0",)),
    ],
    "prime": [
        ("sample --run small --prime '' --chars 2", 0, ()),
        ("sample --run small --prime-file empty --chars 2", 0, ()),
        ("sample --run small --prime-file accents --chars 2", 0, ("has not learned U+0301",)),
        ("sample --run small --prime a --prime-file text", 2, ("both a prime and --prime-file", "give one of them")),
        ("sample --run small --prime-file missing", 1, ("missing cannot be read: No such file", "check the path")),
        ("sample --run small --prime-file folder", 1, ("folder cannot be read: Is a directory", "check the path")),
        ("sample --run small --prime-file cp1250", 1, ("cp1250: byte 0 is not UTF-8", "--encoding cp1250")),
        ("sample --run small --prime-file text --encoding klingon", 2, ("encoding is 'klingon'",)),
        ("sample --run small --prime R --encoding cp1250", 2, ("for a prime that is typed", "--prime-file")),
        ("sample --run small --prime '\ud800'", 1, ("surrogate",)),
        ("sample --run small --prime 'a\udce8b'", 1, ("surrogate",)),
        ("next '\ud800' --run small", 1, ("surrogate",)),
        ("score missing.txt --run small", 1, ("there is no file missing.txt", "--text")),
        ("score folder --run small", 1, ("folder is a folder, expected a file or a text", "--text")),
        ("score '' --run small", 1, ("the text is empty", "at least one character")),
        ("score empty --run small", 1, ("empty is empty", "at least one character")),
        ("score binary --run small", 1, ("binary is not text",)),
        ("eval small missing", 1, ("there is no file missing",)),
        ("eval small ''", 1, ("the name of a text is empty",)),
        ("eval small empty", 1, ("empty is empty", "at least one character")),
        ("eval small binary", 1, ("binary is not text",)),
        ("eval small text --part val", 1, ("both the file text and the part val", "give one of them")),
        ("eval small --encoding cp1250", 2, ("--encoding is that of a FILE",)),
    ],
    "run": [
        ("sample --run smal", 1, ("there is no run 'smal'", "did you mean 'small'")),
        ("sample --run text", 1, ("there is no run 'text', which is a file",)),
        ("sample --run folder", 1, ("there is no run 'folder', which is another folder",)),
        ("sample --run ''", 1, ("there is no run ''\n",)),
        ("sample --run 'a\0b'", 1, ("there is no run 'a\\x00b'",)),
        (f"info {'x' * 5000}", 1, ("there is no run 'xxx",)),
        ("info pickled.pt", 1, ("pickled.pt is a file of torch.save or pickle", "give the folder of a run")),
        ("eval text", 1, ("there is no run 'text', which is a file", "eval latest text")),
        ("train --resume nothing", 1, ("there is no run 'nothing'",)),
        ("train --resume small", 1, ("small is complete after 2 steps", "give --steps")),
        ("train --resume small --steps 1", 1, ("small has 2 steps already", "more than 2")),
        (f"train text {BRIEF} --name small", 1, ("small exists already", "another --name")),
        ("rm nothing", 1, ("there is no run 'nothing'",)),
        ("rm folder -y", 1, ("there is no run 'folder', which is another folder",)),
        ("rm", 2, ("Missing argument",)),
    ],
    "config": [
        ("train --config missing.json", 1, ("missing.json cannot be read: No such file", "the config.json of a run")),
        ("train --config folder", 1, ("folder cannot be read: Is a directory",)),
        ("train --config bytes.json", 1, ("bytes.json cannot be read: byte 0 is not UTF-8",)),
        ("train --config broken.json", 1, ("broken.json is not JSON", "the config.json of a run")),
        ("train --config list.json", 1, ("list.json holds no settings",)),
        ("train --config deep.json", 1, ("deep.json is not JSON (it is nested too deeply)",)),
        ("train --config misspelt.json", 1, ("there is no setting 'hiden'", "did you mean 'hidden'")),
        ("train --config newer.json", 1, ("newer.json has format 99, this version reads 1 to 7", "upgrade charrnn")),
        ("train --config twice.json", 1, ("'hidden' comes twice",)),
        ("train --config text.json", 1, ("text.json: hidden is '3'", "a whole number")),
        ("train --config null.json", 1, ("null.json: seed is null", "a whole number")),
        ("train --config range.json", 1, ("range.json: hidden is 0", "1 or more")),
        ("train --config nan.json", 1, ("nan.json is not JSON (NaN is no number of JSON)",)),
        ("train --config infinite.json", 1, ("infinite.json: lr is inf", "a number")),
        ("train --config digits.json", 1, ("digits.json is not JSON", "5000 digits")),
        ("train --config layers.json", 1, ("layers.json: layers is 1000000000", "from 1 to 1000")),
    ],
}

# What is typed, with variables of the environment; None takes one away.
ENVIRONMENT: list[tuple[dict[str, str | None], Case]] = [
    ({"CHARRNN_HOME": "nowhere"}, ("sample --prime R --chars 5", 0, ("rekurentne comes with charrnn", "train"))),
    ({"CHARRNN_HOME": "nowhere"}, ("rm latest -y", 1, ("there is no run in nowhere yet", "train"))),
    ({"CHARRNN_HOME": "nowhere"}, ("runs", 0, ("there are no runs yet",))),
    ({"CHARRNN_HOME": "text"}, ("sample --prime R --chars 5", 0, ("rekurentne comes with charrnn",))),
    ({"CHARRNN_HOME": "text"}, (f"train text {BRIEF}", 1, ("text/.corpora: Not a directory", "in CHARRNN_HOME"))),
    ({"CHARRNN_HOME": "text"}, ("corpora stats text", 1, ("text/.corpora: Not a directory", "in CHARRNN_HOME"))),
    ({"CHARRNN_HOME": ""}, ("rm latest -y", 1, ("there is no run in checkpoints yet",))),
    ({"HOME": None}, ("sample --run small --prime R --chars 2", 0, ())),
    ({"TMPDIR": "/nowhere"}, ("sample --run small --prime R --chars 2", 0, ())),
    ({"COLUMNS": "1"}, ("next R --run small", 0, ())),
    ({"COLUMNS": "1"}, ("train --help", 0, ())),
    ({"COLUMNS": "wide"}, ("next R --run small", 0, ())),
    ({"TERM": None, "LANG": "C", "LC_ALL": "C"}, ("score Mreža --run small", 0, ("perplexity",))),
    ({"LC_ALL": "xx_XX.nothing"}, ("sample --run small --prime čvor --chars 2", 0, ())),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which commands are typed: FILES, and in `home` a run called 'small'."""
    folder = tmp_path_factory.mktemp("typed")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settings = config(str(folder / "text"), **TINY)
        for _ in loop.new_run(settings, loop.open_run(settings, "small")):
            pass
    api.load(runs.Run(folder / "home" / "small")).complete("R", 2)
    return folder


@pytest.fixture
def typed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Run a command in this process; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("CHARRNN_HOME", str(place / "home"))
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())

    def run(line: str) -> tuple[int, str, str]:
        code = cli.run(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def judge(case: Case, done: tuple[int, str, str]) -> None:
    """Hold what came of a case against what is expected of it."""
    (_, code, words), (got, out, err) = case, done
    assert got == code, err
    for said in words:
        assert said in err
    assert "Traceback" not in err
    assert "defect" not in err
    if code:
        assert out == ""
        assert "\nhint: " in err if err.startswith("error: ") else err.startswith("Usage: ")


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases], ids=lambda case: case[0][:60])
def test_bad_input_ends_with_its_code_and_words(case: Case, typed: Callable[[str], tuple[int, str, str]]) -> None:
    judge(case, typed(case[0]))


@pytest.mark.parametrize(("variables", "case"), ENVIRONMENT, ids=lambda value: str(value)[:60])
def test_an_odd_environment_changes_nothing_or_is_said(
    variables: dict[str, str | None],
    case: Case,
    typed: Callable[[str], tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    judge(case, typed(case[0]))


# What one command line does not tell


@contextlib.contextmanager
def as_another_would() -> Iterator[None]:
    """Let root be asked for his rights to files as anybody is: he puts off the capabilities that pass over them."""
    if not hasattr(os, "geteuid"):
        pytest.skip("rights of files are others here")
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may read and write everything")
    libc, passes_over = ctypes.CDLL(None, use_errno=True), 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    try:
        sets[0] = effective & ~passes_over
        assert libc.capset(header, sets) == 0
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@pytest.mark.parametrize(
    ("mode", "line", "words"),
    [
        (0o000, "train locked/text", "cannot be read: Permission denied"),
        (0o500, f"train text {BRIEF} --out locked/run", "no run can be kept in locked/run: Permission denied"),
    ],
)
def test_what_may_not_be_read_or_written_is_said(
    mode: int, line: str, words: str, place: Path, typed: Callable[[str], tuple[int, str, str]]
) -> None:
    locked = place / "locked"
    locked.mkdir(exist_ok=True)
    (locked / "text").touch()
    (locked / "text").chmod(0o000)
    locked.chmod(mode)
    with as_another_would():
        code, _, err = typed(line)
    locked.chmod(0o700)
    assert code == 1
    assert words in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_is_read_to_its_end_and_left_out_of_a_folder(
    typed: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code, _, err = typed(f"train {tmp_path}")
    assert (code, "holds no files" in err) == (1, True)
    writer = threading.Thread(target=fifo.write_text, args=(TEXT,))
    writer.start()
    code, _, err = typed(f"train {fifo} {BRIEF} --out {tmp_path / 'run'}")
    writer.join()
    assert (code, "3,000 characters" in err) == (0, True)


def test_a_file_that_shrinks_while_it_is_read_ends_sooner(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(b"a line of text\n" * (1 << 20))
    cut = False

    def shrink(what: str, done: int, total: int | None) -> None:
        nonlocal cut
        if not cut:
            os.truncate(path, done)
            cut = True

    text = copies.read((str(path),), tmp_path / "copies", progress=shrink)
    assert 0 < text.characters < 15 << 20
    assert sum(map(len, text.chunks())) == text.characters


@pytest.mark.parametrize("megabytes", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_prime_of_megabytes_is_read(
    megabytes: int, typed: Callable[[str], tuple[int, str, str]], place: Path
) -> None:
    prime = place / "long"
    with prime.open("w", encoding="utf-8") as stream:
        stream.writelines("Mreža pamti.\n" for _ in range(megabytes * 2**20 // 14))
    code, out, _ = typed("sample --run small --prime-file long --chars 3 --json --prime-as-is")
    assert code == 0
    assert len(json.loads(out)["completions"][0]["text"]) == 3


def test_a_terminal_that_declines_colours_gets_none(
    typed: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.BytesIO):
        def isatty(self) -> bool:
            return True

        def close(self) -> None:
            """Stay readable."""

    def shown(**variables: Any) -> str:
        screen = Screen()
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            patch.setenv("TERM", "xterm-256color")
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", streams.Shown(screen, "utf-8", write_through=True))
            assert typed("score Mreža --run small")[0] == 0
        return screen.getvalue().decode()

    assert "\x1b[" in shown()
    assert "\x1b" not in shown(NO_COLOR="1")
    assert "\x1b" not in shown(TERM="dumb")
