"""The runs of the home folder: listing them, finding one by name, choosing a place for a new one."""

import itertools
from contextlib import suppress
from pathlib import Path

from charrnn.errors import CharRNNError, OptionError, command
from charrnn.home import home
from charrnn.patterns import pattern
from charrnn.training import bundled, hub, tensor_header
from charrnn.training.run import Run
from charrnn.training.settings import Settings

MOST_NAME_BYTES = 200  # of a name that is made here: most systems take no more than 255
NAMED = 3  # so many names of runs stand in a hint
# Slashes make folders; control characters and line ends make a table of runs unreadable.
_UNFIT = pattern("[/\\\\\x00-\x1f\x7f-\x9f\u2028\u2029]")


def runs() -> list[Run]:
    """List the runs of the home folder that have a checkpoint, damaged ones too, newest first.

    What comes with the package is none of them, wherever it is.
    """
    return [run for run in folders() if run.exists()]


def folders() -> list[Run]:
    """List the folders of the home folder in which a run was ever begun, newest first."""
    try:
        found = [Run(path) for path in home().iterdir()]
    except OSError:  # it is not there, or may not be looked into
        return []
    own = (run for run in found if run.begun() and not run.is_bundled())
    return sorted(own, key=Run.saved_at, reverse=True)


def bundled_runs() -> list[Run]:
    """List the runs that come with the package."""
    return [Run(path) for path in bundled.folders().values()]


def find_run(name: str = "latest", own: bool = False, saved: bool = True) -> Run:
    """Find the run of that name in the home folder, at that path or address of the Hub, or the newest for 'latest'.

    Where the user has none, the latest is the one that comes with the package, unless it must be the user's own.
    saved: only one that has a checkpoint; else one that was begun will do, which can be resumed.
    Raises CharRNNError where there is none, with the nearest name as a hint, and where it has no checkpoint.
    """
    if hub.is_address(name):
        return hub.fetch(name)
    if name == "latest":
        known = runs() or ([] if own else bundled_runs())
        if not known:
            raise CharRNNError(f"there is no run in {home()} yet", f"train one: {command('train')}")
        return known[0]
    found = find_folder(name)
    if saved:
        found.refuse_unsaved()
    return found


def newest_interrupted() -> Run:
    """Find the newest run of the home folder that is not complete and that nobody trains, saved or only begun.

    One that diverged is complete. Raises CharRNNError where there is none.
    """
    for run in folders():
        with suppress(CharRNNError):  # it is damaged: `runs` says how
            if not run.in_use() and _is_interrupted(run):
                return run
    known = runs()
    lengthen = ("give a run and its new length: ", ("--resume", known[0].typed, "--steps", "N")) if known else None
    what, words = lengthen or ("train one: ", ())
    raise CharRNNError(f"no run in {home()} was interrupted", f"{what}{command('train', *words)}")


def _is_interrupted(run: Run) -> bool:
    """Tell whether a run that nobody trains can go on as it was planned. Raises CharRNNError where it is damaged."""
    if not run.exists():
        run.refuse_lost()
        run.config()
        return True
    about = run.about()
    return about["result"] is None and about.get("diverged") is None and not run.is_weights_alone()


def find_folder(name: str) -> Run:
    """Find the folder of a run, which may be damaged or have no checkpoint; raises CharRNNError where there is none."""
    for path in (home() / name, Path(name)):
        if Run(path).begun():
            return Run(path)
    for run in bundled_runs():
        if run.name == name:
            return run
    known = [run.name for run in folders()]
    if _is_pickled(name):
        raise CharRNNError(
            f"{name} is a file of torch.save or pickle, where a run is expected: reading it could run any program",
            "give the folder of a run, which holds safetensors and JSON alone, or convert the weights where you trust "
            "their writer",
        )
    raise CharRNNError(f"there is no run {name!r}{_what_it_is(name)}", _nearest(name, known))


def _is_pickled(name: str) -> bool:
    """Tell whether a path that was given for a run is a file of torch.save or pickle, by its first bytes."""
    try:
        if not Path(name).is_file():
            return False
        with Path(name).open("rb") as stream:
            return tensor_header.is_pickled(stream.read(tensor_header.LENGTH_BYTES))
    except (OSError, ValueError):  # too long for a name, or with a character that none has
        return False


def _what_it_is(name: str) -> str:
    """Say what stands at a path that was given for a run."""
    if not name:
        return ""
    try:
        return ", which is a file" if Path(name).is_file() else ", which is another folder" * Path(name).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a character that none has
        return ""


def _nearest(name: str, known: list[str]) -> str:
    """Return a hint with the runs whose names are nearest, or the newest, and how to see the others.

    known: the user's own; what comes with the package is named where it is near.
    """
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(name, [*known, *bundled.NAMES], n=NAMED, cutoff=0.5)
    if not known and not near:
        return f"train one: {command('train')}"
    named = near or known[:NAMED]
    beginning = "did you mean" if near else "the newest are" if len(known) > len(named) else "choose from:"
    more = len(set(known) - set(named))
    hint = f"{beginning} {', '.join(map(repr, named))}{'?' if near else ''}"
    return f"{hint}{'' if near else ';'} {command('runs')} lists {more} more" if more else hint


def open_run(settings: Settings, name: str | None = None, out: str | Path | None = None) -> Run:
    """Choose where a run is kept: the folder `out`, or one in the home folder called `name` or what it is about."""
    if name is not None and (not name or name in (".", "..", "latest") or _UNFIT.search(name)):
        raise OptionError(
            f"{name!r} cannot be the name of a run, which is one line without slashes",
            "use letters, digits, '-' and '.', or give --out",
        )
    return Run(Path(out) if out is not None else home() / (name or _free_name(settings)))


def _free_name(settings: Settings) -> str:
    """Make a name for a run that is not taken: corpus, cell and size, with a number where needed."""
    size = f"-{settings.hidden}x{settings.layers or 1}" if settings.hidden else ""
    from charrnn.text import corpora  # completing does without

    base = _UNFIT.sub("-", f"{corpora.stem(settings.corpus[0])}-{settings.cell}{size}")
    written = base.encode("utf-8", "surrogateescape")
    if len(written) > MOST_NAME_BYTES:
        base = written[:MOST_NAME_BYTES].decode("utf-8", "ignore")
    names = itertools.chain([base], (f"{base}-{n}" for n in itertools.count(2)))
    return next(name for name in names if not (home() / name).exists())
