"""Recurrent cells against each other, fairly: the same text, the same size or time, the same number of trials.

A comparison is a generator of events, like training. What is left of its grid is carried out in three rounds: every
cell's learning-rate trials, short and judged by the validation part; then the seeds of every cell, each scored once
on the test part; then the figures, in `charrnn.compare.outcome`.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.compare import (
    decisions,
    inspection,
    machines,
    outcome,
    pictures,
    places,
    remaining,
    report,
    resuming,
    statistics,
)
from charrnn.compare.events import Compared as Compared
from charrnn.compare.events import Decided as Decided
from charrnn.compare.events import Event as Event
from charrnn.compare.events import Ran as Ran
from charrnn.compare.events import Scoring as Scoring
from charrnn.compare.events import Sized as Sized
from charrnn.compare.events import Stopped as Stopped
from charrnn.compare.events import Timed as Timed
from charrnn.compare.events import Tried as Tried
from charrnn.compare.events import Working as Working
from charrnn.compare.grid import Folder, Grid, merged_cells
from charrnn.compare.jobs import Job
from charrnn.compare.places import Place
from charrnn.errors import how_to_install
from charrnn.text.corpus import Corpus, prepare
from charrnn.training.run import Run
from charrnn.training.runs import find_run


def compare(
    grid: Grid,
    models: decisions.Models,
    folder: Folder,
    jobs: int = 1,
    baseline: str | None = None,
    look_inside: bool = True,
    stop: Callable[[], bool] = lambda: False,
    adapt: bool = False,
    on: places.On = places.LOCAL,
    insecure: bool = False,
) -> Generator[Event, None, None]:
    """Carry out a comparison in `folder`, or resume the one there, adding the models that are new to it.

    models: cells, sized by the grid's `match`, or cells with sizes. jobs: runs side by side. baseline: a run to stand
    in the table. look_inside: whether the report shows gradients through time and the copy task, which take a while.
    adapt: whether every cell is scored once more, while it goes on learning in the test part. on: where the runs are
    trained, as `--on` has it, or an executor of `concurrent.futures` whose workers share the folder. insecure: whether
    Dask may be used without TLS.
    Raises CharRNNError where the folder holds a comparison with other settings.
    """
    statistics.require()
    if baseline is not None:
        run = find_run(baseline)  # that there is none, or that it is damaged, is to be heard before hours of training
        run.whole_weights(run.architecture(), "best")
        baseline = run.typed  # the latest may be another when all is done
    with folder.held(), places.opened(on, folder.path, jobs, grid.match == "time", insecure) as place:
        yield from _compare(grid, models, folder, place, _Shown(baseline, look_inside, adapt), stop)


@dataclass(frozen=True)
class _Shown:
    """What a comparison shows besides its cells, by the names of `compare`."""

    baseline: str | None
    look_inside: bool
    adapt: bool


def _compare(
    grid: Grid,
    models: decisions.Models,
    folder: Folder,
    place: Place,
    shown: _Shown,
    stop: Callable[[], bool],
) -> Iterator[Event]:
    corpus = prepare(grid.config)
    before = folder.grid() if folder.exists() else None
    if before is not None:
        grid = resuming.resumed(before, grid, folder, corpus)
    elif grid.config.fingerprint is None or grid.config.threads is None:
        grid = dataclasses.replace(grid, config=decisions.shared(grid, corpus, place.threads))
    known = 0 if before is None else len(before.entries)
    target = decisions.target(grid, corpus)
    grid = dataclasses.replace(grid, entries=merged_cells(grid, decisions.sized(grid, models, target, corpus)))
    yield Sized(grid, folder, grid.entries[known:], target)
    for i, entry in enumerate(grid.entries):
        if entry.trial_steps is None:
            grid = decisions.timed(grid, i, corpus)
            speed = grid.base.batch * grid.base.window / grid.entries[i].step_seconds
            yield Timed(grid.label(grid.entries[i]), speed)
            if stop():
                yield Stopped(folder)
                return
    grid = decisions.with_trial_steps(grid, decisions.most_steps(grid, corpus))
    folder.write(grid)
    yield from _Work(grid, folder, corpus, place, shown, stop).carry_out()


class _Work:
    """The rounds of one comparison whose grid is sized and timed."""

    def __init__(
        self,
        grid: Grid,
        folder: Folder,
        corpus: Corpus,
        place: Place,
        shown: _Shown,
        stop: Callable[[], bool],
    ) -> None:
        self._grid, self._folder, self._corpus = grid, folder, corpus
        self._place, self._shown, self._asked = place, shown, stop
        self._stopped = False
        self._finished: set[Path] = set()

    def carry_out(self) -> Iterator[Event]:
        yield from self._try_rates()
        if self._stop():
            yield Stopped(self._folder)
            return
        most = decisions.most_steps(self._grid, self._corpus)
        self._grid = decisions.with_steps(self._grid, self._folder, most)
        self._folder.write(self._grid)
        yield Decided(self._grid)
        yield from self._train()
        if self._stop():
            yield Stopped(self._folder)
            return
        yield Scoring("scoring the baselines")
        shown = self._shown
        result = outcome.result(self._grid, self._folder, self._corpus, shown.baseline, shown.adapt)
        files = outcome.write(self._folder, self._grid, result)
        notes = tuple(filter(None, [machines.note(result["machines"])]))
        if not pictures.available():
            note = f"report.html needs matplotlib: {how_to_install('plot')}; then give the same command again"
            yield Compared(self._folder, self._grid, self._corpus, result, files, (*notes, note))
            return
        inspections: list[inspection.Inspection] = []
        kept_in = self._folder.path / "inspection.json"
        for step in inspection.inspect_all(self._inspected(result), kept_in, self._stop):
            if isinstance(step, str):
                yield Scoring(step)
            else:
                inspections = step
        if self._stop():
            yield Stopped(self._folder)
            return
        page = report.write(self._folder, self._grid, self._corpus, result, inspections)
        yield Compared(self._folder, self._grid, self._corpus, result, (*files, page), notes)

    def _inspected(self, result: dict[str, Any]) -> dict[str, Run]:
        """Return the first seed of every cell, of its best model where it has several sizes; none if not asked for."""
        if not self._shown.look_inside:
            return {}
        entries = {self._grid.label(entry): entry for entry in self._grid.entries}
        best: dict[str, str] = {}
        for row in result["cells"]:
            best.setdefault(row["cell"], row["label"])
        return {label: self._folder.run(self._grid, entries[label], 0) for label in best.values()}

    def _stop(self) -> bool:
        """Tell whether the comparison was ever asked to stop."""
        self._stopped = self._stopped or self._asked()
        return self._stopped

    def _try_rates(self) -> Iterator[Event]:
        while trials := self._next_trials():
            yield from self._working(trials)
            if self._stop():
                return
        for i, entry in enumerate(self._grid.entries):
            if entry.lr is None:
                tried = decisions.tried(self._grid, self._folder, entry)
                best = decisions.best_rate(self._grid, tried)
                lr = decisions.run_rate(self._grid, best)
                self._grid = self._grid.with_entry(i, lr=lr)
                yield Tried(self._grid.label(entry), tuple(sorted(tried)), best, lr)
        self._folder.write(self._grid)

    def _next_trials(self) -> dict[Path, tuple[int, str, Job]]:
        """Return a trial for every entry that still searches its rate: the next rate follows from those before."""
        trials = {}
        for i, entry in enumerate(self._grid.entries):
            tried = decisions.tried(self._grid, self._folder, entry)
            self._finished |= {self._folder.trial(entry, lr).path for lr, _ in tried}
            if entry.lr is None and len(tried) < self._grid.trials:
                lr = decisions.next_rate(self._grid.base.lr, tried)
                job = decisions.trial(self._grid, self._folder, entry, lr)
                trials[job.run.path] = (i, f"lr {lr:g}", job)
        return trials

    def _train(self) -> Iterator[Event]:
        # Seed by seed, so that an interrupted comparison has as many of every cell.
        runs = {}
        for seed in range(self._grid.seeds):
            for i, entry in enumerate(self._grid.entries):
                job = Job(self._folder.run(self._grid, entry, seed), self._grid.run_config(entry, seed), scored=True)
                runs[job.run.path] = (i, f"seed {job.config.seed}", job)
        yield from self._working(runs)

    def _working(self, jobs: dict[Path, tuple[int, str, Job]]) -> Iterator[Event]:
        self._finished |= {path for path, (_, _, job) in jobs.items() if job.done()}
        at: dict[Path, int] = {}
        for progress in self._place.carry_out([job for _, _, job in jobs.values()], self._kind(jobs), self._stop):
            path = progress.job.run.path
            i, kind, job = jobs[path]
            label = self._grid.label(self._grid.entries[i])
            at[path] = progress.step
            if progress.done:
                self._finished.add(path)
                self._kind(jobs)
            left = remaining.seconds(self._grid, self._folder, self._finished, at) / self._place.at_once
            yield Working(label, kind, progress.step, job.steps, len(self._finished), self._all_runs(), left)
            if progress.done and job.scored:
                bits = job.run.about()["result"]["test_bits_per_char"]
                yield Ran(label, job.config.seed, bits, len(self._finished), self._all_runs())

    def _kind(self, jobs: Mapping[Path, Any]) -> str | None:
        """Return the kind of processor on which all runs have to be trained; None: on any.

        jobs: by their paths. Raises CharRNNError where those that were trained already are of several kinds, or of
        another than this machine, which goes on.
        """
        if self._grid.match != "time":
            return None
        found = machines.processors(map(Run, {*self._finished, *jobs}))
        machines.refuse_unlike(found | set(filter(None, [self._place.processor])))
        return next(iter(found), None)

    def _all_runs(self) -> int:
        return len(self._grid.entries) * (self._grid.trials + self._grid.seeds)
