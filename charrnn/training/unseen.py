"""Ids that the training part does not have: 256 bytes stand in every vocabulary, and most texts need none of them.

What the head says of them starts at the share that the rule gives to what never came. Where it stays so, training
works with the other ids alone, which is quicker, and a character that does come later is no more unlikely than it was.
"""

from charrnn.text.corpus import Corpus
from charrnn.training.settings import Settings


def rule(settings: Settings) -> str:
    """Return 'fixed' or 'learned': as it was asked for, else fixed where it starts low and the head is its own."""
    smoothing = settings.bias_smoothing
    starts_low = settings.uniform is None if smoothing is None else smoothing > 0
    return settings.unseen or ("fixed" if starts_low and not settings.tie else "learned")


def learned_ids(settings: Settings, corpus: Corpus) -> int:
    """Count the ids that training works with: all, or those that the training part has."""
    return corpus.tokenizer.size if rule(settings) == "learned" else int((corpus.counts("train") > 0).sum())
