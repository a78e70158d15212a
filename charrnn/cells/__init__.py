"""The registry of cells: one file of this folder per cell, found by looking, so that adding one touches one file."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from charrnn.cell import Cell, State, run_cell
from charrnn.errors import CharRNNError, did_you_mean

_registry: dict[str, Cell] = {}
_discovered = False


def register(cell: Cell) -> Cell:
    """Make a cell known by its name everywhere: training, sampling, comparison, documentation and tests.

    Raises CharRNNError where another cell has the name already; registering the same cell again changes nothing.
    """
    known = _registry.get(cell.name)
    if known is not None and known != cell:
        raise CharRNNError(f"a cell named {cell.name!r} is registered already", "choose another name")
    _registry[cell.name] = cell
    return cell


def unregister(name: str) -> None:
    """Forget a cell that was registered with `register`."""
    _registry.pop(get(name).name)


def names() -> list[str]:
    """The names of every registered cell, in alphabetical order."""
    _discover()
    return sorted(_registry, key=str.lower)


def get(name: str) -> Cell:
    """The cell of that name. Raises CharRNNError, with the nearest name as a hint, where there is none."""
    _discover()
    if name not in _registry:
        raise CharRNNError(f"there is no cell {name!r}", did_you_mean(name, names()))
    return _registry[name]


def _discover() -> None:
    global _discovered
    if not _discovered:
        _discovered = True
        for module in pkgutil.iter_modules(__path__):
            register(importlib.import_module(f"{__name__}.{module.name}").cell)


def run(
    cell: str | Cell, inputs: NDArray[Any], params: Mapping[str, NDArray[Any]], state: State | None = None
) -> tuple[NDArray[Any], State]:
    """Run the equations of a cell, given or by name, over a NumPy sequence; see `charrnn.cell.run_cell`."""
    return run_cell(get(cell) if isinstance(cell, str) else cell, inputs, params, state)
