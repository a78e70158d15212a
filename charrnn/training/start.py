"""The weights that a run starts from."""

import numpy as np
from numpy.typing import NDArray

from charrnn.model.architecture import Architecture, log_shares
from charrnn.text.corpus import Corpus
from charrnn.training.config import Config


def initial_weights(config: Config, corpus: Corpus) -> dict[str, NDArray[np.float32]]:
    """Draw a run's first weights. The head's bias starts at how often each character comes, unless that is off.

    So nothing has to be learned before letters that no text has are as unlikely as they should be. Where that stays as
    it is, the head has no other weights for them.
    """
    architecture, a = Architecture.of(config, corpus.tokenizer.size), config.bias_smoothing
    counts = corpus.counts("train")
    weights = architecture.initial(config.seed, config.uniform, log_shares(counts, a) if a else None)
    if config.unseen == "fixed":
        weights["head.W"][:, counts == 0] = 0
    return weights
