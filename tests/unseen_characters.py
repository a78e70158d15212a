"""Measure what a model makes of characters that its text never had, by how the head's bias starts.

    python tests/unseen_characters.py TEXT SMOOTHING... [--steps N] [--hidden H] [--batch B] [--window T] [--threads N]

Trains a model on TEXT for every smoothing (0 starts the bias at zero), and prints of its validation part: nats per
character; the share that all ids which never came have together, over its first 2,000 characters; and nats per
character when 1 % of its characters are replaced by others that the text does not have.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np

import charrnn
from charrnn.text.corpus import prepare

UNSEEN = "čćšđžéüßжщю漢字😀€"
PLACES, REPLACED = 2000, 0.01
SIZES = ("steps", "hidden", "batch", "window", "threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("smoothing", type=float, nargs="+")
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int)
    asked = vars(parser.parse_args())
    settings = {name: asked[name] for name in SIZES if asked[name]}
    for smoothing in asked["smoothing"]:
        with tempfile.TemporaryDirectory() as folder:
            model = charrnn.train(asked["text"], out=Path(folder) / "run", bias_smoothing=smoothing, **settings)
            print(f"smoothing {smoothing:g}, hidden {model.config.hidden}: {figures(model)}", flush=True)


def figures(model: charrnn.TextModel) -> str:
    corpus = prepare(model.config, model.tokenizer, private=True)
    ids, counts = corpus.ids("val"), corpus.counts("train")
    text, rng = model.tokenizer.decode(ids), random.Random(1)
    mixed = "".join(rng.choice(UNSEEN) if rng.random() < REPLACED else c for c in text)
    decoder, shares = model.decoder(), []
    state = decoder.start()
    for id_ in ids[:PLACES]:
        logits, state = decoder.step(np.array([id_]), state)
        p = np.exp(logits[0].astype(np.float64) - logits[0].max())
        shares.append(p[counts == 0].sum() / p.sum())
    return (
        f"{model.score(text).nats:.4f} nats, unseen ids {np.mean(shares):.4%}, "
        f"with 1 % unseen characters {model.score(mixed).nats:.4f} nats"
    )


if __name__ == "__main__":
    main()
