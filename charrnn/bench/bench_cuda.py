"""Speed on a GPU, by CUDA's own events: its limits, training and completing against what a careful user would write.

Every figure is the least of several. Works that are compared take turns. What is recorded is a whole step of training:
forwards, backwards, clipping and the optimizer. A bare loop is torch's modules with the same sizes, recorded too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charrnn.bench.bench_train import VOCABULARY, nearest_torch_layer, sizes
from charrnn.engines import cuda, names_for
from charrnn.generate.decoder import Decoder
from charrnn.generate.graphed import STEPS, GraphedDecoder
from charrnn.generate.sampling import Sampling, draws, read_prime
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN, detach
from charrnn.model.torch_layers import to_torch
from charrnn.text.tokenizer import Tokenizer

Work = Callable[[], object]
SQUARE, READ_BYTES = 8192, 1 << 30
ROUNDS = 5
CLIP, RATE = 1.0, 1e-3
CHARACTERS = "".join(chr(c) for c in range(32, 97))  # 65 of them, as Tiny Shakespeare has
ROWS = (64, 1024, 4096)


def seconds_of(works: Mapping[str, Work], rounds: int = ROUNDS, times: int = 10) -> dict[str, float]:
    """Return the least seconds of each work, by events around `times` of it; they take turns."""
    best = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    torch.cuda.synchronize()
    for _ in range(rounds):
        for name, work in works.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(times):
                work()
            end.record()
            end.synchronize()
            best[name] = min(best[name], begin.elapsed_time(end) / 1000 / times)
    return best


def machine() -> dict[str, Any]:
    """Measure the GPU's limits: products of square matrices by precision, in 10^12 operations a second, and reading."""
    tf32 = {"float32": "highest", "tf32": "high", "bf16": "highest"}
    dtypes = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
    tflops = {}
    before = torch.get_float32_matmul_precision()
    for name, dtype in dtypes.items():
        torch.set_float32_matmul_precision(tf32[name])
        a, b = (torch.ones(SQUARE, SQUARE, dtype=dtype, device="cuda") for _ in range(2))
        took = seconds_of({"": lambda a=a, b=b: torch.mm(a, b)}, 3, 3)[""]  # type: ignore[misc]
        tflops[name] = 2 * SQUARE**3 / took / 1e12
    torch.set_float32_matmul_precision(before)
    data = torch.ones(READ_BYTES // 4, device="cuda")
    took = seconds_of({"": data.sum}, 3, 3)[""]
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "tflops": tflops,
        "read_gb_per_s": READ_BYTES / took / 1e9,
    }


def train(cell: str, hidden: int = 512, depth: int = 2, batch: int = 64, window: int = 128) -> list[dict[str, Any]]:
    """Measure a step of each engine, recorded, against a plain script and bare loops, in milliseconds.

    Rows have cell, hidden, layers, batch, window, engine, precision, recorded, milliseconds, chars_per_s,
    ratio_to_plain, ratio_to_bare and problem: None, or why this GPU or this torch cannot do it, with no figures then.
    """
    architecture = Architecture(cell, VOCABULARY, hidden, depth, min(hidden, 128))
    module = Architecture(
        nearest_torch_layer(architecture.definition).name, VOCABULARY, hidden, depth, min(hidden, 128)
    )
    ids = torch.from_numpy(np.random.default_rng(7).integers(0, VOCABULARY, (window + 1, batch))).cuda()
    ways: dict[tuple[str, str, bool], Callable[[], tuple[Work, Work]]] = {
        ("plain script", "tf32", False): lambda: _plain(module, ids, "tf32"),
        ("bare cuDNN loop", "tf32", True): lambda: _plain(module, ids, "tf32"),
        ("bare cuDNN loop", "bf16", True): lambda: _plain(module, ids, "bf16"),
    }
    for engine in names_for(architecture.definition, "cuda"):
        ways[engine, "bf16", True] = lambda engine=engine: _own(architecture, ids, engine)  # type: ignore[misc]
    works: dict[tuple[str, str, bool], Work] = {}
    rows: list[dict[str, Any]] = []
    problems: dict[tuple[str, str, bool], str] = {}
    recorded: list[Work] = []  # a recording does not hold the weights that it reads: they stay while their step does
    with cuda.repeatable("cuda", "bf16"):
        for way, make in ways.items():
            try:
                step, backward = make()
                step()  # the optimizer makes its moments
                recorded.append(step)
                works[way] = cuda.recorded(step, backward) if way[2] else step  # type: ignore[arg-type]
                works[way]()
                torch.cuda.synchronize()
            except RuntimeError as error:
                works.pop(way, None)
                problems[way] = str(error).splitlines()[0]
        times = seconds_of({" ".join(map(str, way)): work for way, work in works.items()})
    plain, bare = (times.get(name) for name in ("plain script tf32 False", "bare cuDNN loop tf32 True"))
    about = sizes(cell, hidden, depth, batch, window)
    for way in ways:
        t = times.get(" ".join(map(str, way)))
        rows.append(
            {
                **about,
                "engine": way[0],
                "precision": way[1],
                "recorded": way[2],
                "milliseconds": 1000 * t if t else None,
                "chars_per_s": batch * window / t if t else None,
                "ratio_to_plain": plain / t if plain and t else None,
                "ratio_to_bare": bare / t if bare and t else None,
                "problem": problems.get(way),
            }
        )
    return rows


