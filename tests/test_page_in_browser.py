"""The local page in a real browser: every view on a trained run, by hand and by keyboard; nothing leaves the host."""

import dataclasses
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, config
from serving import Server, serving
from test_comparison import compared, grid

from charrnn import api
from charrnn.api import TextModel
from charrnn.compare import inspection
from charrnn.training import loop

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MS = 60_000  # after which a test that waits has failed
VIEWS = ("complete", "surprise", "inside", "train", "compare")
# Markup, what turns a line around, what hides, what ends a line elsewhere, a character of two halves, a combining one.
HOSTILE = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1> &amp; ž 𝄞 e\u0301"
HOSTILE += " \u202eabc\u2066\u200b\u0007\u2028"
ONE_LINE = "Rekurentne mreže pamte. " * 45_000  # more than a million characters


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[TextModel]:
    """Two small models of a real text."""
    place = tmp_path_factory.mktemp("browser")
    text = place / "text.txt"
    text.write_text(CORPUS.read_text(encoding="utf-8")[:30_000], encoding="utf-8")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(place / "home"))
        for name, steps in (("good", 200), ("poor", 10)):
            asked = config(str(text), steps=steps, hidden=32, validate_every=100)
            run = loop.open_run(asked, out=place / name)
            for _ in loop.new_run(asked, run):
                pass
            made.append(api.load(run))
    return made


@pytest.fixture(scope="module")
def server(models: list[TextModel]) -> Iterator[Server]:
    with serving(*models) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, server: Server, view: str = "complete", quiet: bool = True, **context: Any) -> Iterator[Any]:
    """A page at a view. Nothing may be asked of another host. quiet: nothing may stand in the console either."""
    options = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **context}
    said, asked = [], []
    surroundings = browser.new_context(**options)
    surroundings.set_default_timeout(MS)
    page = surroundings.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/?token={server.access.token}#{view}")
    page.wait_for_selector(f".{view} h1")
    yield page
    assert page.evaluate("window.hurt") is None
    surroundings.close()
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []
    assert not quiet or said == []


def ghost(page: Any) -> str:
    """What stands in grey behind the caret."""
    return str(page.evaluate("Array.from(document.querySelectorAll('.ghost'), (each) => each.textContent).join('')"))


def drawn(page: Any, length: int = 80) -> str:
    """What stands in grey, once all of it is there: of a text set in one go, since keys may take some of it."""
    page.wait_for_function(
        "(n) => Array.from(document.querySelectorAll('.ghost'), (e) => e.textContent).join('').length === n", arg=length
    )
    return ghost(page)


# Complete


def test_what_is_typed_goes_on_in_grey(browser: Any, server: Server, models: list[TextModel]) -> None:
    text = "Rekurentne mre"
    # Keys that were foreseen take from what stands there, others have it drawn anew: it is of one of the beginnings.
    begun = [text[:n] for n in range(1, len(text) + 1)]
    wholes = [begin + models[0].complete(begin, 80, seed=0) for begin in begun]
    with opened(browser, server) as page:
        page.get_by_label("Text to be completed").press_sequentially(text, delay=20)
        page.wait_for_function(
            "(all) => all.includes(Array.from(document.querySelectorAll('.ghost'), (e) => e.textContent).join(''))",
            arg=[whole[len(text) :] for whole in wholes if whole.startswith(text)],
        )


