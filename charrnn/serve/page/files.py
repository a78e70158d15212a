"""The files of the page, read once and known by their names alone, and the policy under which a browser runs them."""

from dataclasses import dataclass
from pathlib import Path

WEB = Path(__file__).parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
INDEX = "index.html"
# Scripts, styles and requests of this server alone. No string may become markup or code: a text of a corpus or a model
# can only be shown.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    content: bytes
    media_type: str


def read() -> dict[str, File]:
    """Read all files of the page, by name."""
    found = sorted(path for path in WEB.iterdir() if path.suffix in TYPES)
    return {path.name: File(path.read_bytes(), f"{TYPES[path.suffix]}; charset=utf-8") for path in found}
