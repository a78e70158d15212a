"""Perplexity: a cost per character as the number of characters that are equally likely at that cost."""

import math

MOST_NATS = 700.0  # e to the power of a little more is no float; a run that goes wrong can cost thousands


def of_nats(nats: float) -> float:
    """Return the perplexity of so many nats per character, and no more than that of MOST_NATS."""
    return math.exp(min(nats, MOST_NATS))


def of_bits(bits: float) -> float:
    """Return the perplexity of so many bits per character, and no more than that of MOST_NATS."""
    return float(2 ** min(bits, MOST_NATS / math.log(2)))
