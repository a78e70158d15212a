"""What other ranks do while rank 0 trains: they make the same trainer, and then obey. Both ends of it are here.

Rank 0 alone has a clock, a disk, a terminal, and decides. So all ranks do the same at the same step.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from charrnn.errors import CharRNNError, command
from charrnn.hardware import processor
from charrnn.text.corpus import Corpus, prepare
from charrnn.text.tokenizer import Tokenizer
from charrnn.training import memory
from charrnn.training.config import Config
from charrnn.training.ranks import LostError, Order, Ranks
from charrnn.training.run import Run
from charrnn.training.threads import threads_of
from charrnn.training.trainer import Trainer
from charrnn.training.waiting import Waiting

FROM_RANK_0 = "what rank 0 sends"


def begin(ranks: Ranks | None, run: Run, config: Config, corpus: Corpus) -> tuple[str, ...]:
    """Let all other ranks get ready to train a configuration, on rank 0. Returns what the user should know of them.

    Raises CharRNNError where one of them cannot: it has another text, or no memory, or no GPU.
    """
    if ranks is None:
        return ()
    value = {"run": run.typed, "config": config.to_json(), "tokenizer": corpus.tokenizer.to_json()}
    ranks.tell_value(Order.BEGIN, value)
    own: CharRNNError | None = None
    try:
        _refuse_without_gpu(ranks, config)
    except CharRNNError as error:
        own = error
    about = ranks.answers(_about(own))
    for rank, answer in enumerate(about):
        if answer.get("problem"):
            problem = f"rank {rank} on {answer.get('host')} cannot train: {answer['problem']}"
            raise CharRNNError(problem, str(answer.get("hint", "")))
    if config.device == "cuda":
        ranks.use_gpus()
    ranks.keep_run(str(run.path.absolute()))
    hosts = list(dict.fromkeys(str(each.get("host")) for each in about))
    notes = [f"trained by {ranks.world} ranks, on {', '.join(hosts)}"]
    kinds = list(dict.fromkeys(str(each.get("processor")) for each in about))
    if len(kinds) > 1:
        notes.append(
            f"the ranks have unlike processors: {', '.join(kinds)}; the last bits depend on when the run is saved"
        )
    return tuple(notes)


def resumed_by(ranks: Ranks | None, config: Config, made_with: Any) -> tuple[Config, tuple[str, ...]]:
    """Give the configuration with which ranks resume a run, and a note where they are more or fewer than before.

    made_with: of run.json. More or fewer ranks have other threads too.
    """
    before, now = (made_with or {}).get("ranks", 1), 1 if ranks is None else ranks.world
    if before == now:
        return config, ()
    note = (f"saved with {before} rank{'s' * (before != 1)}, resumed with {now}: the last bits of the results differ",)
    return config.replace(threads=torch.get_num_threads()), note


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Around training, on rank 0: where another rank is lost, say how the run is resumed."""
    try:
        yield
    except LostError as error:
        raise LostError(f"{error.problem}; the run ends, {_kept(run)}", _resuming(run.typed, run.exists())) from None


def follow(ranks: Ranks, asked: Callable[[], bool] = lambda: False, ready: Callable[[], None] = lambda: None) -> None:
    """Do what rank 0 tells, until it has ended.

    asked: whether this process was asked to end, which rank 0 hears of. ready: called once it is.
    Where it cannot train, rank 0 is told so. Raises LostError where rank 0 is not there any more.
    """
    told = ranks.told()
    if told.order is not Order.BEGIN:
        return
    value = ranks.value_of(told)
    try:
        trainer = _trainer(ranks, value)
    except CharRNNError as error:
        ranks.answers(_about(error))
        return  # rank 0 says it for all
    ranks.answers(_about())
    if trainer.config.device == "cuda":
        ranks.use_gpus()
    ready()
    try:
        with threads_of(trainer.config), memory.explained(trainer.config, trainer.corpus), Waiting() as waiting:
            obey(trainer, ranks, asked, waiting.look)
    except LostError as error:
        raise LostError(error.problem, _resuming(str(value["run"]), True)) from None


def _trainer(ranks: Ranks, value: dict[str, Any]) -> Trainer:
    """Make the trainer that rank 0 has, of the text as it is on this machine."""
    config = Config.from_json(str(value["config"]), FROM_RANK_0)
    tokenizer = Tokenizer.from_json(str(value["tokenizer"]), FROM_RANK_0)
    _refuse_without_gpu(ranks, config)
    corpus = prepare(config, tokenizer)  # raises for a text of another fingerprint
    with memory.explained(config, corpus):
        return Trainer(config, corpus, ranks=ranks)


def obey(
    trainer: Trainer,
    ranks: Ranks,
    asked: Callable[[], bool] = lambda: False,
    stepped: Callable[[], None] = lambda: None,
) -> None:
    """Do with a trainer what rank 0 tells, until the end. asked: as in `follow`. stepped: called after every step."""
    while True:
        told = ranks.told()
        match told.order:
            case Order.STEP:
                assert trainer.step == told.number
                trainer.advance(told.value, asked())
                stepped()
            case Order.GATHER:
                trainer.gathered_state()
            case Order.TAKE:
                trainer.take_over(told.number, int(told.value))
            case Order.END:
                return
            case Order.BEGIN:
                raise CharRNNError("rank 0 begins twice", "start the same version of charrnn everywhere")


def _refuse_without_gpu(ranks: Ranks, config: Config) -> None:
    if config.device == "cuda":
        ranks.refuse_without_gpu()


def _about(problem: CharRNNError | None = None) -> dict[str, Any]:
    """Say where this rank is, and what keeps it from training."""
    about = {"host": platform.node(), "processor": processor()}
    return about if problem is None else {**about, "problem": problem.problem, "hint": problem.hint}


def _kept(run: Run) -> str:
    return f"its checkpoint is that of step {run.about()['step']:,}" if run.exists() else "without a checkpoint"


def _resuming(name: str, saved: bool) -> str:
    if not saved:
        return "start it again as before"
    return f"resume it, by torchrun as before or alone: {command('train', '--resume', name)}"
