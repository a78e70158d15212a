"""Tables of direct connections in training: what a window reads of them, and the step that it takes, as machine code.

Of some hundred thousand rows a window reads some thousand, several of them more than once. For a step the gradients of
a row are added up first, in the order in which they come; then each row is changed once, by AdaGrad with a sum a row:

    s <- s + mean of g^2        w <- w - rate g / (sqrt(s) + small)

Threads share the places that are read, and the tables that learn: no number depends on how many threads there are.
"""

import itertools
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from charrnn.compiler import cache as disk
from charrnn.compiler.arithmetic import Maths, Value, read, reduced, registers, write
from charrnn.compiler.emitting import CACHE_LINE, FLOAT, I32, I64, define, load, loop, nth, prefetch, store
from charrnn.compiler.lookups import emit_rows
from charrnn.compiler.objects import compiled, new_module
from charrnn.compiler.training import threads as team
from charrnn.compiler.training.row_gradient import RowGradient
from charrnn.errors import WrongCodeWarning
from charrnn.text import contexts

PARTS = 3  # for each thread: six tables are as many parts for two
AHEAD = 8  # places, or rows, of which rows are asked for in advance: they are anywhere in memory
PLACES = 256  # of a window are worth waking a thread for
TOLERANCE = 1e-4  # of the norm of what code gives: wrong code is far off
_preparing = threading.Lock()
_scratch = threading.local()


def look_up(
    table: Tensor, ids: Tensor, before: Tensor, shares: Tensor | None, start: int, R: int
) -> tuple[Tensor, Tensor]:
    """Return the rows (N, T, B) that ids (T, B) choose, and their sum (T, B, C), without gradients.

    table: (N R, C). before: the last N - 1 ids before the window, (B, N - 1). shares: (N, B), what the rows of a table
    are multiplied by; None: by 1. start: the id of the start token.
    """
    code = _code(before.shape[1] + 1) if _is_plain(table) else None
    if code is not None:
        return _read(code, table, ids, before, shares, start, R)
    rows = contexts.rows_of_window(ids, before, start, R, torch)
    found = torch.nn.functional.embedding(rows, table.detach())
    return rows, (found if shares is None else found * shares[:, None, :, None]).sum(dim=0)


def _read(
    code: "_Code",
    table: Tensor,
    ids: Tensor,
    before: Tensor,
    shares: Tensor | None,
    start: int,
    R: int,
    parts: int | None = None,
) -> tuple[Tensor, Tensor]:
    N, (T, B), C = before.shape[1] + 1, ids.shape, table.shape[1]
    rows, summed = torch.empty(N, T, B, dtype=torch.int64), torch.empty(T, B, C)
    shares = torch.ones(N, B) if shares is None else shares.contiguous()
    given = table, ids.contiguous(), before.contiguous(), shares, rows, summed
    _run(code.read, [*(each.data_ptr() for each in given), B, C, start, R, T * B], T * B, parts or _parts(T * B, T * B))
    return rows, summed


def _parts(count: int, places: int) -> int:
    """Return the parts that so many things are done in. places: of the window."""
    threads = torch.get_num_threads()
    return min(count, PARTS * threads) if threads > 1 and places >= PLACES else 1


