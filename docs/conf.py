"""The site: sphinx-build -W -b html docs docs/_build. The pages are plain Markdown, so only links need help."""

import re
from pathlib import Path
from typing import Any

project = "charrnn"
author = "The charrnn authors"
project_copyright = author
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "charrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
suppress_warnings = ["misc.highlighting_failure"]  # of output of programs, shown as it is

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FROM_ROOT = {"index": "README.md", "sr/sveska": "README.sr.md"}  # pages of the site that are files outside docs/
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def _on_the_site(text: str, folder: Path) -> str:
    """Markdown whose links lead to pages of the site; one to another file of the repository is its words alone."""

    def link(match: re.Match[str]) -> str:
        picture, words, path, anchor = match.groups()
        target = (folder / path).resolve()
        if ":" in path or not target.is_relative_to(ROOT):
            return match[0]
        pages = {str(ROOT / file): f"/{page}.md" for page, file in FROM_ROOT.items()}
        page = f"/{target.relative_to(DOCS)}" if target.is_relative_to(DOCS) else pages.get(str(target))
        return f"{picture}[{words}]({page}{anchor or ''})" if page else words

    return LINK.sub(link, text)


def _read(app: Any, name: str, source: list[str]) -> None:
    if name in FROM_ROOT:
        source[0] = _on_the_site((ROOT / FROM_ROOT[name]).read_text(encoding="utf-8"), ROOT) + "\n" + source[0]
    else:
        source[0] = _on_the_site(source[0], (DOCS / name).parent)


def setup(app: Any) -> None:
    """Tell Sphinx."""
    app.connect("source-read", _read)
