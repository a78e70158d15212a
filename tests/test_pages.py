"""Templates: one place for all HTML, escaped, self-contained, and not paid for by who shows none."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markupsafe import Markup

import charrnn
from charrnn.pages import activation, filling, heat

PACKAGE = Path(charrnn.__file__).parent
ROOT = PACKAGE.parent
HOSTILE = "<script>alert(\"1\")</script> & 'x'"


def test_no_markup_is_written_outside_the_templates() -> None:
    """But for the pieces of a text, which are many."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is str]
        if any(re.search(r"</?(p|i|b|div|span|table|tr|td|th|pre|h[1-6]|style|body|html)\b[^<]*>", t) for t in texts):
            found.append(path.relative_to(PACKAGE).as_posix())
    assert sorted(found) == ["pages/activation.py", "pages/heat.py"]


@pytest.mark.parametrize("page", [heat.page, activation.page])
def test_what_a_page_is_given_is_escaped(page: object) -> None:
    text = "".join(page(HOSTILE, [9.0] * len(HOSTILE), HOSTILE, HOSTILE))  # type: ignore[operator]
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 4
    assert not re.search(r"https?:|<link|<script|@import|url\(", text)


def test_markup_is_what_was_made_so() -> None:
    filled = filling.fill("heat.html", about=HOSTILE, legend=[], prime=HOSTILE, pieces=[HOSTILE], left_out=0)
    assert isinstance(filled, Markup)
    assert filled.count("&lt;script&gt;") == 3
    assert "<script" not in filled


def test_a_page_reads_right_to_left_where_its_text_does() -> None:
    for text in ("".join(heat.page("א", [1.0], "א", "א")), "".join(activation.page("א", [1.0], "א", "א"))):
        assert {tag for tag in ("h1", "p", "pre") if f'<{tag} dir="auto">' in text} == {"h1", "p", "pre"}


def test_what_shows_no_html_does_without_jinja2() -> None:
    """A completion is HTML only where a notebook asks for it."""
    code = (
        "import sys, charrnn, charrnn.api, charrnn.cli.sample, charrnn.cli.score, charrnn.cli.inspect\n"
        "print([m for m in ('jinja2', 'markupsafe', 'matplotlib', 'pandas', 'IPython') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
