"""Files of a stranger: nothing of the size they claim is allocated, nothing they lead to is touched, all is refused."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CORPUS, config
from safetensors.numpy import load_file

from charrnn import api, cli, locks
from charrnn.errors import CharRNNError
from charrnn.training import loop, tensor_header
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a small run called 'run', trained once for all tests of this file."""
    folder = tmp_path_factory.mktemp("hostile")
    text = folder / "text.txt"
    text.write_text(CORPUS.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        settings = config(str(text), hidden=8, embedding=4, steps=2, validate_every=2)
        for _ in loop.new_run(settings, loop.open_run(settings, "run")):
            pass
    return folder / "home"


@pytest.fixture
def run(original: Path, home: Path) -> Run:
    """A copy of the run, to be changed."""
    shutil.copytree(original, home)
    return Run(home / "run")


def change(run: Run, file: str, **values: Any) -> None:
    """Change values of a JSON file of a run; None takes one out."""
    path = run.path / file
    kept = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}), encoding="utf-8")


def file_of(run: Run, kind: str = "best") -> Path:
    return run.path / run.about()["files"][kind]["name"]


def sign(run: Run) -> None:
    """Let run.json name its files with the SHA-256 that they have now, as a stranger would."""
    path = run.path / "run.json"
    about = json.loads(path.read_text())
    for entry in about["files"].values():
        entry["sha256"] = hashlib.sha256((run.path / entry["name"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(about))


def refusal(attempt: Callable[[], Any]) -> tuple[str, Any]:
    """What is said where something is refused, else nothing; and what it gives where it is not."""
    try:
        return "", attempt()
    except CharRNNError as error:
        return str(error), None


def with_header(data: bytes, header: bytes) -> bytes:
    """The bytes of a file of safetensors with another header."""
    (length,) = struct.unpack("<Q", data[:8])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


# Nothing of the size that is claimed is allocated

LIMITED = """
import io, contextlib, json, pathlib, resource, shutil, sys
import torch
from charrnn import cli
home, commands = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for name, file, values in json.loads(sys.argv[3]):
    path = home / "run" / file
    kept = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({**json.loads(kept), **values}), encoding="utf-8")
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run([str(path) if word == "FILE" else word for word in command])
        shutil.rmtree(home / "other", ignore_errors=True)
        print(json.dumps([name, command[0], code, err.getvalue()]))
    path.write_text(kept, encoding="utf-8")
"""
HUGE: list[tuple[str, dict[str, Any]]] = [
    ("units", {"hidden": 2**40}),
    ("more units", {"hidden": 2**62}),
    ("embedding", {"embedding": 2**40}),
    ("layers", {"layers": 10**9}),
    ("batch", {"batch": 10**12, "window": 10**12}),
    ("depth", {"cell": "rhn", "cell_options": {"depth": 10**9}}),
    ("tied", {"hidden": 2**40, "embedding": 2**40, "tie": True}),
]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is not held elsewhere")
def test_what_a_configuration_claims_is_refused_before_it_is_allocated(run: Run) -> None:
    """With two gigabytes of address space, in a process of its own."""
    vocabulary = json.loads((run.path / "tokenizer.json").read_text(encoding="utf-8"))
    larger = {**vocabulary["model"]["vocab"], "𐍈": len(vocabulary["model"]["vocab"])}
    cases = [(name, "config.json", {**values, "plan": [[0, 4, 2]], "steps": 4}) for name, values in HUGE]
    cases.append(("vocabulary", "tokenizer.json", {"model": {**vocabulary["model"], "vocab": larger}}))
    commands = [
        ["sample", "--run", "run", "--prime", "R", "--chars", "1"],
        ["eval", "run"],
        ["train", "--resume", "run", "--steps", "4"],
        ["train", "--config", "FILE", "--name", "other"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run.path.parent), json.dumps(commands), json.dumps(cases)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(cases) * len(commands)
    for name, command, code, said in told:
        assert "defect" not in said, (name, command, said)
        assert "memory does not suffice" not in said, (name, command, said)
        if name == "batch" and command in ("sample", "eval"):
            assert code == 0  # neither is of any meaning there
        else:
            assert (code, said.startswith("error: ")) == (1, True), (name, command, said)


def sparse(path: Path, length: int, beginning: bytes = b"") -> None:
    """Make a file of a length that takes no room on the disk."""
    with path.open("r+b") as stream:
        stream.write(beginning)
        stream.truncate(length)


@pytest.mark.parametrize("file", ["run.json", "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl"])
def test_a_file_that_is_far_too_long_is_not_read(file: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sparse(run.path / file, 1 << 40, (run.path / file).read_bytes())
    assert f"{file} was changed or damaged" in str(run.damage())
    assert cli.run(["train", "--resume", "run", "--steps", "4"]) == 1
    assert file in capsys.readouterr().err


def test_tensors_that_are_far_too_large_are_not_read(run: Run) -> None:
    path = file_of(run)
    entries = {"embedding": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}
    header = json.dumps(entries).encode()
    sparse(path, 8 + len(header) + 2**40, struct.pack("<Q", len(header)) + header)
    with pytest.raises(CharRNNError, match="configuration asks for"):
        api.load(run)
    with pytest.raises(CharRNNError, match="bytes long"):
        run.weights()


# Headers of tensors


def valid(entries: dict[str, Any]) -> bytes:
    return json.dumps(entries).encode()


HEADERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no JSON": lambda e: b"{" * 50,
    "no object": lambda e: b"[1, 2]",
    "not UTF-8": lambda e: valid(e)[:-1] + b', "\xff": 1}',
    "deep": lambda e: b"[" * 100_000,
    "a key twice": lambda e: valid(e)[:-1] + b', "head.b": ' + json.dumps(e["head.b"]).encode() + b"}",
    "an entry no object": lambda e: valid({**e, "head.b": 3}),
    "an entry with more": lambda e: valid({**e, "head.b": {**e["head.b"], "url": "http://example.org"}}),
    "an unknown dtype": lambda e: valid({**e, "head.b": {**e["head.b"], "dtype": "O"}}),
    "a dtype that is a list": lambda e: valid({**e, "head.b": {**e["head.b"], "dtype": ["F32"]}}),
    "a negative shape": lambda e: valid({**e, "head.b": {**e["head.b"], "shape": [-1]}}),
    "a shape true": lambda e: valid({**e, "head.b": {**e["head.b"], "shape": [True]}}),
    "a shape too large": lambda e: valid({**e, "head.b": {**e["head.b"], "shape": [2**40, 2**40]}}),
    "a shape of many axes": lambda e: valid({**e, "head.b": {**e["head.b"], "shape": [1] * 100_000}}),
    "offsets the other way": lambda e: valid({**e, "head.b": {**e["head.b"], "data_offsets": [4, 0]}}),
    "offsets past the end": lambda e: valid(
        {**e, "more": {"dtype": "U8", "shape": [9], "data_offsets": [9**9, 9**9 + 9]}}
    ),
    "two at one place": lambda e: valid({**e, "more": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}),
    "one too few": lambda e: valid({name: entry for name, entry in e.items() if name != "head.b"}),
    "nothing": lambda e: b"{}",
    "metadata no texts": lambda e: valid({**e, "__metadata__": {"format": 3}}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_charrnn_would_not_write_is_refused_whoever_signed_it(name: str, run: Run) -> None:
    path = file_of(run)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    path.write_bytes(with_header(data, HEADERS[name](json.loads(data[8 : 8 + length]))))
    sign(run)
    with pytest.raises(CharRNNError, match=path.name):
        tensor_header.load(path)  # alone: the library that reads tensors would refuse some of these later
    for attempt in (lambda: api.load(run), run.weights, lambda: list(loop.resume(run, steps=4))):
        with pytest.raises(CharRNNError) as raised:
            attempt()
        assert path.name in str(raised.value) or "configuration asks for" in str(raised.value)
        assert raised.value.hint


def regions(data: bytes) -> dict[str, range]:
    """The places of a file of safetensors: its header's length, its header, each tensor."""
    (length,) = struct.unpack("<Q", data[:8])
    found = {"length": range(8), "header": range(8, 8 + length)}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = range(8 + length + begin, 8 + length + end)
    return found


def sampled(places: range) -> list[int]:
    """Some places of a region, its ends among them."""
    return sorted({places[0], places[-1], *places[:: max(1, len(places) // 12)]})


@pytest.mark.parametrize("kind", ["best", "training", "losses"])
def test_a_flipped_bit_or_a_cut_anywhere_is_an_error_that_names_the_file(kind: str, run: Run) -> None:
    path = file_of(run, kind)
    data = path.read_bytes()
    read = {"best": run.weights, "training": run.training_state, "losses": run.losses}[kind]
    read()
    for places in regions(data).values():
        for at in sampled(places):
            for damaged in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at], data + data[at:]):
                path.write_bytes(damaged)
                with pytest.raises(CharRNNError, match=path.name):
                    read()
    path.write_bytes(data + b"\0")
    with pytest.raises(CharRNNError, match=path.name):
        read()


def test_a_flip_that_a_stranger_signed_is_refused_or_is_another_number(run: Run) -> None:
    """A right SHA-256 says nothing: what is read then has the shapes that were asked for, whatever the numbers are."""
    path = file_of(run)
    data, shapes = path.read_bytes(), {name: w.shape for name, w in run.weights().items()}
    for places in regions(data).values():
        for at in sampled(places):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            sign(run)
            said, model = refusal(lambda: api.load(run))
            if model is None:
                assert path.name in said or "configuration asks for" in said
            else:
                assert {name: w.shape for name, w in model.weights.items()} == shapes


def test_headers_of_every_file_that_was_ever_written_are_read() -> None:
    files = sorted(ROOT.glob("tests/stored/*/*/*.safetensors"))
    assert len(files) > 10
    for file in files:
        entries, tensors = tensor_header.load(file), load_file(file)
        assert {name: (str(t.dtype), t.shape) for name, t in tensors.items()} == {
            n: tuple(e) for n, e in entries.items()
        }


# Pickles


class Trap:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(folder: Path) -> list[Path]:
    """Files that run a program where they are unpickled: of torch.save, old and new, and of pickle."""
    trap = {"model": Trap(folder / "sprung"), "weights": torch.zeros(3)}
    torch.save(trap, folder / "new.pt")
    torch.save(trap, folder / "old.pth", _use_new_zipfile_serialization=False)
    for protocol in (2, 5):
        (folder / f"plain-{protocol}.pkl").write_bytes(pickle.dumps(Trap(folder / "sprung"), protocol))
    return [folder / name for name in ("new.pt", "old.pth", "plain-2.pkl", "plain-5.pkl")]


def test_a_pickle_in_place_of_a_run_is_refused_by_its_first_bytes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pickled(tmp_path):
        for command in (
            ["sample", "--prime", "R", "--run", str(path)],
            ["eval", str(path)],
            ["train", "--resume", str(path)],
            ["info", str(path)],
        ):
            assert cli.run(command) == 1
            said = capsys.readouterr().err
            assert f"error: {path} is a file of torch.save or pickle, where a run is expected" in said
            assert "hint: give the folder of a run" in said or command[0] == "eval"
        weights = file_of(run)
        weights.write_bytes(path.read_bytes())
        sign(run)
        with pytest.raises(CharRNNError, match=f"{weights.name} was changed or damaged: .*torch.save or pickle"):
            api.load(run)
    assert not (tmp_path / "sprung").exists()


# Links


@pytest.mark.parametrize("name", [locks.LOCK, locks.HOLDER, "metrics.jsonl", "run.json", ".run.json.1", "notes.txt"])
@pytest.mark.parametrize("there", [True, False])
def test_no_link_in_a_run_is_written_through(name: str, there: bool, run: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_text("mine")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(victim)
    before = sorted(path.name for path in tmp_path.iterdir())
    for attempt in (
        lambda: list(loop.resume(run, steps=4)),
        run.in_use,
        lambda: locks.holder(run.path),
        run.damage,
        lambda: run.held().__enter__(),
        run.remove,
    ):
        said = refusal(attempt)[0]
        assert not said or name in said or "cannot be read" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not there or victim.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("name", ["run.json", "config.json", "tokenizer.json", "metrics.jsonl", locks.HOLDER, "best"])
def test_nobody_is_waited_for_who_would_write(name: str, run: Run) -> None:
    path = file_of(run) if name == "best" else run.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    locks.holder(run.path)
    if name == locks.HOLDER:
        return
    with pytest.raises(CharRNNError, match="no file of its own" if name != "run.json" else path.name):
        list(loop.resume(run, steps=4))
    if name != "metrics.jsonl":
        with pytest.raises(CharRNNError, match=path.name):
            api.load(run)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there are no such devices here")
def test_a_device_that_a_configuration_names_is_not_read(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for corpus in ("/dev/zero", str(tmp_path / "fifo")):
        change(run, "config.json", corpus=[corpus], fingerprint="0" * 64)
        with pytest.raises(CharRNNError, match=f"came from {corpus}, which is no file"):
            list(loop.resume(run, steps=4))
        assert cli.run(["train", "--config", str(run.path / "config.json"), "--name", "other"]) == 1


# Formats and numbers


@pytest.mark.parametrize(("file", "number"), [("run.json", 99), ("config.json", 99), ("config.json", 10**30)])
def test_a_newer_format_says_upgrade(file: str, number: int, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, file, format=number)
    assert cli.run(["sample", "--run", "run", "--prime", "R"]) == 1
    said = capsys.readouterr().err
    assert f"format {number}" in said
    assert "hint: upgrade" in said


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("run.json", {"seconds": 10**400}),
        ("run.json", {"step": 10**400}),
        ("run.json", {"best_val_nats": -(10**400)}),
        ("config.json", {"threads": 10**9}),
        ("config.json", {"threads": 0}),
        ("config.json", {"plan": [[0, 2, 0]]}),
        ("config.json", {"plan": [[-1, 2, 1]]}),
        ("config.json", {"plan": [[0, -2, 1]]}),
        ("config.json", {"plan": [0, 2, 1]}),
        ("config.json", {"lr": 10**400}),
        ("config.json", {"hidden": "9" * 500_000}),
        ("config.json", {"cell_options": {"depth": 3}}),
        ("config.json", {"cell_options": [1]}),
        ("config.json", {"split": [1e300, -1e300, 1]}),
    ],
)
def test_a_number_out_of_range_is_refused_with_what_is_expected(file: str, values: dict[str, Any], run: Run) -> None:
    change(run, file, **values)
    with pytest.raises(CharRNNError) as raised:
        list(loop.resume(run, steps=4))
    assert next(iter(values)).removesuffix("_options") in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_weights_that_are_not_finite_are_said_where_they_are_used(run: Run) -> None:
    from safetensors.numpy import save_file

    path = file_of(run)
    save_file({name: np.full_like(w, np.nan) for name, w in load_file(path).items()}, path)
    sign(run)
    with pytest.raises(CharRNNError, match="not finite"):
        api.load(run).complete("R", 3)
