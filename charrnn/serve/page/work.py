"""What the page asks of models: next characters, ranked completions, copies, surprise, units."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from charrnn import perplexity
from charrnn.api import TextModel
from charrnn.errors import CharRNNError
from charrnn.generate.candidates import ranked
from charrnn.generate.copying import TrainingText
from charrnn.generate.sampling import Sampling
from charrnn.generate.stopping import Unit
from charrnn.generate.units import Activations, Gates, Units
from charrnn.serve import logprobs
from charrnn.serve.errors import RequestError
from charrnn.serve.models import Served

T = TypeVar("T")

WAITING = 16  # works of a kind that may wait
COPIED_LEAST, COPIES_MOST = 16, 8  # characters of a passage that counts as copied, and passages
STRONGEST = 12  # units that are shown for a character
READ_TEXTS = 4  # whose activations are remembered
ACTIVATIONS_MOST = 1 << 24  # of one text


class Threads:
    """Two threads for computing beside the event loop: short works do not wait for long ones."""

    def __init__(self) -> None:
        self._pools = {True: ThreadPoolExecutor(1, "short"), False: ThreadPoolExecutor(1, "long")}
        self._waiting = {True: 0, False: 0}

    async def short(self, work: Callable[[], T]) -> T:
        """Do what follows typing. Raises RequestError where too much waits already."""
        return await self._do(work, True)

    async def long(self, work: Callable[[], T]) -> T:
        """Do what may take seconds. Raises RequestError where too much waits already."""
        return await self._do(work, False)

    async def _do(self, work: Callable[[], T], short: bool) -> T:
        if self._waiting[short] >= WAITING:
            raise RequestError(
                503, "too much is computed already: try again", code="busy", headers={"Retry-After": "1"}
            )
        self._waiting[short] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pools[short], work)
        finally:
            self._waiting[short] -= 1


def following(model: TextModel, text: str, k: int) -> dict[str, Any]:
    """Return the k likeliest characters after a text, with their probabilities."""
    return {"next": [{"character": character, "probability": p} for character, p in model.next(text, k)]}


def completions(model: TextModel, text: str, chars: int, sampling: Sampling, count: int, until: Unit) -> dict[str, Any]:
    """Return different completions up to the end of a unit, the likeliest per character first, with their copies."""
    done = ranked(model.completions(text, chars, sampling, count), until)
    learned, why = _training_text(model)
    return {
        "completions": [
            {
                "text": each.text,
                "nats_per_char": each.nats_per_char,
                "finished": each.finished,
                "copies": copies_in(learned, each.text),
            }
            for each in done
        ],
        "copies_unknown": why,
    }


def copies(model: TextModel, text: str) -> dict[str, Any]:
    """Return the passages of a text that stand in the training text, in their order."""
    learned, why = _training_text(model)
    return {"copies": copies_in(learned, text), "copies_unknown": why}


def copies_in(learned: TrainingText | None, text: str) -> list[dict[str, Any]]:
    """Find the longest passages of a text that stand in the training text and do not overlap.

    at, length: in characters of the text. offset: where in the training text. None learned has no copies.
    """
    found: list[dict[str, Any]] = []
    parts = [(0, len(text))] if learned is not None else []
    while parts and len(found) < COPIES_MOST:
        begin, end = parts.pop(0)
        if end - begin < COPIED_LEAST:
            continue
        assert learned is not None
        passage = learned.longest(text[begin:end])
        length = len(passage.text)
        if length < COPIED_LEAST:
            continue
        at = text.index(passage.text, begin)
        found.append({"at": at, "length": length, "offset": passage.offset})
        parts += [(begin, at), (at + length, end)]
    return sorted(found, key=lambda copy: int(copy["at"]))


def surprise(served: Served, text: str, k: int) -> dict[str, Any]:
    """Return the bits of every character of a text, and the k likeliest ids at its place with their probabilities.

    A character that is spelled in bytes has the bits of all of them; what was expected is told of its first.
    """
    prompt = served.prompt(text)
    pieces = logprobs.of_prompt(served, replace(prompt, begun=True), k)  # the first character has a cost too
    tokens = [token for piece in pieces for token in piece][1:]
    if not tokens:
        raise CharRNNError("the text is empty", "give a text of at least one character")
    index = served.tokenizer.character_index(prompt.ids)
    nats = np.bincount(index, weights=[token.nats or 0.0 for token in tokens])
    firsts = np.flatnonzero(np.diff(index, prepend=-1))
    expected = [
        [[served.token(id_), round(float(np.exp(-cost)), 5)] for id_, cost in tokens[first].top[:k]] for first in firsts
    ]
    bits = nats / np.log(2)
    return {
        "text": prompt.text,
        "bits": [round(float(each), 4) for each in bits],
        "expected": expected,
        "bits_per_char": float(bits.mean()),
        "perplexity": perplexity.of_bits(float(bits.mean())),
        "total_bits": float(bits.sum()),
    }


class UnitReader:
    """Reads the units of models on texts, and remembers the last ones: a page asks of one text again and again.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, str], Units] = OrderedDict()

    def ranked(self, served: Served, text: str, count: int) -> dict[str, Any]:
        """Return the units that follow each property of a text best, and the layers, states and gates there are."""
        found = self._units(served, text)
        layers: dict[int, list[str]] = {}
        for unit in (*found.units, *found.gates.units):
            states = layers.setdefault(unit.layer, [])
            if unit.state not in states:
                states.append(unit.state)
        return {
            "text": found.text,
            "hidden": max(unit.number for unit in found.units),
            "layers": [{"layer": layer, "states": states} for layer, states in layers.items()],
            "properties": _followers(found, count),
            "gates": _openness(found.gates),
            "gates_follow": _followers(found.gates, count) if found.gates.units else {},
        }

    def one(self, served: Served, text: str, unit: str) -> dict[str, Any]:
        """Return what a unit, of a state or a gate, is at each character, and how well it follows each property."""
        whole = self._units(served, text)
        values = whole.of(unit)
        found = next(each for each in (whole, whole.gates) if any(known.name == unit for known in each.units))
        place = [each.name for each in found.units].index(unit)
        return {
            "unit": unit,
            "activations": [round(float(value), 4) for value in values],
            "correlations": {name: float(r[place]) for name, r in found.correlations.items()},
        }

    def strongest(self, served: Served, text: str, place: int) -> dict[str, Any]:
        """Return the units that are furthest from their mean after a character, in standard deviations of the text."""
        found = self._units(served, text)
        if place >= len(found.text):
            raise CharRNNError(f"there is no character {place}", f"the text has {len(found.text):,}")
        values = found.activations
        spread = values.std(axis=0)
        far = np.divide(values[place] - values.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 1e-6)
        order = np.argsort(-abs(far), kind="stable")[:STRONGEST]
        return {
            "strongest": [
                {
                    "unit": found.units[i].name,
                    "activation": round(float(values[place, i]), 4),
                    "deviations": round(float(far[i]), 2),
                }
                for i in order
            ]
        }

    def _units(self, served: Served, text: str) -> Units:
        key = served.name, text
        if key not in self._read:
            model = known(served)
            layers: Sequence[Any] = model.decoder(1).start()[: model.architecture.layers]
            size = sum(part.shape[-1] for layer in layers for part in layer) * len(text)
            if size > ACTIVATIONS_MOST:
                raise CharRNNError(f"{size:,} activations are more than are kept", "give a shorter text")
            self._read[key] = model.units(text)
            while len(self._read) > READ_TEXTS:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]


