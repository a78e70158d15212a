"""A look at a model while it trains: a few characters that it writes."""

from collections.abc import Mapping
from typing import Any

from charrnn.errors import CharRNNError
from charrnn.generate.completer import Completer
from charrnn.generate.decoders import Decoders
from charrnn.generate.request import DEFAULT_SEED, DEFAULT_TEMPERATURE, Request
from charrnn.generate.sampling import Sampling
from charrnn.training.events import Started

PRIME_IDS = 60
SAMPLE_CHARS = 70


def sample(started: Started, weights: Mapping[str, Any]) -> str:
    """Return how a model with these weights continues the beginning of its text, or why it cannot."""
    corpus, config = started.corpus, started.config
    # As `sample` would without --device.
    device = "cpu" if config.device == "cpu" else "auto"
    decoders = Decoders(started.architecture, dict(weights), device, "float32")
    # After a few words: how a text begins is seen once an epoch, and learned late.
    prime = corpus.tokenizer.decode(corpus.ids("train")[:PRIME_IDS])
    completer = Completer(decoders, corpus.tokenizer, str, config.document)
    request = Request(prime, SAMPLE_CHARS, Sampling(DEFAULT_TEMPERATURE, seed=DEFAULT_SEED))
    try:
        return "".join(drawn.character for drawn in completer.one(request))
    except CharRNNError as error:  # a look at the model, which must not end its training
        return f"({error.problem})"
