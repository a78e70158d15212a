"""The time loop of a layer as Triton kernels, forwards and backwards, with recurrent matrices that stay on the chip.

What depends on x alone is one large product, which torch makes. What is left of a step is products by recurrent
matrices and element-wise operations. A program owns some rows and BH columns of every block of H features: of these it
keeps the states in registers, and of every matrix the columns that make them, over all time steps. Whatever a product
multiplies, all columns of it, goes through memory: every program writes its own, then those of the same rows meet. That
is FlashRNN's idea (Pöppel et al. 2024), for any cell.

A step's arrays lie as the derivative has them: in blocks, of which number j is computed from numbers j. So all of a
program's arrays are (BR, BH). The way back recomputes the element-wise operations from states and products that were
kept; what a matrix's derivative is made of is kept too, and torch makes it, one large product for all steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from charrnn.cells import ops
from charrnn.compiler.blocks import Equations, Product, UnsupportedError
from charrnn.compiler.graph import Node
from charrnn.compiler.training.derivative import Derivative

Weight = tuple[str, int | None]  # a parameter, and which of a stack

PRELUDE = """
import triton
import triton.language as tl


@triton.jit
def tanh(x):
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    s = x * x
    near = x * (1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))


@triton.jit
def sigmoid(x):
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1 + e)


@triton.jit
def expm1(x):
    t = tanh(x * 0.5)
    return tl.where(tl.abs(x) < 1, (t + t) / (1 - t), tl.exp(x) - 1)


@triton.jit
def log1p(x):
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * (x / tl.where(u == 1, 1.0, u - 1)))


@triton.jit
def meet(counter, enough):
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < enough:
        pass
    tl.debug_barrier()
"""

BEGIN = """    program = tl.program_id(0) + first
    group, rows = program // COLUMNS, program // COLUMNS * BR + tl.arange(0, BR)
    cols, k, met = program % COLUMNS * BH + tl.arange(0, BH), tl.arange(0, HP), 0
    mask, of_rows = (rows < B)[:, None] & (cols < H)[None, :], (rows < B)[:, None] & (k < H)[None, :]
    of_matrix, zero = (k < H)[:, None] & (cols < H)[None, :], tl.zeros((BR, BH), tl.float32)
