"""The pages are held to the code: generated parts are fresh, links lead somewhere, the front page stays short."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
OF_THE_SITE = {ROOT / "docs" / "index.md", ROOT / "docs" / "sr" / "sveska.md"}  # conf.py fills them
PAGES = sorted(
    [ROOT / "README.md", ROOT / "README.sr.md", ROOT / "CONTRIBUTING.md"]
    + [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts and page not in OF_THE_SITE]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()
PARTS = [pytest.param(name, marks=pytest.mark.slow) if name in GENERATE.SLOW else name for name in GENERATE.PARTS]


def without_code(text: str) -> str:
    """Markdown without its blocks and pieces of code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures, those of the web left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^()\s]+)\)", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
        if found[anchor]:
            found[f"{anchor}-{found[anchor]}"] = 0
    return set(found)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_generated_is_fresh(name: str) -> None:
    assert GENERATE.generated(name) == GENERATE.written(name), "stale: run python docs/generate.py"


def test_a_json_field_without_a_description_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    described = {key: value for key, value in GENERATE.FIELDS["next"].items() if key != "prime"}
    monkeypatch.setitem(GENERATE.FIELDS, "next", described)
    monkeypatch.setattr(
        GENERATE,
        "printed",
        lambda line: {"run": "r", "prime": "p", "next": [], "others": 0.1, "picked": [], "text": ""},
    )
    with pytest.raises(ValueError, match="prime"):
        GENERATE.json_fields("next")


def test_a_description_without_a_json_field_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GENERATE, "printed", lambda line: {"run": "r", "next": [], "others": 0.1, "picked": [], "text": ""}
    )
    with pytest.raises(ValueError, match="prime"):
        GENERATE.json_fields("next")


def test_a_json_field_of_another_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GENERATE,
        "printed",
        lambda line: {"run": None, "prime": "p", "next": [], "others": 0.1, "picked": [], "text": ""},
    )
    with pytest.raises(ValueError, match="run"):
        GENERATE.json_fields("next")


def test_every_command_that_prints_json_has_its_fields_described() -> None:
    from charrnn import cli

    found = set()
    for name in cli.COMMANDS:
        command = cli.group.get_command(None, name)  # type: ignore[arg-type]
        inner = getattr(command, "commands", None)
        for path, each in {f"{name} {n}": c for n, c in inner.items()}.items() if inner else [(name, command)]:
            if any("--json" in param.opts for param in each.params):  # type: ignore[union-attr]
                found.add(path)
    assert found == set(GENERATE.FIELDS) | {"corpora fetch", "push"}  # which need a network


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_front_page() -> None:
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        to_read += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if link[0] != "#"]
    assert set(PAGES) <= reached


def test_every_page_is_on_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([\w/-]+)$", index, re.MULTILINE))
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES if (ROOT / "docs") in page.parents}
    assert listed == pages | {"sr/sveska"}


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 140


def test_the_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 60_000, picture


@pytest.mark.parametrize("name", NAMES)
def test_each_thing_has_one_name(name: str) -> None:
    prose = without_code((ROOT / name).read_text(encoding="utf-8"))
    if name in (
        "docs/commands.md",
        "docs/api.md",
        "docs/cells.md",
        "README.sr.md",
    ):  # the words of the code, and Serbian
        return
    for word in ("start row", "native engine", "native decoder", "go on with", "goes on with"):
        assert word not in prose.lower(), word


def test_the_extra_of_the_site_names_what_its_configuration_uses() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in extras["docs"]}
    assert names == {"sphinx", "myst-parser", "furo"}


def test_the_citation_has_the_version_of_the_package() -> None:
    import charrnn

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {charrnn.__version__}\n" in citation