def _followers(found: Activations, count: int) -> dict[str, list[dict[str, Any]]]:
    """Return the units that follow each property best."""
    return {
        name: [{"unit": unit.name, "correlation": r} for unit, r in found.best(name, count)]
        for name in found.correlations
    }


def _openness(gates: Gates) -> list[dict[str, Any]]:
    """Return how far each gate is open: the mean of its units, and the share of characters nearly open and closed."""
    places: dict[str, list[int]] = {}
    for i, unit in enumerate(gates.units):
        places.setdefault(unit.name.rpartition(".")[0], []).append(i)
    figures = {"mean": gates.mean, "open": gates.open, "closed": gates.closed}
    return [
        {"gate": gate, **{name: round(float(values[of].mean()), 4) for name, values in figures.items()}}
        for gate, of in places.items()
    ]


def own_text(model: TextModel, chars: int) -> dict[str, Any]:
    """Return the beginning of the validation part of a model's corpus, or of its training part where it has none."""
    from charrnn.text.corpus import prepare

    corpus = prepare(model.config, model.tokenizer, private=True)
    ids = corpus.parts["val"] if len(corpus.parts["val"]) else corpus.ids("train")
    return {"text": model.tokenizer.decode(ids[: 4 * chars])[:chars]}


def known(served: Served) -> TextModel:
    """Return the model that is served. Raises CharRNNError where it is not known."""
    if served.model is None:
        raise CharRNNError(f"{served.name} was not loaded from a run", "serve a run")
    return served.model


def _training_text(model: TextModel) -> tuple[TrainingText | None, str | None]:
    """Return what a model learned, or why that is not here."""
    try:
        return model.training_text(), None
    except CharRNNError as error:
        return None, error.problem
