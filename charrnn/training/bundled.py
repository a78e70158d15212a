"""Runs that come with the package: read-only, never removed, and chosen by themselves only where a user has none."""

from pathlib import Path

NAMES = ("rekurentne",)


def folders() -> dict[str, Path]:
    """Return the folder of each run that comes with the package, by name: in a wheel, or in a checkout."""
    package = Path(__file__).parent.parent
    found: dict[str, Path] = {}
    for name in NAMES:
        for base in (package, package.parent):
            path = base / "checkpoints" / name
            if (path / "run.json").is_file():
                found.setdefault(name, path)
    return found


def is_bundled(path: Path) -> bool:
    """Tell whether a folder is that of a run which comes with the package, by whatever path it is named."""
    try:
        return any(path.resolve() == folder.resolve() for folder in folders().values())
    except (OSError, ValueError, RuntimeError):  # too long for a name, a link to itself
        return False
