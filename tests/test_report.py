"""The page of a comparison: whole, self-contained, and the same for the same figures."""

import dataclasses
import html.parser
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS
from test_comparison import compared, grid

import charrnn
from charrnn.compare import comparison, inspection, outcome, pictures, report, reporting
from charrnn.compare.grid import Folder
from charrnn.compare.outcome import Curve
from charrnn.errors import CharRNNError
from charrnn.reporting import notebook
from charrnn.training.run import Run

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[comparison.Compared]:
    """A small comparison, made once."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(folder / "home"))
        patch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0), (2, 0.4)))
        asked = dataclasses.replace(grid(str(folder / "text.txt")), prime="<Re & so")
        yield compared(asked, ["simple", "gru"], folder / "c")


class Page(html.parser.HTMLParser):
    """What a page holds: its headings, its text, and whatever it would fetch from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.pictures = 0
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.pictures += tag == "svg"
        values = dict(attrs)
        for name in ("src", "href", "xlink:href"):
            if (value := values.get(name)) and not value.startswith("#"):
                self.outside.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
            self.open.append("")


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(done: comparison.Compared) -> None:
    path = done.folder.path / "report.html"
    assert path in done.files
    page = Page(path.read_text(encoding="utf-8"))
    assert page.outside == []
    assert page.pictures == 4
    assert "<script" not in path.read_text()
    assert "<Re & so" in page.text  # escaped, so that it is read as text
    for words in ("Scores", "Learning", "completed by each cell", "gradients reach", "remembers", "How it was done"):
        assert any(words in heading for heading in page.headings), words
    for row in done.result["cells"]:
        assert f"{row['bits_per_char']:.4f}" in page.text
        assert f"{row['perplexity']:.3f}" in page.text
    for reference in done.result["baselines"]:
        assert reference["name"] in page.text
        if reference["bits_per_char"] is not None:
            assert f"{2 ** reference['bits_per_char']:.3f}" in page.text
    assert page.text.count("2 to the power of the bits") == 2


def test_a_comparison_is_a_value_that_shows_itself(done: comparison.Compared) -> None:
    found = charrnn.load_comparison(done.folder.path)
    assert found.result == done.result
    assert found.verdict == report.verdict(done.result)
    html = found._repr_html_()
    page = Page(html)
    assert page.outside == []
    assert found.verdict in page.text
    assert "report.html" in page.text
    for row in done.result["cells"]:
        assert f"{row['bits_per_char']:.4f}" in page.text
    for what, axes in (("learning", 2), ("costs", 2)):
        figure = found.plot(what)
        assert len(figure.axes) == axes
        assert all(each.get_xlabel() for each in figure.axes)
    with pytest.raises(CharRNNError, match="learning"):
        found.plot("other")


