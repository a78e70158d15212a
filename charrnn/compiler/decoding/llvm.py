"""The decoding loop of one model as LLVM: characters in, characters out, for some rows, and no Python in between."""

from functools import partial
from typing import Any

from charrnn.compiler.arithmetic import Maths, read, registers, write
from charrnn.compiler.decoding.draw import emit_choose, emit_cost
from charrnn.compiler.decoding.driver import LINE, Driver
from charrnn.compiler.emitting import DOUBLE, I16, I64, define, load, loop, nth, store
from charrnn.compiler.lookups import emit_rows
from charrnn.compiler.objects import new_module
from charrnn.compiler.schedule import INDEX, Y
from charrnn.compiler.stages import COLUMNS, Stages, entry, row_of

FIRST, NOWHERE = I64(0), I64(0)


def source(driver: Driver) -> str:
    """Write down the code of a driver. Its functions:

    run(table, t, begin, stop, first, end, scores) moves the rows first..end on by the ids begin..stop of a call, which
    begins at step t: it reads those that are given, -1 for none, and draws the others with the row's own filters. An id
    of -1 is drawn in a row whose logits are not finite: what follows there means nothing, and no other row notices.
    scores: 1 for the logits after the last one.
    choose and cost, as `charrnn.compiler.decoding.draw` has them.
    """
    return str(_Emitter(driver).module)