"""
# A text's end has fewer steps or rows: what was compiled for others runs it.
JIT = '@triton.jit(do_not_specialize=["T", "B", "first"])'
SIZES = "counter, T, B, first, H: tl.constexpr, HP: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr, "
SIZES += "COLUMNS: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr"


@dataclass(frozen=True)
class Kernels:
    """The text of two kernels, `forward` and `backward`, and what their arguments are, in this order.

    Forward: z (T, B, Z); vectors; matrices; states (slots, B, H), which begin in slot 0; lefts (T, B, K) in the
    matrices' dtype; outs (T, B, N) float32; y (T, B, Y); KEPT, whether outs are kept. With it there are T + 1 slots of
    a state, else two, of which step t reads number t & 1.
    Backward: z, vectors, matrices, states, outs; dy (T, B, Y); dstates (B, H), replaced by those before the first step;
    douts (T, B, N) in the matrices' dtype; dz (T, B, Z); dvectors (groups of rows, width).
    Then both: a counter for each group of rows, zero; T; B; the number of the first program; H; H as a power of two;
    rows and columns of a program; programs that share rows; whether matrices stay on the chip; how float32 numbers are
    multiplied.

    lefts: of each product, which left it multiplies. tiles: of H by BH numbers, that matrices have in a program.
    """

    text: str
    equations: Equations
    derivative: Derivative
    vectors: tuple[Weight, ...]
    products: tuple[Product, ...]
    lefts: tuple[int, ...]
    tiles: int


def write(equations: Equations, derivative: Derivative, H: int) -> Kernels:
    """Write the kernels of a step whose x is what `inputs` has made.

    Raises UnsupportedError for a step that is more than products by matrices and operations on blocks of H features.
    """
    _refuse_others(equations, H)
    if any(not product.per_step for product in equations.products):
        raise UnsupportedError("a product in the step that does not wait for the state")
    writer = _Writer(equations, derivative)
    text = "\n\n".join([PRELUDE.strip("\n"), writer.forward(), writer.backward()])
    tiles = sum(len(p.left) * len(p.outputs) for p in writer.products)
    return Kernels(text, equations, derivative, writer.vectors, writer.products, writer.lefts, tiles)


@dataclass(frozen=True)
class Stages:
    """The text of kernels that make one time step, in float32, and what comes between them.

    The arguments of each: z (R, Z); vectors; transposed matrices (N, K), for a row alone; states (R, H), before the
    step and after it; lefts (R, K); outs (R, N); y (R, Y); R; H; rows and columns of a program, and for a row alone how
    many numbers of a product it adds at a time. The last of them writes the states and y.

    alone: whether a program has one row, and makes the products that its numbers need; else others make them, between
    the kernels. outputs: blocks of y. names: of the kernels, None where there is nothing to do. after: for each of
    them, the products that follow. left_names: for each left, the argument that it is, of which no kernel makes a copy;
    None where a kernel writes it.
    """

    text: str
    alone: bool
    outputs: int
    vectors: tuple[Weight, ...]
    products: tuple[Product, ...]
    lefts: tuple[int, ...]
    left_names: tuple[str | None, ...]
    names: tuple[str | None, ...]
    after: tuple[tuple[Product, ...], ...]


def write_step(equations: Equations, derivative: Derivative, H: int, alone: bool = False) -> Stages:
    """Write the kernels of one time step, as `Stages` says. Raises UnsupportedError as `write` does."""
    _refuse_others(equations, H)
    return _Writer(equations, derivative).stages(alone)


def _refuse_others(equations: Equations, H: int) -> None:
    if equations.across:
        raise UnsupportedError(f"{equations.across[0].op} looks across features, which are in different programs")
    blocks = [*equations.x, *equations.y, *equations.graph.leaves("vector")]
    blocks += [b for p in equations.products for b in (*p.left, *p.outputs)]
    if any(block.width not in (0, H) for block in blocks):
        raise UnsupportedError("an array that is not made of blocks of H features")


class _Writer:
    def __init__(self, equations: Equations, derivative: Derivative) -> None:
        self.equations, self.derivative, self.products = equations, derivative, equations.products
        self.vectors: tuple[Weight, ...] = tuple(
            dict.fromkeys((leaf.data[1], leaf.data[2]) for leaf in equations.graph.leaves("vector"))
        )
        found = list(dict.fromkeys(product.left for product in self.products))
        self.lefts = tuple(found.index(product.left) for product in self.products)
        self.states = range(len(equations.states))

    def forward(self) -> str:
        """Write the kernel that goes forwards."""
        e, body = self.equations, _Body()
        lefts = [f"left{i}" for i in dict.fromkeys(self.lefts)]
        arguments = ["z", *self._shared(), *lefts, *self._numbered("out"), "y", "KEPT: tl.constexpr"]
        for j in self.states:
            body.add(f"s{j} = {_read(f'state{j}', '0', 'H')}")
        body.at = 2
        source = self._step_leaf(body, lambda j: f"s{j}")
        self._levels(body, source, {p: f"left{self.lefts[p.number]}" for p in e.products})
        for i, block in enumerate(e.y):
            body.add(_write("y", "t", f"{len(e.y)} * H", f"zero + ({body.value(block, source)})", i))
        after = [body.value(state, source) for state in e.states]
        body.add(*(f"a{j} = zero + ({value})" for j, value in enumerate(after)))
        for j in self.states:
            body.add(f"s{j} = a{j}")
            body.add(_write(f"state{j}", "(t + 1 if KEPT else (t + 1) & 1)", "H", f"s{j}"))
        before = [line for p in e.products for line in self._matrix(p, False)]
        return _kernel("forward", arguments, before, body.lines, "range(T)")

    def backward(self) -> str:
        """Write the kernel that goes back."""
        e, d, body = self.equations, self.derivative, _Body()
        by_number = {product.number: product for product in e.products}
        arguments = ["z", *self._shared(), *self._numbered("out"), "dy", *(f"dstate{j}" for j in self.states)]
        arguments += [*self._numbered("dout"), "dz", *(f"dvector{i}" for i in range(len(self.vectors)))]
        for j in self.states:
            body.add(f"d{j} = {_read(f'dstate{j}', '0', 'H')}")
        summed = {leaf: f"sum{i}" for i, leaf in enumerate(d.dvectors)}
        body.add(*(f"{name} = zero" for name in summed.values()))
        body.at = 2
        steps = self._step_leaf(body, lambda j: body.once(f"before{j}", _read(f"state{j}", "t", "H")))

        def source(leaf: Node) -> str:
            kind, *key = leaf.data
            if kind == "dy":
                return body.once(f"dy{key[0]}", _read("dy", "t", f"{len(e.y)} * H", key[0]))
            if kind == "dstate":
                return f"d{key[0]}"
            if kind == "out" and not key[1]:
                width = f"{len(by_number[key[0]].outputs)} * H"
                return body.once(f"p{key[0]}_{key[2]}", _read(f"out{key[0]}", "t", width, key[2]))
            return steps(leaf)

        self._levels(body, source, {p: f"dout{p.number}" for p in d.products})
        for i, block in enumerate(d.dx):
            body.add(_write("dz", "t", f"{len(e.x)} * H", f"zero + ({body.value(block, source)})", i))
        for leaf, name in summed.items():
            body.add(f"{name} += tl.where(mask, {body.value(d.dvectors[leaf], source)}, 0.0)")
        before = [body.value(state, source) for state in d.dstates]
        body.add(*(f"e{j} = zero + ({value})" for j, value in enumerate(before)))
        body.add(*(f"d{j} = e{j}" for j in self.states))
        body.at = 1
        for j in self.states:
            body.add(_write(f"dstate{j}", "0", "H", f"d{j}"))
        for leaf, name in summed.items():
            which, block = self.vectors.index((leaf.data[1], leaf.data[2])), leaf.data[3]
            at = f"dvector{which} + group * {self._blocks(self.vectors[which])} * H + {block} * H + cols"
            body.add(f"tl.store({at}, tl.sum({name}, 0), cols < H)")
        matrices = [line for p in d.products for line in self._matrix(p, True)]
        return _kernel("backward", arguments, matrices, body.lines, "range(T - 1, -1, -1)")

    def stages(self, alone: bool) -> Stages:
        """Write what is done between the products of one step, or with them."""
        e, texts = self.equations, [PRELUDE.strip("\n")]
        lefts = list(dict.fromkeys(product.left for product in e.products))
        whole = {(e.graph.leaf(s.width, "state", j),): f"state{j}" for j, s in enumerate(e.states)} | {e.x: "z"}
        plain = tuple(whole.get(left) for left in lefts)
        waiting, stored, names, after = list(e.products), set[int](), list[str | None](), list[tuple[Product, ...]]()
        made: tuple[Product, ...] = ()
        while True:
            missing = {output for product in waiting for output in product.outputs}
            ready = tuple(p for p in waiting if not _needs(p.left, missing))
            body = _Body()
            source = self._stage_leaf(body)
            for p in made if alone else ():
                self._multiply_alone(body, p, plain[self.lefts[self.products.index(p)]], keeps=bool(waiting))
            self._store_lefts(body, source, [n for n in self._lefts_of(ready) if n not in stored and plain[n] is None])
            stored.update(self._lefts_of(ready))
            if not waiting:
                self._store_last(body, source)
            name = f"stage{len(names)}" if body.lines else None
            if name is not None:
                texts.append(self._stage(name, body, alone))
            names.append(name)
            after.append(ready)
            if not waiting:
                break
            made, waiting = ready, [p for p in waiting if p not in ready]
        text, found = "\n\n".join(texts), (self.vectors, self.products, self.lefts, plain)
        return Stages(text, alone, len(e.y), *found, tuple(names), tuple(after))

    def _lefts_of(self, products: Sequence[Product]) -> list[int]:
        return list(dict.fromkeys(self.lefts[self.products.index(p)] for p in products))

    def _store_lefts(self, body: "_Body", source: Callable[[Node], str], numbers: Sequence[int]) -> None:
        lefts = list(dict.fromkeys(product.left for product in self.products))
        for number in numbers:
            for i, block in enumerate(lefts[number]):
                value = f"zero + ({body.value(block, source)})"
                body.add(_write(f"left{number}", "0", f"{len(lefts[number])} * H", value, i))

    def _store_last(self, body: "_Body", source: Callable[[Node], str]) -> None:
        """Write y and the states after the step."""
        e = self.equations
        for i, block in enumerate(e.y):
            body.add(_write("y", "0", f"{len(e.y)} * H", f"zero + ({body.value(block, source)})", i))
        for j, state in enumerate(e.states):
            body.add(_write(f"after{j}", "0", "H", f"zero + ({body.value(state, source)})"))

    def _multiply_alone(self, body: "_Body", product: Product, left: str | None, keeps: bool) -> None:
        """Multiply one row by a program's columns of a transposed matrix. keeps: for kernels that follow."""
        n, K, outs = product.number, f"{len(product.left)} * H", range(len(product.outputs))
        left = left or f"left{self.lefts[self.products.index(product)]}"
        body.add(*(f"c{n}_{out} = tl.zeros((BH, BK), tl.float32)" for out in outs))
        body.add(f"for k in range(0, {K}, BK):")
        body.add(f"    at = k + tl.arange(0, BK)[None, :]; a = tl.load({left} + row * {K} + at, at < {K}, 0.0)")
        for out in outs:
            at = f"matrix{n} + ({out} * H + cols)[:, None] * {K} + at"
            body.add(f"    c{n}_{out} += a * tl.load({at}, (cols < H)[:, None] & (at < {K}), 0.0)")
        for out in outs:
            name = f"p{n}_{out}"
            body.once(name, f"tl.sum(c{n}_{out}, 1)[None, :]")
            if keeps:
                body.add(_write(f"out{n}", "0", f"{len(outs)} * H", name, out))

    def _stage(self, name: str, body: "_Body", alone: bool) -> str:
        vectors = [f"vector{i}" for i in range(len(self.vectors))]
        lefts = [f"left{i}" for i in dict.fromkeys(self.lefts)]
        states = [f"{which}{j}" for which in ("state", "after") for j in self.states]
        arguments = ["z", *vectors, *(self._numbered("matrix") if alone else []), *states, *lefts]
        arguments += [*self._numbered("out"), "y"]
        sizes = "B, H: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr" + (", BK: tl.constexpr" if alone else "")
        lines = [f"@triton.jit\ndef {name}({', '.join(arguments)}, {sizes}):"]
        lines += ["    row = tl.program_id(0)", "    rows = row * BR + tl.arange(0, BR)"]
        lines += ["    cols = tl.program_id(1) * BH + tl.arange(0, BH)"]
        lines += ["    mask = (rows < B)[:, None] & (cols < H)[None, :]"]
        lines += ["    zero = tl.zeros((BR, BH), tl.float32)"]
        return "\n".join([*lines, *(f"    {line}" for _, line in body.lines)]) + "\n"

    def _stage_leaf(self, body: "_Body") -> Callable[[Node], str]:
        steps = self._step_leaf(body, lambda j: body.once(f"s{j}", _read(f"state{j}", "0", "H")), slot="0")
        widths = {p.number: len(p.outputs) for p in self.products}

        def source(leaf: Node) -> str:
            kind, *key = leaf.data
            if kind == "out":
                name = f"p{key[0]}_{key[2]}"
                return body.once(name, _read(f"out{key[0]}", "0", f"{widths[key[0]]} * H", key[2]))
            return steps(leaf)

        return source

    def _shared(self) -> list[str]:
        vectors = [f"vector{i}" for i in range(len(self.vectors))]
        return [*vectors, *self._numbered("matrix"), *(f"state{j}" for j in self.states)]

    def _numbered(self, name: str) -> list[str]:
        return [f"{name}{product.number}" for product in self.products]

    def _blocks(self, vector: Weight) -> int:
        return sum((leaf.data[1], leaf.data[2]) == vector for leaf in self.equations.graph.leaves("vector"))

    def _step_leaf(self, body: "_Body", state: Callable[[int], str], slot: str = "t") -> Callable[[Node], str]:
        """Return what names a leaf of the step, after it was read. state: names a state by number."""

        def source(leaf: Node) -> str:
            kind, *key = leaf.data
            if kind == "x":
                return body.once(f"z{key[0]}", _read("z", slot, f"{len(self.equations.x)} * H", key[0]))
            if kind == "state":
                return state(key[0])
            if kind == "vector":
                at = f"vector{self.vectors.index((key[0], key[1]))} + {key[2]} * H + cols"
                return body.once(f"v{leaf.number}", f"tl.load({at}, cols < H, 0.0)[None, :]")
            assert kind == "out", kind
            return f"{'q' if key[1] else 'p'}{key[0]}_{key[2]}"  # a product has left it there

        return source

    def _matrix(self, product: Product, transposed: bool) -> list[str]:
        """Read what a program keeps of a matrix: of each block of what it multiplies, for each block it makes."""
        return [
            f"w{product.number}_{left}_{out} = {self._tile(product, left, out, transposed)}"
            for left in range(len(product.left))
            for out in range(len(product.outputs))
        ]

    @staticmethod
    def _tile(product: Product, left: int, out: int, transposed: bool) -> str:
        name, row = f"matrix{product.number}", f"({left} * H + k)[:, None]"
        if transposed:  # the matrix is of (outputs here, left here)
            at = f"({out} * H + cols)[None, :] * {len(product.left)} * H + {row}"
        else:
            at = f"{row} * {len(product.outputs)} * H + {out} * H + cols[None, :]"
        return f"tl.load({name} + {at}, of_matrix, 0.0)"

    def _levels(self, body: "_Body", source: Callable[[Node], str], buffers: dict[Product, str]) -> None:
        """Write all products, those together that can be made at once: store what they multiply, meet, multiply.

        buffers: where what each of them multiplies is stored.
        """
        waiting, stored = list(buffers), set[str]()
        while waiting:
            missing = {output for product in waiting for output in product.outputs}
            ready = [p for p in waiting if not _needs(p.left, missing)]
            for p in ready:
                buffer = buffers[p]
                if buffer not in stored:
                    stored.add(buffer)
                    for i, block in enumerate(p.left):
                        value = f"zero + ({body.value(block, source)})"
                        body.add(_write(buffer, "t", f"{len(p.left)} * H", value, i))
            body.add("met += COLUMNS", "meet(counter + group, met)")
            for p in ready:
                self._multiply(body, p, buffers[p])
            waiting = [p for p in waiting if p not in ready]

    def _multiply(self, body: "_Body", product: Product, buffer: str) -> None:
        n, letter, whole = product.number, "q" if product.transposed else "p", f"{len(product.left)} * H"
        names = [f"{letter}{n}_{out}" for out in range(len(product.outputs))]
        body.add(*(f"{name} = zero" for name in names))
        for left in range(len(product.left)):
            at = f"{buffer} + (t * B + rows)[:, None].to(tl.int64) * {whole} + {left} * H + k[None, :]"
            body.add(f'a = tl.load({at}, of_rows, 0.0, cache_modifier=".cg")')  # others wrote it: not the first cache
            for out, name in enumerate(names):
                tile = self._tile(product, left, out, product.transposed)
                body.add(f"b = w{n}_{left}_{out} if KEEP else {tile}")
                body.add(f"{name} = tl.dot(a, b, {name}, input_precision=PRECISION)")
        if not product.transposed:
            body.add("if KEPT:")
            for out, name in enumerate(names):
                body.add("    " + _write(f"out{n}", "t", f"{len(names)} * H", name, out))


