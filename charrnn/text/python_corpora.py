"""Corpora that every Python brings along: the language's own documentation and the standard library's source."""

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from charrnn.errors import CharRNNError

Documents = Iterator[tuple[str, bytes]]  # name and UTF-8 of each document, in a fixed order

# Not the library itself: what was installed beside it, and its tests, which hold broken files on purpose.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def python_docs() -> Documents:
    """Yield the topics of `help()`: the language reference in English, without reStructuredText's marks."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CharRNNError(
            "this Python has no pydoc_data, which holds its documentation", "install Python's complete standard library"
        ) from None
    for name in sorted(topics):
        yield f"python-docs/{name}", (topics[name].strip() + "\n").encode()


def python_source() -> Documents:
    """Yield the modules of the standard library, in the order of their paths."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = [path for path in sorted(library.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(library).parts)]
    if not modules:
        raise CharRNNError(
            f"there are no sources in {library}, where Python's library is", "install Python with its sources"
        )
    for path in modules:
        yield f"python-source/{path.relative_to(library)}", path.read_bytes()


READERS: dict[str, Callable[[], Documents]] = {"python-docs": python_docs, "python-source": python_source}