def test_a_comparison_from_python_is_the_commands(done: comparison.Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call on what is there carries nothing out again."""
    shown: list[str] = []
    monkeypatch.setattr(notebook, "is_notebook", lambda: True)
    monkeypatch.setattr(notebook, "display", lambda: shown.append)
    config = done.grid.config
    settings = {name: getattr(config, name) for name in ("hidden", "embedding", "batch", "window", "precision")}
    found = charrnn.compare_cells(
        *config.corpus,
        cells=["simple", "gru"],
        seeds=done.grid.seeds,
        lr_trials=done.grid.lr_trials,
        steps=done.grid.steps,
        match=done.grid.match,
        parameters=done.grid.target,
        prime=done.grid.prime,
        out=done.folder.path,
        validate_every=config.validate_every,
        warmup=config.warmup,
        **settings,
    )
    assert found.result["cells"] == done.result["cells"]
    assert "complete" in shown[-1]
    assert "<script" not in shown[-1]


def test_a_notebook_says_that_a_run_diverged() -> None:
    shown: list[str] = []
    picture = reporting.ComparisonPicture(shown.append)
    picture.show(comparison.Ran("gru", 7, 2.5, 1, 2))
    picture.show(comparison.Ran("gru", 8, None, 2, 2))
    assert re.findall(r'"number">(2\.5000|diverged)<', shown[-1]) == ["2.5000", "diverged"]


@pytest.mark.parametrize("text", ["{}", '{"cells": []}', '{"cells": 3}', "[]", "no"])
def test_what_is_no_comparison_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(CharRNNError, match=r"comparison\.json"):
        charrnn.load_comparison(tmp_path)


def test_a_table_wider_than_the_window_scrolls_alone(done: comparison.Compared) -> None:
    text = (done.folder.path / "report.html").read_text()
    tables = text.count("<table>")
    assert tables == text.count('<div class="wide"><table>') > 2


@pytest.mark.slow
def test_a_comparison_stopped_while_it_looks_inside_goes_on(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def climb(cell: str, stop: Any) -> Any:
        looked.append(cell)
        return ((1, 1.0),)

    monkeypatch.setattr(inspection, "copy_climb", climb)
    asked, models = grid(corpus, seeds=1, lr_trials=1), ["simple", "gru"]
    folder = Folder(tmp_path / "c")
    last = list(comparison.compare(asked, models, folder, stop=lambda: bool(looked)))[-1]
    assert isinstance(last, comparison.Stopped)
    assert len(looked) == 1
    assert compared(asked, models, tmp_path / "c").files[-1].name == "report.html"
    assert sorted(set(looked)) == ["gru", "simple"]


@pytest.mark.parametrize("damage", ["[]", '{"KEY": {}}', '{"KEY": 5}', '{"KEY": {"label": "a", "at_start": "b"}}', "{"])
def test_what_was_found_inside_and_is_damaged_is_found_again(
    damage: str, trained: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0),))
    run, kept = trained(steps=2), tmp_path / "inspection.json"
    kept.write_text(damage.replace("KEY", run.about()["files"]["best"]["sha256"]))
    *_, found = inspection.inspect_all({"gru": run}, kept)
    assert [each.reach for each in found if isinstance(each, inspection.Inspection)] == [1]
    assert len(list(inspection.inspect_all({"gru": run}, kept))) == 1  # nothing is looked for again


def test_ids_of_pictures_differ_within_a_page(done: comparison.Compared) -> None:
    text = (done.folder.path / "report.html").read_text()
    referred = set(re.findall(r"""(?:url\(|href=")#([^)"]+)""", text))
    assert len(referred) > 10
    for name in referred:
        assert text.count(f'id="{name}"') == 1, name


def test_the_page_repeats(done: comparison.Compared) -> None:
    found = list(inspection.inspect_all({}, done.folder.path / "none.json"))[-1]
    pages = [report.page(done.folder, done.grid, done.corpus, done.result, found) for _ in range(2)]  # type: ignore
    assert pages[0] == pages[1]


def test_without_matplotlib_there_is_the_table_and_a_note(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)
    found = compared(grid(corpus, seeds=1, lr_trials=1), ["simple"], tmp_path / "c")
    assert [path.name for path in found.files] == ["comparison.json", "comparison.csv"]
    assert "matplotlib" in found.notes[0]
    with pytest.raises(CharRNNError, match="matplotlib"):
        pictures.learning_curves({})


def test_gains_add_up_to_the_difference_on_their_passage(done: comparison.Compared) -> None:
    gained = outcome.gains(done.grid, done.folder, done.corpus, done.result)
    best = done.result["cells"][0]["cell"]
    if best == "simple":
        assert gained is None
        return
    assert gained is not None
    text = done.corpus.tokenizer.decode(done.corpus.ids("test"))
    at = text.index(gained.text)
    entries = {entry.cell: entry for entry in done.grid.entries}
    scores = {cell: outcome.scored(done.grid, done.folder, entries[cell], done.corpus).bits for cell in entries}
    expected = (scores["simple"] - scores[best]).mean(axis=0)[at : at + len(gained.text)]
    assert gained.bits == pytest.approx(expected)


@pytest.mark.parametrize("lines", [1, 7, 23])
def test_every_line_of_a_picture_looks_different(lines: int) -> None:
    looks = {str({k: v for k, v in pictures.line_style(i, 20).items() if k != "markevery"}) for i in range(lines)}
    assert len(looks) == lines


def test_a_diverged_curve_does_not_break_the_picture() -> None:
    x = np.arange(1.0, 6.0)
    good, bad = np.linspace(3, 2, 5)[None, :], np.full((1, 5), np.nan)
    curves: dict[str, Any] = {"good": Curve(x, x, good), "bad": Curve(x, x, bad)}
    assert "good" in pictures.learning_curves(curves)
    assert "bad" in pictures.learning_curves({"bad": curves["bad"]})


def test_learning_curves_show_what_is_learned_though_a_run_went_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (drawn.append(self), original(self, *a, **b)))
    x = np.arange(1.0, 10.0)
    good = np.geomspace(8, 2.2, 9)[None, :]
    astray = good.copy()
    astray[0, 1:4] = 17.0
    curves: dict[str, Any] = {"good": good, "astray": astray, "lost": np.full((1, 9), 8.0)}
    page = pictures.learning_curves({label: Curve(x, x, bits) for label, bits in curves.items()})
    low, high = drawn[0].axes[0].get_ylim()
    assert low < 2.2
    assert 4 < high < 5
    assert "lost (above)" in page
    assert "astray (above)" not in page


def boxes_of_tick_labels(axes: Any) -> list[Any]:
    return [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_text() and tick.get_visible()]


@pytest.mark.slow
@pytest.mark.parametrize(("models", "most"), [(7, 60_000), (19, 60_000), (36, 9_000_000)])
def test_pictures_of_many_models_keep_their_room_and_their_numbers_apart(
    models: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (drawn.append(self), original(self, *a, **b)))
    rows = [
        {"label": f"nn.LSTM {i}x3", "bits_per_char": 2.0, "low": 1.9, "high": 2.1, "parameters": p, "chars_per_s": p}
        for i, p in enumerate(np.geomspace(50_000, most, models))
    ]
    x = np.arange(1.0, 6.0)
    pictures.learning_curves({row["label"]: Curve(x, x, np.linspace(3, 2, 5)[None, :]) for row in rows})
    pictures.costs(rows)
    for figure in drawn:
        figure.draw_without_rendering()
        wide, high = figure.bbox.width, figure.bbox.height
        for axes in figure.axes:
            assert axes.bbox.width > 0.33 * wide
            assert axes.bbox.height > 2.5 / 4.2 * (high if models < 10 else 4.2 * figure.dpi)
            boxes = [box for box in boxes_of_tick_labels(axes) if axes.bbox.x0 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1]
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_pictures_of_bits_show_perplexity_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (drawn.append(self), original(self, *a, **b)))
    x = np.arange(1.0, 6.0)
    rows = [{"label": "a", "bits_per_char": 2.0, "low": 1.9, "high": 2.1, "parameters": 9, "chars_per_s": 9}]
    pictures.learning_curves({"a": Curve(x, x, np.linspace(3, 2, 5)[None, :])})
    pictures.costs(rows)
    assert len(drawn) == 2
    for figure in drawn:
        (beside,) = figure.axes[-1].child_axes
        assert beside.get_ylabel() == "perplexity"
        assert beside.get_ylim() == figure.axes[0].get_ylim()
        assert beside.yaxis.get_major_formatter()(2.0, 0) == "4.00"


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_a_diverged_gradient_does_not_break_the_picture(beyond: float) -> None:
    share = np.array([1.0, 0.1, 0.01])
    bad = np.array([1.0, beyond, beyond])
    assert "bad" in pictures.gradient_reach({"bad": bad, "good": share}, {"bad": bad, "good": share})


def test_the_verdict_calls_ties_ties() -> None:
    row = {"bits_per_char": 2.0, "low": 1.9, "high": 2.1, "seeds": 3, "perplexity": 4.0}
    result = {
        "cells": [{"label": label, **row} for label in ("a", "b", "c", "d")],
        "differences": [{"b": "b", "p_holm": 0.3}, {"b": "c", "p_holm": 0.01}, {"b": "d", "p_holm": 0.001}],
    }
    said = report.verdict(result)
    assert "not clearly ahead of b: a tie" in said
    assert "ahead of c and d by more than chance" in said
    assert "2.000 bits per character (95 % interval 1.900 to 2.100; seeds: 3), a perplexity of 4.000." in said