class _Emitter:
    """Emits the code of a driver."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.module = driver, new_module()
        self.choose, self.cost = emit_choose(self.module), emit_cost(self.module)
        kinds = list(dict.fromkeys(driver.steps))
        made = {step: Stages(self.module, step, driver.form, gradual=True) for step in kinds}
        self.stages = [made[step] for step in driver.steps]
        functions = {step: made[step].emit_step(f"step{i}") for i, step in enumerate(kinds)}
        self.functions = [functions[step] for step in driver.steps]
        self.size = 8 if driver.form.kind == "float64" else 4
        self._emit_run()

    def _emit_run(self) -> None:
        _, builder, (table, t, begin, stop, first, end, scores) = define(self.module, "run", [I64] * 7)
        given, drawn, outputs = (partial(row_of, builder, table, LINE[name]) for name in ("given", "drawn", "outputs"))
        ids = self.driver.line(0, INDEX)
        with loop(builder, begin, stop, 1) as n:
            (given_at, given_row), (drawn_at, drawn_row) = given(n, FIRST), drawn(n, FIRST)
            some = loop(builder, first, end, 1, [I64(0)])
            with some as r:
                id_ = load(builder, nth(builder, given_at, r, given_row), I64)
                store(builder, id_, nth(builder, drawn_at, r, drawn_row))
                some.carry([builder.or_(some.carried[0], id_)])
            with builder.if_then(builder.icmp_signed("<", some.carried[0], I64(0))):
                self._emit_score(builder, table, first, end)
            with loop(builder, first, end, 1) as r:
                at = nth(builder, drawn_at, r, drawn_row)
                with builder.if_then(builder.icmp_signed("<", load(builder, at, I64), I64(0))):
                    store(builder, self._emit_draw(builder, table, n, first, r), at)
                id_, (next_at, _) = load(builder, at, I64), row_of(builder, table, ids, I64(0), r)
                with builder.if_then(builder.icmp_signed(">=", id_, I64(0))):
                    store(builder, id_, next_at)
                    self._emit_remember(builder, table, r, id_)
            for layer, function in enumerate(self.functions):
                own = builder.add(table, I64(8 * COLUMNS * self.driver.first_line(layer)))
                builder.call(function, [own, builder.add(t, n), first, end])
            with builder.if_then(builder.icmp_signed("!=", entry(builder, table, LINE["outputs"], 0), NOWHERE)):
                self._emit_copy(builder, table, first, end, *outputs(n, first))
        with builder.if_then(builder.icmp_signed("!=", scores, I64(0))):
            self._emit_score(builder, table, first, end)
        builder.ret_void()

    def _emit_copy(self, builder: Any, table: Any, first: Any, end: Any, to: Any, to_row: Any) -> None:
        """Emit a copy of the last layer's outputs, which are in rows of whole cache lines."""
        maths = Maths(builder, self.driver.form.lanes, self.size == 8)
        y, y_row = row_of(builder, table, self.driver.line(len(self.functions) - 1, Y), I64(0), first)
        with loop(builder, I64(0), builder.sub(end, first), 1) as r:
            a, b = nth(builder, y, r, y_row), nth(builder, to, r, to_row)
            with loop(builder, I64(0), y_row, maths.lanes * self.size) as at:
                write(maths, read(maths, builder.add(a, at), self.size), builder.add(b, at), self.size)

    def _emit_score(self, builder: Any, table: Any, first: Any, end: Any) -> None:
        """Emit the logits of some rows; those are in rows of whole panels, as the bias is."""
        top = len(self.functions) - 1
        y = row_of(builder, table, self.driver.line(top, Y), I64(0), first)
        logits = row_of(builder, table, LINE["logits"], I64(0), first)
        matrix = [entry(builder, table, LINE[name], 0) for name in ("head", "head_scale")]
        own = builder.add(table, I64(8 * COLUMNS * self.driver.first_line(top)))
        panels, bias = entry(builder, table, LINE["head"], 1), entry(builder, table, LINE["bias"], 0)
        self.stages[top].multiply(builder, own, (first, end), y, self.driver.hidden, matrix, logits, panels)
        maths = Maths(builder, self.driver.form.lanes, self.size == 8)
        row = builder.mul(panels, I64(self.driver.form.panel * self.size))
        with loop(builder, I64(0), builder.sub(end, first), 1) as r:
            to = nth(builder, logits[0], r, logits[1])
            with loop(builder, I64(0), row, maths.lanes * self.size) as j:
                at, b = builder.add(to, j), read(maths, builder.add(bias, j), self.size)
                write(maths, read(maths, at, self.size) + b, at, self.size)
            if self.driver.direct:
                self._emit_direct(builder, table, builder.add(first, r), to)

    def _emit_remember(self, builder: Any, table: Any, r: Any, id_: Any) -> None:
        """Emit what makes an id the newest of row r."""
        at, _ = row_of(builder, table, LINE["past"], FIRST, r)
        for n in reversed(range(self.driver.direct)):
            newer = load(builder, builder.add(at, I64(8 * (n - 1))), I64) if n else id_
            store(builder, newer, builder.add(at, I64(8 * n)))

    def _emit_direct(self, builder: Any, table: Any, r: Any, logits: Any) -> None:
        """Emit the sum of what direct connections say in row r, added to its logits; see `charrnn.model.direct`."""
        tables, columns, first_id, rows = (entry(builder, table, LINE["direct"], n) for n in range(4))
        past, _ = row_of(builder, table, LINE["past"], FIRST, r)
        start, row_bytes = builder.add(first_id, columns), builder.mul(columns, I64(4))
        ids = [load(builder, builder.add(past, I64(8 * n)), I64) for n in range(self.driver.direct)]
        found = [nth(builder, tables, row, row_bytes) for row in emit_rows(builder, ids, start, rows)]
        to = nth(builder, logits, first_id, self.size)
        for maths, j in registers(builder, columns, self.size == 8):
            said = [read(maths, nth(builder, row, j, 4), 4) for row in found]
            at = nth(builder, to, j, self.size)
            write(maths, read(maths, at, self.size) + sum(said[1:], said[0]), at, self.size)

    def _emit_draw(self, builder: Any, table: Any, n: Any, first: Any, r: Any) -> Any:
        """Emit the draw of an id for row r in step n; return it."""

        def at(name: str, row: Any, step: Any = FIRST) -> Any:
            return row_of(builder, table, LINE[name], step, row)[0]

        V, position_at = entry(builder, table, LINE["allowed"], 2), at("position", r)
        position, logits = load(builder, position_at, I64), at("logits", r)
        u = load(builder, at("us", r, n), DOUBLE)
        allowed, filters, numbers = at("allowed", position), at("filters", r), at("numbers", first)
        id_ = builder.call(self.choose, [logits, V, allowed, filters, u, numbers])
        is_id = builder.icmp_signed(">=", id_, I64(0))
        with builder.if_then(is_id):
            following = nth(builder, at("following", position), id_, 2)
            store(builder, builder.sext(load(builder, following, I16), I64), position_at)
        with builder.if_then(builder.icmp_signed("!=", entry(builder, table, LINE["costs"], 0), NOWHERE)):
            of = builder.select(is_id, id_, I64(0))
            store(builder, builder.call(self.cost, [logits, V, of]), at("costs", r, n))
        return id_
