"""The registry of cells: one file of this folder per cell, found by looking, so that adding one touches one file.

A file that cannot be used costs its own cell alone: `broken` says why, and asking for its cell raises with the reason.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from charrnn.cells import cell_files
from charrnn.cells.cell import Cell, State, run_cell
from charrnn.cells.cell_files import Broken as Broken
from charrnn.errors import CharRNNError, did_you_mean

_PACKAGE = __name__.rpartition(".")[0]
# What the package offers: a module of such a name would take its place there.
_OWN_NAMES = frozenset({"Broken", "broken", "get", "names", "register", "run", "unregister"})

_registry: dict[str, Cell] = {}
_broken: list[Broken] = []
_discovered = False
_claimed: list[Cell] | None = None  # while a file is imported: the cells that it registers itself
_loaded: dict[str, tuple[Cell | Broken, list[Cell]]] = {}  # by module: what a file gave, and what it registered itself
_lock = threading.RLock()  # a file that registers its cell comes back here while it is imported


def register(cell: Cell) -> Cell:
    """Make a cell known by its name everywhere: training, sampling, comparison, documentation and tests.

    Raises CharRNNError for what is no cell, and where another cell has the name already; registering the same cell
    again changes nothing.
    """
    cell_files.check(cell)
    with _lock:
        if _claimed is not None:
            _claimed.append(cell)
            return cell
        _discover()
        known = _registry.get(cell.name)
        if known is not None and known != cell:
            raise CharRNNError(f"a cell named {cell.name!r} is registered already", "choose another name")
        _registry[cell.name] = cell
    return cell


def unregister(name: str) -> None:
    """Remove a cell that was registered with `register`."""
    with _lock:
        _registry.pop(get(name).name)


def names() -> list[str]:
    """List the names of every registered cell, in alphabetical order."""
    with _lock:
        _discover()
        return sorted(_registry, key=str.lower)


def broken() -> dict[str, Broken]:
    """Return the files of this folder that cannot be used, by name: which, why, and what to do."""
    with _lock:
        _discover()
        return {str(Path(each.file).relative_to(Path(__file__).parent)): each for each in _broken}


def get(name: str) -> Cell:
    """Return the cell of that name.

    Raises CharRNNError where there is none, with the nearest name as a hint, or with what is wrong in the cell's file.
    """
    with _lock:
        own = _from_own_file(name)
        if own is not None:
            return own
        _discover()
        if name in _registry:
            return _registry[name]
        for file in _broken:
            if name in file.names:
                raise CharRNNError(
                    f"the cell {name!r} cannot be used: {file.file}: {file.reason}", file.hint
                ) from file.error
        hint = did_you_mean(name, names())
        if _broken:
            hint += "; files of cells that cannot be used are named by `cells`"
        raise CharRNNError(f"there is no cell {name!r}", hint)


def _from_own_file(name: str) -> Cell | None:
    """Return the cell of the one file that is called like it, so that one cell does not cost importing all of them.

    None where the whole folder has to be looked through. The file owns the name, whatever else claims it: `owners`.
    """
    if _discovered or _claimed is not None or name in _registry:
        return None
    files = [file for file in _files() if file.is_called(name)]
    if len(files) != 1:
        return None
    found, _ = _load(files[0])
    return found if isinstance(found, Cell) and found.name == name else None


def _files() -> Iterator[cell_files.CellFile]:
    for file in cell_files.find(_PACKAGE, [str(Path(__file__).parent)]):
        if file.module not in cell_files.SERVING:
            yield file


def _load(file: cell_files.CellFile) -> tuple[Cell | Broken, list[Cell]]:
    """Import a file once, and return what it gave and the cells that it registered itself."""
    global _claimed
    if file.module not in _loaded:
        _claimed = []
        try:
            _loaded[file.module] = (file.load(_OWN_NAMES), _claimed)
        finally:
            _claimed = None
    return _loaded[file.module]


def _discover() -> None:
    """Import every file once; an interruption in the middle leaves everything to the next call."""
    global _discovered
    with _lock:
        if _discovered or _claimed is not None:
            return
        claims: list[tuple[cell_files.CellFile, Cell]] = []
        failed: list[Broken] = []
        for file in _files():
            found, registered = _load(file)
            if isinstance(found, Broken):
                failed.append(found)
            else:
                claims += [(file, cell) for cell in (found, *registered)]
        known, nameless = cell_files.owners(claims)
        _registry.update(known)
        _broken.extend(sorted([*failed, *nameless], key=lambda each: each.file))
        _discovered = True


def run(
    cell: str | Cell, inputs: NDArray[Any], params: Mapping[str, NDArray[Any]], state: State | None = None
) -> tuple[NDArray[Any], State]:
    """Run the equations of a cell, given or by name, over a NumPy sequence; see `charrnn.cells.cell.run_cell`."""
    return run_cell(get(cell) if isinstance(cell, str) else cell, inputs, params, state)
