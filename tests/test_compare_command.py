"""The commands compare and inspect: what they print, where they keep it, what they refuse."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from charrnn.cli import group
from charrnn.cli.comparison_table import table
from charrnn.compare import inspection, pictures, presets
from charrnn.errors import CharRNNError
from charrnn.reporting import bars
from charrnn.training.run import Run

DOOR = Path(__file__).parent.parent / "cli.py"
WIDTH = ("--hidden", "12", "--embedding", "8", "--batch", "4", "--window", "16")
QUICK = (*WIDTH, "--steps", "6", "--seeds", "2", "--lr-trials", "2")


@pytest.fixture(autouse=True)
def _no_climbing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0), (2, 0.4)))


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments), catch_exceptions=False)


def test_compare_prints_a_table_and_keeps_everything(corpus: str, home: Path) -> None:
    done = run("compare", corpus, "--cells", "simple,gru", *QUICK)
    assert done.exit_code == 0
    assert "uniform" in done.stdout
    assert "the best" in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()[2:4]} == {"simple", "gru"}
    assert re.search(
        r"\d-gram and (simple|gru) +\d\.\d{4} .*validation gives the counts a weight of [01]\.\d\d", done.stdout
    )
    folder = home / "compare-text-parameters"
    assert (folder / "comparison.json").is_file()
    assert (folder / "comparison.csv").is_file()
    assert "of 2,0" in done.stderr or "% of" in done.stderr  # the remaining error
    assert "about" in done.stderr  # the time left
    assert re.search(r"seed 7: [\d.]+ bits per character, perplexity [\d.]+;", done.stderr)


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_that_diverged_ends_no_comparison(corpus: str, tmp_path: Path) -> None:
    wild = ("--cells", "nn.RNN", *WIDTH, "--lr", "1e30", "--clip", "0", "--warmup", "0", "--out", str(tmp_path / "c"))
    done = run("compare", corpus, *wild, "--steps", "6", "--seeds", "2", "--lr-trials", "1")
    assert done.exit_code == 0
    assert len(re.findall(r"nn.RNN, seed [78]: diverged, and counts as a blank model; about", done.stderr)) == 2
    assert "2 of 2" in done.stdout


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_that_costs_thousands_of_bits_ends_no_comparison(corpus: str, tmp_path: Path) -> None:
    wild = ("--cells", "nn.RNN", *WIDTH, "--lr", "300", "--clip", "0", "--warmup", "0", "--out", str(tmp_path / "c"))
    done = run("compare", corpus, *wild, "--steps", "20", "--seeds", "1", "--lr-trials", "1")
    assert done.exit_code == 0
    assert re.search(r"seed 7: \d{4,}\.\d+ bits per character, perplexity \d{300,}", done.stderr)


@pytest.mark.usefixtures("_no_pictures")
def test_compare_as_json_repeats_from_its_file(corpus: str, home: Path) -> None:
    done = run("compare", corpus, "--cells", "simple,gru", *QUICK, "--adapt", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    learning = {row["name"]: row["bits_per_char"] for row in result["baselines"] if row["name"].endswith(", adapting")}
    for row in result["cells"]:
        assert learning.pop(f"{row['label']}, adapting") < row["bits_per_char"]
    assert not learning
    again = run("compare", "--from", str(home / "compare-text-parameters/comparison.json"), "--adapt", "--json")
    repeated = json.loads(again.stdout.splitlines()[-1])
    for rows in (result["cells"], repeated["cells"]):
        for row in rows:
            del row["seconds"], row["chars_per_s"]
    assert repeated == result


@pytest.mark.usefixtures("_no_pictures")
def test_the_latest_run_as_a_baseline_is_the_one_it_was_when_it_began(corpus: str, trained: Callable[..., Run]) -> None:
    trained("mine", steps=2)
    done = run("compare", corpus, "--cells", "simple", *QUICK, "--baseline", "latest", "--json")
    assert "run mine" in [row["name"] for row in json.loads(done.stdout.splitlines()[-1])["baselines"]]


@pytest.mark.usefixtures("_no_pictures")
def test_a_second_compare_adds_cells(corpus: str) -> None:
    run("compare", corpus, "--cells", "simple", *QUICK)
    done = run("compare", corpus, "--cells", "gru", *QUICK, "--json")
    assert len(json.loads(done.stdout.splitlines()[-1])["cells"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("door", [[str(DOOR)], ["-m", "charrnn"]], ids=["cli.py", "-m charrnn"])
def test_runs_go_side_by_side_through_every_door(door: list[str], corpus: str, tmp_path: Path) -> None:
    arguments = ["compare", corpus, "--cells", "simple,gru", *QUICK, "--jobs", "2", "--no-inspect", "--json"]
    done = subprocess.run(
        [sys.executable, *door, *arguments, "--out", str(tmp_path / "c")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {row["cell"] for row in json.loads(done.stdout.splitlines()[-1])["cells"]} == {"simple", "gru"}


def test_the_door_does_nothing_when_a_process_of_a_comparison_imports_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy; runpy.run_path({str(DOOR)!r}, run_name='__mp_main__')"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fraction", "0.5"],
        ["--preset", "karpathy2015", "--embedding", "9"],
        ["--preset", "karpathy2015", "--cells", "gru"],
        ["--steps", "5", "--budget", "5s"],
        ["--from", "comparison.json", "--seeds", "4"],
        ["--match", "width"],
        ["--cells", ""],
        ["--cells", "gru,,lstm"],
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(arguments: list[str]) -> None:
    assert run("compare", *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--cells", "grru"], "no cell 'grru'"),
        (["--match", "time", "--steps", "5"], "equal time without a budget"),
        (["--match", "time", "--jobs", "2"], "slow each other down"),
        (["--preset", "karpathy2015", "--fraction", "2"], "fraction is 2"),
        (["--preset", "karpathy2015", "--hidden", "9"], "no hidden size of the preset is 9 or less"),
        (["--from", "nowhere.json"], "cannot be read"),
        (["--split", "0.9,0.1,0"], "one of them is empty"),
        (["--seeds", "0"], "seeds is 0"),
        (["--lr-trials", "0"], "lr-trials is 0"),
    ],
)
def test_what_cannot_be_compared_is_explained(corpus: str, arguments: list[str], problem: str) -> None:
    with pytest.raises(CharRNNError, match=problem):
        run("compare", *([] if "--from" in arguments else [corpus]), *arguments)


def test_a_baseline_that_is_missing_is_found_out_before_anything_is_trained(corpus: str, home: Path) -> None:
    with pytest.raises(CharRNNError, match="no run 'nowhere'"):
        run("compare", corpus, "--cells", "simple", *QUICK, "--baseline", "nowhere")
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.parametrize("damaged", ["config.json", "model-00000002.safetensors"])
def test_a_baseline_that_is_damaged_is_found_out_before_anything_is_trained(
    damaged: str, trained: Callable[..., Run], corpus: str, tmp_path: Path
) -> None:
    baseline = trained(steps=2)
    (baseline.path / damaged).write_bytes(b"{")
    with pytest.raises(CharRNNError, match=re.escape(damaged)):
        run(
            "compare",
            corpus,
            "--cells",
            "simple",
            *QUICK,
            "--baseline",
            str(baseline.path),
            "--out",
            str(tmp_path / "c"),
        )
    assert not (tmp_path / "c").exists()


def test_columns_of_the_table_stand_below_their_headings() -> None:
    row = {"hidden": 100, "parameters": 45_000, "bits_per_char": 2.0, "low": 1.9, "high": 2.1, "sd": 0.01}
    row |= {"perplexity": 4.0, "chars_per_s": 1000, "seconds": 60.0, "diverged": 0, "seeds": 3}
    differences = [
        {"b": "b", "mean": 0.01, "low": -0.01, "high": 0.03, "p_holm": 0.3},
        {"b": "c", "mean": 0.1, "low": 0.09, "high": 0.11, "p_holm": 0.0001},
    ]
    rows = [{"label": label, **row} for label in ("abcd", "b", "c")]
    result = {"cells": rows, "differences": differences, "baselines": []}
    heading, _, *lines, _ = table(result).splitlines()
    assert {len(line) for line in lines} == {len(heading)}


def test_the_presets_trends_are_counted_over_pairs_that_differ_in_one_thing() -> None:
    def row(cell: str, layers: int, bits: float) -> dict[str, Any]:
        return {"cell": cell, "layers": layers, "hidden": 64, "bits_per_char": bits}

    plain, (lstm, _) = presets.PLAIN, presets.GATED
    rows = [row(plain, 1, 2.5), row(plain, 2, 2.6), row(lstm, 1, 2.2), row(lstm, 2, 2.0)]
    found = {trend.claim: (trend.ahead, trend.pairs, pytest.approx(trend.bits)) for trend in presets.trends(rows)}
    assert found == {
        f"{lstm} over {plain}": (2, 2, 0.45),
        f"{plain}: two layers over one": (0, 1, -0.1),
        f"{lstm}: two layers over one": (1, 1, 0.2),
    }


def test_inspect_gradients_prints_both_looks_and_the_reach(corpus: str, tmp_path: Path) -> None:
    arguments = ["inspect", "gradients", corpus, "--cells", "simple,gru", "--hidden", "8", "--steps", "3"]
    done = run(*arguments)
    assert done.exit_code == 0
    assert done.stdout.count("at first") == done.stdout.count("trained") == 2
    result = json.loads(run(*arguments, "--json", "--no-copy").stdout.splitlines()[-1])
    assert [cell["cell"] for cell in result["cells"]] == ["simple", "gru"]
    assert len(result["cells"][0]["trained"]) == 201
    pytest.importorskip("matplotlib")
    assert run(*arguments, "--out", str(tmp_path / "page.html")).exit_code == 0
    assert (tmp_path / "page.html").read_text().count("<svg") == 2


def test_a_page_that_cannot_be_written_is_refused_before_cells_are_trained(corpus: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for page in (tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(CharRNNError, match="cannot be written") as error:
            run(
                "inspect", "gradients", corpus, "--cells", "simple", "--hidden", "8", "--steps", "3", "--out", str(page)
            )
        assert "--out" in error.value.hint


@pytest.mark.parametrize("seconds", [0.4, 59, 61, 4000, 9000])
def test_time_left_is_said_in_words(seconds: float) -> None:
    assert bars.duration(seconds).split()[1] in ("s", "min", "h")


def test_help_lists_options_without_waking_torch() -> None:
    code = "import sys; sys.argv = ['charrnn', 'compare', '--help']\nfrom charrnn.cli import run\n"
    code += "run(sys.argv[1:]); print('torch' in sys.modules, 'scipy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "False False"
    assert "--lr-trials" in out.stdout