def test_keys_that_were_foreseen_do_not_cut_what_is_still_being_drawn(
    browser: Any, server: Server, models: list[TextModel]
) -> None:
    whole = models[0].complete("Rekurentne mre", 80, seed=0)
    slowly = """async () => {  // a stream's events but the first three wait until window.go is called
        const real = window.fetch, gone = new Promise((go) => { window.go = go; });
        window.fetch = async (...asked) => {
            const answer = await real(...asked);
            if (!String(asked[0]).includes("/v1/completions")) return answer;
            let passed = 0;
            return new Response(answer.body.pipeThrough(new TransformStream({
                async transform(bytes, onward) {  // which may be all events at once
                    for (const event of new TextDecoder().decode(bytes).split(/(?<=\\n\\n)/)) {
                        if (passed++ >= 3) await gone;
                        onward.enqueue(new TextEncoder().encode(event));
                    }
                },
            })), answer);
        };
    }"""
    with opened(browser, server) as page:
        page.evaluate(slowly)
        page.get_by_label("Text to be completed").fill("Rekurentne mre")
        page.wait_for_selector(".ghost")
        page.wait_for_timeout(500)
        begun = ghost(page)
        assert 2 < len(begun) < 80
        page.keyboard.type(begun[:2], delay=100)  # longer than the page waits for more keys
        page.wait_for_timeout(200)
        page.evaluate("window.go()")
        assert drawn(page, 78) == whole[2:]


def test_the_models_completion_is_shown_and_keys_take_parts_of_it(
    browser: Any, server: Server, models: list[TextModel]
) -> None:
    with opened(browser, server) as page:
        field = page.get_by_label("Text to be completed")
        field.fill("Rekurentne mre")
        whole = drawn(page)
        assert whole == models[0].complete("Rekurentne mre", 80, seed=0)  # those of `sample`, at the same settings
        word = re.match(r"\s*\S+", whole)
        assert word
        page.keyboard.press("Tab")
        assert field.input_value() == "Rekurentne mre" + word[0]
        assert ghost(page) == whole[word.end() :]  # nothing else is drawn
        page.keyboard.type(ghost(page)[0])  # what is typed as it stands there is taken too
        assert ghost(page) == whole[word.end() + 1 :]
        page.keyboard.press("End")
        assert field.input_value() == "Rekurentne mre" + whole
        drawn(page)
        page.keyboard.press("Escape")
        assert ghost(page) == ""
        page.keyboard.press("Tab")  # nothing is there to be taken: the key is the browser's again
        assert page.evaluate("document.activeElement.tagName") != "TEXTAREA"
        assert field.input_value() == "Rekurentne mre" + whole


def test_settings_change_what_is_drawn(browser: Any, server: Server, models: list[TextModel]) -> None:
    with opened(browser, server) as page:
        page.get_by_label("Text to be completed").fill("Niz ")
        drawn(page)
        page.get_by_label("Seed").fill("5")
        page.get_by_label("Temperature").fill("1.5")
        expected = models[0].complete("Niz ", 80, temperature=1.5, seed=5)
        page.wait_for_function("(text) => document.querySelector('.written').textContent.includes(text)", arg=expected)
        page.get_by_label("Model").select_option("poor")
        expected = models[1].complete("Niz ", 80, temperature=1.5, seed=5)
        page.wait_for_function("(text) => document.querySelector('.written').textContent.includes(text)", arg=expected)


def test_a_click_takes_one_of_the_likeliest_characters(browser: Any, server: Server, models: list[TextModel]) -> None:
    with opened(browser, server) as page:
        field = page.get_by_label("Text to be completed")
        field.fill("Rekurentn")
        (likeliest, p), *_ = models[0].next("Rekurentn", 5)
        button = page.locator(".next button").first
        page.wait_for_function("(c) => document.querySelector('.next button').textContent === c", arg=likeliest)
        assert page.locator(".next li").count() == 5
        assert f"{100 * p:.0f}%" in page.locator(".next li").first.inner_text()
        button.click()
        assert field.input_value() == "Rekurentn" + likeliest


