"""Characters of a text in HTML, written by plain Python: a template would be slower for the text of a book."""

import html

from charrnn.terminal import visible


def character(c: str, marked: bool) -> str:
    """Return a character of a text in HTML; what does not print becomes visible.

    marked: whether it has a ground, which would not show a line end.
    """
    if c not in "\n\t" and not c.isprintable():
        return html.escape(visible(c))
    return f"↵{c}" if c == "\n" and marked else html.escape(c, quote=False)
