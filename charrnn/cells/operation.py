"""What an operation of equations is: a row of the table in `charrnn.cells.ops`, with all that is asked about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

Array = Any  # a NumPy array, a torch tensor or a symbol: the equations do not care which


class Symbol:
    """A stand-in for an array, which records what is done to it; the compiler's graphs are made of such."""

    def record(self, operation: str, *arguments: Any) -> Self:
        """Return what stands for the result of an operation, by name."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Self:
        return self.record("add", self, other)

    def __radd__(self, other: Any) -> Self:
        return self.record("add", other, self)

    def __sub__(self, other: Any) -> Self:
        return self.record("sub", self, other)

    def __rsub__(self, other: Any) -> Self:
        return self.record("sub", other, self)

    def __mul__(self, other: Any) -> Self:
        return self.record("mul", self, other)

    def __rmul__(self, other: Any) -> Self:
        return self.record("mul", other, self)

    def __truediv__(self, other: Any) -> Self:
        return self.record("div", self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self.record("div", other, self)

    def __neg__(self) -> Self:
        return self.record("neg", self)

    def __abs__(self) -> Self:
        return self.record("abs", self)


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation, for everything that computes equations. Calling it works on arrays, tensors and symbols.

    name: in graphs. says: what it returns, in a sentence or two.
    numpy, torch: the function on NumPy arrays and on torch's tensors.
    derivative(d, *arguments, y): what each argument gets of d, the derivative by the result y; in the same order. None
    for what is not differentiated: a derivative's own operations, and what no engine compiles for training.
    cost: in additions, when it must be decided whether to recompute a result or to store it.
    llvm(m, *arguments): emits it with `charrnn.compiler.arithmetic.Maths`, for training and completing. Of a
        reduction, the arguments are what is reduced so far and what comes to it. Another operation that is not
        elementwise gets whole arrays, and is written in other rows.
    triton: of an elementwise operation, Triton with a place {} for each argument, which are arrays or numbers.
    onnx(graph, *arguments): adds nodes with `graph.add` and `graph.number`, and returns the last one.
    javascript: JavaScript with a place {} for each argument; of an operation that is not elementwise, these are arrays,
        and there is one place more, for that into which its result goes.
    latex: LaTeX with a place {} for each argument.
    parameters: the names of its arguments. elementwise: whether number j of the result depends on numbers j alone.
    identity: of a reduction of all features to one number, what it begins with; None for what is no reduction.
    """

    name: str
    says: str
    numpy: Callable[..., Any]
    torch: Callable[..., Any]
    derivative: Callable[..., tuple[Any, ...]] | None = None
    cost: int = 1
    llvm: Callable[..., Any] | None = None
    triton: str = ""
    onnx: Callable[..., Any] | None = None
    javascript: str = ""
    latex: str = ""
    parameters: tuple[str, ...] = ("x",)
    elementwise: bool = True
    identity: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.says)

    def __call__(self, *arguments: Array) -> Array:
        first = arguments[0]
        if isinstance(first, np.ndarray | np.generic):  # NumPy makes scalars of arrays without axes
            return self.numpy(*arguments)
        if isinstance(first, Symbol):
            return first.record(self.name, *arguments)
        return self.torch(*arguments)
