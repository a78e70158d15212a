"""The draw of `charrnn.generate.sampling` as LLVM instructions: the same float64 arithmetic in the same order.

So equal logits give equal ids. What does not depend on an order is done for a register of numbers at once.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from charrnn.compiler.arithmetic import Maths, Value, in_parts, read, reduced, registers, write
from charrnn.compiler.emitting import DOUBLE, I8, I64, define, load, loop, nth, splat

Each = Callable[[Maths, Any], Value]


class _Numbers:
    """Emits arithmetic on V float64 numbers: by their address, or float32 logits widened."""

    def __init__(self, builder: Any, V: Any) -> None:
        self.builder, self.V = builder, V
        self.one = Maths(builder, 1, double=True)

    def parts(self) -> list[tuple[Maths, Any, Any]]:
        return in_parts(self.builder, self.V, double=True)

    def each(self, emit: Each) -> None:
        """Do something with each number."""
        for maths, j in registers(self.builder, self.V, double=True):
            emit(maths, j)

    def reduced(self, op: str, start: float, emit: Each) -> Value:
        return reduced(self.builder, self.V, op, start, emit, double=True)

    def total(self, emit: Each) -> Value:
        """Add numbers up from the first to the last, one after the other."""
        result = self.one.constant(0)
        for maths, begin, end in self.parts():
            turns = loop(self.builder, begin, end, maths.lanes, [result.ir])
            with turns as j:
                result = Value(self.one, turns.carried[0])
                for number in maths.numbers(emit(maths, j)):
                    result = result + number
                turns.carry([result.ir])
            result = Value(self.one, turns.carried[0])
        return result

    def read(self, maths: Maths, numbers: Any, j: Any) -> Value:
        return read(maths, nth(self.builder, numbers, j, 8), 8)

    def write(self, value: Value, numbers: Any, j: Any) -> Value:
        write(value.maths, value, nth(self.builder, numbers, j, 8), 8)
        return value

    def logits(self, maths: Maths, logits: Any, j: Any) -> Value:
        return read(maths, nth(self.builder, logits, j, 4), 4)

    def normalise(self, numbers: Any, total: Value) -> None:
        """Divide numbers by their sum."""
        self.each(lambda m, j: self.write(self.read(m, numbers, j) / m.splat(total), numbers, j))


def emit_choose(module: Any) -> Any:
    """Emit the function that draws: of logits (V,) float32, V, allowed (V,) bytes, the four numbers of
    `sampling.filters`, u, and room for 2 V float64. Its result is an id, or -1 where the logits are not finite.
    """
    keep = _emit_keep(module)
    kinds = [I64, I64, I64, I64, DOUBLE, I64]
    function, builder, (logits, V, allowed, filters, u, p) = define(module, "choose", kinds, I64)
    numbers, one = _Numbers(builder, V), Maths(builder, 1, double=True)
    temperature, top_k, top_p, min_p = (numbers.read(one, filters, I64(k)) for k in range(4))

    def masked(maths: Maths, j: Any) -> Value:
        may = load(builder, builder.add(allowed, j), maths.many(I8))
        is_allowed = builder.icmp_unsigned("!=", may, ir.Constant(may.type, None))
        return numbers.write(maths.choose(is_allowed, numbers.logits(maths, logits, j), -math.inf), p, j)

    top = numbers.reduced("maximum", -math.inf, masked)
    is_finite = builder.and_(top.compare(">", -math.inf), top.compare("<", math.inf))
    with builder.if_then(builder.not_(is_finite)):
        builder.ret(I64(-1))
    with builder.if_then(temperature.compare("==", 0)):
        with loop(builder, I64(0), V, 1) as i, builder.if_then(numbers.read(one, p, i).compare("==", top)):
            builder.ret(i)
        builder.ret(I64(-1))

    def share(maths: Maths, j: Any) -> Value:
        x = (numbers.read(maths, p, j) - maths.splat(top)) / maths.splat(temperature)
        return numbers.write(maths.exp(x), p, j)

    numbers.normalise(p, numbers.total(share))
    count = builder.fptosi(top_k.ir, I64)
    with builder.if_then(builder.icmp_signed("<", count, V)):
        builder.call(keep, [p, V, count, ir.Constant(DOUBLE, math.inf)])
    with builder.if_then(top_p.compare("<=", 1)):
        builder.call(keep, [p, V, V, top_p.ir])
    with builder.if_then(min_p.compare(">=", 0)):
        bound = numbers.reduced("maximum", 0, lambda m, j: numbers.read(m, p, j)) * min_p

        def likely(maths: Maths, j: Any) -> Value:
            x = numbers.read(maths, p, j)
            return numbers.write(maths.choose(x.compare("<", maths.splat(bound)), 0, x), p, j)

        numbers.normalise(p, numbers.total(likely))
    turns = loop(builder, I64(0), V, 1, [one.constant(0).ir, I64(0)])
    with turns as i:
        x = numbers.read(one, p, i)
        cumulative = Value(one, turns.carried[0]) + x
        with builder.if_then(cumulative.compare(">", Value(one, u))):
            builder.ret(i)
        turns.carry([cumulative.ir, builder.select(x.compare(">", 0), i, turns.carried[1])])
    builder.ret(turns.carried[1])  # the last sum may round below 1
    return function


def _emit_keep(module: Any) -> Any:
    """Emit the function that keeps the likeliest of p (V,): of p with room for V more behind it, V, how many, and the
    sum of shares at which no more are taken. Of equal ones the lower id goes first. The rest become 0.
    """
    settle = _emit_settle(module)
    function, builder, (p, V, count, mass) = define(module, "keep", [I64, I64, I64, DOUBLE])
    numbers, one = _Numbers(builder, V), Maths(builder, 1, double=True)
    kept = nth(builder, p, V, 8)
    numbers.each(lambda m, j: numbers.write(m.constant(0), kept, j))
    turns = loop(builder, I64(0), count, 1, [one.constant(math.inf).ir, I64(-1), one.constant(0).ir])
    with turns:
        last, last_id, so_far = turns.carried
        best, id_ = _following(numbers, p, Value(one, last), last_id)
        cumulative = Value(one, so_far) + best
        is_over = (cumulative - best).compare(">=", Value(one, mass))
        with builder.if_then(builder.or_(best.compare("<=", 0), is_over)):
            builder.call(settle, [p, V])
            builder.ret_void()
        numbers.write(best, kept, id_)
        turns.carry([best.ir, id_, cumulative.ir])
    builder.call(settle, [p, V])
    builder.ret_void()
    return function


def _following(numbers: _Numbers, p: Any, last: Value, last_id: Any) -> tuple[Value, Any]:
    """Emit the search for what follows an id in the order from the likeliest on: its share, 0 for none, and it."""
    builder, best, best_id = numbers.builder, numbers.one.constant(0), I64(0)
    for maths, begin, end in numbers.parts():
        starts = [splat(builder, start, maths.lanes) for start in (best.ir, best_id)]
        turns = loop(builder, begin, end, maths.lanes, starts)
        with turns as j:
            x, so_far = numbers.read(maths, p, j), Value(maths, turns.carried[0])
            lanes = list(range(maths.lanes)) if maths.lanes > 1 else 0
            ids = builder.add(splat(builder, j, maths.lanes), ir.Constant(maths.many(I64), lanes))
            is_later = builder.icmp_signed(">", ids, splat(builder, last_id, maths.lanes))
            below, equal = (x.compare(how, maths.splat(last)) for how in ("<", "=="))
            follows = builder.or_(below, builder.and_(equal, is_later))
            is_better = builder.and_(follows, x.compare(">", so_far))
            turns.carry([maths.choose(is_better, x, so_far).ir, builder.select(is_better, ids, turns.carried[1])])
        shares, ids = turns.carried
        for lane, x in enumerate(maths.numbers(Value(maths, shares))):
            id_ = ids if maths.lanes == 1 else builder.extract_element(ids, I64(lane))
            is_first = builder.and_(x.compare("==", best), builder.icmp_signed("<", id_, best_id))
            is_better = builder.or_(x.compare(">", best), is_first)
            best, best_id = numbers.one.choose(is_better, x, best), builder.select(is_better, id_, best_id)
    return best, best_id


def _emit_settle(module: Any) -> Any:
    """Emit the function that takes what was kept behind p (V,) as p, and normalises it."""
    function, builder, (p, V) = define(module, "settle", [I64, I64])
    numbers = _Numbers(builder, V)
    kept = nth(builder, p, V, 8)
    numbers.normalise(p, numbers.total(lambda m, j: numbers.write(numbers.read(m, kept, j), p, j)))
    builder.ret_void()
    return function


def emit_cost(module: Any) -> Any:
    """Emit the function of the nats of an id, as `sampling.cost` has them: of logits (V,) float32, V, and the id."""
    function, builder, (logits, V, id_) = define(module, "cost", [I64, I64, I64], DOUBLE)
    numbers = _Numbers(builder, V)
    top = numbers.reduced("maximum", -math.inf, lambda m, j: numbers.logits(m, logits, j))
    total = numbers.reduced("total", 0, lambda m, j: m.exp(numbers.logits(m, logits, j) - m.splat(top)))
    own = numbers.logits(numbers.one, logits, id_)
    builder.ret((numbers.one.intrinsic("log", total) + top - own).ir)
    return function
