"""What Python gives a person to look at: HTML, pictures, tables, and training while it runs."""

import builtins
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS

import charrnn
from charrnn import figures
from charrnn.cli import run as run_command
from charrnn.errors import CharRNNError
from charrnn.generate.completion import Completion
from charrnn.pages import curve, heat
from charrnn.reporting import following, notebook
from charrnn.reporting.notebook import Curve, TrainingPicture

SIZES: dict[str, Any] = {"cell": "nn.RNN", "hidden": 8, "batch": 4, "window": 16, "engine": "loop"}
SIZES |= {"precision": "float32", "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[charrnn.TextModel]:
    """A model of a run whose name a page must escape."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder))
        yield charrnn.train(folder / "text.txt", name="<i> & co", steps=8, validate_every=2, **SIZES)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that a notebook is shown, one after another."""
    shown: list[str] = []
    monkeypatch.setattr(notebook, "is_notebook", lambda: True)
    monkeypatch.setattr(notebook, "display", lambda: shown.append)
    monkeypatch.setattr(notebook, "SECONDS", 0.0)
    return shown


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be missing."""
    original = builtins.__import__

    def missing(module: str, *arguments: Any, **options: Any) -> Any:
        if module.partition(".")[0] == name:
            raise ImportError(name)
        return original(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)


def test_what_a_notebook_shows_is_whole_escaped_and_needs_no_script(model: charrnn.TextModel) -> None:
    text = "<b>Mreža</b> & \x1b"
    shown = {
        "model": model._repr_html_(),
        "score": model.score(text)._repr_html_(),
        "completion": model.completion("<i>", 30)._repr_html_(),
        "next": model.next("M", 3)._repr_html_(),
        "units": model.units(text)._repr_html_(),
    }
    for what, html in shown.items():
        assert html.startswith('<div class="charrnn'), what
        assert html.count("<div") == html.count("</div>"), what
        assert not re.search(r"<script|https?://|\x1b|<link|@import", html), what
        assert len(html) < 12_000, what
    assert "&lt;i&gt; &amp; co" in shown["model"]
    assert "<svg" in shown["model"]
    for what in ("score", "units"):
        assert "&lt;" in shown[what].partition("<pre")[2], what
        assert "<b>Mre" not in shown[what], what
    assert "<b>&lt;i&gt;</b>" in shown["completion"]
    assert "others" in shown["next"]


def test_a_long_text_is_cut_in_a_notebook_alone() -> None:
    html = heat.shown("a" * 5000, [0.5] * 5000, "about")
    assert "1,000 more characters" in html
    assert html.count("a" * 100) == heat.SHOWN_CHARACTERS // 100


def test_a_model_of_no_run_shows_itself_and_has_no_curve(model: charrnn.TextModel) -> None:
    alone = charrnn.TextModel(model.config, model.tokenizer, model.weights)
    assert "nn.RNN, hidden 8 x 1" in alone._repr_html_()
    for ask in (alone.plot, alone.to_pandas):
        with pytest.raises(CharRNNError, match="no run"):
            ask()
    assert "array(" not in repr(alone)
    together = charrnn.ensemble(model, alone)._repr_html_()
    assert "2 models as one" in together
    assert together.count("nn.RNN, hidden 8 x 1") == 2
    assert "&lt;i&gt; &amp; co" in together


def test_the_bundled_model_shows_itself_without_a_curve() -> None:
    bundled = charrnn.load("rekurentne")
    assert "<svg" not in bundled._repr_html_()
    assert "resumed" not in bundled._repr_html_()
    with pytest.raises(CharRNNError, match="no learning curve"):
        bundled.plot()


@pytest.mark.parametrize("what", ["model", "run", "score", "next", "units"])
def test_pictures_name_their_axes_and_show_themselves(model: charrnn.TextModel, what: str) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    assert model.run is not None
    thing: Any = {
        "model": lambda: model,
        "run": lambda: model.run,
        "score": lambda: model.score("Mreža pamti."),
        "next": lambda: model.next("M", 3),
        "units": lambda: model.units("Mreža (sve).\n"),
    }[what]()
    drawn = thing.plot()
    assert isinstance(drawn, figure.Figure)
    (axes,) = drawn.axes
    assert axes.get_xlabel()
    assert axes.get_ylabel() or what == "next"
    png, size = drawn._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert set(size) == {"width", "height"}
    assert "matplotlib.pyplot" not in sys.modules or "pyplot" not in repr(drawn)


def test_without_matplotlib_or_pandas_is_said_what_to_install(
    model: charrnn.TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, following_ones, units = model.score("Mreža"), model.next("M"), model.units("Mreža (")
    monkeypatch.setattr(figures, "available", lambda: False)
    without("pandas", monkeypatch)
    for thing in (model, model.run, score, following_ones, units):
        assert thing is not None
        with pytest.raises(CharRNNError, match=r"pictures need matplotlib.*charrnn\[plot\]"):
            thing.plot()
        with pytest.raises(CharRNNError, match=r"tables need pandas.*charrnn\[notebook\]"):
            thing.to_pandas()


def test_tables_have_the_figures(model: charrnn.TextModel) -> None:
    pytest.importorskip("pandas")
    history = model.to_pandas()
    assert list(history.columns) == ["step", "characters", "seconds", "lr", "train_nats", "val_nats"]
    assert history["step"].tolist() == [0, 2, 4, 6, 8]
    score = model.score("Mreža")
    table = score.to_pandas()
    assert table["character"].tolist() == list("Mreža")
    assert table["bits"].mean() == pytest.approx(score.bits_per_char)
    likeliest = model.next("M", 3)
    assert likeliest.to_pandas()["probability"].tolist() == [p for _, p in likeliest]
    units = model.units("Mreža (sve).")
    assert len(units.to_pandas()) == 8
    assert {"unit", "layer", "state", "number", "brackets"} <= set(units.to_pandas().columns)


def test_the_next_characters_are_a_list_still(model: charrnn.TextModel) -> None:
    found = model.next("M", 3)
    assert isinstance(found, list)
    assert json.loads(json.dumps(found)) == [[c, p] for c, p in found]
    assert found.others == pytest.approx(1 - sum(p for _, p in found))


def test_a_completion_knows_its_prime_and_is_equal_without_it(model: charrnn.TextModel) -> None:
    found = model.completion("Mreža", 5)
    assert found.prime == "Mreža"
    assert found == Completion(found.text, found.nats, found.ended, found.costs)


def test_training_in_a_notebook_shows_bar_curve_and_samples(
    corpus: str, pictures: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    charrnn.train(corpus, name="r", steps=12, validate_every=4, **SIZES)
    assert len(pictures) > 12
    assert "nn.RNN, hidden 8 x 1" in pictures[-1]
    assert "step 12 of 12; complete" in pictures[-1]
    assert 'aria-valuenow="100"' in pictures[-1]
    middle = next(page for page in pictures if "step 6 of 12" in page)
    assert "bits per character" in middle
    assert "characters a second" in middle
    assert pictures[-1].count("<polyline") == 2
    assert pictures[-1].count("<circle") == 3
    assert len(re.findall(r'<td class="number">\d+</td><td dir="auto">.', pictures[-1])) == 3
    assert capfd.readouterr() == ("", "")


def test_interrupting_in_a_notebook_gives_the_model_and_says_how_to_resume(corpus: str, pictures: list[str]) -> None:
    class Interrupting(list[str]):
        def append(self, page: str) -> None:
            super().append(page)
            if "step 5 of" in page and not any("step 5 of" in before for before in self[:-1]):
                os.kill(os.getpid(), signal.SIGINT)

    shown = Interrupting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook, "display", lambda: shown.append)
        model = charrnn.train(corpus, name="cut", steps=400, **SIZES)
    assert model.run is not None
    step = model.run.about()["step"]
    assert 5 <= step < 400
    assert f"interrupted after step {step}; everything is saved" in shown[-1]
    assert "charrnn.resume(&#39;cut&#39;)" in shown[-1]
    assert "charrnn train --resume cut" in shown[-1]
    again = charrnn.resume("cut", steps=step + 3, progress=False)
    assert again.run is not None
    assert again.run.about()["result"]["steps"] == step + 3
    assert "state" in model._repr_html_() or model.run.about()["result"]


def test_elsewhere_training_is_silent_or_says_what_the_command_line_says(
    corpus: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {name: value for name, value in SIZES.items() if name != "threads"}
    settings |= {"steps": 4, "validate_every": 2}
    charrnn.train(corpus, name="silent", **settings)
    assert capfd.readouterr() == ("", "")
    charrnn.train(corpus, name="said", progress=True, **settings)
    out, err = capfd.readouterr()
    assert out == ""
    options = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    with contextlib.suppress(SystemExit):
        run_command(["train", corpus, "--name", "typed", *options])
    out, typed = capfd.readouterr()
    typed = typed.partition("next:")[0] + out
    changing = re.compile(r"(said|typed)|[\d,]+ characters a second|about [\d:]+|in \d+ s|[\d,]+ MB|\d+ threads?")
    assert [changing.sub("", line) for line in err.splitlines()] == [
        changing.sub("", line) for line in typed.splitlines()
    ]


def test_who_is_told_follows_from_progress_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(following.listener(None), following.Silence)
    assert not isinstance(following.listener(True), following.Silence)
    monkeypatch.setattr(notebook, "is_notebook", lambda: True)
    monkeypatch.setattr(notebook, "display", lambda: lambda html: None)
    assert isinstance(following.listener(None), TrainingPicture)
    assert isinstance(following.listener(True), TrainingPicture)
    assert isinstance(following.listener(False), following.Silence)
    monkeypatch.setattr(notebook, "display", lambda: None)  # a front end that cannot change what it shows
    assert not isinstance(following.listener(None), following.Silence | TrainingPicture)


@pytest.mark.parametrize("display", [None, lambda *a, **b: None])
def test_where_a_display_cannot_change_there_is_none(
    display: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    module = types.ModuleType("IPython.display")
    module.HTML = str  # type: ignore[attr-defined]
    if display is not None:
        module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    assert notebook.display() is None
    assert not notebook.is_notebook()


def test_a_curve_keeps_its_form_and_few_points() -> None:
    curve = Curve()
    for x in range(5000):
        curve.add(x, 2.0 * x)
        assert curve.points[-1] == (x, 2.0 * x)  # the newest is shown, whatever was put together
    assert 50 < len(curve.points) <= notebook.MOST_POINTS + 1
    assert all(y == pytest.approx(2 * x) for x, y in curve.points)
    assert curve.points[-1][0] > 4900


def test_a_small_curve_stays_in_its_frame_and_leaves_out_what_is_no_number() -> None:
    points = [(0.0, 50.0), (1.0, 2.0), (2.0, float("nan")), (3.0, 1.5)]
    drawn = curve.drawn({"training": points, "validation": []}, 10.0, "steps", "bits")
    ((line),) = re.findall(r'<polyline points="([^"]*)"', drawn)
    at = np.array([[float(n) for n in pair.split(",")] for pair in line.split()])
    assert len(at) == 3
    assert (at[:, 0] >= curve.LEFT).all()
    assert (at[:, 1] >= curve.TOP).all()
    assert (at[:, 1] <= curve.HEIGHT - curve.BOTTOM).all()
    assert (np.diff(at[:, 1]) > 0).all()


@pytest.mark.parametrize("ends", [(0.0, 200.0), (1.87, 4.1), (0.0, 1e6), (2.0, 2.2)])
def test_ticks_are_few_and_round(ends: tuple[float, float]) -> None:
    found = curve.ticks(*ends)
    assert 2 <= len(found) <= curve.TICKS + 1
    assert all(ends[0] <= tick <= ends[1] * (1 + 1e-9) for tick in found)
    assert all(len(f"{tick:.10g}".strip("0").replace(".", "")) <= 3 for tick in found)


def test_what_is_wheel_data_is_in_the_wheels_folder() -> None:
    """A wheel holds all that is below charrnn/: the templates are there."""
    folder = Path(charrnn.__file__).parent / "pages" / "templates"
    used = set()
    for path in [*folder.iterdir(), *folder.parent.glob("*.py"), *folder.parent.parent.rglob("*.py")]:
        used |= set(re.findall(r'"([\w]+\.(?:html|css|svg))"', path.read_text(encoding="utf-8")))
    own = {path.name for path in folder.iterdir()}
    assert own <= used
    assert own


def test_the_page_of_notebooks_does_what_it_says(
    corpus: str, tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small models, and with the interrupted run that it resumes."""
    pytest.importorskip("matplotlib")
    page = (Path(charrnn.__file__).parent.parent / "docs" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(Path(corpus).read_text(encoding="utf-8"), encoding="utf-8")
    small = "hidden=8, batch=4, window=16, engine='loop', precision='float32', steps=4"
    names: dict[str, Any] = {}
    for block in blocks:
        if "resume(" in block:
            run = names["model"].run
            about = json.loads((run.path / "run.json").read_text())
            (run.path / "run.json").write_text(json.dumps({**about, "result": None}))
        block = block.replace('budget="3m"', small).replace('budget="30s"', f"{small}, lr_trials=1, seeds=1")
        exec(compile(block, "notebook.md", "exec"), names)
    assert names["comparison"].verdict
    assert charrnn.load_comparison(names["comparison"].path).result == names["comparison"].result
    assert names["charrnn"].cells.get("nn.GRU").latex()
