"""How often a comparison's intervals cover the truth, by simulation: a table for docs/results/.

python tests/interval_coverage.py [tables of each line, 2000]
"""

import sys

import numpy as np
from scipy.special import ndtr

from charrnn.compare.statistics import interval

M = 60
RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 10.0, 100.0)
BOTH = (0.1, 0.5, 1.0, 3.0)


def table(rng: np.random.Generator, S: int, M: int, ratio: float, both: float) -> tuple[np.ndarray, float]:
    """Return losses (S, M) whose true mean is zero, and the true standard error of their mean.

    ratio: the seeds' part in that error against the blocks'. both: the standard deviation of what is of a seed and a
    block together, where that of blocks is 1.
    """
    seeds = ratio * (S / M) ** 0.5
    losses = seeds * rng.standard_normal((S, 1)) + rng.standard_normal((1, M)) + both * rng.standard_normal((S, M))
    return losses, (seeds**2 / S + 1 / M + both**2 / (S * M)) ** 0.5


def coverage(S: int, ratio: float, both: float, tables: int) -> tuple[float, float]:
    """Return how often intervals of tables (S, M) cover the truth, from 0 to 1, and the standard error of that."""
    rng = np.random.default_rng([S, int(100 * ratio), int(100 * both)])
    chances = []
    for _ in range(tables):
        losses, error = table(rng, S, M, ratio, both)
        found = interval(losses)
        # The width does not depend on the mean, so the chance of covering is known from the width alone.
        chances.append(2 * ndtr((found.high - found.low) / 2 / error) - 1)
    return float(np.mean(chances)), float(np.std(chances)) / tables**0.5


def main() -> None:
    """Print the coverage for 2, 3 and 5 seeds as a table of Markdown."""
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| seeds | both | " + " | ".join(f"{ratio:g}" for ratio in RATIOS) + " |")
    print("|---" * (2 + len(RATIOS)) + "|")
    for S in (2, 3, 5):
        for both in BOTH:
            found = [coverage(S, ratio, both, tables)[0] for ratio in RATIOS]
            print(f"| {S} | {both:g} | " + " | ".join(f"{100 * share:.1f}" for share in found) + " |", flush=True)


if __name__ == "__main__":
    main()
