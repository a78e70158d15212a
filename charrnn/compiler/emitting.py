"""What every emitter of LLVM instructions is written with: kinds of numbers, functions, loops, numbers in memory."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

I8, I16, I32, I64, VOID = *map(ir.IntType, (8, 16, 32, 64)), ir.VoidType()
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
CACHE_LINE = 64  # bytes


class BFloat(ir.Type):  # type: ignore[misc]  # llvmlite is not typed
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def define(module: Any, name: str, kinds: Sequence[Any], result: Any = VOID, linkage: str = "") -> tuple[Any, Any, Any]:
    """Define a function; return it, what emits into it, and its arguments."""
    function = ir.Function(module, ir.FunctionType(result, kinds), name)
    function.linkage = linkage
    return function, ir.IRBuilder(function.append_basic_block("entry")), function.args


def call(builder: Any, name: str, result: Any, args: Sequence[Any]) -> Any:
    """Call a function that is defined elsewhere: LLVM's own, or one of the C library."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)


def splat(builder: Any, number: Any, lanes: int) -> Any:
    """Return a number in every lane."""
    if lanes == 1:
        return number
    nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, number, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def prefetch(builder: Any, address: Any) -> None:
    """Ask for the cache line in which an address is."""
    place = builder.inttoptr(address, I8.as_pointer())
    call(builder, "llvm.prefetch.p0", VOID, [place, I32(0), I32(3), I32(1)])  # to read, to keep, data


class loop:  # noqa: N801  # used as a statement
    """`with loop(builder, begin, end, step) as i:` emits what is inside as a loop while i + step <= end (step > 0).

    starts: of values that go from each turn to the next, as `carried`; `carry` says which the next turn gets. After
    the loop, `carried` is what the last turn gave.
    """

    def __init__(self, builder: Any, begin: Any, end: Any, step: int, starts: Sequence[Any] = ()) -> None:
        self.builder, self.begin, self.end, self.step, self.starts = builder, begin, end, step, starts

    def __enter__(self) -> Any:
        builder = self.builder
        before = builder.block
        self.test, body, self.after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
        builder.branch(self.test)
        builder.position_at_end(self.test)
        self.i = builder.phi(I64)
        self.i.add_incoming(self.begin, before)
        self.carried = [builder.phi(start.type) for start in self.starts]
        for value, start in zip(self.carried, self.starts, strict=True):
            value.add_incoming(start, before)
        self.following = builder.add(self.i, I64(self.step))
        builder.cbranch(builder.icmp_signed("<=", self.following, self.end), body, self.after)
        builder.position_at_end(body)
        return self.i

    def carry(self, values: Sequence[Any]) -> None:
        """Say, at the end of the loop's body, what the next turn gets."""
        for carried, value in zip(self.carried, values, strict=True):
            carried.add_incoming(value, self.builder.block)

    def __exit__(self, *exception: object) -> None:
        self.i.add_incoming(self.following, self.builder.block)
        self.builder.branch(self.test)
        self.builder.position_at_end(self.after)


def nth(builder: Any, base: Any, i: Any, size: Any) -> Any:
    """Return the address of the i-th of numbers, or of rows, that stand at another one, from 0. size: bytes of each."""
    return builder.add(base, builder.mul(i, size if hasattr(size, "type") else I64(size)))


def load(builder: Any, address: Any, kind: Any, align: int | None = None) -> Any:
    """Load what stands at an address, aligned as a number is if nothing else is said."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align or size_of(kind), typ=kind)


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=size_of(value.type))


def size_of(kind: Any) -> int:
    """Return the bytes of a number, of a vector of them too."""
    number = kind.element if isinstance(kind, ir.VectorType) else kind
    return 8 if isinstance(number, ir.DoubleType) else 4 if number == FLOAT else int(number.width) // 8
