"""The files that hold cells, each imported by itself: a faulty one costs its own cells and no others."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from charrnn.cells.cell import Cell
from charrnn.cells.checking import check as check
from charrnn.cells.slips import SERVING as SERVING
from charrnn.cells.slips import EquationsError
from charrnn.errors import CharRNNError
from charrnn.patterns import pattern

# How a file names its cell. Looked for in the text, since a file that cannot be imported can still be asked for.
_NAMED = pattern(r"""(?:\bCell\(\s*|\bname\s*=\s*)["']([^"'\n]+)["']""")
_REPAIR = "correct the file, or move it out of that folder"


@dataclass(frozen=True)
class Broken:
    """A file that cannot give its cell.

    file: its path. reason: why, on one line, with the place where there is one. hint: what to do. names: the cells that
    may be meant by it. error: what Python raised, if anything.
    """

    file: str
    reason: str
    hint: str = _REPAIR
    names: frozenset[str] = frozenset()
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class CellFile:
    """A file of a package whose modules are cells. module: its name within the package."""

    package: str
    folder: Path
    module: str
    path: Path

    def is_called(self, name: str) -> bool:
        """Tell whether the file is called like a cell of that name: nn_gru.py for nn.GRU."""
        return _plain(self.module) == _plain(name)

    def broken(self, reason: str, hint: str = _REPAIR, error: BaseException | None = None) -> Broken:
        """Describe this file as one that cannot be used."""
        try:
            named = _NAMED.findall(self.path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            named = []
        names = {self.module, self.module.replace("_", "-"), *named}
        return Broken(str(self.path), " ".join(reason.split()), hint, frozenset(names), error)

    def load(self, taken: frozenset[str]) -> Cell | Broken:
        """Import the file and return its cell, or the reason why there is none.

        taken: what the package itself defines: an imported module becomes a name of its package.
        """
        if self.module in taken:
            return self.broken(f"the registry itself has something named {self.module!r}", "give the file another name")
        if "." in self.module:
            return self.broken(
                "no module of Python has a point in its name", "rename it: an underscore in place of the point"
            )
        try:
            module = importlib.import_module(f"{self.package}.{self.module}")
        except (Exception, SystemExit) as error:  # whatever the file does: no other cell may suffer
            return self._failed(error)
        if not hasattr(module, "cell"):
            return self.broken(
                "it defines no `cell`",
                "end it with cell = Cell(...); begin the name of a file that only helps others with an underscore",
            )
        try:
            check(module.cell)
        except EquationsError as error:  # it says where
            return self.broken(error.problem.removeprefix(f"{self.path.name}, "), error.hint, error.__cause__)
        except CharRNNError as error:
            where = "" if error.__cause__ is None else self._place(error.__cause__)
            return self.broken(f"{where}{error.problem}", error.hint, error.__cause__)
        found: Cell = module.cell
        return found

    def _failed(self, error: BaseException) -> Broken:
        """Say in words what an import raised, and where."""
        where = self._place(error)
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            root = error.name.partition(".")[0]
            if error.name == f"{self.package}.{self.module}":
                return self.broken("there is no file to read", _REPAIR, error)
            if root != self.package.partition(".")[0]:
                hint = f"pip install {root}, unless its name is written wrong in the file"
                return self.broken(f"{where}it imports {error.name}, which is not installed", hint, error)
        if isinstance(error, SyntaxError):
            return self.broken(f"{where}{error.msg}", _REPAIR, error)
        if isinstance(error, CharRNNError):
            return self.broken(f"{where}{error.problem}", error.hint or _REPAIR, error)
        if isinstance(error, SystemExit):
            return self.broken(f"{where}it ends the program when it is imported", _REPAIR, error)
        return self.broken(f"{where}{type(error).__name__}: {error}", _REPAIR, error)

    def _place(self, error: BaseException) -> str:
        """Return 'line 3: ', or '_shared.py, line 3: ' where another file of the folder failed."""
        if isinstance(error, SyntaxError) and error.filename is not None:
            file, line = Path(error.filename), error.lineno
        else:
            import traceback

            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if Path(frame.filename).is_relative_to(self.folder)]
            # What serves all cells lies in the folder too, and is where every cell may come by.
            ours = [frame for frame in ours if Path(frame.filename).stem not in ("__init__", *SERVING)]
            if not ours:
                return ""
            file, line = Path(ours[-1].filename), ours[-1].lineno
        if not line:
            return ""
        return f"line {line}: " if file == self.path else f"{file.name}, line {line}: "


def find(package: str, folders: list[str]) -> Iterator[CellFile]:
    """Find the files of a package that should each hold a cell, in alphabetical order.

    A name that begins with an underscore is not a cell's: such files help others.
    """
    for place in folders:
        folder = Path(place)
        for module in sorted(pkgutil.iter_modules([place]), key=lambda module: module.name):
            if not module.name.startswith("_"):
                path = folder / module.name / "__init__.py" if module.ispkg else folder / f"{module.name}.py"
                yield CellFile(package, folder, module.name, path)
        # Python passes over these in silence.
        for path in sorted(folder.glob("*.*.py")):
            if not path.name.startswith(("_", ".")):
                yield CellFile(package, folder, path.stem, path)


def owners(claims: list[tuple[CellFile, Cell]]) -> tuple[dict[str, Cell], list[Broken]]:
    """Give each cell to the file that claims its name; return the cells by name, and the files that get none.

    Where several files claim one name for different cells, it belongs to the file that is called like it. Without such
    a file nobody gets it: which cell a run was trained with must not depend on the order of the files.
    """
    cells: dict[str, Cell] = {}
    broken = []
    for name in dict.fromkeys(cell.name for _, cell in claims):
        rivals = [(file, cell) for file, cell in claims if cell.name == name]
        if any(cell != rivals[0][1] for _, cell in rivals):
            called_so = [(file, cell) for file, cell in rivals if file.is_called(name)]
            owner = called_so[0] if len(called_so) == 1 else None
            for file, _ in rivals:
                others = ", ".join(dict.fromkeys(other.path.name for other, _ in rivals if other != file))
                if owner is None or file != owner[0]:
                    reason = f"it names its cell {name!r}, and so does {others}"
                    broken.append(file.broken(reason, "choose another name for the cell in one of them"))
            rivals = [] if owner is None else [owner]
        if rivals:
            cells[name] = rivals[0][1]
    return cells, broken


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())
