"""Text to ids: the tokenizer here, the `tokenizers` library on the same vocabulary, and a plain dictionary."""

from collections.abc import Callable
from typing import Any

from charrnn.bench.bench_machine import seconds_of
from charrnn.text import corpora
from charrnn.text.tokenizer import Tokenizer

SLICE = 20_000  # characters the slower ways are given


def measure(seconds: float) -> list[dict[str, Any]]:
    """Measure each way to encode on the embedded corpora, in millions of characters a second."""
    from tokenizers import Tokenizer as Reference

    text = "".join(path.read_text(encoding="utf-8") for path in corpora.embedded().values())
    ours = Tokenizer.char(text)
    reference = Reference.from_str(ours.to_json())
    ids = {c: i for i, c in enumerate(ours.characters)}
    part = text[:SLICE]
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "charrnn": (len(text), lambda: ours.encode(text)),
        "tokenizers": (len(part), lambda: reference.encode(part, add_special_tokens=False).ids),
        "dictionary": (len(part), lambda: [ids[c] for c in part]),
    }
    times = seconds_of({name: work for name, (_, work) in ways.items()}, seconds)
    speed = {name: characters / times[name] / 1e6 for name, (characters, _) in ways.items()}
    return [
        {"engine": name, "million_chars_per_s": value, "ratio_to_dictionary": value / speed["dictionary"]}
        for name, value in speed.items()
    ]
