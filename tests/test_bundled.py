"""The run that comes with the package: found where there is no other, and never written to, locked or removed."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from charrnn import api
from charrnn.errors import CharRNNError
from charrnn.text.copies import read
from charrnn.text.corpus import learn_tokenizer, prepare
from charrnn.training import bundled, export, identity, loop, runs
from charrnn.training.run import Run

ROOT = Path(__file__).parent.parent
TrainedRun = Callable[..., Run]
MOST_BYTES = 2_000_000


@pytest.fixture
def run() -> Run:
    (found,) = runs.bundled_runs()
    return found


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_the_bundled_run_is_small_and_tells_nothing_of_a_machine(run: Run) -> None:
    assert (run.name, run.is_weights_alone(), run.damage()) == ("rekurentne", True, None)
    assert sum(path.stat().st_size for path in run.path.iterdir()) <= MOST_BYTES
    for path in run.path.iterdir():
        content = path.read_bytes()
        for word in (b"/home", b"/root", b"/tmp", b"/work", b"seconds", b"\\\\Users"):
            assert word not in content, (path.name, word)
    assert run.config().corpus == ("rekurentne",)


def test_the_newest_run_is_the_users_own_and_else_the_bundled_one(run: Run, trained: TrainedRun) -> None:
    assert runs.runs() == []
    assert runs.find_run() == run
    assert runs.find_run("rekurentne") == run
    assert api.load().run == run
    own = trained("own", steps=1)
    os.utime(own.path / "run.json", (1, 1))
    assert runs.find_run() == own
    assert [each.name for each in runs.runs()] == ["own"]
    named_alike = trained("rekurentne", steps=1)
    assert runs.find_run("rekurentne") == named_alike


def test_in_a_checkout_the_bundled_run_is_not_among_the_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is in the home folder itself."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CHARRNN_HOME")
    assert Run(Path("checkpoints") / "rekurentne").is_bundled()
    assert "rekurentne" not in [each.name for each in runs.folders()]
    with pytest.raises(CharRNNError, match="comes with charrnn, and is never deleted"):
        runs.find_folder("rekurentne").remove()


def test_the_bundled_run_is_never_removed_or_resumed(run: Run) -> None:
    for path in (run.path, Path(os.path.relpath(run.path))):
        with pytest.raises(CharRNNError, match="comes with charrnn, and is never deleted"):
            Run(path).remove()
    with pytest.raises(CharRNNError, match="cannot be resumed"):
        list(loop.resume(run))
    with pytest.raises(CharRNNError, match="there is no run"):
        runs.find_run(own=True)
    with pytest.raises(CharRNNError, match=r"no run .* was interrupted"):
        runs.newest_interrupted()
    assert run.exists()


def test_what_is_read_from_a_folder_that_cannot_be_written_leaves_it_as_it_is(run: Run, tmp_path: Path) -> None:
    before, rights = state(run.path), stat.S_IMODE(run.path.stat().st_mode)
    run.path.chmod(0o555)
    try:
        made = cli("sample", "--prime", "Rekurentne", "--chars", "20", "--json", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert "note: rekurentne comes with charrnn" in made.stderr
        assert json.loads(made.stdout)["completions"][0]["copied"]["length"] > 0  # its text comes with charrnn too
        assert cli("rm", "rekurentne", "--yes", cwd=tmp_path).returncode == 1
        listed = cli("runs", "--json", cwd=tmp_path)
        assert [row["run"] for row in json.loads(listed.stdout)["bundled"]] == ["rekurentne"]
    finally:
        run.path.chmod(rights)
    assert state(run.path) == before
    assert not list(tmp_path.iterdir())  # nothing is made by completing either


@pytest.mark.slow
def test_the_bundled_run_scores_the_text_that_it_learned(run: Run) -> None:
    model = api.load(run)
    what, score = api.score_run(model, None, "test", "stream")
    assert what == "the test part of rekurentne"
    assert score.nats == pytest.approx(run.about()["result"]["test_nats"], abs=1e-4)
    assert score.nats < 1.6


def test_the_bundled_run_is_of_the_corpus_as_it_is(run: Run, home: Path) -> None:
    """Where the corpus is changed, the run must be made anew: checkpoints/README.md says how."""
    config = run.config()
    text = read(config.corpus, home / ".corpora")
    assert text.fingerprint == config.fingerprint
    tokenizer = learn_tokenizer(text, config.tokenizer, config.split)
    assert tokenizer == run.tokenizer()
    assert identity.of(config, tokenizer) == run.about()["identity"]


def remade(run: Run, path: Path, stop: Callable[[], bool] = lambda: False) -> Run:
    """Train the bundled run's configuration anew, into a folder of weights alone beside `path`."""
    whole = Run(path.with_name(f"{path.name}-whole"))
    list(loop.new_run(run.config().as_settings(), whole, stop))
    return export.weights(whole, path)


def test_its_configuration_made_twice_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    made = [remade(run, tmp_path / name, stop=lambda: True) for name in "ab"]  # after a step
    files = [{path.name: path.read_bytes() for path in each.path.iterdir()} for each in made]
    assert files[0] == files[1]
    assert made[0].about()["identity"] == run.about()["identity"]
    assert made[0].architecture() == run.architecture()


@pytest.mark.long
def test_its_configuration_gives_its_bytes(run: Run, tmp_path: Path) -> None:
    again = remade(run, tmp_path / "again")
    if again.about()["made_with"] != run.about()["made_with"]:
        pytest.skip("it was made with other versions, or on another kind of processor")
    for path in run.path.iterdir():
        assert (again.path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_package_and_the_source_archive_carry_it() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in bundled.NAMES:
        assert f'"checkpoints/{name}" = "charrnn/checkpoints/{name}"' in project
        assert f'"/checkpoints/{name}"' in project


def test_a_prepared_part_lies_in_the_home_folder_and_not_beside_the_corpus(run: Run, home: Path) -> None:
    corpus = prepare(run.config(), run.tokenizer(), private=True)
    assert corpus.text.path.is_relative_to(home)
    assert corpus.text.source == "rekurentne"
