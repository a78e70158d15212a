"""Renew what the stored runs are expected to draw, after the definition of a draw or of `next` was changed on purpose.

    python tests/stored/draw.py

replaces `next` and `completions` in expected.json by what the code of today says. All else there stays what the code
that made the runs said: weights, scores, ids, where a stopped run ends.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).parent.resolve()
sys.path[:0] = [str(STORED.parent.parent), str(STORED)]
from make import CHARS, DRAWN, PRIMES, WEIGHTS, said, write  # noqa: E402

NOISES = 12  # random errors of the logits at every character


def main() -> None:
    path = STORED / "expected.json"
    expected = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        os.environ["CHARRNN_HOME"] = "checkpoints"
        shutil.copytree(STORED / "format-1", "checkpoints")
        for name, facts in expected["runs"].items():
            print(name, file=sys.stderr, flush=True)
            rows = {prime: said("next", prime, "--run", name, "--k", "12", "--json")["next"] for prime in PRIMES}
            facts["next"] = rows
            facts["completions"] = [renewed(name, old) for old in facts["completions"]]
    write(expected, path)


def renewed(run: str, old: dict[str, Any]) -> dict[str, Any]:
    """What `sample` draws with the options of an older completion, as make.py describes it."""
    import charrnn

    options = old["options"]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert int(given["--chars"]) == CHARS
    kind, prime = given["--weights"], given["--prime"]
    (drawn,) = (each for each, values in DRAWN.items() if drawn_so(given, values))
    found = said("sample", "--json", *options)["completions"]
    model, exact = charrnn.load(run, kept=kind), charrnn.load(run)
    return {
        "options": options,
        "texts": [each["text"] for each in found],
        "nats": [each["nats"] for each in found],
        "certain": [certain(model, prime, each["text"], drawn, n, WEIGHTS[kind][0]) for n, each in enumerate(found)],
        "score": [exact.score(prime + each["text"]).nats for each in found],
    }


def drawn_so(given: dict[str, str], settings: dict[str, Any]) -> bool:
    """Whether options of `sample`, by name, say these settings."""
    return all(given.get(f"--{name.replace('_', '-')}") == str(value) for name, value in settings.items())


def certain(model: Any, prime: str, text: str, drawn: str, n: int, off: float) -> int:
    """How many characters are drawn the same when all logits are off by so much, at random."""
    from charrnn.generate.sampling import Sampling, distribution, draw, draws, read_prime
    from charrnn.text.tokenizer import TextStream

    sampling, noise = Sampling(**DRAWN[drawn]), np.random.default_rng(0)
    decoder, us, stream = model.decoder(), draws(sampling.seed, n), TextStream(model.tokenizer)
    primed = read_prime(decoder, model.tokenizer, model.tokenizer.clean(prime))
    id_, state, characters = primed.last, primed.state, 0
    while characters < len(text):
        logits, state = decoder.step(np.array([id_]), state)
        allowed, u = model.tokenizer.allowed[stream.state], us.random()
        id_ = draw(distribution(logits[0], allowed, sampling), u)
        for _ in range(NOISES):
            other = logits[0] + noise.normal(0, off, len(logits[0]))
            if draw(distribution(other, allowed, sampling), u) != id_:
                return characters
        if character := stream.push(id_):
            if character != text[characters]:  # what is drawn side by side may differ in a last digit too
                return characters
            characters += 1
    return characters


if __name__ == "__main__":
    main()