def _own(architecture: Architecture, ids: Tensor, engine: str) -> tuple[Work, Work]:
    """Return a step of training by an engine here, with bf16 where it has that, and what of it leaves no trace."""
    from charrnn.engines import choose

    chosen = choose(architecture.definition, engine, "cuda")
    model = CharRNN(architecture, architecture.initial(seed=7), chosen).cuda()
    state = [tuple(s.clone() for s in layer) for layer in model.start(ids.shape[1])]

    def backward() -> Any:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits, after = model(ids[:-1], tuple(state))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[1:].flatten())
        torch.autograd.backward(loss)
        return detach(after)

    update = _optimizer(list(model.weights.values()))

    def step() -> None:
        after = backward()
        update()
        for held, new in zip(state, after, strict=True):
            for into, value in zip(held, new, strict=True):
                into.copy_(value)

    return step, backward


def _plain(architecture: Architecture, ids: Tensor, precision: str) -> tuple[Work, Work]:
    """Return a step of nn.Embedding, nn.LSTM (or GRU, RNN) and nn.Linear, and what of it leaves no trace.

    precision: tf32, or bf16 for the recurrent layers alone, whose weights are bf16 then.
    """
    weights = {name: torch.tensor(value) for name, value in architecture.initial(seed=7).items()}
    names = architecture.definition.parameter_names
    stack = [{n: weights[f"layers.{i}.{n}"] for n in names} for i in range(architecture.layers)]
    embedding = nn.Embedding.from_pretrained(weights["embedding"], freeze=False).cuda()  # type: ignore[no-untyped-call]
    recurrent = to_torch(architecture.definition, stack).cuda()
    recurrent = recurrent.bfloat16() if precision == "bf16" else recurrent
    head = nn.Linear(architecture.hidden, architecture.vocabulary).cuda()
    dtype = next(recurrent.parameters()).dtype
    parameters = [*embedding.parameters(), *recurrent.parameters(), *head.parameters()]

    def backward() -> None:
        for parameter in parameters:
            parameter.grad = None
        y, _ = recurrent(embedding(ids[:-1]).to(dtype))
        with torch.autocast("cuda", torch.bfloat16):
            logits = head(y)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[1:].flatten())
        torch.autograd.backward(loss)

    update = _optimizer(parameters)

    def step() -> None:
        backward()
        update()

    return step, backward


def _optimizer(parameters: list[nn.Parameter]) -> Work:
    """Return clipping and a step of Adam."""
    adam = torch.optim.AdamW(parameters, RATE, fused=True, capturable=True)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        adam.step()

    return update


def decode(cell: str, hidden: int = 512, depth: int = 2) -> list[dict[str, Any]]:
    """Measure completing: one row against plain loops, and many rows; in microseconds a character.

    Rows have engine, rows, microseconds_per_char, chars_per_s and ratio_to_plain.
    """
    tokenizer = Tokenizer.char(CHARACTERS)
    architecture = Architecture(cell, tokenizer.size, hidden, depth, min(hidden, 128))
    weights = architecture.initial(seed=7)
    works: dict[tuple[str, int], tuple[Work, int]] = {}
    with torch.inference_mode(), cuda.repeatable("cuda"):
        module = Architecture(
            nearest_torch_layer(architecture.definition).name, tokenizer.size, hidden, depth, min(hidden, 128)
        )
        works["plain loop", 1] = _plain_loop(module), STEPS
        works["equations, plain loop", 1] = _equations_loop(architecture, weights), STEPS
        decoder = GraphedDecoder(architecture, weights)
        for rows in (1, *ROWS):
            works["recorded", rows] = _recorded(decoder, tokenizer, rows), STEPS * rows
        times = seconds_of({f"{name} {n}": work for (name, n), (work, _) in works.items()}, times=2)
    per_char = {way: times[f"{way[0]} {way[1]}"] / count for way, (_, count) in works.items()}
    return [
        {
            "cell": cell,
            "hidden": hidden,
            "layers": depth,
            "engine": name,
            "rows": rows,
            "microseconds_per_char": 1e6 * seconds,
            "chars_per_s": 1 / seconds,
            "ratio_to_plain": per_char["plain loop", 1] / seconds,
        }
        for (name, rows), seconds in per_char.items()
    ]


def _plain_loop(architecture: Architecture) -> Work:
    """Return a loop over torch's module, a character at a time, with its draw on the GPU."""
    weights = {name: torch.tensor(value) for name, value in architecture.initial(seed=7).items()}
    names = architecture.definition.parameter_names
    stack = [{n: weights[f"layers.{i}.{n}"] for n in names} for i in range(architecture.layers)]
    module = to_torch(architecture.definition, stack).cuda()
    embedding, head = weights["embedding"].cuda(), weights["head.W"].T.contiguous().cuda()

    def work() -> None:
        state, id_ = None, torch.zeros(1, 1, dtype=torch.long, device="cuda")
        for _ in range(STEPS):
            y, state = module(nn.functional.embedding(id_, embedding), state)
            id_ = torch.multinomial(torch.softmax(nn.functional.linear(y[0], head), -1), 1)

    return work


def _equations_loop(architecture: Architecture, weights: Any) -> Work:
    decoder = Decoder(architecture, weights, device="cuda")

    def work() -> None:
        state, id_ = decoder.start(), np.zeros(1, np.int64)
        for _ in range(STEPS):
            logits, state = decoder.step(id_, state)
            id_ = np.array([int(logits[0].argmax())])

    return work


def _recorded(decoder: GraphedDecoder, tokenizer: Tokenizer, rows: int) -> Work:
    """Return STEPS characters in each row, drawn and handed out."""
    primed = read_prime(decoder, tokenizer, "")
    if rows == 1:
        (drawn,) = [decoder.drawn(primed, tokenizer, Sampling(), draws(7, 0))]
    else:
        drawn, *_ = decoder.drawn_together(primed, tokenizer, Sampling(), range(rows))

    def work() -> None:
        for _ in range(STEPS):
            next(drawn)

    return work
