"""What the command line does for people: primes put right, completions that end, colours, chat, shells, interrupts."""

import gzip
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS, config

from charrnn import api, cli
from charrnn.cli import options, surprise
from charrnn.text import corpus as corpus_module
from charrnn.training import loop, runs
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent
NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a small run called 'small'; tests that share it must leave it as it is."""
    folder = tmp_path_factory.mktemp("people")
    text = folder / "text.txt"
    text.write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settings = config(str(text), hidden=24, steps=40, lr=0.02)
        for _ in loop.new_run(settings, loop.open_run(settings, "small")):
            pass
    return folder / "home"


@pytest.fixture
def run(shared_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, in the shared home; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("CHARRNN_HOME", str(shared_home))
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def process(home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CHARRNN_HOME": str(home), **variables}
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=120)


def last_json(out: str) -> dict[str, Any]:
    return dict(json.loads(out.splitlines()[-1]))


class Terminal:
    """A command on a terminal of its own, as a person sees and types it."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.seen, self._waited = "", 0  # everything that was shown; how much of it was waited for
        environment = {**os.environ, "CHARRNN_HOME": str(home), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # as terminals do; a job in the background hands down SIG_IGN
            os.execve(sys.executable, [sys.executable, str(ROOT / "cli.py"), *arguments], environment)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read on until `text` comes, which is looked for after all that was waited for before."""
        deadline = time.monotonic() + seconds
        while text not in self.seen[self._waited :]:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._screen], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._screen, 4096).decode("utf-8", "replace")
                except OSError:
                    pytest.fail(f"it has ended: {self.seen}")
        self._waited = self.seen.index(text, self._waited) + len(text)

    def end(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            if not select.select([self._screen], [], [], 0.1)[0]:
                assert time.monotonic() < deadline, f"it has not ended: {self.seen}"
                continue
            try:
                self.seen += os.read(self._screen, 4096).decode("utf-8", "replace")
            except OSError:
                break
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


# Primes


def test_a_prime_in_another_script_is_said_with_the_command_that_does_better(run: Command) -> None:
    code, out, err = run("sample", "--run", "small", "--prime", "Мрежа", "--chars", "5")
    assert code == 0
    assert out.startswith("Мрежа")
    assert "Latin script" in err
    assert "sample --run small --prime 'Mreža'" in err
    assert "next 'Mreža'" in run("next", "Мрежа")[2]
    assert "complete 'Mreža'" in run("complete", "Мрежа", "--count", "1")[2]
    assert run("sample", "--prime", "Мрежа", "--chars", "5", "--prime-as-is")[1:] == (out, "")


def test_a_decomposed_prime_is_read_composed(run: Command) -> None:
    composed = "mreža"
    code, out, err = run("sample", "--prime", unicodedata.normalize("NFD", composed), "--chars", "9")
    assert code == 0
    assert out == run("sample", "--prime", composed, "--chars", "9")[1]
    assert "NFC" in err
    assert run("sample", "--prime", unicodedata.normalize("NFD", composed), "--prime-as-is")[1] != out


# complete and next


def test_complete_ranks_distinct_completions_that_end(run: Command) -> None:
    arguments = ("complete", "Rek", "--until", "word", "--count", "12", "--temperature", "0.5")
    result = last_json(run(*arguments, "--json")[1])
    assert list(result) == ["run", "prime", "until", "seed", "completions"]
    completions = result["completions"]
    assert list(completions[0]) == ["text", "nats", "nats_per_char", "finished", "ended", "copied"]
    texts = [c["text"] for c in completions]
    assert len(set(texts)) == len(texts) <= 12
    nats = [c["nats_per_char"] for c in completions if c["finished"]]
    assert nats == sorted(nats)
    code, out, _ = run(*arguments)
    assert code == 0
    assert [line[7:] for line in out.splitlines()][: len(nats)] == [
        "Rek" + options.one_line(text) for text in texts[: len(nats)]
    ]
    assert run(*arguments[:4], "--count", "1")[1].startswith("Rek")


def test_next_shows_bars_as_long_as_its_probabilities(run: Command) -> None:
    rows = last_json(run("next", "Rekurentn", "--k", "4", "--json")[1])["next"]
    assert [(r["character"], r["probability"]) for r in rows] == api.load("small").next("Rekurentn", 4)
    code, out, _ = run("next", "Rekurentn", "--k", "4")
    assert code == 0
    *lines, last = out.splitlines()
    lengths = [line.count("█") for line in lines]
    assert len(lengths) == 4
    others = last_json(run("next", "Rekurentn", "--k", "4", "--json")[1])["others"]
    assert others == pytest.approx(1 - sum(r["probability"] for r in rows))
    assert last.split()[:2] == ["others", f"{others:.1%}"]
    assert lengths == sorted(lengths, reverse=True)
    assert run("next", "--k", "0")[0] == 2


# Copying


def test_sample_says_what_it_copies(run: Command, shared_home: Path) -> None:
    arguments = ("sample", "--prime", "Rek", "--chars", "40")
    (completion,) = last_json(run(*arguments, "--json")[1])["completions"]
    copied = completion["copied"]
    text = (shared_home.parent / "text.txt").read_text(encoding="utf-8")[:4800]
    assert text[copied["offset"] :].startswith(copied["passage"])
    assert copied["passage"] in completion["text"]
    assert copied["length"] == len(copied["passage"]) > 0
    _, out, err = run(*arguments, "-v")
    assert out == f"Rek{completion['text']}\n"
    assert options.one_line(copied["passage"]) in err
    (kept,) = last_json(run(*arguments, "--json", "--max-copy", "2")[1])["completions"]
    assert kept["copied"]["length"] == 1
    assert run(*arguments, "--max-copy", "1")[0] == 2


def test_what_is_copied_is_null_where_the_corpus_is_gone(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise cli.CharRNNError("there is no file text.txt", "check the path")

    monkeypatch.setattr(corpus_module, "private_copy", gone)
    code, out, err = run("sample", "--chars", "5", "--json")
    assert code == 0
    assert last_json(out)["completions"][0]["copied"] is None
    assert "text.txt" in err
    assert run("sample", "--chars", "5", "--max-copy", "9")[0] == 1


def test_several_completions_have_headings_on_a_terminal_alone(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("sample", "--prime", "Rek", "--chars", "3", "--count", "2", "--temperature", "0.5")
    plain = run(*words)[1]
    assert re.fullmatch(r"Rek[^\n]{3}\nRek[^\n]{3}\n", plain)
    texts = plain.splitlines()
    assert run(*words, "--separator", r"\0")[1] == "\0".join(texts)
    assert run(*words, "--separator", r"\n\\n<č>\t")[1] == "\n\\n<č>\t".join(texts)
    assert run(*words, "--separator", "")[1] == "".join(texts)
    assert run(*words, "--separator", ",", "--json")[0] == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(*words)[1] == f"--- 1 of 2\n{texts[0]}\n\n--- 2 of 2\n{texts[1]}\n"
    assert run(*words, "--separator", ", ")[1] == ", ".join(texts) + "\n"
    assert run(*words, "--out", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == plain


# score


def test_score_gives_the_bits_of_every_character(run: Command, tmp_path: Path) -> None:
    text = "Mreža\n日 <b>&\x1b[31m"
    result = last_json(run("score", "--text", text, "--json")[1])
    assert result["text"] == text
    assert len(result["bits"]) == result["characters"] == len(text)
    assert sum(result["bits"]) == pytest.approx(result["bits_per_char"] * len(text))
    code, out, err = run("score", "--text", text)
    assert code == 0
    assert len(out.splitlines()) == len(text)
    assert "\x1b" not in out
    assert "bits each" in err
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert last_json(run("score", str(tmp_path / "text.txt"), "--json")[1])["bits"] == result["bits"]


def test_a_file_is_scored_as_eval_reads_it(trained: Callable[..., Any], tmp_path: Path, capsys: Any) -> None:
    trained(newline="lf", normalize="nfc", steps=2)
    text = "Mreža\npamti i šumi\n"
    windows = tmp_path / "text.txt.gz"
    marked = "\ufeff" + unicodedata.normalize("NFD", text).replace("\n", "\r\n")
    windows.write_bytes(gzip.compress(marked.encode()))
    figures = []
    for words in (["score", str(windows)], ["eval", "latest", str(windows)], ["score", "--text", text]):
        assert cli.run([*words, "--json"]) == 0
        figures.append(last_json(capsys.readouterr().out))
    assert [f["characters"] for f in figures] == [len(text)] * 3
    assert figures[0]["text"] == text
    assert figures[0]["nats_per_char"] == figures[1]["nats_per_char"] == figures[2]["nats_per_char"]


def test_coloured_text_is_the_text_with_nothing_that_a_terminal_would_obey(run: Command) -> None:
    text = "Mreža pamti\nqqq\x1b[31m\x07\u202e"
    code, out, _ = run("score", "--text", text, "--color", "always")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert not [c for c in plain if c != "\n" and not c.isprintable()]
    assert plain.replace("↵", "").startswith("Mreža pamti\nqqq")
    assert out.count("\x1b") > 2
    assert re.sub(r"\x1b\[[0-9;]*m", "", surprise.legend()).startswith("bits:  <2  2 ")


def test_the_page_is_complete_and_escapes_everything(run: Command, tmp_path: Path) -> None:
    text = '<script>alert("1")</script> & Mreža\n\x00\x1b'
    path = tmp_path / "page.html"
    code, out, err = run("score", "--text", text, "--html", str(path))
    assert (code, out) == (0, "")
    assert str(path) in err
    page = path.read_text(encoding="utf-8")

    class Reader(HTMLParser):
        tags, shown, titles, directions = set[str](), "", list[str](), set[str]()

        def handle_starttag(self, tag: str, attributes: Any) -> None:
            self.tags.add(tag)
            self.titles += [dict(attributes)["title"]] if "title" in dict(attributes) else []
            self.directions |= {tag} if dict(attributes).get("dir") == "auto" else set()

        def handle_data(self, data: str) -> None:
            self.shown += data

    reader = Reader()
    reader.feed(page)
    assert reader.tags == {"html", "head", "meta", "title", "style", "body", "h1", "p", "pre", "i"}
    assert '<script>alert("1")</script> & Mreža' in reader.shown.replace("↵", "")
    bits = last_json(run("score", "--text", text, "--json")[1])["bits"]
    assert ",".join(reader.titles) == ",".join(f"{cost:.2g}" for cost in bits if cost >= surprise.LEVELS[0])
    assert reader.directions == {"h1", "p", "pre"}
    assert "http" not in page


def test_the_page_of_a_book_stays_small() -> None:
    text = CORPUS.read_text(encoding="utf-8")
    # The costs of a model of two bits a character, most of them small and a few large.
    bits = np.random.default_rng(0).gamma(0.6, 2.0 / 0.6, len(text)).tolist()
    page = "".join(surprise.page(text, bits, "title", "about"))
    assert len(page.encode()) - len(text.encode()) < 8 * len(text)
    times = surprise.PAGE_CHARACTERS // len(text) + 1
    cut = "".join(surprise.page(text * times, bits * times, "title", "about"))
    assert f"the first {surprise.PAGE_CHARACTERS:,}" in cut
    assert len(cut) < surprise.PAGE_CHARACTERS * 9
    assert f"the first {surprise.PAGE_CHARACTERS:,}" not in page


def test_a_missing_file_is_not_scored_as_a_text(run: Command) -> None:
    code, _, err = run("score", "missing.txt")
    assert code == 1
    assert "--text" in err
    assert run("score", "--text", "missing.txt")[0] == 0


# chat


def test_chat_streams_remembers_and_obeys(shared_home: Path) -> None:
    chat = Terminal(shared_home, "chat", "--chars", "12")
    chat.wait_for("> ")
    chat.type("Rekurentne\n")
    chat.wait_for("> ")
    model = api.load(Run(shared_home / "small"))
    completion = options.one_line(model.complete("Rekurentne", 12)).split("↵")[0]
    assert "\x1b[1mRekurentne\x1b[0m" + completion in chat.seen  # what was typed is bold
    for command, said in [
        ("/temperature 0\n", "> "),
        ("/again\n", model.complete("Rekurentne", 12, temperature=0).split("\n")[0]),
        ("/temprature 1\n", "did you mean 'temperature'?"),
        ("/temperature hot\n", "for instance"),
        ("/seed -1\n", "seed is -1"),
        ("/until word\n", "> "),
        ("/more\n", "> "),
        ("/help\n", "Ctrl-C stops a completion"),
        ("Мрежа\n", "type: Mreža"),
        ("//x\n", "/x"),
    ]:
        chat.type(command)
        chat.wait_for(said)
        if said != "> ":
            chat.wait_for("> ")  # what is typed while it still writes would be lost
    chat.type("\x1b[A")  # the arrow up gives the line before
    chat.wait_for("//x")
    chat.type("\x15/quit\n")
    assert chat.end() == 0
    assert "Traceback" not in chat.seen
    assert "/again" in (shared_home / ".chat-history").read_text(encoding="utf-8")
    (shared_home / ".chat-history").unlink()


def test_control_c_stops_the_completion_and_control_d_leaves(shared_home: Path) -> None:
    chat = Terminal(shared_home, "chat", "--chars", "100000000")
    chat.wait_for("> ")
    chat.type("Rek\n")
    chat.wait_for("\n")
    for _ in range(3):  # by then it writes
        chat.wait_for("e")
    chat.type("\x03")
    chat.wait_for("^C")
    chat.wait_for("> ")
    chat.type("x")
    chat.wait_for("x")  # readline shows its prompt before it listens; what it shows of a key it has read
    time.sleep(0.3)
    chat.type("\x03")  # at the prompt it begins the line anew
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.end() == 0
    assert "Traceback" not in chat.seen
    (shared_home / ".chat-history").unlink()


def test_chat_reads_lines_from_a_pipe_without_a_prompt(shared_home: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "chat", "--chars", "5"]
    environment = {**os.environ, "CHARRNN_HOME": str(shared_home)}
    done = subprocess.run(command, input="Rek\n\n/again\n", capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0
    model = api.load(Run(shared_home / "small"))
    assert done.stdout.startswith("Rek" + model.complete("Rek", 5) + "\nRek")


# Runs


def test_rm_asks_and_deletes_only_runs(
    run: Command, shared_home: Path, trained: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_HOME", str(home))
    one, other = trained("one", steps=2).path, trained("other", steps=2).path
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert run("rm", "one")[0] == 0
    assert one.exists()
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    assert run("rm", "one", "other")[0] == 0
    assert not one.exists()
    assert not other.exists()
    code, _, err = run("rm", "one", "--yes")
    assert (code, "one" in err) == (1, True)


def test_rm_refuses_without_a_yes_and_where_other_files_are(
    run: Command, trained: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHARRNN_HOME", str(home))
    path = trained("one", steps=2).path
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": lambda self: False})())
    code, _, err = run("rm", "one")
    assert (code, "--yes" in err, path.exists()) == (1, True, True)
    (path / "thesis.doc").touch()
    code, _, err = run("rm", "one", "-y")
    assert (code, "thesis.doc" in err, path.exists()) == (1, True, True)
    (tmp_path / "run.json").write_text("{}")
    assert run("rm", str(tmp_path), "-y")[0] == 1
    assert tmp_path.exists()


def test_runs_is_a_table_with_scores_newest_first(
    run: Command, trained: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_HOME", str(home))
    for name, age in (("older", 7200), ("newer", 0)):
        path = trained(name, steps=2).path / "run.json"
        os.utime(path, (time.time() - age,) * 2)
    head, first, second = run("runs")[1].splitlines()
    assert head.split() == ["run", "cell", "size", "steps", "val", "nats", "test", "bits", "when"]
    assert first.startswith("newer")
    assert second.startswith("older")
    assert second.endswith("2 h ago")
    assert re.search(r"\d\.\d{4} +\d\.\d{4}", first)


@pytest.mark.parametrize("damage", ["not json", "[1]", ""])
def test_a_damaged_run_is_named_and_hides_no_other(
    damage: str, run: Command, trained: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_HOME", str(home))
    for name in ("whole", "broken"):
        trained(name, steps=2)
    (home / "broken" / "run.json").write_text(damage)
    code, out, err = run("runs")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["broken", "damaged"] in [row[:2] for row in rows]
    assert "whole" in [row[0] for row in rows]
    assert "broken/run.json was changed or damaged" in err
    for command in (["sample", "--run"], ["info"], ["eval"], ["train", "--resume"]):
        code, _, err = run(*command, "broken")
        assert (code, "damaged" in err) == (1, True)
    assert run("rm", "-y", "broken")[0] == 0  # a damaged run can be removed, and its name is free again
    assert not (home / "broken").exists()


# Shells, locales, defects


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("sample --prime Re --chars 5 <&-", 0, ""),
        ("sample --chars 5 <&-", 0, ""),
        ("sample --prime Re --chars 5 >&-", 0, ""),
        ("chat <&-", 0, "type how a text begins"),
        ("score - <&-", 1, "standard input is empty"),
        ("train - <&-", 1, "standard input is empty"),
        pytest.param("sample --prime Re --chars 5 >/dev/full", 1, "the system refuses: No space", marks=NEEDS_FULL),
        pytest.param("cells >/dev/full", 1, "the system refuses: No space", marks=NEEDS_FULL),
    ],
)
def test_streams_that_are_closed_or_full_are_no_defects(
    command: str, code: int, message: str, shared_home: Path
) -> None:
    environment = {**os.environ, "CHARRNN_HOME": str(shared_home), "OMP_NUM_THREADS": "1"}
    line = f'"{sys.executable}" "{ROOT}/cli.py" {command}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "defect" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_script_for_each_shell(run: Command, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_CHARRNN_COMPLETE" in out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("charrnn sa", "sample"),
        ("charrnn sample --run sm", "small"),
        ("charrnn eval sm", "small"),
        ("charrnn rm sm", "small"),
        ("charrnn train --cell nn.G", "nn.GRU"),
        ("charrnn cells nn.L", "nn.LSTM"),
        ("charrnn train rek", "rekurentne"),
        ("charrnn corpora fetch te", "text8"),
        ("charrnn corpora stats rek", "rekurentne"),
        ("charrnn sample --temp", "--temperature"),
    ],
)
def test_a_shell_completes(words: str, found: str, shared_home: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("CHARRNN_HOME", str(shared_home))
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    monkeypatch.setenv("_CHARRNN_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        cli.main()
    assert f"plain,{found}\n" in capsys.readouterr().out


def test_bash_really_completes_with_the_script(shared_home: Path, tmp_path: Path) -> None:
    program = tmp_path / "charrnn"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/cli.py" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(charrnn completion bash)"; COMP_WORDS=(charrnn info sm); COMP_CWORD=2; _charrnn_completion charrnn; '
    )
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHARRNN_HOME": str(shared_home)}
    done = subprocess.run(
        ["bash", "-c", script + 'echo "${COMPREPLY[@]}"'], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("small", "")


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_output_is_utf8_in_every_locale(locale: dict[str, str], run: Command, shared_home: Path) -> None:
    arguments = ("sample", "--prime", "mreža č", "--chars", "30")
    done = process(shared_home, *arguments, **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("utf-8") == run(*arguments)[1]


def test_a_text_that_is_not_utf8_is_refused_in_words(shared_home: Path) -> None:
    command = [sys.executable.encode(), str(ROOT / "cli.py").encode(), b"sample", b"--prime", b"\xe8vor"]
    environment = {**os.environ, "CHARRNN_HOME": str(shared_home)}
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert b"defect" not in done.stderr


def test_env_says_what_a_report_needs(run: Command) -> None:
    facts = last_json(run("env", "--json")[1])
    assert {"charrnn", "python", "system", "processor", "torch", "torch threads", "home", "locale"} <= set(facts)
    code, out, _ = run("env")
    assert code == 0
    assert len(out.splitlines()) == len(facts)


def test_a_defect_is_said_in_words_and_shown_whole_with_debug(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("for the test")

    monkeypatch.setattr(runs, "folders", broken)
    code, out, err = run("runs")
    assert (code, out) == (1, "")
    assert "defect" in err
    assert "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        run("--debug", "runs")


def test_too_little_memory_is_no_defect(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy() -> Any:
        raise MemoryError("unable to allocate 74.5 GiB")

    monkeypatch.setattr(runs, "folders", greedy)
    code, _, err = run("runs")
    assert code == 1
    assert "74.5 GiB" in err
    assert "defect" not in err


# Interrupts


@pytest.fixture
def long_training(corpus: str, home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A training process whose every step takes a second or so, past its first one."""
    settings = "--hidden 500 --batch 32 --window 100 --steps 100000 --cell nn.LSTM --precision float32 --name r"
    settings += " --validate-every 1"
    command = [sys.executable, str(ROOT / "cli.py"), "train", corpus, *settings.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as training_process:
        assert training_process.stderr is not None
        for line in training_process.stderr:
            if line.startswith("step "):
                break
        yield training_process
        training_process.kill()


@pytest.mark.slow
def test_a_second_interrupt_ends_it_by_the_signal(corpus: str, home: Path) -> None:
    script = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from charrnn import cli; from charrnn.training.trainer import Trainer\n"
        "update = Trainer.update\n"
        "def interrupted(self):\n"
        "    if self.step == 2:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return update(self)\n"
        "Trainer.update = interrupted\n"
        "sys.exit(cli.run(sys.argv[2:]))\n"
    )
    settings = "--hidden 8 --embedding 8 --batch 4 --window 16 --steps 9 --cell nn.RNN --precision float32 --name r"
    command = [sys.executable, "-c", script, str(ROOT), "train", corpus, *settings.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "again to stop at once" in done.stderr
    # What a shell shows as 130: ended by the signal itself, in the middle of whatever it was doing.
    assert done.returncode == -signal.SIGINT


@pytest.mark.timing
def test_a_second_interrupt_stops_at_once(long_training: "subprocess.Popen[str]") -> None:
    time.sleep(1)
    long_training.send_signal(signal.SIGINT)
    assert long_training.stderr is not None
    for line in long_training.stderr:
        if "again to stop at once" in line:
            break
    long_training.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert long_training.wait(60) == -signal.SIGINT
    assert time.monotonic() - began < 1
