"""A cell's equations in LaTeX, from the equations themselves: they run once on stand-ins that remember.

What the equations call a result is its name in the lines: the local variables of their functions are looked at while
they run. A name of what is only the argument of a gate becomes the gate's, so f = sigmoid(f) may be written or left
out. The parts of a parameter that is split bear the name of what they are for: W_f, U_f, b_f.

Vectors are columns, as in textbooks: W x, where the code has rows and writes x W.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from charrnn.cells import ops
from charrnn.cells.operation import Symbol
from charrnn.errors import CharRNNError

SIZES = (5, 7, 11)  # I, H, O of the record: no size stands in the lines
# Functions whose local variables are no names of equations.
OTHERS = {f"charrnn.cells.{name}" for name in ("latex", "operation", "ops", "cell")}
GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho"}
GREEK |= {"sigma", "tau", "phi", "chi", "psi", "omega", "zeta"}
TIME, OTHER_TIME = "t", r"\tau"  # the other, where the equations call a result t
SUM, PRODUCT, ATOM = range(3)  # how tightly something is bound: less than needed asks for brackets


class Term(Symbol):
    """A stand-in for an array of `width` numbers, 0 for a number that is the same for all.

    op: an operation of the table, 'softplus', or: 'constant', 'input', 'state', 'parameter' (data: what), 'block' (a
    part of a parameter), 'matmul', 'part' (of another result; data: where it begins, and its width), 'concat'.
    """

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic to us

    def __init__(self, record: "Record", number: int, op: str, args: tuple["Term", ...], width: int, data: Any) -> None:
        self.of, self.number, self.op, self.args, self.width, self.data = record, number, op, args, width, data
        self.shape: tuple[int, ...] = (width,)

    def record(self, operation: str, *arguments: Any) -> "Term":
        return self.of.operation(operation, *map(self.of.term, arguments))

    def __getitem__(self, key: Any) -> "Term":
        if self.op == "parameter" and isinstance(key, int) and len(self.data[2]) > 1:
            name, index, shape = self.data
            return self.of.parameter(name, (*index, range(shape[0])[key]), shape[1:])
        part = key[-1] if isinstance(key, tuple) and key[0] is Ellipsis else key
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise TypeError(f"indexing by {key!r}")
        first, last, _ = part.indices(self.width)
        return self.of.noted(self.of.part(self, first, last - first))

    def split(self, width: int, dim: int = -1) -> tuple["Term", ...]:
        return tuple(self[..., i : i + width] for i in range(0, self.width, width))

    def __matmul__(self, matrix: "Term") -> "Term":
        return self.of.noted(self.of.node("matmul", (self, matrix), matrix.width))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} of an array")


class Record:
    """All terms of one run of a cell's equations, each made once, and the names that they were given."""

    def __init__(self) -> None:
        self._terms: dict[tuple[Any, ...], Term] = {}
        self._frames: dict[int, FrameType] = {}  # kept: what a function gave its results is seen when it has returned
        self._seen: set[tuple[int, str, int]] = set()
        self.names: dict[Term, list[str]] = {}

    def node(self, op: str, args: tuple[Term, ...], width: int, data: Any = None) -> Term:
        """Return the term of an operation."""
        key = (op, *(a.number for a in args), width, data)
        if key not in self._terms:
            self._terms[key] = Term(self, len(self._terms), op, args, width, data)
        return self._terms[key]

    def term(self, value: Any) -> Term:
        """Return a term as it is, and a number as a constant."""
        if isinstance(value, Term):
            if len(value.shape) > 1:
                raise TypeError(f"arithmetic on a parameter of shape {value.shape}")
            return value
        return self.node("constant", (), 0, float(value))

    def parameter(self, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Term:
        """Return a parameter, or one of several that are stacked: name[index]."""
        made = self.node("parameter", (), shape[-1], (name, index, shape))
        made.shape = shape
        return made

    def operation(self, op: str, *args: Term) -> Term:
        """Return the term of an operation, or a simpler one that is the same."""
        numbers = [a.data for a in args if a.op == "constant"]
        if op == "mul" and 0.0 in numbers:  # of finite numbers
            return self.noted(self.term(0.0))
        if op in ("add", "sub") and len(numbers) == 2:
            return self.noted(self.term(numbers[0] + numbers[1] if op == "add" else numbers[0] - numbers[1]))
        if op == "add" and (inner := _softplus(*args)) is not None:
            return self.noted(self.node("softplus", (inner,), inner.width))
        width = sum(a.width for a in args) if op == "concat" else max(a.width for a in args)
        return self.noted(self.node(op, args, width))

    def part(self, term: Term, first: int, width: int) -> Term:
        """Return numbers `first` to `first + width` of a term, as near to its parameters as they can be taken."""
        if width == term.width or term.width == 0:
            return term
        if term.op == "matmul":
            return self.node("matmul", (term.args[0], self.part(term.args[1], first, width)), width)
        if term.op == "parameter":
            return self.node("block", (term,), width, (first, width))
        if term.op in ("block", "part"):
            return self.part(term.args[0], term.data[0] + first, width)
        if term.op == "concat":
            return self._part_of_joined(term.args, first, width)
        if term.op == "softplus" or (term.op in ops.TABLE and ops.TABLE[term.op].elementwise):
            return self.node(term.op, tuple(self.part(a, first, width) for a in term.args), width)
        return self.node("part", (term,), width, (first, width))

    def _part_of_joined(self, parts: Sequence[Term], first: int, width: int) -> Term:
        found = []
        for each in parts:
            low, high = max(first, 0), min(first + width, each.width)
            if low < high:
                found.append(self.part(each, low, high - low))
            first -= each.width
        whole = found[0]
        for each in found[1:]:
            whole = self.node("concat", (whole, each), whole.width + each.width)
        return whole

    def noted(self, term: Term) -> Term:
        """Look what the functions that are running call their results by now. Returns the term."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not _recorded.__code__:
            if frame.f_globals.get("__name__") not in OTHERS:
                self._frames[id(frame)] = frame
            frame = frame.f_back
        self.look()
        return term

    def look(self) -> None:
        """Note the names that are new."""
        for number, frame in self._frames.items():
            for name, value in frame.f_locals.items():
                if isinstance(value, Term) and not name.startswith("_"):
                    key = (number, name, value.number)
                    if key not in self._seen:
                        self._seen.add(key)
                        self.names.setdefault(value, []).append(name)


def _softplus(a: Term, b: Term) -> Term | None:
    """Return the x of relu(x) + log(1 + exp(-|x|)), which softplus is made of."""
    if a.op == "relu" and b.op == "log1p" and b.args[0].op == "exp" and b.args[0].args[0].op == "neg":
        absolute = b.args[0].args[0].args[0]
        if absolute.op == "abs" and absolute.args[0] is a.args[0]:
            return a.args[0]
    return None


def _recorded(cell: Any, record: Record, options: Mapping[str, int]) -> tuple[Term, tuple[Term, ...]]:
    """Run a cell's equations on stand-ins. Returns the output and the new states."""
    I, H, O = SIZES
    shapes = cell.shapes(I, H, O, **options)
    p = cell.pack([record.parameter(name, (), tuple(param.shape)) for name, param in shapes.items()])
    z = cell.inputs(record.node("input", (), I, "x"), p)
    y, after = cell.step(z, tuple(record.node("state", (), H, name) for name in cell.state), p)
    record.look()
    if not all(isinstance(term, Term) for term in (y, *after)):
        raise TypeError("a result that is not made of the cell's inputs")
    return y, tuple(after)


def lines(cell: Any, **options: int) -> list[str]:
    """Return the equations of a cell, a line of LaTeX each, `left &= right`, in the order in which they are computed.

    options: those of the cell, where they are not its defaults. Raises CharRNNError where the equations do what only
    Python can, such as a decision that depends on a value.
    """
    record = Record()
    try:
        y, after = _recorded(cell, record, options)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise CharRNNError(
            f"the equations of cell {cell.name!r} cannot be written in LaTeX: {error}",
            "write them with charrnn.cells.ops, + - * / and numbers alone",
        ) from error
    return list(_Writer(cell, record, y, after).lines())


class _Writer:
    """Decides what gets a line of its own and what it is called, and writes the lines."""

    def __init__(self, cell: Any, record: Record, y: Term, after: Sequence[Term]) -> None:
        self._states = list(cell.state)
        self._live = _reachable([y, *after])
        self._users: dict[Term, list[Term]] = {term: [] for term in self._live}
        for term in self._live:
            for a in term.args:
                self._users[a].append(term)
        self._hints = {term: list(names) for term, names in record.names.items() if term in self._users}
        self._same: list[tuple[str, Term]] = []  # states that are what another one is
        self._forced: dict[Term, str] = {}
        for name, term in zip(self._states, after, strict=True):
            if term in self._forced or _is_leaf(term):
                self._same.append((name, term))
            else:
                self._forced[term] = name
        if y not in self._forced and _is_leaf(y):
            self._same.append((self._output_name(), y))
        elif y not in self._forced:
            self._forced[y] = next(iter(self._hints.get(y, ())), self._output_name())
        self._lines = {**self._of_gates(), **self._forced}
        self._time = OTHER_TIME if TIME in self._lines.values() else TIME
        self._shown = self._called()
        self._blocks = self._parts_called()

    def lines(self) -> Iterator[str]:
        for term in sorted(self._lines, key=lambda each: each.number):
            yield f"{self._shown[term]} &= {self._right(term)[0]}"
        for name, term in self._same:
            yield f"{_with_index(name, self._time)} &= {self._write(term)[0]}"

    def _output_name(self) -> str:
        return "y" if "h" in self._states else "h"

    def _of_gates(self) -> dict[Term, str]:
        """Return the terms beside outputs and states that get a line, each with what the equations call it."""
        found = {}
        for term in self._live:
            names = self._hints.get(term, [])
            if not names or _is_leaf(term) or term in self._forced:
                continue
            users = self._users[term]
            if len(users) == 1 and self._is_gate(users[0]):
                self._hints.setdefault(users[0], []).extend(names)
                if users[0] not in self._forced:
                    found[users[0]] = names[-1]
            elif not self._is_affine(term) or len(users) > 1 or any(user.op == "matmul" for user in users):
                found[term] = names[-1]
        return {**found, **self._of_unnamed_sums(found)}

    def _of_unnamed_sums(self, known: Mapping[Term, str]) -> dict[Term, str]:
        """Return the gates of sums that have no name, as in sigmoid(f + uf), called after the shortest name in them."""
        found = {}
        for term in self._live:
            if self._is_gate(term) and term not in known and term not in self._forced:
                (of,) = term.args
                names = [name for a in of.args for name in self._hints.get(a, [])] if of.op == "add" else []
                if names and self._is_affine(of) and of not in known:
                    found[term] = min(names, key=len)
        return found

    def _is_gate(self, term: Term) -> bool:
        """Tell whether a term is a function of one argument that the equations give no name of its own."""
        return len(term.args) == 1 and term.op not in ("neg", "part", "block") and not self._hints.get(term)

    def _is_affine(self, term: Term) -> bool:
        if term.op in ("add", "sub", "neg"):
            return all(map(self._is_affine, term.args))
        return _is_leaf(term) or term.op == "matmul"

    def _called(self) -> dict[Term, str]:
        """Return what each line defines, as it is written: unlike all others, inputs and old states."""
        shown = {}
        for name in dict.fromkeys(self._lines.values()):
            same = sorted((term for term in self._lines if self._lines[term] == name), key=lambda each: each.number)
            last = [term for term in same if self._forced.get(term) == name]
            others = [term for term in same if term not in last]
            taken = bool(last) or name in ("x", *self._states)
            if len(others) == 2 and not taken and self._is_affine(others[0]):  # before and after a function
                shown[others[0]] = _with_index(name, self._time, before=r"\tilde{", after="}")
                shown[others[1]] = _with_index(name, self._time)
            elif len(others) == 1 and not taken:
                shown[others[0]] = _with_index(name, self._time)
            else:
                for k, term in enumerate(others, 1):
                    shown[term] = _with_index(name, self._time, after=f"^{{({k})}}")
            for term in last:
                shown[term] = _with_index(name, self._time)
        return shown

    def _parts_called(self) -> dict[Term, str]:
        """Return what the parts of parameters and results are called: after what they are for, or by number."""
        named: dict[Term, str] = {}

        def visit(term: Term, inherited: str, root: bool = False) -> None:
            if term in self._lines and not root:
                return
            own = self._hints.get(term, [])
            name = min([*own, inherited], key=len)
            if term.op in ("block", "part"):
                named.setdefault(term, name)
            for a in term.args:
                visit(a, name)

        for term in sorted(self._lines, key=lambda each: each.number):
            visit(term, self._lines[term], root=True)
        parts: dict[Term, list[Term]] = {}
        for part in named:
            parts.setdefault(part.args[0], []).append(part)
        for of in parts.values():
            if len({named[part] for part in of}) < len(of):
                ordered = sorted(of, key=lambda part: part.data)
                named.update({part: str(n) for n, part in enumerate(ordered, 1)})
        return named

    def _write(self, term: Term) -> tuple[str, int]:
        """Return a term in LaTeX, and how tightly it is bound; one with a line of its own is its name."""
        return (self._shown[term], ATOM) if term in self._lines else self._right(term)

    def _inside(self, term: Term, needed: int) -> str:
        text, bound = self._write(term)
        return f"({text})" if bound < needed else text

    def _right(self, term: Term) -> tuple[str, int]:
        """Return how a term is computed."""
        op, args = term.op, term.args
        if op == "constant":
            return f"{term.data:.10g}", ATOM if term.data >= 0 else SUM
        if op == "input":
            return _with_index(term.data, self._time), ATOM
        if op == "state":
            return _with_index(term.data, f"{self._time}-1"), ATOM
        if op == "parameter":
            return _parameter(term), ATOM
        if op == "block":
            return _parameter(args[0], self._blocks[term]), ATOM
        if op == "part":
            return f"[{self._write(args[0])[0]}]_{{{_word(self._blocks[term])}}}", ATOM
        if op == "matmul":
            return f"{self._write(args[1])[0]} {self._inside(args[0], ATOM)}", PRODUCT
        if op == "concat":
            return f"[{self._write(args[0])[0]}; {self._write(args[1])[0]}]", ATOM
        return self._operation(term)

    def _operation(self, term: Term) -> tuple[str, int]:
        op, args = term.op, term.args
        if op == "add":
            first, *others = [self._inside(a, SUM) for a in self._addends(term)]
            return first + "".join(f" - {a[1:]}" if a.startswith("-") else f" + {a}" for a in others), SUM
        if op == "sub":
            return f"{self._inside(args[0], SUM)} - {self._inside(args[1], PRODUCT)}", SUM
        if op == "neg" and args[0].op == "expm1":  # 1 - exp(x), as one would write it
            return f"1 - {_filled('exp', self._write(args[0].args[0])[0])}", SUM
        if op == "neg":
            return f"-{self._inside(args[0], PRODUCT)}", SUM
        if op == "mul":
            return self._product(*args), PRODUCT
        template = ops.TABLE[op].latex if op in ops.TABLE else ops.SOFTPLUS_LATEX
        written = template.format(*(self._write(a)[0] for a in args))
        return written, SUM if op == "expm1" else ATOM

    def _addends(self, term: Term) -> list[Term]:
        """Return what a sum is made of, biases last."""
        found: list[Term] = []
        for a in term.args:
            found += self._addends(a) if a.op == "add" and a not in self._lines else [a]
        return sorted(found, key=lambda a: a.op in ("parameter", "block"))

    def _product(self, a: Term, b: Term) -> str:
        if b.op == "constant":
            a, b = b, a
        if a.op == "constant":
            return f"{a.data:.10g} {self._factor(b)}"
        return rf"{self._factor(a)} \odot {self._factor(b)}"

    def _factor(self, term: Term) -> str:
        """Return a factor of an element-wise product; one by a matrix stands in brackets, since it is another kind."""
        if term not in self._lines and term.op == "matmul":
            return f"({self._write(term)[0]})"
        return self._inside(term, PRODUCT)


def _filled(op: str, *arguments: str) -> str:
    return ops.TABLE[op].latex.format(*arguments)


def _is_leaf(term: Term) -> bool:
    return term.op in ("constant", "input", "state", "parameter", "block")


def _reachable(outputs: Sequence[Term]) -> list[Term]:
    """List every term that the outputs need, each after its arguments."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term not in found:
            for a in term.args:
                visit(a)
            found[term] = None

    for term in outputs:
        visit(term)
    return sorted(found, key=lambda each: each.number)


def _word(text: str) -> str:
    """Return letters or a number as an index."""
    if text.lower() in GREEK:
        return f"\\{text}"
    return text if len(text) == 1 or text.isdigit() else rf"\mathrm{{{_plain(text)}}}"


def _plain(text: str) -> str:
    return text.replace("_", r"\_")


def _base(text: str) -> str:
    return f"\\{text}" if text.lower() in GREEK else text if len(text) == 1 else rf"\mathrm{{{_plain(text)}}}"


def _pieces(name: str) -> tuple[str, list[str]]:
    """Cut a name into what stands on the line and what stands below: W_ih, h1."""
    found = re.fullmatch(r"([^\W\d_]+)_?([^_]+)?", name)
    if found is None:
        return name, []
    return found[1], [found[2]] if found[2] else []


def _with_index(name: str, time: str, before: str = "", after: str = "") -> str:
    """Return a result with its time. before, after: what is put around its letter."""
    if name.startswith("log_") and len(name) > 4:
        return rf"\log {_with_index(name[4:], time, before, after)}"
    base, below = _pieces(name)
    return f"{before}{_base(base)}{after}_{{{','.join([*map(_word, below), time])}}}"


def _parameter(term: Term, part: str = "") -> str:
    name, index, _ = term.data
    base, below = _pieces(name)
    shown = _base(base)
    if index:
        shown += f"^{{({','.join(str(i + 1) for i in index)})}}"
    below = [*below, part] if part else below
    return shown + (f"_{{{','.join(map(_word, below))}}}" if below else "")