def test_several_endings_are_ranked_and_one_is_taken(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        field = page.get_by_label("Text to be completed")
        field.fill("Mre")
        page.get_by_role("button", name="Draw").click()
        page.wait_for_selector(".ending")
        costs = [
            float(text)
            for text in page.locator(".endings dd").evaluate_all("(all) => all.map((e) => parseFloat(e.textContent))")
        ]
        finished = [not text.endswith("…") for text in page.locator(".ending").all_inner_texts()]
        assert len(costs) == 5
        for group in (True, False):
            ranked = [cost for cost, ended in zip(costs, finished, strict=True) if ended is group]
            assert ranked == sorted(ranked)
        text = page.locator(".ending").first.text_content().removesuffix(" …")
        page.locator(".ending").first.click()
        assert field.input_value() == "Mre" + text


def test_what_is_copied_from_the_corpus_is_underlined_with_its_place(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        found = {"copies": [{"at": 3, "length": 20, "offset": 12_345}], "copies_unknown": None}
        page.route("**/page/copies", lambda route: route.fulfill(json=found))
        page.get_by_label("Text to be completed").fill("𝄞")
        passage = drawn(page)[3:23]
        page.wait_for_selector(".written .copied")
        assert page.locator(".written .copied").all_text_contents() == [passage]
        assert "20 characters, in the corpus at character 12,345" in page.locator(".copied-list").inner_text()


# Surprise and Inside


def test_every_character_is_coloured_and_pointing_shows_what_was_expected(
    browser: Any, server: Server, models: list[TextModel]
) -> None:
    text = "Rekurentne mreže " + HOSTILE
    bits = models[0].score(text).per_char / 0.6931471805599453
    with opened(browser, server, "surprise") as page:
        page.get_by_label("Text", exact=True).fill(text)
        page.get_by_role("button", name="Show", exact=True).click()
        spans = page.locator(".characters span")
        spans.first.wait_for()
        assert spans.count() == len(text) == len(bits)
        assert spans.nth(text.index("\u202e")).inner_text() == "U+202E"  # shown, and turns nothing around
        assert "<script>window.hurt=1</script>" in page.locator(".characters").inner_text()
        spans.nth(4).hover()
        assert page.locator(".detail b").inner_text() == f"{bits[4]:.2f}"
        expected = models[0].next(text[:4], 5)
        shown = page.locator(".detail .character").all_inner_texts()
        assert shown == [character.replace(" ", "␣").replace("\n", "↵") for character, _ in expected]
        page.locator(".characters").focus()
        page.keyboard.press("ArrowRight")
        assert "character 6 of" in page.locator(".looked").inner_text()
        assert f"{bits.mean():.3f}" in page.locator(".figures").inner_text()
        levels = spans.evaluate_all("(all) => all.map((each) => Number(each.className.match(/s(\\d)/)[1]))")
        assert levels == [sum(each >= bound for bound in (2, 4, 6, 8, 11)) for each in bits]


def test_two_models_show_where_one_gains(browser: Any, server: Server, models: list[TextModel]) -> None:
    text = CORPUS.read_text(encoding="utf-8")[40_000:40_300]
    gain = models[1].score(text).bits_per_char - models[0].score(text).bits_per_char
    with opened(browser, server, "surprise") as page:
        page.get_by_label("Second model").select_option("poor")
        page.get_by_label("Text", exact=True).fill(text)
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_selector(".characters")
        assert f"good predicts this text better, by {gain:.3f} bits" in page.locator(".result").inner_text()
        assert page.locator(".characters .g8, .characters .g7").count() > 10
        page.get_by_role("button", name="Bits").click()
        assert page.locator(".characters [class^=g]").count() == 0


def test_a_million_characters_in_one_line_are_read_as_far_as_is_promised(browser: Any, server: Server) -> None:
    assert len(ONE_LINE) > 1_000_000
    with opened(browser, server, "surprise") as page:
        page.get_by_label("Text", exact=True).fill(ONE_LINE)
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_selector(".characters")
        assert page.locator(".characters span").count() == 20_000
        assert f"The last {len(ONE_LINE) - 20_000:,} characters were left out" in page.locator(".result").inner_text()


def test_units_are_ranked_colour_the_text_and_stand_out(browser: Any, server: Server, models: list[TextModel]) -> None:
    text = 'Reč. (Niz) "pamti"\n' * 3 + HOSTILE
    units = models[0].units(text)
    with opened(browser, server, "inside") as page:
        page.get_by_label("Text", exact=True).fill(text)
        page.get_by_role("button", name="Rank units").click()
        page.wait_for_selector(".ranked")
        for row, name in enumerate(("line position", "quotes", "brackets", "spaces", "case")):
            told = page.locator(".ranked tr").nth(row).locator(".unit").all_inner_texts()
            assert told == [unit.name for unit, _ in units.best(name, 5)]
        (best, r), *_ = units.best("spaces", 1)
        page.locator(".ranked tr").nth(3).locator(".unit").first.click()
        page.get_by_role("heading", name=f"Unit {best.name}").wait_for()
        values = units.of(best.name)
        levels = page.locator(".characters span").evaluate_all(
            "(all) => all.map((e) => Number(e.className.match(/u(\\d)/)[1]))"
        )
        assert levels == [4 + int(4 * value / abs(values).max() + (0.5 if value >= 0 else -0.5)) for value in values]
        assert f"{'−' if r < 0 else '+'}{abs(r):.2f}" in page.locator(".unit-name + .note").inner_text()
        page.locator(".characters span").nth(8).click()
        page.wait_for_selector(".detail table")
        assert page.locator(".detail tbody tr").count() == 12
        other = page.locator(".detail .unit").first.inner_text()
        page.locator(".detail .unit").first.click()
        page.get_by_role("heading", name=f"Unit {other}").wait_for()


# Train


def test_a_pasted_text_is_learned_to_the_end_and_joins_the_models(browser: Any, models: list[TextModel]) -> None:
    text = CORPUS.read_text(encoding="utf-8")[:30_000] + HOSTILE
    with serving(*models) as server, opened(browser, server, "train") as page:
        page.get_by_label("Text", exact=True).fill(text)
        page.get_by_label("Minutes").fill("0.2")
        page.get_by_label("Cell").select_option("gru")
        page.get_by_label("Name of the run").fill("mine")
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator(".run .state", has_text="training").wait_for()
        page.locator(".run .state", has_text="complete").wait_for(timeout=3 * MS)
        page.get_by_role("link", name="Complete with it").wait_for()
        assert page.locator(".sample .drawn").inner_text().startswith(text[:20])
        assert "bits per character" in page.locator(".run .figures").inner_text()
        page.get_by_role("link", name="Complete with it").click()
        page.get_by_label("Text to be completed").fill("Re")
        assert drawn(page) == api.load("mine").complete("Re", 80, seed=0)


def begun(page: Any) -> Any:
    """The figures of a training of minutes, once it has made a step: before, nothing of it is kept."""
    page.get_by_text("Named corpus").click()
    page.get_by_label("Corpus", exact=True).select_option("rekurentne")
    page.get_by_label("Minutes").fill("5")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("button", name="Stop and save").wait_for()  # before, another run is shown
    figures = page.locator(".run .figures", has_text=re.compile(r"Steps\s*[1-9]"))
    figures.wait_for()
    return figures


def test_a_training_is_stopped_and_resumed(browser: Any, models: list[TextModel]) -> None:
    with serving(*models) as server, opened(browser, server, "train") as page:
        begun(page)
        page.get_by_role("button", name="Stop and save").click()
        page.locator(".run .state", has_text="stopped").wait_for()
        page.get_by_role("button", name="Resume").click()
        page.locator(".run .state", has_text="training").wait_for()
        page.get_by_role("button", name="Stop and save").click()
        page.locator(".run .state", has_text="stopped").wait_for()


def test_a_file_of_one_long_line_is_learned_and_an_error_is_the_commands(
    browser: Any, models: list[TextModel], tmp_path: Path
) -> None:
    (tmp_path / "line.txt").write_text(ONE_LINE, encoding="utf-8")
    (tmp_path / "short.txt").write_text("ab", encoding="utf-8")
    (tmp_path / "strange.txt").write_bytes(b"\xff\xfe\xff")
    with serving(*models) as server, opened(browser, server, "train") as page:
        page.get_by_text("File", exact=True).click()
        choose = page.get_by_label("Choose a text file")
        choose.set_input_files(tmp_path / "strange.txt")
        page.get_by_text("strange.txt is not UTF-8").wait_for()
        choose.set_input_files(tmp_path / "short.txt")
        page.get_by_text("short.txt: 2 characters").wait_for()
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator("pre.notice", has_text="error: ").wait_for()
        choose.set_input_files(tmp_path / "line.txt")
        page.get_by_text(f"line.txt: {len(ONE_LINE):,} characters").wait_for()
        page.get_by_label("Minutes").fill("5")
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator(".run .state", has_text="training").wait_for()
        page.get_by_role("button", name="Stop and save").click()


def test_a_slow_click_is_not_lost_while_figures_change(browser: Any, models: list[TextModel]) -> None:
    with serving(*models) as server, opened(browser, server, "train") as page:
        figures = begun(page)
        for held in (page.locator(".runs [aria-pressed=true]"), page.get_by_role("button", name="Stop and save")):
            before = figures.inner_text()
            held.hover()
            page.mouse.down()
            page.wait_for_function(
                "(before) => document.querySelector('.run .figures').innerText !== before", arg=before
            )
            page.mouse.up()
        page.locator(".run .state", has_text="stopped").wait_for()


def test_a_training_from_elsewhere_is_shown(browser: Any, server: Server, home: Path, corpus: str) -> None:
    """One of this process stands for a terminal: it holds its run, and writes its files."""
    asked = config(corpus, steps=100_000, validate_every=50)
    run = loop.open_run(asked, "elsewhere")
    done = threading.Event()

    def train() -> None:
        for _ in loop.new_run(asked, run, done.is_set):
            pass

    thread = threading.Thread(target=train)
    thread.start()
    try:
        with opened(browser, server, "train") as page:
            page.locator(".runs button", has_text="elsewhere").click()
            page.locator(".chart svg").wait_for()
            assert page.get_by_text("Trained by another process").count() == 1
            assert page.get_by_role("button", name="Stop and save").count() == 0
            texts = page.locator(".chart text.name").all_text_contents()
            assert texts == ["characters read", "bits per character"]
    finally:
        done.set()
        thread.join()


# Compare


def test_models_complete_the_same_text_side_by_side(browser: Any, server: Server, models: list[TextModel]) -> None:
    with opened(browser, server, "compare") as page:
        page.get_by_label("Text that all complete").fill("Mreža ")
        page.get_by_role("button", name="Complete side by side").click()
        for n, model in enumerate(models):
            expected = "Mreža " + model.complete("Mreža ", 300, seed=0)
            article = page.locator("article").nth(n)
            page.wait_for_function("(n) => !document.querySelectorAll('article')[n].hasAttribute('aria-busy')", arg=n)
            assert article.locator(".drawn").text_content() == expected
        assert page.locator("article h3").all_inner_texts() == ["good", "poor"]
        page.get_by_text("There is none yet").wait_for()


def test_a_finished_comparison_is_shown_with_its_table_and_pictures(
    browser: Any, server: Server, corpus: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "copy_climb", lambda cell, stop: ((1, 1.0), (2, 0.4)))
    done = compared(dataclasses.replace(grid(corpus)), ["simple", "gru"], home / "compare-mine")
    with opened(browser, server, "compare") as page:
        page.wait_for_selector("table")
        for row, cell in enumerate(done.result["cells"]):
            text = page.locator("tbody tr").nth(row).inner_text()
            assert cell["label"] in text
            assert f"{cell['bits_per_char']:.3f}" in text
        assert page.locator(".chart svg").count() == 2
        names = page.locator(".chart text.name").all_text_contents()
        assert names == [
            "test, bits per character (less is better)",
            "characters read",
            "validation, bits per character",
        ]


# Everybody


def test_the_browsers_language_is_spoken_until_another_is_chosen(browser: Any, server: Server) -> None:
    with opened(browser, server, locale="sr-RS") as page:
        assert page.get_by_role("heading", level=1).inner_text() == "Dopuni"
        assert page.evaluate("document.documentElement.lang") == "sr-Latn"
        page.get_by_role("button", name="English").click()
        page.get_by_role("heading", name="Complete", level=1).wait_for()
        page.reload()
        page.get_by_role("heading", name="Complete", level=1).wait_for()
        page.get_by_role("button", name="Srpski").click()
        for view, heading in zip(VIEWS, ("Dopuni", "Iznenađenje", "Iznutra", "Obuči", "Uporedi"), strict=True):
            page.get_by_role("link", name=heading, exact=True).click()
            page.wait_for_selector(f".{view}")
            assert page.get_by_role("heading", level=1).inner_text() == heading


@pytest.mark.parametrize("locale", ["en-US", "sr-RS"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser: Any, server: Server, locale: str, scheme: str) -> None:
    small = {"viewport": {"width": 400, "height": 800}, "color_scheme": scheme, "locale": locale}
    with opened(browser, server, **small) as page:
        for view in VIEWS:
            page.evaluate("(view) => { location.hash = view; }", view)
            page.wait_for_selector(f".{view} h1")
            if view in ("surprise", "inside"):
                page.locator("textarea").fill("Reč (niz) " * 20 + "dugačkareč" * 20)
                page.locator(".actions button").first.click()
                page.wait_for_selector(".characters")
                page.locator(".characters span").nth(3).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, view


def test_the_keyboard_alone_is_enough(browser: Any, server: Server) -> None:
    def focused(page: Any) -> str:
        return str(page.evaluate("document.activeElement.textContent || document.activeElement.tagName"))

    with opened(browser, server, "surprise") as page:
        page.evaluate("document.activeElement.blur()")
        reached = []
        while page.evaluate("document.activeElement.tagName") != "TEXTAREA":
            page.keyboard.press("Tab")
            reached.append(focused(page))
        assert reached[:8] == ["Skip to the view", "Complete", "Surprise", "Inside", "Train", "Compare", "EN", "SR"]
        page.keyboard.type("Rekurentne")
        while focused(page) != "Show":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector(".characters")
        while page.evaluate("document.activeElement.className") != "characters":
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        assert "character 1 of 10" in page.locator(".looked").inner_text()
        page.keyboard.press("End")
        assert "character 10 of 10" in page.locator(".looked").inner_text()
        nameless = page.evaluate(
            "Array.from(document.querySelectorAll('button, a, input, select, textarea'))"
            ".filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
        )
        assert nameless == 0


def test_what_the_server_refuses_is_said_in_its_words(browser: Any, server: Server) -> None:
    with opened(browser, server, "surprise", quiet=False) as page:
        page.get_by_role("button", name="Show", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert "the text is empty; give a text of at least one character" in page.get_by_role("alert").inner_text()


def test_a_server_that_has_ended_is_told_of(browser: Any, models: list[TextModel]) -> None:
    with serving(models[0]) as server, opened(browser, server, quiet=False) as page:
        server.__exit__()
        page.get_by_label("Text to be completed").press_sequentially("R")
        page.get_by_text("The server does not answer").wait_for()


def test_a_model_that_was_given_away_completes_without_a_server(
    models: list[TextModel], browser: Any, tmp_path: Path
) -> None:
    from charrnn.sharing import page_file

    path = page_file.write(models[0], tmp_path / "given.html", "int8")
    said, asked = [], []
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{path.as_uri()}#complete")
    page.fill("#prime", HOSTILE)
    page.wait_for_selector(".ghost")
    assert page.locator("nav a").all_inner_texts() == ["Complete", "Surprise"]
    page.goto(f"{path.as_uri()}#surprise")
    page.fill("textarea.source", HOSTILE)
    page.click("button.primary")
    page.wait_for_selector(".characters span")
    assert page.evaluate("window.hurt") is None
    page.close()
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert said == []