def _needs(roots: Sequence[Node], missing: set[Node]) -> bool:
    """Tell whether any of the roots is computed from what is missing."""
    seen, waiting = set[Node](), list(roots)
    while waiting:
        node = waiting.pop()
        if node in missing:
            return True
        if node not in seen:
            seen.add(node)
            waiting += node.args
    return False


class _Body:
    """Lines of a kernel, and the names of what was computed in them. at: how deep they are."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.at = 1
        self._names: dict[Node, str] = {}
        self._read: set[str] = set()

    def add(self, *lines: str) -> None:
        self.lines += [(self.at, line) for line in lines]

    def once(self, name: str, expression: str) -> str:
        """Give a name to an expression, where it has none yet."""
        if name not in self._read:
            self._read.add(name)
            self.add(f"{name} = {expression}")
        return name

    def value(self, node: Node, source: Callable[[Node], str]) -> str:
        """Return the name of a result, or its number, after all that it is computed from."""
        if node.op == "constant":
            return f'float("{node.data}")' if node.data in (float("inf"), float("-inf")) else repr(node.data)
        if node not in self._names:
            if node.op == "leaf":
                self._names[node] = source(node)
            else:
                template = ops.TABLE[node.op].triton
                if not template:
                    raise UnsupportedError(f"{node.op} has no form in Triton")
                arguments = [self.value(argument, source) for argument in node.args]
                self._names[node] = f"n{node.number}"
                self.add(f"n{node.number} = {template.format(*arguments)}")
        return self._names[node]


def _kernel(name: str, arguments: list[str], matrices: list[str], lines: list[tuple[int, str]], times: str) -> str:
    """Put a kernel together. matrices: what is read before the loop, if it is kept. lines: with how deep they are."""
    first = next(i for i, (depth, _) in enumerate(lines) if depth > 1)
    last = max(i for i, (depth, _) in enumerate(lines) if depth > 1)
    text = [f"{JIT}\ndef {name}({', '.join(arguments)}, {SIZES}):", BEGIN.rstrip("\n")]
    if matrices:
        text += ["    if KEEP:", *(f"        {line}" for line in matrices)]
    text += [f"    {line}" for _, line in lines[:first]]
    text += [f"    for t in {times}:", *(f"        {line}" for _, line in lines[first : last + 1])]
    text += [f"    {line}" for _, line in lines[last + 1 :]]
    return "\n".join(text) + "\n"


def _place(name: str, slot: str, width: str, block: int) -> str:
    return f"{name} + ({slot} * B + rows)[:, None].to(tl.int64) * {width} + {block} * H + cols[None, :]"


def _read(name: str, slot: str, width: str, block: int = 0) -> str:
    return f"tl.load({_place(name, slot, width, block)}, mask, 0.0).to(tl.float32)"


def _write(name: str, slot: str, width: str, value: str, block: int = 0) -> str:
    return f"tl.store({_place(name, slot, width, block)}, {value}, mask)"
