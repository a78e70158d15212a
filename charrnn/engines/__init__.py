"""Run a cell along time: five engines, the same numbers. Each is one file here, with the same two functions.

    supports(cell, device) -> bool             whether the engine can run a cell on a device
    run(cell, x, state, p) -> (y, state)       run one layer over a sequence

Where an engine has it, `run_layers` runs several in one call, and `note` tells a user about a run.
An engine is one such file and its row in `ENGINES`; nothing else knows their names. torch is imported with the file.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrnn.cells.slips import explained
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.cells.cell import Cell


@dataclass(frozen=True)
class Engine:
    """A way to run a cell along time.

    name: on the command line and in config.json. file: the module here that holds its functions. compiles: whether it
    prepares for seconds before the first step, which only a long run repays.
    """

    name: str
    file: str
    compiles: bool = False

    def supports(self, cell: "Cell", device: str = "cpu") -> bool:
        """Tell whether the engine can run a cell on a device, 'cpu' or 'cuda'."""
        return bool(self._functions.supports(cell, device))

    def run(self, cell: "Cell", x: Any, state: Any, p: Any) -> tuple[Any, Any]:
        """Run one layer over a sequence.

        x: (T, B, I), or a table (R, I) with ids (T, B). state: (B, H) tensors, not modified. p: from `Cell.pack`.
        Returns outputs (T, B, O) and the state after the last step. Raises CharRNNError, with the cell's line, for
        equations that torch cannot follow.
        """
        try:
            y, after = self._functions.run(cell, x, state, p)
        except (AttributeError, LookupError, NameError, TypeError, ValueError, RuntimeError) as error:
            said = None if _is_of_memory(error) else explained(cell, error)
            if said is None:
                raise
            raise said from error
        return y, after

    def run_layers(self, cell: "Cell", x: Any, states: Any, ps: Any) -> tuple[Any, Any] | None:
        """Run layers over a sequence, each on the output of the one before, in one call; None: this engine has none.

        x: as for `run`. states, ps: of each layer. Returns the last layer's outputs and each layer's state.
        """
        run_layers = getattr(self._functions, "run_layers", None)  # most files have none
        return None if run_layers is None else run_layers(cell, x, states, ps)

    def note(self, cell: "Cell", device: str, precision: str) -> str | None:
        """Say what a user should know about a run of a cell with this engine; None where there is nothing to know."""
        note = getattr(self._functions, "note", None)  # most files have none
        return None if note is None else note(cell, device, precision)

    @property
    def _functions(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.file}")


def _is_of_memory(error: Exception) -> bool:
    """Tell whether torch ran out of memory, which is no fault of the equations."""
    return type(error).__name__ == "OutOfMemoryError" or "memory" in str(error)


# In order of preference: those that need no preparation first, each the usually fastest.
ENGINES = (
    Engine("fused", "fused"),
    Engine("scan", "scan"),
    Engine("loop", "loop"),
    Engine("triton", "on_chip", compiles=True),
    Engine("native", "compiled", compiles=True),
)
NAMES = tuple(engine.name for engine in ENGINES)


def named(name: str) -> Engine:
    """Return the engine of a name, whatever it can run."""
    return next(engine for engine in ENGINES if engine.name == name)


def engines(cell: "Cell", device: str = "cpu") -> list[Engine]:
    """List the engines that can run a cell on a device, in order of preference."""
    return [engine for engine in ENGINES if engine.supports(cell, device)]


def names_for(cell: "Cell", device: str = "cpu") -> list[str]:
    """List the names of the engines that can run a cell on a device, in order of preference."""
    return [engine.name for engine in engines(cell, device)]


def why_not_compiled(cell: "Cell") -> str | None:
    """Say which operation of a cell has no compiled form on a CPU; None where all have one."""
    reason: str | None = named("native")._functions.why_not(cell)
    return reason


def choose(cell: "Cell", name: str, device: str = "cpu") -> Engine:
    """Return the engine asked for, for 'auto' the first that can run the cell; CharRNNError where it cannot."""
    known = engines(cell, device)
    if name == "auto":
        return known[0]
    for engine in known:
        if engine.name == name:
            return engine
    where = "" if device == "cpu" else f" on {device}"
    raise CharRNNError(
        f"the {name} engine cannot run cell {cell.name!r}{where}", f"use {' or '.join(e.name for e in known)}"
    )