def _run(address: int, numbers: Sequence[int], count: int, parts: int) -> None:
    """Call a function for all of so many things, in parts that threads share. numbers: its arguments."""
    arguments, cuts = np.array(numbers, np.int64), [count * k // parts for k in range(parts + 1)]
    team.run(address, [(arguments.ctypes.data, *cut, 0) for cut in itertools.pairwise(cuts)], torch.get_num_threads())


def step(weight: Tensor, gradient: Tensor | RowGradient, squares: Tensor, rate: Any, small: float) -> None:
    """Take a step, of any dtype and on any device. A row without a gradient stays as it is.

    weight: (N R, C). gradient: like it, sparse or not, or by rows, each of one table. squares: (N R,), the sums so far.
    rate: a number, or a tensor () on the device. Weight and squares change.
    """
    if isinstance(gradient, Tensor) and not gradient.is_sparse:
        # Passes over the whole weight are what it costs on a GPU: there are two, all between is a number a row. To take
        # the rows that were read alone would need more kernels: how many there are is known there only.
        norms = torch.linalg.vector_norm(gradient, dim=1)
        squares.addcmul_(norms, norms, value=1 / gradient.shape[1])
        weight.addcmul_(gradient, (rate * (squares.sqrt() + small).reciprocal())[:, None], value=-1)
        return
    if isinstance(gradient, Tensor):
        rows, values = gradient._indices()[0], gradient._values()
        gradient = RowGradient(rows[None, :, None], None, values[:, None])
    are_plain = _is_plain(weight) and _is_plain(squares) and _is_plain(gradient.of_sum)
    code = _code(len(gradient.rows)) if are_plain else None
    if code is None:
        rows, values = gradient.flat()
        by_torch(weight, rows, values, squares, rate, small)
    else:
        _learn(code, weight, gradient, squares, rate, small)


def by_torch(weight: Tensor, rows: Tensor, gradients: Tensor, squares: Tensor, rate: Any, small: float) -> None:
    """Take a step as `step` does, by torch's operations. rows: (n,), which rows `gradients` (n, C) are of."""
    found, places = torch.unique(rows, return_inverse=True)
    sums = gradients.new_zeros(len(found), gradients.shape[1]).index_add_(0, places, gradients)
    own = squares[found].add_(sums.square().mean(dim=1))
    squares[found] = own
    weight.index_add_(0, found, sums.div_((own.sqrt() + small)[:, None]).mul_(-rate))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()


def _learn(
    code: "_Code",
    weight: Tensor,
    gradient: RowGradient,
    squares: Tensor,
    rate: float,
    small: float,
    parts: int | None = None,
) -> None:
    (N, T, B), C = gradient.rows.shape, weight.shape[1]
    shares = torch.ones(N, B) if gradient.shares is None else gradient.shares.contiguous()
    slots, found, sums = _room(len(weight), N * T * B, C)
    reals = torch.tensor([rate, small], dtype=torch.float32)
    given = weight, squares, gradient.rows.contiguous(), gradient.of_sum, shares, slots, found, sums, reals
    _run(code.learn, [*(each.data_ptr() for each in given), B, C, T * B], N, parts or _parts(N, T * B))


def _room(rows: int, read: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return room for a step of this thread: a zero for each row, which the code leaves so; row numbers; sums."""
    held: tuple[Tensor, Tensor, Tensor] | None = getattr(_scratch, "room", None)
    if held is None or len(held[0]) < rows or len(held[1]) < read or held[2].numel() < read * columns:
        held = torch.zeros(rows, dtype=torch.int32), torch.empty(read, dtype=torch.int64), torch.empty(read * columns)
        _scratch.room = held
    return held


class _Code(NamedTuple):
    """Addresses of compiled functions, as `_source` says."""

    read: int
    learn: int


@cache
def _code(N: int) -> _Code | None:
    """Return the functions for N tables, tried when they are new; None, with a warning, where they are wrong here."""
    with _preparing:
        found = compiled(_source(N))
        code = _Code(found.address("read"), found.address("learn"))
        is_right = not found.is_new or _is_right(code, N)
        if found.is_new and is_right:
            disk.keep(found)
    if is_right:
        return code
    warnings.warn(
        "code compiled for direct connections computes something else than torch on this processor: torch computes, "
        "which is slower; please report it with what `charrnn env` prints",
        WrongCodeWarning,
        stacklevel=4,
    )
    return None


def _is_right(code: _Code, N: int) -> bool:
    """Tell whether compiled functions give what torch does, for a small window with documents in it."""
    T, B, R, C, start = 5, 3, 4, 37, 9
    draw = torch.Generator().manual_seed(7)
    table, squares = torch.randn(N * R, C, generator=draw), torch.rand(N * R, generator=draw)
    ids, before = (torch.randint(start + 1, size, generator=draw) for size in ((T, B), (B, N - 1)))
    shares, of_sum = torch.rand(N, B, generator=draw), torch.randn(T, B, C, generator=draw)
    rows, summed = _read(code, table, ids, before, shares, start, R, parts=2)
    expected = contexts.rows_of_window(ids, before, start, R, torch)
    exact = (table[expected] * shares[:, None, :, None]).sum(dim=0)
    ways = [(table.clone(), squares.clone()) for _ in range(2)]
    gradient = RowGradient(expected, shares, of_sum)
    _learn(code, ways[0][0], gradient, ways[0][1], 0.3, 1e-8, parts=min(N, 2))
    flat, values = gradient.flat()
    by_torch(ways[1][0], flat, values, ways[1][1], 0.3, 1e-8)
    changed = float((ways[1][0] - table).norm())
    pairs = [(summed, exact, float(exact.norm())), *((a, b, changed) for a, b in zip(*ways, strict=True))]
    near = all(float((a - b).norm()) <= TOLERANCE * scale for a, b, scale in pairs)
    return near and torch.equal(rows, expected)


def _source(N: int) -> str:
    """Write down the code for N tables. Its functions, each of (the address of its arguments, first, end, nothing):

    read, of table, ids, before, shares, rows, sums, B, C, start, R, places: writes what `look_up` returns of the places
    from the first to before the end. places: T B.
    learn, of weight, squares, rows, gradients, shares, slots, found, sums, reals, B, C, places: takes a step with the
    tables from the first to before the end. slots: a zero of 32 bits for each row of the weight, which it leaves so;
    found, sums: room for as many row numbers, and rows, as were read; reals: rate and small, float32.
    """
    module = new_module()
    _emit_read(module, N)
    _emit_learn(module)
    return str(module)


def _ask(builder: Any, row: Any, row_bytes: Any) -> None:
    """Emit a prefetch of a row."""
    with loop(builder, I64(0), row_bytes, CACHE_LINE) as at:
        prefetch(builder, builder.add(row, at))
    prefetch(builder, builder.add(row, builder.sub(row_bytes, I64(4))))


def _function(module: Any, name: str, arguments: int) -> tuple[Any, list[Any], Any, Any]:
    """Begin a function; return what emits into it, its arguments, the first thing it is called for and the end."""
    _, builder, (given, first, end, _) = define(module, name, [I64] * 4)
    return builder, [load(builder, nth(builder, given, I64(k), 8), I64) for k in range(arguments)], first, end


def _emit_read(module: Any, N: int) -> None:
    builder, (table, ids, before, shares, rows, sums, B, C, start, R, places), first, end = _function(
        module, "read", 11
    )
    row_bytes, one = builder.mul(C, I64(4)), Maths(builder, 1)

    def row_at(n: int, place: Any) -> Any:
        return nth(builder, rows, builder.add(builder.mul(I64(n), places), place), 8)

    with loop(builder, first, end, 1) as place:
        t, b, past = builder.udiv(place, B), builder.urem(place, B), []
        for n in range(N):
            at = nth(builder, ids, builder.sub(place, builder.mul(I64(n), B)), 8)
            if n:
                older = builder.add(builder.mul(b, I64(N - 1)), builder.add(t, I64(N - 1 - n)))
                is_inside = builder.icmp_signed(">=", t, I64(n))
                at = builder.select(is_inside, at, nth(builder, before, older, 8))
            past.append(load(builder, at, I64))
        for n, row in enumerate(emit_rows(builder, past, start, R)):
            store(builder, row, row_at(n, place))
    with loop(builder, first, end, 1) as place:
        next_place = builder.add(place, I64(AHEAD))
        with builder.if_then(builder.icmp_signed("<", next_place, end)):
            for n in range(N):
                _ask(builder, nth(builder, table, load(builder, row_at(n, next_place), I64), row_bytes), row_bytes)
        b, factors, at_rows = builder.urem(place, B), [], []
        for n in range(N):
            share = nth(builder, shares, builder.add(builder.mul(I64(n), B), b), 4)
            factors.append(read(one, share, 4))
            at_rows.append(nth(builder, table, load(builder, row_at(n, place), I64), row_bytes))
        to = nth(builder, sums, place, row_bytes)
        for maths, j in registers(builder, C):
            total = maths.constant(0)
            for row, factor in zip(at_rows, factors, strict=True):
                total = total + read(maths, nth(builder, row, j, 4), 4) * maths.splat(factor)
            write(maths, total, nth(builder, to, j, 4), 4)
    builder.ret_void()


def _emit_learn(module: Any) -> None:
    builder, given, first, end = _function(module, "learn", 12)
    weight, squares, rows, gradients, shares, slots, found, sums, reals, B, C, places = given
    row_bytes, one = builder.mul(C, I64(4)), Maths(builder, 1)
    rate, small = (load(builder, nth(builder, reals, I64(k), 4), FLOAT) for k in range(2))
    before = builder.mul(first, places)  # what was read of the tables before these: they have room of their own
    found, sums = nth(builder, found, before, 8), nth(builder, sums, before, row_bytes)
    of_tables = loop(builder, first, end, 1, [I64(0)])
    with of_tables as n:  # add up what is of one row
        of_places = loop(builder, I64(0), places, 1, [of_tables.carried[0]])
        with of_places as p:
            count = of_places.carried[0]
            at = builder.add(builder.mul(n, places), p)
            later = builder.add(at, I64(AHEAD))
            with builder.if_then(builder.icmp_signed("<", later, builder.mul(end, places))):
                prefetch(builder, nth(builder, slots, load(builder, nth(builder, rows, later, 8), I64), 4))
            row = load(builder, nth(builder, rows, at, 8), I64)
            slot_at = nth(builder, slots, row, 4)
            known = builder.zext(load(builder, slot_at, I32), I64)
            is_new = builder.icmp_signed("==", known, I64(0))
            slot = builder.select(is_new, count, builder.sub(known, I64(1)))
            after = builder.select(is_new, builder.add(count, I64(1)), count)
            with builder.if_then(is_new):
                store(builder, builder.trunc(after, I32), slot_at)
                store(builder, row, nth(builder, found, slot, 8))
            b = builder.urem(p, B)
            share = read(one, nth(builder, shares, builder.add(builder.mul(n, B), b), 4), 4)
            own, to = nth(builder, gradients, p, row_bytes), nth(builder, sums, slot, row_bytes)
            for maths, j in registers(builder, C):
                value, sum_at = read(maths, nth(builder, own, j, 4), 4) * maths.splat(share), nth(builder, to, j, 4)
                # Where nothing was added before, there may be any number, but it is not taken.
                write(maths, maths.choose(is_new, value, value + read(maths, sum_at, 4)), sum_at, 4)
            of_places.carry([after])
        of_tables.carry([of_places.carried[0]])
    count = of_tables.carried[0]
    with loop(builder, I64(0), count, 1) as slot:
        later = builder.add(slot, I64(AHEAD))
        with builder.if_then(builder.icmp_signed("<", later, count)):
            next_row = load(builder, nth(builder, found, later, 8), I64)
            prefetch(builder, nth(builder, squares, next_row, 4))
            _ask(builder, nth(builder, weight, next_row, row_bytes), row_bytes)
        row, own = load(builder, nth(builder, found, slot, 8), I64), nth(builder, sums, slot, row_bytes)
        store(builder, I32(0), nth(builder, slots, row, 4))

        def square(maths: Maths, j: Any, own: Any = own) -> Value:
            value = read(maths, nth(builder, own, j, 4), 4)
            return value * value

        total, square_at = reduced(builder, C, "total", 0, square), nth(builder, squares, row, 4)
        sum_ = read(one, square_at, 4) + total / Value(one, builder.sitofp(C, FLOAT))
        write(one, sum_, square_at, 4)
        change = Value(one, rate) / (one.intrinsic("sqrt", sum_) + Value(one, small))
        to = nth(builder, weight, row, row_bytes)
        for maths, j in registers(builder, C):
            less, at = read(maths, nth(builder, own, j, 4), 4) * maths.splat(change), nth(builder, to, j, 4)
            write(maths, read(maths, at, 4) - less, at, 4)
    builder.ret_void()
