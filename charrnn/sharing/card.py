"""The page of a model: what it learned, how well it predicts, how to use it, and what it is not."""

import math
from typing import Any

import numpy as np

from charrnn import perplexity
from charrnn.compare import statistics
from charrnn.errors import CharRNNError
from charrnn.training.export import anywhere
from charrnn.training.hub import SCHEME
from charrnn.training.run import Run

HEAD = """---
library_name: charrnn
pipeline_tag: text-generation
tags:
- character-level
- recurrent-neural-network
---
"""


def of(run: Run, repo: str) -> str:
    """Write the card of a run, in Markdown. repo: USER/NAME, where it will be."""
    config, about = anywhere(run.config()), run.about()
    tokenizer, architecture = run.tokenizer(), run.architecture()
    shape = f"{config.cell}, hidden size {config.hidden}, {config.layers} layer{'s' if config.layers > 1 else ''}"
    characters = f"{len(tokenizer.characters)} characters and 256 bytes" if tokenizer.characters else "256 bytes"
    shares = " : ".join(f"{share:g}" for share in config.split)
    texts = ", ".join(_code(name) for name in config.corpus)
    return f"""{HEAD}
# {_plain(repo.split("/")[1])}

A character-level recurrent network that completes text, trained with charrnn.

| | |
|---|---|
| learned | {texts}, split {shares} into training, validation and test |
| model | {_code(shape)}: {architecture.count_in_words()}, float32 |
| vocabulary | {characters} |
| training | {about["step"]:,} steps of {config.batch} x {config.window} characters, {about["characters"]:,} in all |
{_scores(run, about)}
Scores are per character, of text that was not trained on.

## Use

    pip install charrnn
    charrnn sample --run {SCHEME}{repo} --prime "..."

```python
import charrnn

model = charrnn.load("{SCHEME}{repo}")
print(model.complete("...", 200, temperature=0.7))
```

`charrnn train --from {SCHEME}{repo} TEXT` learns on from it.

## Limits

It writes text that looks like what it learned, and knows nothing else: it follows no instructions, and what it says is
not to be believed. It may repeat passages of what it learned word for word; `sample --max-copy N` prevents long ones.
Characters that it never saw are read as bytes, and surprise it.

The files hold numbers and JSON alone. What is not in them: the text, the losses of single characters, the state of the
training, and where all this was kept.
"""


def _scores(run: Run, about: dict[str, Any]) -> str:
    """Return rows with what the parts cost that were not trained on, with an interval where that can be told."""
    result, rows = about["result"] or {}, []
    for part, name in (("val", "validation"), ("test", "test")):
        nats = result.get(f"{part}_nats")
        if nats is not None and math.isfinite(nats):
            bits = nats / math.log(2)
            rows.append(
                f"| {name} | {bits:.4f} bits ({nats:.4f} nats), perplexity {perplexity.of_nats(nats):.3f}"
                f"{_interval(run) if part == 'test' else ''} |"
            )
    return "\n".join(rows) + ("\n" if rows else "")


def _interval(run: Run) -> str:
    """Return the interval of a run's test score, from blocks of that text; nothing where its losses are not kept."""
    try:
        bits = run.losses()["test"].astype(np.float64)[None] / math.log(2)
        found = statistics.interval(statistics.in_blocks(bits), float(bits.mean()))
    except (CharRNNError, KeyError):  # weights alone have no losses, and SciPy is an extra
        return ""
    return f"; 95 % interval for other text of the kind {found.low:.4f} to {found.high:.4f} bits"


def _code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    return "`" + _plain(text).replace("`", "'") + "`"


def _plain(text: str) -> str:
    """Return a text on one line, without what would end a cell of a table."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).replace("|", "/").split())
