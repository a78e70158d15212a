"""Weights on the Hugging Face Hub: the real client against a stand-in of its HTTP interface on this machine."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hub_standin import TOKEN, Hub

import charrnn
from charrnn.cli import group
from charrnn.errors import CharRNNError, OptionError
from charrnn.sharing import card
from charrnn.sharing.hub import push
from charrnn.training import export, hub
from charrnn.training.hub import Address
from charrnn.training.run import Run
from charrnn.training.runs import find_run, runs

TrainedRun = Callable[..., Run]
MINE = "hf://me/mine"
# The real client passes a file to its HTTP library in a way that is about to end.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub of this machine, with a token for it."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its other servers are not stood in for
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = Hub()
    with found.served() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield found


def newest(standin: Hub, name: str = "me/mine") -> dict[str, bytes]:
    repository = standin.repositories[name]
    return repository.commits[repository.newest]


def say(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments))


def test_what_is_pushed_completes_as_the_run_does_anywhere(
    standin: Hub, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = trained()
    pushed = push(run, "me/mine")
    assert pushed.is_private
    monkeypatch.setenv("CHARRNN_HOME", str(tmp_path / "another"))
    model = charrnn.load(MINE)
    assert model.complete("the quick", 40, seed=3) == charrnn.load(run).complete("the quick", 40, seed=3)
    assert charrnn.load(pushed.address).run == model.run
    assert model.run is not None
    assert {path.name for path in model.run.path.iterdir()} == set(newest(standin)) - {"README.md"}
    assert not any(path.is_symlink() for path in model.run.path.iterdir())
    assert runs() == []  # it is no run of the user's


def test_nothing_of_the_machine_is_uploaded(standin: Hub, trained: TrainedRun, corpus: str) -> None:
    run = trained()
    push(run, "me/mine")
    files = newest(standin)
    assert set(files) == {"README.md", "config.json", "run.json", "tokenizer.json", run_weights(files)}
    whole = b"".join(files.values())
    for path in (run.path, Path(corpus).parent, Path.home()):
        assert str(path).encode() not in whole
    assert json.loads(files["run.json"])["files"].keys() == {"best"}


def run_weights(files: dict[str, bytes]) -> str:
    (name,) = (name for name in files if name.endswith(".safetensors"))
    return name


def test_a_revision_is_fetched_once_and_never_asked_for_again(standin: Hub, trained: TrainedRun) -> None:
    pushed = push(trained(), "me/mine")
    find_run(pushed.address)
    before = len(standin.requests)
    find_run(pushed.address)
    assert len(standin.requests) == before
    find_run(MINE)  # the newest one must be asked for, and is here
    assert standin.requests[before:] == [("GET", "/api/models/me/mine")]


def test_a_newer_revision_is_another_run(standin: Hub, trained: TrainedRun) -> None:
    first = push(trained("one"), "me/mine")
    second = push(trained("two", seed=9), "me/mine")
    assert find_run(first.address).path != find_run(second.address).path == find_run(MINE).path
    assert find_run(first.address).weights("best").keys() == find_run(MINE).weights("best").keys()


def test_a_repository_is_private_unless_asked(standin: Hub, trained: TrainedRun) -> None:
    run = trained()
    assert not push(run, "me/open", public=True).is_private
    with pytest.raises(CharRNNError, match="is public on the Hub, and nothing was uploaded"):
        push(run, "me/open")
    assert len(standin.repositories["me/open"].commits) == 2


def test_who_is_not_logged_in_is_told_how(standin: Hub, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()
    push(run, "me/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 34)
    for attempt in (lambda: find_run(MINE), lambda: find_run("hf://me/none")):
        with pytest.raises(CharRNNError, match="hf auth login"):
            attempt()
    with pytest.raises(CharRNNError, match="log in"):
        push(run, "me/other")


def test_a_revision_that_is_not_there(standin: Hub, trained: TrainedRun) -> None:
    push(trained(), "me/mine")
    with pytest.raises(CharRNNError, match="has no revision v9"):
        find_run(f"{MINE}@v9")


def test_without_a_network_it_says_so(standin: Hub, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()
    push(run, "me/mine")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(CharRNNError, match=r"cannot be reached for hf://me/mine: .*; check the connection$"):
        find_run(MINE)
    with pytest.raises(CharRNNError, match="cannot be reached for hf://me/mine"):
        push(run, "me/mine")


def test_a_full_disk_is_not_taken_for_a_network_that_is_gone(
    standin: Hub, trained: TrainedRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(trained(), "me/mine")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
    with pytest.raises(CharRNNError, match=r"cannot be kept in .*hub: No space left on device; make room there"):
        find_run(MINE)


def test_offline_a_fetched_revision_is_used_and_named(
    standin: Hub, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(trained(), "me/mine")
    kept = find_run(MINE)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert find_run(pushed.address) == kept
    with pytest.raises(CharRNNError) as error:
        find_run(MINE)
    assert f"--run {kept.path}" in error.value.hint
    assert find_run(str(kept.path)) == kept


def damaged(standin: Hub, name: str, content: bytes | None) -> None:
    """Commit another content of a file, or take it away."""
    repository = standin.repositories["me/mine"]
    repository.commit({} if content is None else {name: content})
    if content is None:
        del repository.commits[repository.newest][name]


def test_what_is_not_a_run_is_refused_and_not_kept(standin: Hub, trained: TrainedRun, home: Path) -> None:
    run = trained()
    push(run, "me/mine")
    files = dict(newest(standin))
    weights, about = run_weights(files), json.loads(files["run.json"])
    flipped = bytearray(files[weights])
    flipped[-1] ^= 1
    elsewhere = {**about, "files": {"best": {**about["files"]["best"], "name": "../../evil-00000001.safetensors"}}}
    cases: list[tuple[str, bytes | None, str]] = [
        ("run.json", None, "holds no run: it has no run.json"),
        (weights, None, f"it has no {weights}"),
        (weights, bytes(flipped), "damaged"),
        ("tokenizer.json", b"{}", "tokenizer.json"),
        ("config.json", b"[1]", "config.json"),
        ("run.json", json.dumps(elsewhere).encode(), "changed or damaged"),
        ("run.json", (run.path / "run.json").read_bytes(), "not the weights of a run alone"),
        ("config.json", b" " * (1 << 20) + b"{}", "1,048,578 bytes, where 1,048,576 at the most are expected"),
        (weights, files[weights] + b"0" * (2 << 20), "at the most are expected"),
    ]
    for name, content, problem in cases:
        damaged(standin, name, content)
        with pytest.raises(CharRNNError, match=problem):
            find_run(MINE)
        standin.repositories["me/mine"].commit(files)
        assert not list((home / "hub" / "me").iterdir()), name
    assert find_run(MINE).exists()


def test_a_file_that_is_larger_than_the_hub_said_is_refused(standin: Hub, trained: TrainedRun, home: Path) -> None:
    push(trained(), "me/mine")
    damaged(standin, "config.json", b" " * (2 << 20) + b"{}")
    standin.said_sizes["config.json"] = 10
    with pytest.raises(CharRNNError):
        find_run(MINE)
    assert not list((home / "hub" / "me").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        *("", "me", "me/", "/mine", "me/mine/more", "../mine", "me/..", "-me/mine", "me/mi\nne", "mé/mine"),
        *("me/mine@", "me/mine@../x", "me/mine@a b", "me/mine@-x"),
    ],
)
def test_what_is_no_address_is_refused_before_anybody_is_asked(text: str, home: Path) -> None:
    with pytest.raises(OptionError, match="is no address of the Hub"):
        find_run(f"hf://{text}")


def test_an_address_is_written_as_it_is_read() -> None:
    for text in ("hf://me/mine", "hf://me/my.model-2@v1.0", f"hf://a_b/c@{'0' * 40}"):
        assert str(Address.parse(text)) == text
    assert hub.is_address(MINE)
    assert not hub.is_address("me/mine")


def test_a_new_run_learns_on_from_it(standin: Hub, trained: TrainedRun, corpus: str) -> None:
    push(trained(), "me/mine")
    found = charrnn.train(corpus, from_=MINE, steps=2, name="tuned", progress=False)
    assert found.run is not None
    assert found.run.about()["before_training"]["base"].startswith("mine@")


def test_a_run_of_weights_alone_can_be_pushed_too(standin: Hub, trained: TrainedRun, tmp_path: Path) -> None:
    alone = export.weights(trained(), tmp_path / "alone")
    push(alone, "me/mine")
    weights, fetched = alone.weights("best"), find_run(MINE).weights("best")
    assert weights.keys() == fetched.keys()
    assert all(np.array_equal(value, fetched[name]) for name, value in weights.items())


def test_the_card_says_what_it_learned_and_how_well(trained: TrainedRun, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    run = trained()
    text = card.of(run, "me/mine")
    result = run.about()["result"]
    assert f"perplexity {result['test_perplexity']:.3f}; 95 % interval" in text
    assert "`text.txt`, split 0.8 : 0.1 : 0.1" in text
    assert "charrnn sample --run hf://me/mine" in text
    assert "interval" not in card.of(export.weights(run, tmp_path / "alone"), "me/mine")  # no losses are in it


def test_a_run_that_costs_thousands_of_bits_is_described(trained: TrainedRun) -> None:
    run = trained(cell="nn.RNN", steps=20, lr=1e4, clip=0.0, warmup=0)
    assert run.about()["result"]["val_bits_per_char"] > 1024  # 2 to the power of that is no float
    assert "bits (" in card.of(run, "me/mine")
    assert "bits per character" in charrnn.load(run)._repr_html_()


def test_a_name_in_a_card_ends_no_cell_of_its_table(trained: TrainedRun, tmp_path: Path) -> None:
    strange = tmp_path / "a|b`c\n d.txt"
    shutil.copy(tmp_path / "text.txt", strange) if (tmp_path / "text.txt").exists() else strange.write_text(
        "ab c" * 999
    )
    text = card.of(trained(corpus=str(strange)), "me/mine")
    (line,) = (line for line in text.splitlines() if line.startswith("| learned |"))
    assert "`a/b'c d.txt`" in line
    assert line.count("|") == 3


def test_the_commands(standin: Hub, trained: TrainedRun) -> None:
    trained()
    done = say("push", "run", "me/mine", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["address"].startswith(f"{MINE}@")
    assert said["private"] is True
    done = say("sample", "--run", MINE, "--prime", "the", "--chars", "5")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("the")
    for repo in ("nowhere", f"{MINE}@v1"):
        assert isinstance(say("push", "run", repo).exception, OptionError)
    done = say("push", "run", "me/mine")
    assert done.exit_code == 0
    assert "private" in done.stderr
