"""What a user should know before the first step of a run."""

from charrnn import engines
from charrnn.training import advice, final_scores, sizing
from charrnn.training.trainer import Trainer


def notes_of(trainer: Trainer) -> list[str]:
    """Say what was measured, what is out of proportion, and what will be done otherwise than expected."""
    config, corpus = trainer.config, trainer.corpus
    notes = []
    if config.measured_us:
        figures = ", ".join(f"{name} {us / 1000:.3g}" for name, us in config.measured_us.items())
        notes.append(f"engines compared, milliseconds a window: {figures}")
    notes += sizing.warnings(trainer.architecture, len(corpus.parts["train"]))
    if trainer.steps is not None and trainer.step == 0:
        end = advice.beforehand(trainer.steps / trainer.streams.steps_per_epoch)
        notes += [] if end is None else [end]
    if trainer.streams.batch < config.batch:
        notes.append(f"the text fills only {trainer.streams.batch} of {config.batch} streams")
    if note := trainer.model.engine.note(trainer.model.cell, config.device, config.precision):
        notes.append(note)
    reason = engines.why_not_compiled(trainer.model.cell) if config.device == "cpu" else None
    if reason is not None:
        notes.append(f"training of {config.cell} is not compiled: {reason}; the {config.engine} engine runs it")
    if len(corpus.parts["val"]) == 0:
        notes.append("no validation part: the last weights are kept, not the best")
    return [*notes, *final_scores.notes(corpus, final_scores.most_ids(config.budget))]
