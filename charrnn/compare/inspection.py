"""The reach of a cell into the past: its gradients at the start and after training, and its gap in the copy task.

What was found for the runs of a comparison is kept as inspection.json in its folder, and is not computed again.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import files, strict_json
from charrnn.compare import copy_task, gradients
from charrnn.compare.grid import nearest_width
from charrnn.compare.jobs import Job, carry_out
from charrnn.home import home
from charrnn.model.rnn import CharRNN
from charrnn.text.corpus import prepare
from charrnn.training.config import values_of
from charrnn.training.run import Run
from charrnn.training.settings import Settings
from charrnn.training.start import initial_weights

COPY_RATES = (1e-2, 3e-3)  # of the copy task; every cell is tried with both and keeps its better climb
COPY_PARAMETERS = 20_000  # as many as an LSTM of hidden size 64 has


@dataclass(frozen=True)
class Inspection:
    """The findings about one model. at_start, trained: (K + 1,) shares of the gradient k steps back.

    copied: (gap, accuracy) for every gap that was tried in the copy task, the last one perhaps not learned.
    """

    label: str
    cell: str
    hidden: int
    at_start: NDArray[np.float64]
    trained: NDArray[np.float64]
    copied: tuple[tuple[int, float], ...]

    @property
    def reach(self) -> int:
        """The longest gap the cell learned to copy over; 0 for none."""
        return max((gap for gap, accuracy in self.copied if accuracy >= copy_task.LEARNED), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "label": self.label,
            "cell": self.cell,
            "hidden": self.hidden,
            "at_start": _numbers(self.at_start),
            "trained": _numbers(self.trained),
            "copied": [list(pair) for pair in self.copied],
            "reach": self.reach,
        }


def inspect(label: str, run: Run, copy: bool, stop: Callable[[], bool]) -> Inspection | None:
    """Look at a finished run: its gradients on the validation part, and its cell in the copy task.

    That takes a minute or more, and gives None when stop() becomes true.
    """
    config, architecture = run.config(), run.architecture()
    corpus = prepare(config, run.tokenizer(), private=True)
    ids = np.asarray(corpus.parts["val"] if len(corpus.parts["val"]) else corpus.ids("train"))
    start, end = (
        gradients.reach(CharRNN(architecture, weights, "loop"), ids)
        for weights in (initial_weights(config, corpus), run.weights())
    )
    copied = copy_climb(config.cell, stop) if copy else ()
    if stop():
        return None
    return Inspection(label, config.cell, config.hidden, start, end, copied)


def inspect_all(
    runs: Mapping[str, Run], kept_in: Path, stop: Callable[[], bool] = lambda: False
) -> Iterator[str | list[Inspection]]:
    """Inspect runs by label. Yield before each what is being done; the last item is what was found.

    kept_in: a JSON file of what was found before, which is added to. Ends without a last item when stop() is true.
    """
    known: dict[str, Any] = _kept(kept_in)
    found = []
    for label, run in runs.items():
        key = run.about()["files"]["best"]["sha256"]  # other weights would look different
        if key not in known:
            yield f"how far back {label} sees"
            inspected = inspect(label, run, copy=True, stop=stop)
            if inspected is None:
                return
            known[key] = inspected.as_dict()
            files.write_atomically(kept_in, (strict_json.dumps(known) + "\n").encode())
        found.append(_from_dict({**known[key], "label": label}))
    yield found


def inspect_cells(
    corpus: tuple[str, ...],
    cells: Sequence[str],
    hidden: int,
    steps: int,
    copy: bool,
    stop: Callable[[], bool],
    encoding: str = Settings.encoding,
) -> Iterator[str | Inspection]:
    """Train a model of each cell on a corpus for some steps, as runs in the home folder, and inspect them.

    Says before each what is being done. A run that is there from an earlier time is taken as it is, or gone on with;
    it ends early, with all saved, when stop() is true.
    """
    for cell in cells:
        config = Settings(corpus=corpus or Settings().corpus, encoding=encoding, cell=cell, hidden=hidden, steps=steps)
        # It is about cells: what tables of the last characters say, a cell would not learn.
        config = config.replace(direct=0, fingerprint=prepare(config).text.fingerprint)
        digest = hashlib.sha256(strict_json.dumps(values_of(config)).encode()).hexdigest()[:12]
        job = Job(Run(home() / f"inspect-{cell}-{hidden}-{digest}"), config, scored=True)
        yield f"training {cell} for {steps:,} steps"
        for _ in carry_out([job], 1, stop):
            pass
        if stop():
            return
        yield f"how far back {cell} sees"
        inspected = inspect(cell, job.run, copy, stop)
        if inspected is None:
            return
        yield inspected


def copy_climb(cell: str, stop: Callable[[], bool] = lambda: False) -> tuple[tuple[int, float], ...]:
    """Return the better of a cell's climbs through the gaps of the copy task: (gap, accuracy) of each."""
    width = nearest_width(lambda hidden: copy_task.architecture(cell, hidden).count(), COPY_PARAMETERS)
    climbs = []
    for rate in COPY_RATES:
        climb = tuple((copied.gap, copied.accuracy) for copied in copy_task.climb(cell, width, lr=rate, stop=stop))
        if stop():
            return ()
        climbs.append(climb)
        if len(climb) == len(copy_task.GAPS) and climb[-1][1] >= copy_task.LEARNED:
            break  # there is no better one
    return max(climbs, key=lambda climb: (len(climb), climb[-1][1]))


def _numbers(shares: NDArray[np.float64]) -> list[float | None]:
    return [share if math.isfinite(share) else None for share in shares.tolist()]


def _from_dict(values: Mapping[str, Any]) -> Inspection:
    return Inspection(
        values["label"],
        values["cell"],
        values["hidden"],
        np.array(values["at_start"], np.float64),  # null: a diverged model's NaN, which JSON does not have
        np.array(values["trained"], np.float64),
        tuple((gap, accuracy) for gap, accuracy in values["copied"]),
    )


def _kept(file: Path) -> dict[str, Any]:
    """Read what was found before; nothing where the file is missing or damaged, since it can be found again."""
    try:
        known = strict_json.loads(file.read_text(encoding="utf-8"))
        for values in known.values():
            _from_dict(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return dict(known)
